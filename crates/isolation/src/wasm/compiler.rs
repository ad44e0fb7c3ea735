//! Machine code from WebAssembly, made in a process of its own.
//!
//! Compiling is the one thing that uploads make this platform do at length, with an amount of memory and time that they
//! choose. A child process can be stopped, and what it took is given back when it ends; it also runs with less
//! priority than calls. Input and output go through its pipes, so there is nothing to clean up. Without
//! [`Config::compiler`] the work is done in this process.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;

use super::engine::{self, Config, Engine};

/// Most processor time of one compilation, over all cores.
const CPU_TIME: Duration = Duration::from_secs(240);

/// Most memory of one compilation, in bytes.
const MEMORY: u64 = 4 << 30;

/// How much nicer a compilation is than a call.
const NICE: i32 = 10;

/// Longest message about refused code, in bytes.
const MESSAGE: usize = 4 << 10;

/// Exit code for code that is not valid; why is on stderr.
const REFUSED: u8 = 2;

/// What is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    /// A component.
    Component,
    /// A core module.
    Module,
}

/// Why there is no machine code.
#[derive(Debug, thiserror::Error)]
pub(super) enum CompileError {
    /// The code is not valid: what is wrong, and where.
    #[error("{0}")]
    Refused(String),
    /// The compiler was stopped at its limit of time or memory, or crashed.
    #[error("the compiler ended with {0}")]
    Stopped(std::process::ExitStatus),
    /// The compiler can't be run.
    #[error("the compiler can't be run")]
    Run(#[source] std::io::Error),
    /// A thread is gone.
    #[error("the compiler's thread is gone")]
    Thread(#[source] tokio::task::JoinError),
}

/// All that the machine code depends on beside its source.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    kind: Kind,
    config: Config,
}

/// Compiles. Dropping the future stops the work where it is done in a child process.
pub(super) async fn compile(engine: &Engine, kind: Kind, wasm: bytes::Bytes) -> Result<Vec<u8>, CompileError> {
    let Some(command) = command(engine.config(), kind).map_err(CompileError::Run)? else {
        let engine = engine.wasmtime().clone();
        return lyra_kit::tasks::blocking(move || compile_here(&engine, kind, &wasm))
            .await
            .map_err(CompileError::Thread)?;
    };
    let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().map_err(CompileError::Run)?;
    let mut stdin = child.stdin.take();
    let feed = async {
        if let Some(stdin) = &mut stdin {
            // A compiler that has ended before it read all says why by its status.
            let _ = stdin.write_all(&wasm).await;
        }
        drop(stdin);
    };
    let ((), output) = tokio::join!(feed, child.wait_with_output());
    outcome(output.map_err(CompileError::Run)?)
}

/// The same for code of our own, on a thread that may wait.
pub(super) fn compile_blocking(engine: &Engine, kind: Kind, wasm: &[u8]) -> Result<Vec<u8>, CompileError> {
    let Some(mut command) = command(engine.config(), kind).map_err(CompileError::Run)? else {
        return compile_here(engine.wasmtime(), kind, wasm);
    };
    let mut run = || {
        let mut child = command.spawn()?;
        let stdin = child.stdin.take();
        std::thread::scope(|scope| {
            scope.spawn(|| stdin.map(|mut stdin| stdin.write_all(wasm)));
            child.wait_with_output()
        })
    };
    outcome(run().map_err(CompileError::Run)?)
}

fn outcome(output: std::process::Output) -> Result<Vec<u8>, CompileError> {
    match output.status.code() {
        Some(0) => Ok(output.stdout),
        Some(code) if code == i32::from(REFUSED) => {
            Err(CompileError::Refused(String::from_utf8_lossy(&output.stderr).into_owned()))
        }
        _ => {
            let said = String::from_utf8_lossy(&output.stderr[..output.stderr.len().min(MESSAGE)]).into_owned();
            tracing::error!(status = %output.status, said, "the compiler ended without an answer");
            Err(CompileError::Stopped(output.status))
        }
    }
}

/// The child process to be started; `None`: there is no program for it.
fn command(config: &Config, kind: Kind) -> std::io::Result<Option<Command>> {
    let Some([program, arguments @ ..]) = config.compiler.as_deref() else { return Ok(None) };
    let order = serde_json::to_string(&Order { kind, config: config.clone() })?;
    let mut command = Command::new(program);
    command.args(arguments).arg(order).env_clear();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(Some(command))
}

fn compile_here(engine: &wasmtime::Engine, kind: Kind, wasm: &[u8]) -> Result<Vec<u8>, CompileError> {
    let compiled = match kind {
        Kind::Component => engine.precompile_component(wasm),
        Kind::Module => engine.precompile_module(wasm),
    };
    compiled.map_err(|error| CompileError::Refused(format!("{error:#}")))
}

/// What the child process does: `arguments` are those that come after [`Config::compiler`]'s own.
pub fn run(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let order = arguments.next().and_then(|order| serde_json::from_slice::<Order>(order.as_encoded_bytes()).ok());
    let Some(order) = order else { return fail("this is for Lyra itself to call") };
    if let Err(error) = restrict() {
        return fail(&format!("the compiler's limits can't be set: {error}"));
    }
    match answer(&order) {
        Ok(()) => ExitCode::SUCCESS,
        Err(CompileError::Refused(mut reason)) => {
            reason.truncate(reason.floor_char_boundary(MESSAGE));
            fail(&reason);
            ExitCode::from(REFUSED)
        }
        Err(CompileError::Run(error)) => fail(&error.to_string()),
        Err(error) => fail(&error.to_string()),
    }
}

/// Tells the parent why there is no machine code.
fn fail(reason: &str) -> ExitCode {
    // Where the parent is gone there is nobody to tell.
    let _ = std::io::stderr().write_all(reason.as_bytes());
    ExitCode::FAILURE
}

/// Ends with its parent, and does not outgrow its limits.
fn restrict() -> std::io::Result<()> {
    let limit = |value| Rlimit { current: Some(value), maximum: Some(value) };
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::process::setrlimit(Resource::Cpu, limit(CPU_TIME.as_secs()))?;
    rustix::process::setrlimit(Resource::Data, limit(MEMORY))?;
    rustix::process::setrlimit(Resource::Core, limit(0))?;
    rustix::process::nice(NICE)?;
    Ok(())
}

fn answer(order: &Order) -> Result<(), CompileError> {
    let mut wasm = Vec::new();
    std::io::stdin().lock().read_to_end(&mut wasm).map_err(CompileError::Run)?;
    let engine = engine::compiling(&order.config)
        .map_err(|error| CompileError::Run(std::io::Error::other(format!("{error:#}"))))?;
    let code = compile_here(&engine, order.kind, &wasm)?;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&code).and_then(|()| stdout.flush()).map_err(CompileError::Run)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(compiler: &[&str]) -> (tempfile::TempDir, Engine) {
        let dir = tempfile::tempdir().expect("a directory");
        let compiler = Some(compiler.iter().map(OsString::from).collect());
        let engine = Engine::new(&Config { compiler, ..Config::new(dir.path()) }).expect("an engine");
        (dir, engine)
    }

    async fn with(compiler: &[&str]) -> Result<Vec<u8>, CompileError> {
        let (_dir, engine) = engine(compiler);
        compile(&engine, Kind::Module, bytes::Bytes::from(vec![0; 1 << 20])).await
    }

    #[tokio::test]
    async fn what_the_child_says_is_told() {
        let reason = with(&["sh", "-c", "cat >/dev/null; echo at offset 7 >&2; exit 2"]).await.expect_err("refused");
        assert!(matches!(&reason, CompileError::Refused(said) if said == "at offset 7\n"), "{reason:?}");
        assert_eq!(with(&["sh", "-c", "cat >/dev/null; echo code"]).await.expect("compiled"), b"code\n");
    }

    #[tokio::test]
    async fn a_child_that_dies_or_does_not_read_is_no_harm() {
        for script in ["kill -9 $$", "exit 1", "exec <&-; exit 1"] {
            let error = with(&["sh", "-c", script]).await.expect_err("stopped");
            assert!(matches!(error, CompileError::Stopped(_)), "{script}: {error:?}");
        }
        let error = with(&["/nonexistent/program"]).await.expect_err("does not run");
        assert!(matches!(error, CompileError::Run(_)), "{error:?}");
    }

    #[tokio::test]
    async fn giving_up_kills_the_child() {
        let (dir, engine) = engine(&["sh", "-c", "echo $$ > $0.new; mv $0.new $0; exec sleep 1000"]);
        let pid_file = dir.path().join("pid");
        let mut config = engine.config().clone();
        config.compiler.as_mut().expect("set").push(pid_file.clone().into());
        let engine = Engine::new(&config).expect("an engine");
        let compiling = compile(&engine, Kind::Module, bytes::Bytes::new());
        let mut compiling = Box::pin(compiling);
        let pid = loop {
            assert!(futures::poll!(&mut compiling).is_pending());
            if let Ok(pid) = std::fs::read_to_string(&pid_file) {
                break pid.trim().to_owned();
            }
            tokio::task::yield_now().await;
        };
        drop(compiling);
        // Killed, and reaped by tokio.
        while std::path::Path::new("/proc").join(&pid).exists() {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn the_child_s_settings_make_the_same_machine_code() {
        let (_dir, engine) = engine(&[]);
        let config: Config = serde_json::from_str(&serde_json::to_string(engine.config()).unwrap()).unwrap();
        let child = engine::compiling(&config).expect("an engine");
        let module = compile_here(&child, Kind::Module, b"\0asm\x01\0\0\0").expect("compiles");
        // SAFETY: it was just made.
        // JUSTIFICATION: this is what the test is about.
        #[expect(unsafe_code, reason = "deserializing compiled code")]
        unsafe { wasmtime::Module::deserialize(engine.wasmtime(), &module) }.expect("fits");
    }
}
