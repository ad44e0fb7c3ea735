//! What a guest can ask of its host: log lines, time, randomness, the context of the call, URLs and text encodings.
//!
//! All imports return at once. Every pointer and length comes from the guest and is checked; one that is out
//! of bounds ends the call as a crash. An answer of unknown length is left in `answer`, and the guest copies it with
//! `take` into memory that it has allocated.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use lyra_kit::{Clock, Random};
use lyra_types::log::Level;
use tokio::time::Instant;
use wasmtime::{Caller, Linker, Memory, Result, bail, format_err};

use super::stack::Stack;
use super::{encoding, url};
use crate::wasm::governor::{Governed, Governor};
use crate::{CallContext, Given, MAX_LOG_LINE, remaining};

/// Module that the imports belong to.
const MODULE: &str = "lyra";

/// Most random bytes of one request.
const MAX_RANDOM: usize = 64 << 10;

/// Data of a guest's store.
pub(super) struct Host {
    pub(super) governor: Governor,
    /// The guest's memory; there from instantiation on.
    pub(super) memory: Option<Memory>,
    /// The call that runs; none while a module is evaluated at deploy.
    pub(super) call: Option<CallContext>,
    pub(super) clock: Clock,
    pub(super) random: Random,
    /// When the instance started.
    pub(super) started: Instant,
    /// What the instance was given; nothing while a module is evaluated at deploy, of which an image is kept.
    pub(super) secrets: Option<Arc<Given>>,
    /// What the guest may `take`.
    answer: Vec<u8>,
    stack: Stack,
}

impl Governed for Host {
    fn governor(&mut self) -> &mut Governor {
        &mut self.governor
    }
}

impl Host {
    pub(super) fn new(governor: Governor, clock: Clock, random: Random) -> Host {
        let started = clock.instant();
        let (secrets, answer, stack) = (None, Vec::new(), Stack::default());
        Host { governor, memory: None, call: None, clock, random, started, secrets, answer, stack }
    }

    /// The guest is not running: its stack can be tidied up.
    pub(super) fn leave(&mut self) {
        self.stack.leave();
    }

    /// Milliseconds since the instance started.
    fn elapsed(&self) -> f64 {
        self.clock.instant().saturating_duration_since(self.started).as_secs_f64() * 1e3
    }

    fn log(&self, level: i32, line: &[u8]) {
        let Some(call) = &self.call else { return };
        let level = match level {
            0 => Level::Debug,
            1 => Level::Info,
            2 => Level::Warn,
            _ => Level::Error,
        };
        call.logs.line(level, &cut(line, MAX_LOG_LINE));
    }

    /// A text of the context, by the numbers of the guest's `enum field`.
    fn context_text(&self, field: i32) -> Option<Vec<u8>> {
        let call = self.call.as_ref()?;
        let version = &call.version;
        Some(match field {
            0 => call.invocation.to_string().into_bytes(),
            1 => version.function.as_str().into(),
            2 => version.version.to_string().into_bytes(),
            3 => version.tenant.as_str().into(),
            4 if self.secrets.is_none() && call.trace.is_none() => serde_json::to_vec(&version.env).ok()?,
            4 => {
                // A variable of the function's own goes before the trace, and a secret before all.
                let trace = call.trace.as_deref().map(|trace| ("TRACEPARENT", trace));
                let own = version.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                let given = self.secrets.iter().flat_map(|given| given.env());
                serde_json::to_vec(&trace.into_iter().chain(own).chain(given).collect::<BTreeMap<_, _>>()).ok()?
            }
            _ => return None,
        })
    }

    fn context_number(&self, field: i32) -> f64 {
        let Some(call) = &self.call else { return f64::NAN };
        match field {
            5 => f64::from(call.version.memory_mb),
            6 => call.deadline_ms as f64,
            _ => (remaining(call.deadline, self.clock.instant()).as_secs_f64() * 1e3).floor(),
        }
    }

    /// Keeps what the guest will take; -1 for nothing.
    fn answer(&mut self, answer: Option<Vec<u8>>) -> i32 {
        self.answer = answer.unwrap_or_default();
        i32::try_from(self.answer.len()).unwrap_or(-1)
    }

    fn maybe(&mut self, answer: Option<Vec<u8>>) -> i32 {
        if answer.is_some() { self.answer(answer) } else { -1 }
    }
}

/// At most `limit` bytes of `text`, at the border of a character.
pub(super) fn cut(text: &[u8], limit: usize) -> Cow<'_, str> {
    let mut end = text.len().min(limit);
    // A character has at most three bytes after its first.
    while end < text.len() && end > 0 && text[end] & 0xc0 == 0x80 && limit - end < 3 {
        end -= 1;
    }
    String::from_utf8_lossy(&text[..end])
}

/// The guest's memory and its store's data.
fn split<'a>(caller: &'a mut Caller<'_, Host>) -> Result<(&'a mut [u8], &'a mut Host)> {
    let memory = caller.data().memory.ok_or_else(|| format_err!("the guest has no memory yet"))?;
    Ok(memory.data_and_store_mut(caller))
}

fn slice(memory: &[u8], at: u32, length: u32) -> Result<&[u8]> {
    let found = memory.get(at as usize..).and_then(|rest| rest.get(..length as usize));
    found.ok_or_else(|| format_err!("the guest named bytes outside of its memory"))
}

fn slice_mut(memory: &mut [u8], at: u32, length: usize) -> Result<&mut [u8]> {
    let found = memory.get_mut(at as usize..).and_then(|rest| rest.get_mut(..length));
    found.ok_or_else(|| format_err!("the guest named bytes outside of its memory"))
}

/// Adds the imports.
pub(super) fn link(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap("env", "__rquickjs_host_now_us", |caller: Caller<'_, Host>| {
        caller.data().clock.now().millis() as f64 * 1e3
    })?;
    linker.func_wrap(MODULE, "stack_full", |mut caller: Caller<'_, Host>| caller.data_mut().stack.is_full())?;
    linker.func_wrap(MODULE, "elapsed", |caller: Caller<'_, Host>| caller.data().elapsed())?;
    linker.func_wrap(MODULE, "origin", |caller: Caller<'_, Host>| {
        let host = caller.data();
        (host.clock.now().millis() as f64 - host.elapsed()).round()
    })?;
    linker.func_wrap(MODULE, "log", |mut caller: Caller<'_, Host>, level: i32, at: u32, length: u32| {
        let (memory, host) = split(&mut caller)?;
        host.log(level, slice(memory, at, length)?);
        Ok(())
    })?;
    linker.func_wrap(MODULE, "random", |mut caller: Caller<'_, Host>, at: u32, length: u32| {
        let (memory, host) = split(&mut caller)?;
        if length as usize > MAX_RANDOM {
            bail!("the guest asked for {length} random bytes at once");
        }
        host.random.fill(slice_mut(memory, at, length as usize)?);
        Ok(())
    })?;
    linker.func_wrap(MODULE, "context_number", |caller: Caller<'_, Host>, field: i32| {
        caller.data().context_number(field)
    })?;
    linker.func_wrap(MODULE, "context_text", |mut caller: Caller<'_, Host>, field: i32| {
        let host = caller.data_mut();
        let text = host.context_text(field);
        host.maybe(text)
    })?;
    linker.func_wrap(
        MODULE,
        "url",
        |mut caller: Caller<'_, Host>, what: i32, a: u32, a_length: u32, b: u32, b_length: u32| {
            let (memory, host) = split(&mut caller)?;
            let first = String::from_utf8_lossy(slice(memory, a, a_length)?);
            let second = (b != 0).then(|| slice(memory, b, b_length)).transpose()?.map(String::from_utf8_lossy);
            let answer = url::answer(what, &first, second.as_deref());
            Ok(host.maybe(answer.map(String::into_bytes)))
        },
    )?;
    linker.func_wrap(
        MODULE,
        "decode",
        |mut caller: Caller<'_, Host>, label: u32, label_length: u32, at: u32, length: u32, flags: i32| {
            let (memory, host) = split(&mut caller)?;
            let text = encoding::decode(slice(memory, label, label_length)?, slice(memory, at, length)?, flags);
            Ok(host.maybe(text.map(String::into_bytes)))
        },
    )?;
    linker.func_wrap(MODULE, "encoding", |mut caller: Caller<'_, Host>, at: u32, length: u32| {
        let (memory, host) = split(&mut caller)?;
        let name = encoding::name(slice(memory, at, length)?);
        Ok(host.maybe(name.map(String::into_bytes)))
    })?;
    linker.func_wrap(MODULE, "take", |mut caller: Caller<'_, Host>, to: u32| {
        let (memory, host) = split(&mut caller)?;
        let answer = std::mem::take(&mut host.answer);
        slice_mut(memory, to, answer.len())?.copy_from_slice(&answer);
        Ok(())
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("abc".as_bytes(), 3), "abc");
        assert_eq!(cut("abcd".as_bytes(), 3), "abc");
        assert_eq!(cut("aü".as_bytes(), 2), "a");
        assert_eq!(cut("a€€".as_bytes(), 6), "a€");
        assert_eq!(cut("😀😀".as_bytes(), 7), "😀");
        assert_eq!(cut(b"ab\xff\xff\xff", 3), "ab\u{fffd}");
        assert_eq!(cut(&[0x80; 20], 10).chars().count(), 7, "what is no text is cut, too");
    }
}
