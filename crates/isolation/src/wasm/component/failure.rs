//! What a guest's failure means to the user.

use lyra_types::error::Thrown;
use lyra_types::log::Level;
use lyra_types::{Code, Error, FunctionVersion};
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::stdio::{Full, Stdio};
use crate::CallContext;
use crate::wasm::governor::no_room;

/// How much of stderr's last line is in an error's message, in bytes.
const LAST_LINE: usize = 256;

/// The status that a program ended with, when that is what `error` says.
pub(super) fn exit_status(error: &wasmtime::Error) -> Option<i32> {
    error.downcast_ref::<I32Exit>().map(|exit| exit.0)
}

/// The error for a guest whose call failed with `error`. `oom`: it was refused memory before.
///
/// The guest's stack, where there is one, goes to the function's logs.
pub(super) fn of_call(error: &wasmtime::Error, oom: bool, context: &CallContext, stdio: &Stdio) -> Error {
    if let Some(status) = exit_status(error) {
        return exit(status, stdio);
    }
    if error.is::<Full>() || stdio.overflowed() {
        return result_too_large(context.max_result);
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return no_room(error);
    }
    if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
        stdio.note(Level::Error, &format!("{}: wasm stack\n{backtrace}", crash_sentence(error)));
    }
    if oom {
        let megabytes = context.version.memory_mb;
        return Error::new(Code::OutOfMemory, format!("the function needs more than its {megabytes} MiB of memory"));
    }
    Error::new(Code::InstanceCrashed, format!("the instance crashed: {}", crash_sentence(error)))
}

fn crash_sentence(error: &wasmtime::Error) -> String {
    match error.downcast_ref::<Trap>() {
        Some(Trap::UnreachableCodeReached) => "the code aborted (a panic, an assertion or an `unreachable`)".into(),
        Some(Trap::StackOverflow) => "stack overflow (too deep a recursion)".into(),
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    }
}

/// The error for a program that ended with a status other than 0.
pub(super) fn exit(status: i32, stdio: &Stdio) -> Error {
    let tail = stdio.tail();
    let mut message = format!("the program ended with status {status}");
    if let Some(line) = tail.lines().next_back() {
        message.push_str(": ");
        message.push_str(&line[..line.floor_char_boundary(LAST_LINE)]);
    }
    Error::thrown(Thrown { name: "ExitCode".into(), message, stack: tail })
}

/// The error for a result of more than `limit` bytes.
pub(super) fn result_too_large(limit: usize) -> Error {
    Error::new(Code::ResultTooLarge, format!("the result is larger than its limit of {limit} bytes"))
}

/// The error for a call that did not end before its deadline.
pub(super) fn timeout(context: &CallContext) -> Error {
    let limit = context.version.timeout_ms;
    Error::new(Code::Timeout, format!("the function did not end before its deadline ({limit} ms after it began)"))
}

/// The error for an instance that can't be started from an image that was prepared.
pub(super) fn of_start(error: &wasmtime::Error) -> Error {
    match error.downcast_ref::<Trap>() {
        Some(_) => Error::new(
            Code::InstanceCrashed,
            format!("the instance crashed when it started: {}", crash_sentence(error)),
        ),
        None => no_room(error),
    }
}

/// The error for an instance that did not start in time.
pub(super) fn start_timeout(version: &FunctionVersion) -> Error {
    let limit = version.timeout_ms;
    Error::new(Code::Timeout, format!("the instance did not start before the deadline of {limit} ms"))
}
