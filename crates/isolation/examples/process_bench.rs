//! Measures the runtimes that run as processes by themselves: warm calls and cold starts, without HTTP or queues.
//!
//! ```text
//! cargo build --release -p lyra-isolation
//! cargo run --release -p lyra-isolation --example process_bench -- target/release/lyra-sandbox [CALLS]
//! ```
//!
//! Warm: calls of one kept instance, one after the other. Cold: an instance is started and called once; its start is
//! measured from nothing to its first result, with a pause before it as between calls of a quiet machine. Needs root,
//! python3, node and curl. The native function is a Python script: its interpreter's start is part of its cold start.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use lyra_isolation::process::{Config, Processes, launch};
use lyra_isolation::{CallContext, Code, ImageKey, Isolation, LogSink, Template};
use lyra_kit::{Clock, Ids};
use lyra_types::function::Digest;
use lyra_types::log::Level;
use lyra_types::{FunctionVersion, Runtime};
use sha2::Digest as _;

const PYTHON: &str = "def handler(event, context):\n    return event['a'] + event['b']\n";

const NODE: &str = "exports.handler = (event) => event.a + event.b;\n";

const NATIVE: &str = "#!/usr/bin/python3 -SE
import os, socket
host, port = os.environ['AWS_LAMBDA_RUNTIME_API'].split(':')
api = socket.create_connection((host, int(port)))
api.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
root = b'/2018-06-01/runtime/invocation/'
while True:
    api.sendall(b'GET ' + root + b'next HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n')
    head = api.recv(65536).lower()
    id = head.split(b'request-id: ')[1].split(b'\\r\\n')[0]
    api.sendall(b'POST ' + root + id + b'/response HTTP/1.1\\r\\nhost: x\\r\\ncontent-length: 1\\r\\n\\r\\n5')
    api.recv(65536)
";

struct Silent;

impl LogSink for Silent {
    fn line(&self, _level: Level, _message: &str) {}
}

struct Function {
    template: Arc<dyn Template>,
    version: Arc<FunctionVersion>,
    clock: Clock,
    ids: Ids,
}

impl Function {
    async fn deploy(processes: &Processes, runtime: Runtime, source: &str) -> Result<Function> {
        let digest = Digest(hex::encode(sha2::Sha256::digest(source)));
        let key = ImageKey { runtime, digest, handler: None, memory_mb: 256, result: Default::default() };
        let code = Code { key: key.clone(), bytes: Bytes::copy_from_slice(source.as_bytes()), reuse: true };
        let contract = processes.prepare(&code).await?;
        let template = processes.load(&key).await?.context("the image is there")?;
        let version = FunctionVersion {
            contract,
            memory_mb: 256,
            timeout_ms: 10_000,
            reuse: true,
            concurrency: 10,
            max_instances: 10,
            max_attempts: 1,
            ..FunctionVersion::new("bench".parse()?, runtime, key.digest)
        };
        Ok(Function { template, version: Arc::new(version), clock: Clock::system(), ids: Ids::default() })
    }

    fn context(&self) -> CallContext {
        CallContext {
            invocation: self.ids.invocation(),
            version: Arc::clone(&self.version),
            deadline: self.clock.instant() + Duration::from_secs(10),
            deadline_ms: (self.clock.now() + Duration::from_secs(10)).millis(),
            logs: Arc::new(Silent),
            max_result: 1 << 20,
            cpu: Default::default(),
            trace: None,
        }
    }

    async fn warm(&self, calls: usize) -> Result<Vec<Duration>> {
        let mut instance = self.template.start(self.ids.instance(), &self.version).await?;
        let mut times = Vec::with_capacity(calls);
        for _ in 0..calls {
            let begin = self.clock.instant();
            instance.call(self.context(), Bytes::from_static(b"{\"a\":2,\"b\":3}")).await?;
            times.push(begin.elapsed());
        }
        Ok(times)
    }

    async fn cold(&self, starts: usize, pause: Duration) -> Result<Vec<Duration>> {
        let mut times = Vec::with_capacity(starts);
        for _ in 0..starts {
            self.clock.sleep(pause).await;
            let begin = self.clock.instant();
            let mut instance = self.template.start(self.ids.instance(), &self.version).await?;
            instance.call(self.context(), Bytes::from_static(b"{\"a\":2,\"b\":3}")).await?;
            times.push(begin.elapsed());
        }
        Ok(times)
    }
}

fn report(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    println!("{name:<16} p50 {:8.3} ms   p99 {:8.3} ms   n {}", at(50), at(99), times.len());
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let helper = arguments.next().context("name the launcher: target/release/lyra-sandbox")?;
    let calls = arguments.next().and_then(|text| text.to_str()?.parse().ok()).unwrap_or(5_000);
    let dir = tempfile::tempdir()?;
    let launch = launch::Config { helper: vec![helper], ..launch::Config::new(dir.path().join("launcher")) };
    let processes = Processes::start(Config::new(dir.path().join("process"), launch), Ids::default()).await?;
    for (name, runtime, source, pause) in [
        ("python", Runtime::Python, PYTHON, 300),
        ("nodejs", Runtime::Nodejs, NODE, 600),
        ("native", Runtime::Native, NATIVE, 20),
    ] {
        let function = Function::deploy(&processes, runtime, source).await?;
        function.warm(100).await?;
        report(&format!("{name} warm"), function.warm(calls).await?);
        report(&format!("{name} cold"), function.cold(50, Duration::from_millis(pause)).await?);
        report(&format!("{name} cold burst"), function.cold(20, Duration::ZERO).await?);
    }
    Ok(())
}
