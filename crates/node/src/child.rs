//! Work of a node that is done in child processes of the same program.
//!
//! The program looks here first, before it reads its command line or starts a thread: [`run`] does the work and says
//! how the process ends, or says that this process is not such a child.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// First argument of the process that compiles WebAssembly.
pub(crate) const WASM_COMPILER: &str = "wasm-compiler";

/// Does a child's work, if `arguments` (with the program's name first) say that this process is one.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter().skip(1);
    match arguments.next()?.to_str()? {
        WASM_COMPILER => Some(lyra_isolation::wasm::compiler::run(arguments)),
        _ => None,
    }
}

/// This program itself, also after its file was replaced by a newer one.
pub fn this_program() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}
