//! What sessions of the process back end cost: starting one, exposing its ports, and the way through the porter.
//!
//! `cargo run --release -p lyra-isolation --example session_bench -- [ROUNDS]`, as root, on a machine with Python.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, reason = "a program to measure with")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lyra_isolation::process::{Config, Processes, launch};
use lyra_isolation::{Code, Grant, Hosted, Hosting, ImageKey, Isolation, Port, Protocol, Template};
use lyra_kit::Ids;
use lyra_types::function::Digest;
use lyra_types::{FunctionVersion, Runtime};
use sha2::Digest as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PROGRAM: &str = r#"#!/usr/bin/python3 -ISB
import os, socket, _thread
door = socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=1024)
def serve(one):
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := one.recv(1 << 20): one.sendall(data)
_thread.stack_size(128 << 10)
while True: _thread.start_new_thread(serve, (door.accept()[0],))
"#;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Connections that are held idle.
const IDLE: usize = 1000;

fn main() -> ExitCode {
    let argument = std::env::args().nth(1).unwrap_or_default();
    if argument == "launcher" {
        return launch::serve();
    }
    let rounds = argument.parse().unwrap_or(200);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(measure(rounds));
    ExitCode::SUCCESS
}

async fn measure(rounds: usize) {
    let dir = tempfile::tempdir().unwrap();
    let launcher = launch::Config {
        helper: vec!["/proc/self/exe".into(), "launcher".into()],
        ..launch::Config::new(dir.path().join("launch"))
    };
    let mut config = Config::new(dir.path().join("process"), launcher);
    (config.settings.cells, config.settings.pids, config.settings.open_files) = (0, 4000, 4000);
    config.settings.session_connections = 4000;
    let processes = Processes::start(config, Ids::default()).await.unwrap();
    let digest = Digest(hex::encode(sha2::Sha256::digest(PROGRAM)));
    let key = ImageKey { runtime: Runtime::Http, digest, handler: None, memory_mb: 512, result: Default::default() };
    let code = Code { key, bytes: Bytes::from(PROGRAM), reuse: true };
    processes.prepare(&code).await.unwrap();
    let template = processes.load(&code.key).await.unwrap().unwrap();
    let version = FunctionVersion {
        memory_mb: 512,
        ..FunctionVersion::new("game".parse().unwrap(), Runtime::Http, code.key.digest.clone())
    };
    let version = Arc::new(version);
    starts(&*template, &version, rounds).await;
    let hosted = host(&*template, &version).await;
    let address = hosted.expose(LOCAL, 20_000..=29_999).await.unwrap()[0].address;
    drop(answered(address).await);
    for (name, mut stream) in
        [("direct", hosted.connect(7000).await.unwrap()), ("porter", TcpStream::connect(address).await.unwrap())]
    {
        round_trips(name, &mut stream, rounds * 10).await;
        throughput(name, stream).await;
    }
    let porter = porter();
    let before = memory_kib(porter);
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(answered(address).await);
    }
    let used = processor_ms(porter);
    tokio::time::sleep(Duration::from_secs(5)).await;
    println!(
        "porter: {before} KiB of its own; {} bytes more for each of {IDLE} idle connections; {} ms of processor in 5 s idle",
        (memory_kib(porter) - before) * 1024 / IDLE,
        processor_ms(porter) - used,
    );
    drop((idle, hosted));
    processes.launcher().stop(Duration::from_secs(10)).await;
}

async fn host(template: &dyn Template, version: &Arc<FunctionVersion>) -> Box<dyn Hosted> {
    let hosting = Hosting {
        ports: vec![Port { name: "game".into(), port: 7000, protocol: Protocol::Tcp }],
        service: true,
        lasting: true,
        files: [("session.json".to_owned(), Bytes::from("{}"))].into(),
        ..Hosting::default()
    };
    template.host(Ids::default().instance(), version, &Grant::default(), hosting).await.unwrap()
}

/// A connection over which a byte has gone both ways; tries until the program listens.
async fn answered(address: SocketAddr) -> TcpStream {
    loop {
        if let Ok(mut stream) = TcpStream::connect(address).await
            && stream.write_all(b"x").await.is_ok()
            && stream.read_exact(&mut [0]).await.is_ok()
        {
            return stream;
        }
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
}

async fn starts(template: &dyn Template, version: &Arc<FunctionVersion>, rounds: usize) {
    let (mut hosts, mut exposes, mut firsts, mut colds) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let start = Instant::now();
        let hosted = host(template, version).await;
        hosts.push(start.elapsed());
        let exposing = Instant::now();
        let address = hosted.expose(LOCAL, 20_000..=29_999).await.unwrap()[0].address;
        exposes.push(exposing.elapsed());
        drop(answered(address).await);
        colds.push(start.elapsed());
        // As the opening of a session that finds an instance ready.
        hosted.hide().await.unwrap();
        let opening = Instant::now();
        let address = hosted.expose(LOCAL, 20_000..=29_999).await.unwrap()[0].address;
        drop(answered(address).await);
        firsts.push(opening.elapsed());
        hosted.kill();
        hosted.wait().await;
        // The launcher has time to make the next ones ahead.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    show("host", hosts);
    show("expose", exposes);
    show("expose to the first byte back", firsts);
    show("host to the first byte back", colds);
}

async fn round_trips(name: &str, stream: &mut TcpStream, rounds: usize) {
    stream.set_nodelay(true).unwrap();
    let mut times = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        stream.write_all(b"ping").await.unwrap();
        stream.read_exact(&mut [0; 4]).await.unwrap();
        times.push(start.elapsed());
    }
    show(&format!("round trip, {name}"), times);
}

async fn throughput(name: &str, stream: TcpStream) {
    const BYTES: usize = 512 << 20;
    let (mut from, mut to) = stream.into_split();
    let start = Instant::now();
    let send = lyra_kit::tasks::spawn("send", async move {
        let chunk = vec![0; 1 << 20];
        for _ in 0..BYTES >> 20 {
            to.write_all(&chunk).await.unwrap();
        }
        to
    });
    let mut left = BYTES;
    let mut buffer = vec![0; 1 << 20];
    while left > 0 {
        left -= from.read(&mut buffer).await.unwrap();
    }
    drop(send.await);
    println!("echoed, {name}: {:.0} MiB/s each way", BYTES as f64 / f64::from(1 << 20) / start.elapsed().as_secs_f64());
}

fn show(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    println!("{name}: p50 {:?}, p99 {:?}, of {}", at(50), at(99), times.len());
}

/// The porter of this program's launcher.
fn porter() -> u32 {
    let children = |pid: u32| -> Vec<u32> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    };
    let is_porter =
        |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "lyra-porter");
    let all = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let own = std::process::id();
    let threads = all.filter_map(|task| task.file_name().to_str()?.parse::<u32>().ok());
    let launchers = threads.flat_map(|task| {
        let text = std::fs::read_to_string(format!("/proc/{own}/task/{task}/children")).unwrap_or_default();
        text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
    });
    launchers.flat_map(children).find(is_porter).unwrap()
}

/// Memory that nobody shares with a process.
fn memory_kib(pid: u32) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let fields = text.lines().filter(|line| line.starts_with("Private_"));
    fields.filter_map(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok()).sum()
}

fn processor_ms(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<u64> =
        stat.rsplit_once(')').unwrap().1.split_whitespace().skip(11).take(2).map(|f| f.parse().unwrap()).collect();
    fields.iter().sum::<u64>() * 10
}
