//! Measures the `js` runtime by itself: what a fresh instance, its call and its end cost, without HTTP or queues.
//!
//! ```text
//! cargo run --release -p lyra-isolation --example js_bench -- [SCENARIO|all|live] [--calls N] [--threads N] [--keep KIB]
//! ```
//!
//! Each thread has a runtime of its own and calls in a closed loop. Times are of one call; for a fresh instance,
//! its start and its end are included. `cold` loads an image that is not in memory for each call; `live` keeps
//! 500 instances and says what memory each takes.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use lyra_isolation::wasm::{Config, Wasm};
use lyra_isolation::{CallContext, Code, ImageKey, Isolation, LogSink, Sandbox, Template};
use lyra_kit::{Clock, Random};
use lyra_types::function::Digest;
use lyra_types::log::Level;
use lyra_types::{FunctionVersion, InstanceId, InvocationId, Runtime};
use sha2::Digest as _;

const ADD: &str = "async function add(a, b) { return a + b }";

struct Silent;

impl LogSink for Silent {
    fn line(&self, _level: Level, _message: &str) {}
}

/// A source of some 60 KB.
fn large() -> String {
    let mut source = String::from("const table = [];\n");
    for i in 0..400 {
        // Writing to a string can't fail.
        let _ = writeln!(
            source,
            "function helper{i}(x, y) {{ const t = {{ a: x + {i}, b: [y, x, {i}], s: `v${{x}}` }}; \
             if (t.a > y) {{ return t.b.map((z) => z * {i}).join(',') }} return t.s + y }}\ntable.push(helper{i});"
        );
    }
    source + "export default async ([a, b]) => { table[7](a, b); return a + b }"
}

fn code(source: &str) -> Code {
    let digest = Digest(hex::encode(sha2::Sha256::digest(source)));
    let key = ImageKey { runtime: Runtime::Js, digest, handler: None, memory_mb: 128, result: Default::default() };
    Code { key, bytes: Bytes::copy_from_slice(source.as_bytes()), reuse: false }
}

fn version(template: &dyn Template, key: &ImageKey) -> anyhow::Result<Arc<FunctionVersion>> {
    Ok(Arc::new(FunctionVersion {
        contract: template.contract(),
        memory_mb: key.memory_mb,
        timeout_ms: 10_000,
        concurrency: 1,
        max_instances: 1,
        max_attempts: 1,
        ..FunctionVersion::new("bench".parse()?, Runtime::Js, key.digest.clone())
    }))
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Fresh,
    Reused,
    Cold,
}

struct Bench {
    wasm: Wasm,
    clock: Clock,
    calls: usize,
}

/// A function that is deployed and loaded.
struct Function {
    key: ImageKey,
    template: Arc<dyn Template>,
    version: Arc<FunctionVersion>,
}

impl Bench {
    async fn deploy(&self, source: &str) -> anyhow::Result<Function> {
        let code = code(source);
        let begin = self.clock.instant();
        self.wasm.prepare(&code).await?;
        let took = self.clock.instant() - begin;
        let template = self.wasm.load(&code.key).await?.context("no image")?;
        println!(
            "deployed {} bytes in {:.1} ms; image {} bytes",
            source.len(),
            took.as_secs_f64() * 1e3,
            template.weight()
        );
        Ok(Function { version: version(&*template, &code.key)?, key: code.key, template })
    }

    async fn start(&self, function: &Function, template: &dyn Template) -> anyhow::Result<Box<dyn Sandbox>> {
        Ok(template.start(InstanceId::from_parts(1, 1), &function.version).await?)
    }

    async fn call(&self, function: &Function, sandbox: &mut dyn Sandbox) -> anyhow::Result<()> {
        let context = CallContext {
            invocation: InvocationId::from_parts(1, 1),
            version: Arc::clone(&function.version),
            deadline: self.clock.instant() + Duration::from_secs(10),
            deadline_ms: 0,
            logs: Arc::new(Silent),
            max_result: 6 << 20,
            cpu: Default::default(),
            trace: None,
        };
        let result = sandbox.call(context, Bytes::from_static(b"[2,3]")).await?;
        ensure!(&result[..] == b"5", "a wrong answer: {result:?}");
        Ok(())
    }

    async fn run(&self, kind: Kind, function: &Function) -> anyhow::Result<Vec<Duration>> {
        let mut times = Vec::with_capacity(self.calls);
        let mut kept = self.start(function, &*function.template).await?;
        for _ in 0..self.calls {
            let begin = self.clock.instant();
            match kind {
                Kind::Reused => self.call(function, &mut *kept).await?,
                Kind::Fresh => {
                    let mut sandbox = self.start(function, &*function.template).await?;
                    self.call(function, &mut *sandbox).await?;
                }
                Kind::Cold => {
                    let template = self.wasm.load(&function.key).await?.context("no image")?;
                    let mut sandbox = self.start(function, &*template).await?;
                    self.call(function, &mut *sandbox).await?;
                }
            }
            times.push(self.clock.instant() - begin);
        }
        Ok(times)
    }

    fn measure(
        self: &Arc<Bench>,
        name: &str,
        kind: Kind,
        function: &Arc<Function>,
        threads: usize,
    ) -> anyhow::Result<()> {
        let begin = self.clock.instant();
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                let (bench, function) = (Arc::clone(self), Arc::clone(function));
                std::thread::spawn(move || runtime()?.block_on(bench.run(kind, &function)))
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
        report(&format!("{name}, {number} thread(s)"), &mut times, self.clock.instant() - begin);
        Ok(())
    }

    /// Memory of instances that have served a call and are kept.
    async fn live(&self, function: &Function) -> anyhow::Result<()> {
        let mut kept = Vec::new();
        let mut before = 0;
        for i in 0..=500 {
            let mut sandbox = self.start(function, &*function.template).await?;
            self.call(function, &mut *sandbox).await?;
            kept.push(sandbox);
            if i == 0 {
                before = resident()?;
            }
        }
        println!("{} KiB for each live instance ({before} KiB with one)", (resident()? - before) / 500);
        Ok(())
    }
}

fn resident() -> anyhow::Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("no number")?.parse()?)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn report(what: &str, times: &mut [Duration], wall: Duration) {
    times.sort_unstable();
    let micros = |quantile: f64| times[((times.len() - 1) as f64 * quantile) as usize].as_secs_f64() * 1e6;
    let rate = times.len() as f64 / wall.as_secs_f64();
    let (p50, p99, max) = (micros(0.5), micros(0.99), micros(1.0));
    println!("{what:28} p50 {p50:8.1} us   p99 {p99:8.1} us   max {max:9.1} us   {rate:9.0} /s");
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (mut what, mut calls, mut threads, mut keep) = ("all".to_owned(), 20_000, None, None);
    while let Some(argument) = arguments.next() {
        let mut number = || -> anyhow::Result<usize> { Ok(arguments.next().context("a number is missing")?.parse()?) };
        match argument.as_str() {
            "--calls" => calls = number()?,
            "--threads" => threads = Some(number()?),
            "--keep" => keep = Some(number()? << 10),
            _ => what = argument,
        }
    }
    let dir = tempfile::tempdir()?;
    let clock = Clock::system();
    let begin = clock.instant();
    let mut config = Config::new(dir.path());
    config.keep_resident = keep.unwrap_or(config.keep_resident);
    let wasm = Wasm::new(&config, clock.clone(), Random::system())?;
    println!("back end made in {:.2} ms", (clock.instant() - begin).as_secs_f64() * 1e3);
    let bench = Arc::new(Bench { wasm, clock, calls });
    let deploy = |source: &str| anyhow::Ok(Arc::new(runtime()?.block_on(bench.deploy(source))?));
    let add = deploy(ADD)?;
    if what == "live" {
        return runtime()?.block_on(bench.live(&add));
    }
    // The places of a pool remember what they held: the small function comes first, and again after the large one.
    if what == "all" {
        bench.measure("fresh, clean places", Kind::Fresh, &add, 1)?;
    }
    let large = deploy(&large())?;
    let scenarios = [
        ("fresh", Kind::Fresh, &add),
        ("reused", Kind::Reused, &add),
        ("fresh-large", Kind::Fresh, &large),
        ("reused-large", Kind::Reused, &large),
        ("cold", Kind::Cold, &add),
        ("cold-large", Kind::Cold, &large),
    ];
    for (name, kind, function) in scenarios.into_iter().filter(|scenario| what == "all" || what == scenario.0) {
        for threads in threads.map_or_else(|| vec![1, 2], |threads| vec![threads]) {
            bench.measure(name, kind, function, threads)?;
        }
    }
    Ok(())
}
