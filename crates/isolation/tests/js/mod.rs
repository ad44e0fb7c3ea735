//! The runtime `js`: deploying, calling, the globals, and what hostile code can't do.

mod call;
mod console;
mod deploy;
mod globals;
mod hostile;
mod limits;
mod sharing;
mod timers;
mod urls;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lyra_isolation::wasm::{Config, Wasm};
use lyra_isolation::{CallContext, Code, Hosted, Hosting, ImageKey, Isolation, Sandbox, Template};
use lyra_kit::{Clock, Random};
use lyra_types::error::Thrown;
use lyra_types::function::{Contract, Digest};
use lyra_types::{Code as ErrorCode, Error, FunctionVersion, InstanceId, InvocationId, Runtime};
use serde_json::Value;
use sha2::Digest as _;

use crate::lines::Lines;

/// A back end of its own for each test.
pub struct Js {
    pub wasm: Wasm,
    dir: tempfile::TempDir,
}

/// What a deploy says beside the code.
#[derive(Clone)]
pub struct Settings {
    pub handler: Option<String>,
    pub memory_mb: u32,
    pub timeout_ms: u64,
    pub env: BTreeMap<String, String>,
    pub max_result: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { handler: None, memory_mb: 128, timeout_ms: 60_000, env: BTreeMap::new(), max_result: 6 << 20 }
    }
}

/// A function that is deployed and loaded.
pub struct Function {
    pub template: Arc<dyn Template>,
    pub version: Arc<FunctionVersion>,
    pub lines: Arc<Lines>,
    max_result: usize,
}

/// Where the compiled base is kept between tests; each test would compile it otherwise.
fn shared() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("js-base")
}

fn copy_base(from: &Path, to: &Path) {
    let Ok(files) = std::fs::read_dir(from) else { return };
    for file in files.flatten().filter(|file| file.path().extension().is_some_and(|extension| extension == "cwasm")) {
        let target = to.join(file.file_name());
        if !target.exists() {
            let temporary = to.join(format!("{}.copy", std::process::id()));
            std::fs::copy(file.path(), &temporary).expect("copies");
            std::fs::rename(temporary, target).expect("renames");
        }
    }
}

pub fn code(source: &str, settings: &Settings) -> Code {
    let digest = Digest(hex::encode(sha2::Sha256::digest(source)));
    let key = ImageKey {
        runtime: Runtime::Js,
        digest,
        handler: settings.handler.clone(),
        memory_mb: settings.memory_mb,
        result: Default::default(),
    };
    Code { key, bytes: Bytes::copy_from_slice(source.as_bytes()), reuse: false }
}

impl Js {
    pub fn new() -> Js {
        Js::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> Js {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(shared()).expect("makes a directory");
        copy_base(&shared(), dir.path());
        let mut config = Config::new(dir.path());
        config.max_instances = 64;
        change(&mut config);
        let wasm = Wasm::new(&config, Clock::system(), Random::system()).expect("a back end");
        Js { wasm, dir }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub async fn deploy_with(&self, source: &str, settings: Settings) -> Result<Function, Error> {
        let code = code(source, &settings);
        let contract = self.wasm.prepare(&code).await?;
        copy_base(self.dir.path(), &shared());
        assert_eq!(contract, Contract::Handler);
        let template = self.wasm.load(&code.key).await?.expect("the image is there");
        let version = FunctionVersion {
            tenant: "acme".parse().expect("a name"),
            version: 7,
            contract,
            handler: settings.handler,
            code_size: source.len() as u64,
            memory_mb: settings.memory_mb,
            timeout_ms: settings.timeout_ms,
            env: settings.env,
            concurrency: 1,
            max_instances: 1,
            max_attempts: 1,
            ..FunctionVersion::new("guest".parse().expect("a name"), Runtime::Js, code.key.digest)
        };
        Ok(Function { template, version: Arc::new(version), lines: Arc::default(), max_result: settings.max_result })
    }

    pub async fn deploy(&self, source: &str) -> Function {
        self.deploy_with(source, Settings::default()).await.expect("deploys")
    }
}

impl Function {
    pub async fn host(&self, hosting: Hosting) -> Result<Box<dyn Hosted>, Error> {
        let nothing = lyra_isolation::Grant::default();
        self.template.host(InstanceId::from_parts(1, 1), &self.version, &nothing, hosting).await
    }

    pub async fn start(&self) -> Box<dyn Sandbox> {
        self.template.start(InstanceId::from_parts(1, 1), &self.version).await.expect("starts")
    }

    pub fn context(&self) -> CallContext {
        let clock = Clock::system();
        CallContext {
            invocation: InvocationId::from_parts(1, 2),
            version: Arc::clone(&self.version),
            deadline: clock.instant() + self.version.timeout(),
            deadline_ms: (clock.now() + self.version.timeout()).millis(),
            logs: self.lines.clone(),
            max_result: self.max_result,
            cpu: Default::default(),
            trace: None,
        }
    }

    pub async fn call_in(&self, sandbox: &mut dyn Sandbox, event: &str) -> Result<Value, Error> {
        let result = sandbox.call(self.context(), Bytes::copy_from_slice(event.as_bytes())).await?;
        Ok(serde_json::from_slice(&result).expect("a result is JSON"))
    }

    /// Calls a fresh instance.
    pub async fn call(&self, event: &str) -> Result<Value, Error> {
        self.call_in(self.start().await.as_mut(), event).await
    }
}

/// Deploys a source and calls it once.
pub async fn run_with(source: &str, event: &str, settings: Settings) -> Result<Value, Error> {
    Js::new().deploy_with(source, settings).await?.call(event).await
}

pub async fn run(source: &str, event: &str) -> Result<Value, Error> {
    run_with(source, event, Settings::default()).await
}

/// What an arrow function without parameters gives.
pub async fn value(body: &str) -> Value {
    run(&format!("export default async () => {{ {body} }}"), "null").await.expect(body)
}

/// What a source throws when it is called.
pub async fn thrown(source: &str) -> Thrown {
    let error = run(source, "null").await.expect_err("throws");
    assert_eq!(error.code, ErrorCode::FunctionError, "{error:?}");
    error.thrown.expect("says what was thrown")
}

/// Fails a test that hangs.
pub async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(100), work).await.expect("ends")
}
