//! One live guest: its store, and the conversation with it.
//!
//! The guest may be under hostile control: whatever it answers is checked, and the worst that an answer can do is to
//! end its own call.

use std::sync::Arc;
use std::time::Duration;

use lyra_types::Error;
use lyra_types::error::Thrown;
use wasmtime::{Instance, Memory, ModuleExport, Result, Store, WasmParams, WasmResults, bail, ensure, format_err};

use super::base::Base;
use super::host::{Host, cut};
use super::image::Image;
use crate::CallContext;
use crate::wasm::governor::{Share, new_store, no_room};

/// Longest name of what is thrown, in bytes.
const MAX_NAME: usize = 256;
/// Longest message and stack of what is thrown, in bytes each.
const MAX_TEXT: usize = 16 << 10;

/// How a `load` or a call ended, as the guest says it (`enum status` in guest.h).
#[derive(Debug)]
pub(super) enum Ended {
    /// Loaded, or called; then the result's place in memory.
    Done { at: usize, length: usize },
    /// Threw, or rejected.
    Threw(Thrown),
    /// Waits for what can't happen.
    Stuck,
    /// The result has no JSON form.
    BadResult(Thrown),
    /// The result is too large.
    TooLarge,
    /// The event is not JSON.
    BadEvent(Thrown),
    /// The source does not parse.
    Unparsed(Thrown),
    /// The module exports nothing.
    NoExports,
    /// The module has no handler.
    NoHandler,
    /// The handler is something else.
    NotFunction(String),
}

/// What a source is, and what leaves the guest (`enum form` in guest.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A module; JSON leaves.
    Module = 0,
    /// One function with `export default` before it; JSON leaves.
    Expression = 1,
    /// One expression with `const fn = ` before it; text leaves, ordinary objects as JSON.
    Text = 2,
    /// The same, objects as `String` shows them.
    String = 3,
}

/// A live guest.
pub(super) struct Guest {
    store: Store<Host>,
    instance: Instance,
    memory: Memory,
    base: GuestBase,
    share: Arc<Share>,
}

/// What a guest needs of its base.
#[derive(Clone, Copy)]
struct GuestBase {
    load: ModuleExport,
    call: ModuleExport,
    resume: ModuleExport,
    allocate: ModuleExport,
    stack_pointer: ModuleExport,
    out: u32,
    inbox: (u32, u32),
}

impl Guest {
    /// Starts a guest that has loaded nothing.
    ///
    /// # Errors
    /// [`lyra_types::Code::Overloaded`] when there is no room.
    pub(super) async fn start(base: &Base, host: Host) -> Result<Guest, Error> {
        let share = host.governor.share();
        let mut store = new_store(&base.engine, host)?;
        // The guest has no start function, so nothing of it runs here.
        let instance = base.pre.instantiate_async(&mut store).await.map_err(|error| no_room(&error))?;
        let memory = instance.get_module_export(&mut store, &base.memory).and_then(wasmtime::Extern::into_memory);
        let memory = memory.ok_or_else(|| Error::internal("the js guest has no memory"))?;
        store.data_mut().memory = Some(memory);
        let base = GuestBase {
            load: base.load,
            call: base.call,
            resume: base.resume,
            allocate: base.allocate,
            stack_pointer: base.stack_pointer,
            out: base.out,
            inbox: base.inbox,
        };
        Ok(Guest { store, instance, memory, base, share })
    }

    /// Brings the guest into the state of an image.
    pub(super) fn restore(&mut self, image: &Image) -> Result<(), Error> {
        let size = self.memory.data_size(&self.store);
        if image.memory() > size {
            let pages = (image.memory() - size).div_ceil(1 << 16) as u64;
            self.memory.grow(&mut self.store, pages).map_err(|error| no_room(&error))?;
        }
        image.apply(self.memory.data_mut(&mut self.store));
        Ok(())
    }

    /// What the guest's share of the processor is.
    pub(super) fn share(&self) -> Arc<Share> {
        Arc::clone(&self.share)
    }

    /// Data of the store.
    pub(super) fn host(&mut self) -> &mut Host {
        self.store.data_mut()
    }

    /// The guest's memory.
    pub(super) fn bytes(&self) -> &[u8] {
        self.memory.data(&self.store)
    }

    /// Where the guest's C stack ends; everything below is scratch space between calls.
    pub(super) fn stack_top(&mut self) -> Result<usize> {
        let global = self.instance.get_module_export(&mut self.store, &self.base.stack_pointer);
        let global = global.and_then(wasmtime::Extern::into_global).ok_or_else(|| format_err!("no stack pointer"))?;
        let value = global.get(&mut self.store).i32().ok_or_else(|| format_err!("a stack pointer of another type"))?;
        Ok(u32::try_from(value)? as usize)
    }

    async fn invoke<P: WasmParams + Sync, R: WasmResults + Sync>(
        &mut self,
        export: ModuleExport,
        parameters: P,
    ) -> Result<R> {
        let function = self.instance.get_module_export(&mut self.store, &export).and_then(wasmtime::Extern::into_func);
        let function = function.ok_or_else(|| format_err!("the guest's export is no function"))?;
        let function = function.typed::<P, R>(&self.store)?;
        self.store.set_epoch_deadline(1);
        self.host().leave();
        function.call_async(&mut self.store, parameters).await
    }

    /// The value of a function without parameters, by name.
    pub(super) async fn constant(&mut self, name: &str) -> Result<u32> {
        let function = self.instance.get_typed_func::<(), u32>(&mut self.store, name)?;
        function.call_async(&mut self.store, ()).await
    }

    /// Copies bytes and a NUL into the guest; returns their address.
    async fn put(&mut self, bytes: &[u8]) -> Result<Option<u32>> {
        let length = u32::try_from(bytes.len() + 1)?;
        let at: u32 = self.invoke(self.base.allocate, length).await?;
        if at == 0 {
            return Ok(None);
        }
        self.write(at, bytes)?;
        Ok(Some(at))
    }

    fn write(&mut self, at: u32, bytes: &[u8]) -> Result<()> {
        let memory = self.memory.data_mut(&mut self.store);
        let room = memory.get_mut(at as usize..).and_then(|rest| rest.get_mut(..=bytes.len()));
        let room = room.ok_or_else(|| format_err!("the guest named bytes outside of its memory"))?;
        room[..bytes.len()].copy_from_slice(bytes);
        room[bytes.len()] = 0;
        Ok(())
    }

    /// Loads a source of this form and evaluates it; `handler` as in the guest's `load`.
    pub(super) async fn load(&mut self, source: &[u8], handler: &str, form: Form) -> Result<Ended> {
        let (Some(name), Some(text)) = (self.put(handler.as_bytes()).await?, self.put(source).await?) else {
            return Ok(self.no_memory());
        };
        let length = u32::try_from(source.len())?;
        let status: i32 = self.invoke(self.base.load, (text, length, name, form as i32)).await?;
        self.finish(status).await
    }

    /// Calls the handler.
    pub(super) async fn call(&mut self, context: CallContext, event: &[u8]) -> Result<Ended> {
        let limit = u32::try_from(context.max_result).unwrap_or(u32::MAX);
        self.host().call = Some(context);
        // An empty body is a call without an event.
        let event = if event.is_empty() { b"null" } else { event };
        let (inbox, size) = self.base.inbox;
        let small = event.len() < size as usize;
        let at = if small {
            self.write(inbox, event)?;
            inbox
        } else {
            match self.put(event).await? {
                Some(at) => at,
                None => return Ok(self.no_memory()),
            }
        };
        let length = u32::try_from(event.len())?;
        let status: i32 = self.invoke(self.base.call, (at, length, i32::from(!small), limit)).await?;
        self.finish(status).await
    }

    /// The guest can't take the event or the source: as if it had thrown for want of memory.
    fn no_memory(&self) -> Ended {
        Ended::Threw(Thrown { name: "InternalError".into(), message: "out of memory".into(), stack: String::new() })
    }

    /// Waits as long as the guest asks for, until it has ended.
    async fn finish(&mut self, mut status: i32) -> Result<Ended> {
        const WAITING: i32 = 1;
        while status == WAITING {
            let wait = f64::from_le_bytes(self.out(32)?);
            ensure!(wait.is_finite() && wait >= 0.0, "the guest waits for {wait} ms");
            let clock = self.host().clock.clone();
            clock.sleep(Duration::from_secs_f64(wait / 1e3)).await;
            status = self.invoke(self.base.resume, ()).await?;
        }
        Ok(match status {
            0 => {
                let (at, length) = self.place(0)?;
                Ended::Done { at, length }
            }
            2 => Ended::Threw(self.thrown()?),
            3 => Ended::Stuck,
            4 => Ended::BadResult(self.thrown()?),
            5 => Ended::TooLarge,
            6 => Ended::BadEvent(self.thrown()?),
            7 => Ended::Unparsed(self.thrown()?),
            8 => Ended::NoExports,
            9 => Ended::NoHandler,
            10 => Ended::NotFunction(self.text(0, MAX_NAME)?),
            other => bail!("the guest answered {other}"),
        })
    }

    fn out<const N: usize>(&self, offset: usize) -> Result<[u8; N]> {
        let found = self.bytes().get(self.base.out as usize + offset..).and_then(|rest| rest.first_chunk::<N>());
        found.copied().ok_or_else(|| format_err!("the guest's memory is too small"))
    }

    /// Where the text with that number is.
    fn place(&self, text: usize) -> Result<(usize, usize)> {
        let at = u32::from_le_bytes(self.out(text * 8)?) as usize;
        let length = u32::from_le_bytes(self.out(text * 8 + 4)?) as usize;
        ensure!(
            at.checked_add(length).is_some_and(|end| end <= self.bytes().len()),
            "the guest's answer is out of bounds"
        );
        Ok((at, length))
    }

    fn text(&self, text: usize, limit: usize) -> Result<String> {
        let (at, length) = self.place(text)?;
        Ok(cut(&self.bytes()[at..at + length], limit).into_owned())
    }

    /// The text of what was thrown by a source of a form whose results are texts, at most `limit` bytes of it.
    pub(super) fn text_of_thrown(&self, limit: usize) -> Result<String> {
        self.text(3, limit)
    }

    fn thrown(&self) -> Result<Thrown> {
        let stack = self.text(2, MAX_TEXT)?;
        // Frames of the prelude say nothing to the user.
        let frames = stack.lines().filter(|line| !line.contains("(lyra:")).map(str::trim_end);
        Ok(Thrown {
            name: self.text(0, MAX_NAME)?,
            message: self.text(1, MAX_TEXT)?,
            stack: frames.collect::<Vec<_>>().join("\n"),
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.host().leave();
    }
}
