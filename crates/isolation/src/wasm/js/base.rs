//! The base: QuickJS as a module of machine code, the same for all functions and tenants.
//!
//! It is compiled once for each machine (about a second) and kept as an image; later starts map it. Both happen on a
//! thread of their own, so that nothing waits for it but what needs it.

use std::sync::Arc;

use lyra_kit::{Clock, Random};
use lyra_types::Error;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use wasmtime::{InstancePre, Linker, Module, ModuleExport, Result, format_err};

use super::guest::Guest;
use super::host::{self, Host};
use super::image::Image;
use crate::wasm::compiler::{self, Kind};
use crate::wasm::engine::Engine;
use crate::wasm::governor::Governor;

/// The guest: built by `cargo xtask guest`.
static QUICKJS: &[u8] = include_bytes!("../../../guest/quickjs.wasm");

/// Memory of the instance that warms the machine code up, in bytes.
const WARM_UP_MEMORY: usize = 64 << 20;

/// The compiled base, and where its exports are.
pub(super) struct Base {
    pub(super) engine: Engine,
    pub(super) pre: InstancePre<Host>,
    digest: [u8; 32],
    pub(super) memory: ModuleExport,
    pub(super) load: ModuleExport,
    pub(super) call: ModuleExport,
    pub(super) resume: ModuleExport,
    pub(super) allocate: ModuleExport,
    pub(super) stack_pointer: ModuleExport,
    /// Address of what a call leaves.
    pub(super) out: u32,
    /// Address and size of the buffer for small events.
    pub(super) inbox: (u32, u32),
}

impl Base {
    fn new(engine: &Engine, clock: Clock, random: Random) -> Result<Base> {
        let digest: [u8; 32] = Sha256::digest(QUICKJS).into();
        let module = compiled(engine, &digest)?;
        let export =
            |name: &str| module.get_export_index(name).ok_or_else(|| format_err!("the guest has no export {name}"));
        let mut linker = Linker::new(engine.wasmtime());
        host::link(&mut linker)?;
        let mut base = Base {
            engine: engine.clone(),
            pre: linker.instantiate_pre(&module)?,
            digest,
            memory: export("memory")?,
            load: export("load")?,
            call: export("call")?,
            resume: export("resume")?,
            allocate: export("allocate")?,
            stack_pointer: export("__stack_pointer")?,
            out: 0,
            inbox: (0, 0),
        };
        let host = Host::new(Governor::new(engine, WARM_UP_MEMORY), clock, random);
        let mut guest =
            futures::executor::block_on(Guest::start(&base, host)).map_err(|error| format_err!("{error}"))?;
        base.out = futures::executor::block_on(guest.constant("out"))?;
        base.inbox = (
            futures::executor::block_on(guest.constant("inbox"))?,
            futures::executor::block_on(guest.constant("inbox_size"))?,
        );
        Ok(base)
    }
}

/// The machine code: mapped from its image, or compiled and kept.
fn compiled(engine: &Engine, digest: &[u8]) -> Result<Module> {
    let path = engine.images().shared_path("cwasm", digest);
    if engine.images().exists(&path)? {
        match map(engine, &path) {
            Ok(module) => return Ok(module),
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "the compiled guest is damaged; compiling it again")
            }
        }
    }
    let code = compiler::compile_blocking(engine, Kind::Module, QUICKJS)?;
    engine.images().write(&path, &[&code])?;
    map(engine, &path)
}

fn map(engine: &Engine, path: &std::path::Path) -> Result<Module> {
    // SAFETY: the file was written by this process or one like it, in one step, into a directory that only its user can
    // write to, and its name holds the hash of all settings and the version of the compiler.
    // JUSTIFICATION: mapping machine code is what makes a start instant; there is no safe form.
    #[expect(unsafe_code, reason = "deserializing compiled code")]
    unsafe {
        Module::deserialize_file(engine.wasmtime(), path)
    }
}

/// Images up to this size, in bytes, are small.
const SMALL: usize = 128 << 10;

/// The base twice. The pool gives a place back to the module that had it before and wipes what was written there; so
/// where small functions alone have been, little has to be wiped.
pub(super) struct Bases {
    small: Arc<Base>,
    large: Arc<Base>,
}

impl Bases {
    /// The base for instances of `image`.
    pub(super) fn of(&self, image: &Image) -> &Arc<Base> {
        if image.weight() <= SMALL { &self.small } else { &self.large }
    }

    /// The base for evaluating sources.
    pub(super) fn for_sources(&self) -> &Arc<Base> {
        &self.large
    }

    /// SHA-256 of the guest.
    pub(super) fn digest(&self) -> &[u8; 32] {
        &self.small.digest
    }
}

/// The bases, once they are there.
#[derive(Clone)]
pub(super) struct Pending {
    outcome: watch::Receiver<Option<Result<Arc<Bases>, Arc<str>>>>,
}

impl Pending {
    /// Starts to compile or map the base on a thread of its own.
    pub(super) fn start(engine: &Engine, clock: Clock, random: Random) -> std::io::Result<Pending> {
        let (sender, outcome) = watch::channel(None);
        let engine = engine.clone();
        std::thread::Builder::new().name("wasm-js-base".into()).spawn(move || {
            let base = || Base::new(&engine, clock.clone(), random.clone()).map(Arc::new);
            let bases = base().and_then(|small| Ok(Bases { small, large: base()? }));
            if let Err(error) = &bases {
                tracing::error!(error = format!("{error:#}"), "the js runtime can't be started");
            }
            // Nobody listens any more when the back end was dropped meanwhile.
            let _ = sender.send(Some(bases.map(Arc::new).map_err(|error| format!("{error:#}").into())));
        })?;
        Ok(Pending { outcome })
    }

    /// Waits for the bases.
    ///
    /// # Errors
    /// [`lyra_types::Code::Internal`] when they can't be made.
    pub(super) async fn get(&self) -> Result<Arc<Bases>, Error> {
        let mut outcome = self.outcome.clone();
        let outcome = outcome.wait_for(Option::is_some).await.map_err(|_| broken())?;
        match &*outcome {
            Some(Ok(bases)) => Ok(Arc::clone(bases)),
            _ => Err(broken()),
        }
    }
}

fn broken() -> Error {
    Error::internal("the js runtime could not be started; the log of the worker says why")
}
