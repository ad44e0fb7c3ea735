//! The runtimes that run as processes: deploying, calling, and what hostile code can't do.

mod egress;
mod escapes;
mod faults;
mod gpu;
pub mod guest;
mod hostile;
mod native;
mod nodejs;
mod python;
mod server;
mod unprivileged;

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lyra_isolation::process::{Config, Processes, launch};
use lyra_isolation::{CallContext, Code, Grant, ImageKey, Isolation, LogSink, Sandbox, Template};
use lyra_kit::{Clock, Ids};
use lyra_types::function::Digest;
use lyra_types::{Error, FunctionVersion, InvocationId, Network, Runtime};
use sha2::Digest as _;
use zip::write::{SimpleFileOptions, ZipWriter};

use crate::lines::Lines;

/// A back end of its own for each test.
pub struct Fixture {
    pub processes: Processes,
    /// Holds all that the back end keeps.
    pub dir: tempfile::TempDir,
}

/// What a deploy says beside the code.
#[derive(Clone)]
pub struct Settings {
    pub runtime: Runtime,
    pub handler: Option<&'static str>,
    pub memory_mb: u32,
    pub timeout: Duration,
    pub env: BTreeMap<String, String>,
    pub network: Network,
}

impl Settings {
    pub fn of(runtime: Runtime) -> Settings {
        Settings {
            runtime,
            handler: None,
            memory_mb: 256,
            timeout: Duration::from_secs(60),
            env: BTreeMap::new(),
            network: Network::None,
        }
    }

    pub fn handler(self, name: &'static str) -> Settings {
        Settings { handler: Some(name), ..self }
    }

    pub fn memory_mb(self, memory_mb: u32) -> Settings {
        Settings { memory_mb, ..self }
    }

    pub fn timeout(self, timeout: Duration) -> Settings {
        Settings { timeout, ..self }
    }

    pub fn env(mut self, name: &str, value: &str) -> Settings {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }
}

/// A function that is deployed and loaded.
pub struct Function {
    pub template: Arc<dyn Template>,
    pub version: Arc<FunctionVersion>,
    pub lines: Arc<Lines>,
    pub max_result: usize,
    ids: Ids,
}

pub fn code(bytes: &[u8], settings: &Settings) -> Code {
    let key = ImageKey {
        runtime: settings.runtime,
        digest: Digest(hex::encode(sha2::Sha256::digest(bytes))),
        handler: settings.handler.map(Into::into),
        memory_mb: settings.memory_mb,
        result: Default::default(),
    };
    Code { key, bytes: Bytes::copy_from_slice(bytes), reuse: true }
}

/// A zip archive of files with their modes.
pub fn zip(files: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content, mode) in files {
        writer.start_file(*name, SimpleFileOptions::default().unix_permissions(*mode)).expect("a file");
        writer.write_all(content).expect("written");
    }
    writer.finish().expect("an archive").into_inner()
}

impl Fixture {
    pub async fn new() -> Fixture {
        Fixture::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Fixture {
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        let dir = tempfile::Builder::new().permissions(open).tempdir().expect("a directory");
        let launch = launch::Config {
            helper: vec![env!("CARGO_BIN_EXE_lyra-sandbox").into()],
            ..launch::Config::new(dir.path().join("launch"))
        };
        let mut config = Config::new(dir.path().join("process"), launch);
        change(&mut config);
        let processes = Processes::start(config, Ids::default()).await.expect("a back end");
        Fixture { processes, dir }
    }

    /// Why code is refused.
    pub async fn refusal(&self, bytes: &[u8], settings: Settings) -> Error {
        self.processes.prepare(&code(bytes, &settings)).await.expect_err("is refused")
    }

    pub async fn deploy(&self, bytes: &[u8], settings: Settings) -> Function {
        let code = code(bytes, &settings);
        let contract = self.processes.prepare(&code).await.expect("deploys");
        let template = self.processes.load(&code.key).await.expect("loads").expect("is there");
        assert_eq!(template.contract(), contract);
        let version = FunctionVersion {
            version: 3,
            contract,
            handler: settings.handler.map(Into::into),
            code_size: bytes.len() as u64,
            memory_mb: settings.memory_mb,
            network: settings.network,
            timeout_ms: u64::try_from(settings.timeout.as_millis()).expect("short"),
            env: settings.env,
            reuse: true,
            concurrency: 10,
            max_instances: 10,
            max_attempts: 1,
            ..FunctionVersion::new("guest".parse().expect("a name"), settings.runtime, code.key.digest)
        };
        Function {
            template,
            version: Arc::new(version),
            lines: Arc::default(),
            max_result: 1 << 20,
            ids: Ids::default(),
        }
    }

    pub async fn node(&self, source: &str) -> Function {
        self.deploy(source.as_bytes(), Settings::of(Runtime::Nodejs)).await
    }

    /// The native guest with a deed.
    pub async fn native(&self, runtime: Runtime, deed: &str, timeout: Duration) -> Function {
        let settings = Settings::of(runtime).env("DEED", deed).memory_mb(64).timeout(timeout);
        self.deploy(&guest::native(), settings).await
    }

    pub async fn python(&self, source: &str) -> Function {
        self.deploy(source.as_bytes(), Settings::of(Runtime::Python)).await
    }
}

impl Function {
    pub fn context(&self) -> CallContext {
        let clock = Clock::system();
        CallContext {
            invocation: InvocationId::from_parts(1, 1),
            version: Arc::clone(&self.version),
            deadline: clock.instant() + self.version.timeout(),
            deadline_ms: (clock.now() + self.version.timeout()).millis(),
            logs: Arc::clone(&self.lines) as Arc<dyn LogSink>,
            max_result: self.max_result,
            cpu: Default::default(),
            trace: None,
        }
    }

    pub async fn start(&self) -> Box<dyn Sandbox> {
        self.template.start(self.ids.instance(), &self.version).await.expect("starts")
    }

    pub async fn start_with(&self, grant: &Grant) -> Box<dyn Sandbox> {
        self.template.start_with(self.ids.instance(), &self.version, grant).await.expect("starts")
    }

    /// A call on an instance of its own.
    pub async fn call(&self, event: &str) -> Result<String, Error> {
        self.call_on(&mut *self.start().await, event).await
    }

    pub async fn call_on(&self, sandbox: &mut dyn Sandbox, event: &str) -> Result<String, Error> {
        let result = sandbox.call(self.context(), Bytes::copy_from_slice(event.as_bytes())).await?;
        Ok(String::from_utf8(result.to_vec()).expect("text"))
    }
}

/// What a call threw, as `(name, message)`.
pub fn thrown(outcome: Result<String, Error>) -> (String, String) {
    let error = outcome.expect_err("throws");
    assert_eq!(error.code, lyra_types::Code::FunctionError, "{error}");
    let thrown = error.thrown.expect("says what was thrown");
    (thrown.name, thrown.message)
}
