//! Measures the `wasm` runtime by itself: what a fresh instance, its call and its end cost, without HTTP or queues.
//!
//! ```text
//! cargo run --release -p lyra-isolation --example wasm_bench -- [http|command|cold|load|all] [--calls N] [--threads N]
//! ```
//!
//! Each thread has a runtime of its own and calls in a closed loop. Times are of one call, start of the instance and
//! its end included.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use lyra_isolation::wasm::{Config, Wasm};
use lyra_isolation::{CallContext, Code, ImageKey, Isolation, LogSink, Template};
use lyra_kit::{Clock, Random};
use lyra_types::function::Digest;
use lyra_types::log::Level;
use lyra_types::{FunctionVersion, InstanceId, InvocationId, Runtime};
use sha2::Digest as _;

const HELLO: &[u8] = include_bytes!("../../../examples/wasm-http-hello/hello.wasm");
const WORDS: &[u8] = include_bytes!("../../../examples/wasm-command/words.wasm");

struct Silent;

impl LogSink for Silent {
    fn line(&self, _level: Level, _message: &str) {}
}

fn version(template: &dyn Template, key: &ImageKey) -> anyhow::Result<Arc<FunctionVersion>> {
    Ok(Arc::new(FunctionVersion {
        contract: template.contract(),
        memory_mb: key.memory_mb,
        timeout_ms: 10_000,
        concurrency: 1,
        max_instances: 1,
        max_attempts: 1,
        ..FunctionVersion::new("bench".parse()?, Runtime::Wasm, key.digest.clone())
    }))
}

struct Bench {
    wasm: Arc<Wasm>,
    clock: Clock,
    calls: usize,
}

impl Bench {
    fn context(&self, version: &Arc<FunctionVersion>) -> CallContext {
        CallContext {
            invocation: InvocationId::from_parts(1, 1),
            version: Arc::clone(version),
            deadline: self.clock.instant() + Duration::from_secs(10),
            deadline_ms: 0,
            logs: Arc::new(Silent),
            max_result: 6 << 20,
            cpu: Default::default(),
            trace: None,
        }
    }

    async fn prepare(&self, wasm: &[u8], salt: usize) -> anyhow::Result<ImageKey> {
        let digest = hex::encode(sha2::Sha256::digest([wasm, &salt.to_be_bytes()].concat()));
        let key = ImageKey {
            runtime: Runtime::Wasm,
            digest: Digest(digest),
            handler: None,
            memory_mb: 128,
            result: Default::default(),
        };
        let code = Code { key: key.clone(), bytes: Bytes::copy_from_slice(wasm), reuse: false };
        self.wasm.prepare(&code).await?;
        Ok(key)
    }

    async fn http(&self, template: &dyn Template, version: &Arc<FunctionVersion>) -> anyhow::Result<()> {
        let sandbox = template.start(InstanceId::from_parts(1, 1), version).await?;
        let body = Empty::new().map_err(|never: std::convert::Infallible| match never {}).boxed_unsync();
        let request = http::Request::get("http://localhost/").body(body)?;
        let served = sandbox.serve(self.context(version), request).await?;
        let body = served.response.into_body().collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
        served.end.await.outcome?;
        if &body[..] != b"Hello, world!\n" {
            bail!("a wrong answer: {body:?}");
        }
        Ok(())
    }

    async fn command(&self, template: &dyn Template, version: &Arc<FunctionVersion>) -> anyhow::Result<()> {
        let mut sandbox = template.start(InstanceId::from_parts(1, 1), version).await?;
        let result = sandbox.call(self.context(version), Bytes::from_static(br#"{"text":"a b a"}"#)).await?;
        if &result[..] != br#"{"words":3,"distinct":2,"longest":"a"}"# {
            bail!("a wrong answer: {result:?}");
        }
        Ok(())
    }

    async fn one(&self, kind: Kind, template: &dyn Template, version: &Arc<FunctionVersion>) -> anyhow::Result<()> {
        match kind {
            Kind::Http => self.http(template, version).await,
            Kind::Command => self.command(template, version).await,
        }
    }

    /// Fresh instances of one template.
    fn warm(self: &Arc<Bench>, kind: Kind, threads: usize) -> anyhow::Result<()> {
        let template = runtime()?.block_on(async {
            let key = self.prepare(kind.code(), 0).await?;
            let template = self.wasm.load(&key).await?.context("no image")?;
            let version = version(&*template, &key)?;
            self.one(kind, &*template, &version).await?;
            anyhow::Ok((template, version))
        })?;
        let begin = self.clock.instant();
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                let (bench, (template, version)) = (Arc::clone(self), template.clone());
                std::thread::spawn(move || {
                    runtime()?.block_on(async {
                        let mut times = Vec::with_capacity(bench.calls);
                        for _ in 0..bench.calls {
                            let begin = bench.clock.instant();
                            bench.one(kind, &*template, &version).await?;
                            times.push(bench.clock.instant() - begin);
                        }
                        anyhow::Ok(times)
                    })
                })
            })
            .collect();
        let number = threads.len();
        let mut times = Vec::new();
        for thread in threads {
            match thread.join() {
                Ok(part) => times.extend(part?),
                Err(_) => bail!("a thread panicked"),
            }
        }
        report(&format!("{} fresh, {number} thread(s)", kind.name()), &mut times, self.clock.instant() - begin);
        Ok(())
    }

    /// First calls of versions that were deployed before, but are not in memory.
    fn cold(&self, kind: Kind) -> anyhow::Result<()> {
        let count = 200;
        runtime()?.block_on(async {
            let mut keys = Vec::new();
            for salt in 1..=count {
                keys.push(self.prepare(kind.code(), salt).await?);
            }
            let (mut loads, mut firsts, mut totals) = (Vec::new(), Vec::new(), Vec::new());
            let mut templates = Vec::new();
            for key in &keys {
                let begin = self.clock.instant();
                let template = self.wasm.load(key).await?.context("no image")?;
                let loaded = self.clock.instant();
                let version = version(&*template, key)?;
                let called = self.clock.instant();
                self.one(kind, &*template, &version).await?;
                let end = self.clock.instant();
                loads.push(loaded - begin);
                firsts.push(end - called);
                totals.push((loaded - begin) + (end - called));
                templates.push(template);
            }
            for (what, times) in [("load", &mut loads), ("first call", &mut firsts), ("both", &mut totals)] {
                let total = times.iter().sum();
                report(&format!("{} cold: {what}", kind.name()), times, total);
            }
            Ok(())
        })
    }

    /// Loads one image again and again, for a profiler.
    fn load(&self, kind: Kind) -> anyhow::Result<()> {
        runtime()?.block_on(async {
            let key = self.prepare(kind.code(), 0).await?;
            let mut times = Vec::new();
            for _ in 0..self.calls {
                let begin = self.clock.instant();
                drop(self.wasm.load(&key).await?.context("no image")?);
                times.push(self.clock.instant() - begin);
            }
            let total = times.iter().sum();
            report(&format!("{} load and drop", kind.name()), &mut times, total);
            Ok(())
        })
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Http,
    Command,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Http => "http",
            Kind::Command => "command",
        }
    }

    fn code(self) -> &'static [u8] {
        match self {
            Kind::Http => HELLO,
            Kind::Command => WORDS,
        }
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn report(what: &str, times: &mut [Duration], wall: Duration) {
    times.sort_unstable();
    let micros = |quantile: f64| {
        let index = ((times.len() - 1) as f64 * quantile) as usize;
        times[index].as_secs_f64() * 1e6
    };
    let rate = times.len() as f64 / wall.as_secs_f64();
    let (p50, p99, max) = (micros(0.5), micros(0.99), micros(1.0));
    println!("{what:28} p50 {p50:8.1} us   p99 {p99:8.1} us   max {max:9.1} us   {rate:9.0} /s");
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (mut what, mut calls, mut threads) = ("all".to_owned(), 20_000, None);
    while let Some(argument) = arguments.next() {
        let mut number = || -> anyhow::Result<usize> { Ok(arguments.next().context("a number is missing")?.parse()?) };
        match argument.as_str() {
            "--calls" => calls = number()?,
            "--threads" => threads = Some(number()?),
            "all" | "http" | "command" | "cold" | "load" => what = argument,
            other => bail!("unknown argument {other}"),
        }
    }
    let dir = tempfile::tempdir()?;
    let wasm = Arc::new(Wasm::new(&Config::new(dir.path()), Clock::system(), Random::system())?);
    let bench = Arc::new(Bench { wasm, clock: Clock::system(), calls });
    for kind in [Kind::Http, Kind::Command] {
        if what == "all" || what == kind.name() {
            for threads in threads.map_or_else(|| vec![1, 2], |threads| vec![threads]) {
                bench.warm(kind, threads)?;
            }
        }
        if what == "all" || what == "cold" {
            bench.cold(kind)?;
        }
        if what == "load" {
            bench.load(kind)?;
        }
    }
    Ok(())
}
