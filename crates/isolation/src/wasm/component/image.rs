//! Uploaded WebAssembly: what it is, whether it can run here, and its compiled form.
//!
//! Uploads are hostile until shown otherwise. Wasmtime validates them before it compiles; size is bounded by
//! [`MAX_WASM`], work by [`COMPILE_PERMITS`] compilations at a time and [`COMPILE_TIME`] for each until its deploy is
//! given up and its compiler stopped.

use std::sync::Arc;
use std::time::Duration;

use lyra_types::function::Contract;
use lyra_types::function::limit::MAX_WASM;
use lyra_types::{Code, Error};
use tokio::sync::Semaphore;
use wasmtime::component::Component;
use wasmtime::{ExternType, Module, ResourcesRequired, Trap};

use super::Program;
use super::host::{self, PROVIDED};
use super::stdio::Stdio;
use super::{Linkers, failure};
use crate::Grant;
use crate::wasm::compiler::{self, CompileError, Kind};
use crate::wasm::engine::Engine;
use crate::wasm::governor::Governed;

/// Compilations at a time.
pub(super) const COMPILE_PERMITS: usize = 2;

/// Longest time of a deploy's compilation, the wait for a permit included.
const COMPILE_TIME: Duration = Duration::from_secs(120);

/// Longest time that the trial instance may take to start.
const TRIAL_TIME: Duration = Duration::from_secs(5);

/// Most import names in one message.
const NAMED_IMPORTS: usize = 10;

/// Code that was checked and compiled.
pub(super) struct Compiled {
    pub(super) program: Program,
    pub(super) contract: Contract,
    /// The file that is kept.
    pub(super) bytes: Vec<u8>,
    /// Bytes of the largest memory that an instance starts with.
    memory: u64,
}

/// Checks and compiles an upload, and starts it once within its memory limit.
///
/// # Errors
/// [`Code::InvalidCode`] with the reason; [`Code::Overloaded`] when too much is being compiled.
pub(super) async fn compile(
    engine: &Engine,
    linkers: &Arc<Linkers>,
    permits: &Arc<Semaphore>,
    code: &crate::Code,
) -> Result<Compiled, Error> {
    let kind = kind(&code.bytes)?;
    if code.bytes.len() > MAX_WASM {
        return Err(invalid(format!("has {} bytes; at most {MAX_WASM} are allowed", code.bytes.len())));
    }
    let work = async {
        // The semaphore is never closed.
        let permit = permits.acquire().await.map_err(|_| busy())?;
        let machine_code = compiler::compile(engine, kind, code.bytes.clone()).await;
        drop(permit);
        let machine_code = machine_code.map_err(|error| failed(kind, &error))?;
        let (engine, linkers) = (engine.clone(), Arc::clone(linkers));
        let checked = lyra_kit::tasks::blocking(move || check(&engine, &linkers, kind, machine_code));
        checked.await.map_err(|error| {
            tracing::error!(%error, digest = %code.key.digest, "compiled code can't be checked");
            Error::internal("the code could not be compiled")
        })?
    };
    let compiled = tokio::time::timeout(COMPILE_TIME, work).await.map_err(|_| busy())??;
    check_reuse(compiled.contract, code.reuse)?;
    let memory = (code.key.memory_mb as usize) << 20;
    if compiled.memory > memory as u64 {
        let needed = compiled.memory.div_ceil(1 << 20);
        return Err(invalid(format!("needs {needed} MiB of memory to start; memory_mb is {}", code.key.memory_mb)));
    }
    tokio::time::timeout(TRIAL_TIME, try_start(engine, &compiled.program, memory))
        .await
        .map_err(|_| invalid(format!("does not start within {} s", TRIAL_TIME.as_secs())))??;
    Ok(compiled)
}

/// Refuses to keep instances of what ends with its call.
///
/// # Errors
/// [`Code::InvalidField`] for `reuse`.
pub(super) fn check_reuse(contract: Contract, reuse: bool) -> Result<(), Error> {
    if reuse && contract == Contract::Command {
        let reason = "a command ends with its call, so its instances can't be kept; deploy it without reuse";
        return Err(Error::field(Code::InvalidField, "reuse", reason));
    }
    Ok(())
}

fn busy() -> Error {
    Error::new(Code::Overloaded, "the code could not be compiled in time; try again, or deploy less code")
        .with_retry_after(Duration::from_secs(10))
}

fn invalid(reason: impl Into<String>) -> Error {
    Error::field(Code::InvalidCode, "code.wasm", reason)
}

/// Tells a component from a core module by the header, and both from everything else.
pub(super) fn kind(bytes: &[u8]) -> Result<Kind, Error> {
    // Magic number, then version (16 bits) and layer (16 bits: 0 core, 1 component).
    match bytes.first_chunk::<8>() {
        Some(b"\0asm\x01\0\0\0") => return Ok(Kind::Module),
        Some(b"\0asm\x0d\0\x01\0") => return Ok(Kind::Component),
        Some([0, b'a', b's', b'm', ..]) => {
            return Err(invalid(
                "is of a form of WebAssembly that is not known here; core modules of version 1 and components of version 13 are",
            ));
        }
        _ => {}
    }
    let starts = |magic: &[u8]| bytes.starts_with(magic);
    let text = std::str::from_utf8(&bytes[..bytes.len().min(64)]).unwrap_or_default().trim_start();
    let found = match bytes {
        [] => "is empty",
        _ if starts(b"\0asm") => "ends within its header",
        _ if starts(b"\x7fELF") => "is a native Linux program, or code that Wasmtime compiled before",
        _ if starts(b"PK\x03\x04") => "is a zip archive",
        _ if starts(b"\x1f\x8b") => "is compressed with gzip",
        _ if text.starts_with("(module") || text.starts_with("(component") => {
            "is the text form; assemble it (`wasm-tools parse`)"
        }
        _ if !text.is_empty() => "is text",
        _ => "is not WebAssembly",
    };
    Err(invalid(format!("{found}; expected a WebAssembly component or core module (the file begins with \"\\0asm\")")))
}

/// What to say when there is no machine code; for invalid code, with the place in the file (`at offset …`).
fn failed(kind: Kind, error: &CompileError) -> Error {
    match (error, kind) {
        (CompileError::Refused(reason), Kind::Component) => invalid(format!("is not a valid component: {reason}")),
        (CompileError::Refused(reason), Kind::Module) => invalid(format!("is not a valid module: {reason}")),
        (CompileError::Stopped(_), _) => invalid("takes more time or memory to compile than a deploy may have"),
        (CompileError::Run(_) | CompileError::Thread(_), _) => {
            tracing::error!(%error, source = ?std::error::Error::source(error), "code can't be compiled");
            Error::internal("the code could not be compiled")
        }
    }
}

fn refused(what: &str, error: &wasmtime::Error) -> Error {
    invalid(format!("{what}: {error:#}"))
}

fn internal(error: &wasmtime::Error) -> Error {
    tracing::error!(error = format!("{error:#}"), "machine code can't be loaded");
    Error::internal("the code could not be compiled")
}

/// Checks whether compiled code can run here.
#[expect(unsafe_code, reason = "deserializing compiled code")]
fn check(engine: &Engine, linkers: &Linkers, kind: Kind, machine_code: Vec<u8>) -> Result<Compiled, Error> {
    let wasmtime = engine.wasmtime();
    match kind {
        Kind::Component => {
            // SAFETY: the bytes come from our own compiler with the same settings, which validated what it compiled.
            // JUSTIFICATION: compiling in another process is what bounds it; there is no safe form.
            let component = unsafe { Component::deserialize(wasmtime, &machine_code) };
            check_component(engine, linkers, &component.map_err(|error| internal(&error))?, machine_code)
        }
        Kind::Module => {
            // SAFETY: as above.
            // JUSTIFICATION: as above.
            let module = unsafe { Module::deserialize(wasmtime, &machine_code) };
            check_module(engine, linkers, &module.map_err(|error| internal(&error))?, machine_code)
        }
    }
}

fn check_component(
    engine: &Engine,
    linkers: &Linkers,
    component: &Component,
    bytes: Vec<u8>,
) -> Result<Compiled, Error> {
    let engine = engine.wasmtime();
    let component_type = component.component_type();
    let imports: Vec<&str> = component_type.imports(engine).map(|(name, _)| name).collect();
    let unknown: Vec<&str> = imports.iter().copied().filter(|name| !is_provided(name)).collect();
    if !unknown.is_empty() {
        return Err(unknown_imports("the component", &unknown));
    }
    let exports: Vec<&str> = component_type.exports(engine).map(|(name, _)| name).collect();
    let contract = contract_of(&exports)?;
    let program = Program::component(linkers, component, contract)
        .map_err(|error| refused("does not fit the interfaces that it names", &error))?;
    let memory = component.resources_required().map_or(0, |required| initial_memory(&required));
    Ok(Compiled { program, contract, bytes, memory })
}

/// Bytes of the largest memory at its start.
fn initial_memory(required: &ResourcesRequired) -> u64 {
    /// Bytes of a page of Wasm memory.
    const PAGE: u64 = 64 << 10;
    required.max_initial_memory_size.unwrap_or(0).saturating_mul(PAGE)
}

fn is_provided(import: &str) -> bool {
    PROVIDED.iter().any(|prefix| import.starts_with(prefix))
        && import.split_once('@').is_some_and(|(_, version)| version == "0.2" || version.starts_with("0.2."))
}

fn contract_of(exports: &[&str]) -> Result<Contract, Error> {
    let has = |interface: &str| exports.iter().any(|export| export.starts_with(interface));
    if has("wasi:http/incoming-handler@0.2.") {
        return Ok(Contract::Http);
    }
    if has("wasi:cli/run@0.2.") {
        return Ok(Contract::Command);
    }
    let found = match exports {
        [] => "nothing".to_owned(),
        exports => exports.iter().take(NAMED_IMPORTS).copied().collect::<Vec<_>>().join(", "),
    };
    Err(invalid(format!(
        "the component exports {found}; expected wasi:http/incoming-handler@0.2 (world wasi:http/proxy) or \
         wasi:cli/run@0.2 (world wasi:cli/command)"
    )))
}

fn unknown_imports(what: &str, names: &[&str]) -> Error {
    let shown: Vec<String> = names.iter().take(NAMED_IMPORTS).map(|name| name.escape_debug().to_string()).collect();
    let more = match names.len().saturating_sub(NAMED_IMPORTS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    invalid(format!(
        "{what} imports {}{more}, which is not provided; WASI 0.2 and wasi_snapshot_preview1 are",
        shown.join(", ")
    ))
}

fn check_module(engine: &Engine, linkers: &Linkers, module: &Module, bytes: Vec<u8>) -> Result<Compiled, Error> {
    let mut store = host::store(engine, None, 0, &Stdio::logging(), &Grant::default(), None)?;
    let mut unknown: Vec<String> = Vec::new();
    for import in module.imports() {
        if linkers.core.get_by_import(&mut store, &import).is_none() {
            unknown.push(format!("{}.{}", import.module(), import.name()));
        }
    }
    if !unknown.is_empty() {
        let names: Vec<&str> = unknown.iter().map(String::as_str).collect();
        return Err(unknown_imports("the module", &names));
    }
    match module.get_export("_start") {
        Some(ExternType::Func(start)) if start.params().len() == 0 && start.results().len() == 0 => {}
        Some(_) => {
            return Err(invalid("the module's export `_start` is not a function without parameters and results"));
        }
        None => {
            return Err(invalid(
                "the module does not export `_start`; expected a WASI command, or a component of the world wasi:http/proxy",
            ));
        }
    }
    let program = Program::module(linkers, module).map_err(|error| refused("does not fit WASI", &error))?;
    let memory = initial_memory(&module.resources_required());
    Ok(Compiled { program, contract: Contract::Command, bytes, memory })
}

/// Starts an instance once, so that what can't start is refused at deploy.
async fn try_start(engine: &Engine, program: &Program, memory: usize) -> Result<(), Error> {
    let stdio = Stdio::logging();
    let mut store = host::store(engine, None, memory, &stdio, &Grant::default(), None)?;
    let share = store.data_mut().governor().share();
    let started = share.run(program.instantiate(&mut store)).await;
    let Err(error) = started else { return Ok(()) };
    if error.is::<wasmtime::PoolConcurrencyLimitError>() || (store.data_mut().governor().oom() && !error.is::<Trap>()) {
        // Its own limit is not what is in the way: that was checked before.
        return Err(failure::of_start(&error));
    }
    let reason = match error.is::<Trap>() {
        true => failure::of_start(&error).detail,
        false => format!("{error:#}"),
    };
    Err(invalid(format!("does not start: {reason}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_wasm_is_told_by_its_name() {
        assert_eq!(kind(b"\0asm\x01\0\0\0").unwrap(), Kind::Module);
        assert_eq!(kind(b"\0asm\x0d\0\x01\0").unwrap(), Kind::Component);
        for (bytes, says) in [
            (&b""[..], "empty"),
            (b"\0asm", "ends within"),
            (b"\0asm\x02\0\0\0", "not known here"),
            (b"\0asm\x0d\0\x02\0", "not known here"),
            (b"\x7fELF\x02", "native"),
            (b"PK\x03\x04..", "zip"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"  (module)", "text form"),
            (b"export default 1", "is text"),
            (b"\xff\xfe\xfd", "not WebAssembly"),
        ] {
            let error = kind(bytes).expect_err("refused");
            assert_eq!((error.code, error.errors[0].field.as_str()), (Code::InvalidCode, "code.wasm"));
            assert!(error.errors[0].reason.contains(says), "{}", error.errors[0].reason);
        }
    }

    #[test]
    fn an_import_is_provided_by_name_and_version() {
        assert!(is_provided("wasi:http/types@0.2.12") && is_provided("wasi:io/poll@0.2.0"));
        for name in
            ["wasi:http/types@0.3.0", "wasi:http/types", "wasi:keyvalue/store@0.2.0", "env", "my:own/thing@0.2.0"]
        {
            assert!(!is_provided(name), "{name}");
        }
    }
}
