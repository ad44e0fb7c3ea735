//! The runtime `wasm`: deploying, calling over HTTP and as a command, and what hostile code can't do.

mod command;
mod deploy;
mod hostile;
mod http;
mod stream;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use lyra_isolation::wasm::{Config, Wasm};
use lyra_isolation::{
    Body, CallContext, Code, End, Hosted, Hosting, ImageKey, Isolation, LogSink, Sandbox, Served, Template,
};
use lyra_kit::{Clock, Random};
use lyra_types::function::{Contract, Digest};
use lyra_types::{Error, FunctionVersion, InstanceId, InvocationId, Runtime};
use sha2::Digest as _;

use crate::lines::Lines;

pub const HELLO: &[u8] = include_bytes!("../../../../examples/wasm-http-hello/hello.wasm");
pub const WORDS: &[u8] = include_bytes!("../../../../examples/wasm-command/words.wasm");
pub const HOSTILE: &[u8] = include_bytes!("../guests/hostile/hostile.wasm");

/// A back end of its own for each test.
pub struct Fixture {
    pub wasm: Wasm,
    _dir: tempfile::TempDir,
}

/// A function that is deployed and loaded.
pub struct Function {
    template: Arc<dyn Template>,
    version: Arc<FunctionVersion>,
    pub lines: Arc<Lines>,
    pub max_result: usize,
}

/// What a deploy says beside the code.
#[derive(Clone)]
pub struct Settings {
    pub memory_mb: u32,
    pub timeout_ms: u64,
    pub reuse: bool,
    pub env: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { memory_mb: 64, timeout_ms: 60_000, reuse: false, env: BTreeMap::new() }
    }
}

impl Settings {
    /// A deadline short enough to wait for.
    pub fn short() -> Settings {
        Settings { timeout_ms: 200, ..Settings::default() }
    }

    pub fn reuse() -> Settings {
        Settings { reuse: true, ..Settings::default() }
    }
}

pub fn code(wasm: &[u8], settings: &Settings) -> Code {
    let digest = Digest(hex::encode(sha2::Sha256::digest(wasm)));
    let key = ImageKey {
        runtime: Runtime::Wasm,
        digest,
        handler: None,
        memory_mb: settings.memory_mb,
        result: Default::default(),
    };
    Code { key, bytes: Bytes::copy_from_slice(wasm), reuse: settings.reuse }
}

impl Fixture {
    pub fn new() -> Fixture {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = Config::new(dir.path());
        config.max_instances = 50;
        let wasm = Wasm::new(&config, Clock::system(), Random::system()).expect("a back end");
        Fixture { wasm, _dir: dir }
    }

    pub async fn deploy(&self, wasm: &[u8], settings: Settings) -> Function {
        let code = code(wasm, &settings);
        let contract = self.wasm.prepare(&code).await.expect("deploys");
        let template = self.wasm.load(&code.key).await.expect("loads").expect("is there");
        assert_eq!(template.contract(), contract);
        let version = FunctionVersion {
            contract,
            code_size: wasm.len() as u64,
            memory_mb: settings.memory_mb,
            timeout_ms: settings.timeout_ms,
            env: settings.env,
            reuse: settings.reuse,
            concurrency: 10,
            max_instances: 10,
            max_attempts: 1,
            ..FunctionVersion::new("guest".parse().expect("a name"), Runtime::Wasm, code.key.digest)
        };
        Function { template, version: Arc::new(version), lines: Arc::default(), max_result: 1 << 20 }
    }

    /// A program in the text form, as a core module.
    pub async fn command(&self, text: &str, settings: Settings) -> Function {
        let function = self.deploy(&wat::parse_str(text).expect("valid text"), settings).await;
        assert_eq!(function.version.contract, Contract::Command);
        function
    }

    /// Waits until no instance holds memory.
    pub async fn all_memory_returned(&self) {
        while self.wasm.engine().memory_in_use() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

impl Function {
    pub async fn host(&self, hosting: Hosting) -> Result<Box<dyn Hosted>, Error> {
        let nothing = lyra_isolation::Grant::default();
        self.template.host(InstanceId::from_parts(1, 1), &self.version, &nothing, hosting).await
    }

    pub fn context(&self) -> CallContext {
        CallContext {
            invocation: InvocationId::from_parts(1, 1),
            version: Arc::clone(&self.version),
            deadline: Clock::system().instant() + Duration::from_millis(self.version.timeout_ms),
            deadline_ms: 0,
            logs: Arc::clone(&self.lines) as Arc<dyn LogSink>,
            max_result: self.max_result,
            cpu: Default::default(),
            trace: None,
        }
    }

    pub async fn try_start(&self) -> Result<Box<dyn Sandbox>, Error> {
        self.template.start(InstanceId::from_parts(1, 1), &self.version).await
    }

    pub async fn start(&self) -> Box<dyn Sandbox> {
        self.try_start().await.expect("starts")
    }

    pub async fn call(&self, event: &'static str) -> Result<Bytes, Error> {
        self.start().await.call(self.context(), Bytes::from_static(event.as_bytes())).await
    }

    pub async fn serve(&self, request: Request<Body>) -> Result<Served, Error> {
        self.start().await.serve(self.context(), request).await
    }

    pub async fn get(&self, path: &str) -> Result<Served, Error> {
        self.serve(get(path)).await
    }

    /// A response that ends well, as text.
    pub async fn text(&self, path: &str) -> String {
        let served = self.get(path).await.expect("answers");
        let text = all(served.response).await.expect("a whole body");
        served.end.await.outcome.expect("ends well");
        text
    }
}

pub fn get(path: &str) -> Request<Body> {
    request("GET", path, full(""))
}

pub fn request(method: &str, path: &str, body: Body) -> Request<Body> {
    Request::builder().method(method).uri(format!("http://guest.example{path}")).body(body).expect("valid")
}

pub fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

pub async fn all(response: Response<Body>) -> Result<String, lyra_isolation::BoxError> {
    let bytes = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(bytes.to_vec()).expect("text"))
}

pub fn reused(end: End) -> Box<dyn Sandbox> {
    end.outcome.expect("ended well");
    end.sandbox.expect("kept")
}
