//! How long a sandboxed process takes from the request to the first byte that its program writes.
//!
//! `cargo run --release -p lyra-isolation --example launch_bench -- [ROUNDS]`, as root, on a machine with Python.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, reason = "a program to measure with")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use lyra_isolation::process::launch::{Config, Launcher, Plan, Program, serve};
use lyra_types::InstanceId;
use tokio::io::AsyncReadExt;

/// Between one start and the next.
const PAUSE: Duration = Duration::from_millis(50);

const PYTHON: &str = "/usr/bin/python3";

fn main() -> ExitCode {
    let argument = std::env::args().nth(1).unwrap_or_default();
    if argument == "launcher" {
        return serve();
    }
    let rounds = argument.parse().unwrap_or(300);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(measure(rounds));
    ExitCode::SUCCESS
}

async fn measure(rounds: u64) {
    let directory = tempfile::tempdir().unwrap();
    let helper = vec!["/proc/self/exe".into(), "launcher".into()];
    let launcher = Launcher::start(Config { helper, ..Config::new(directory.path()) }).await.unwrap();
    println!("{:?}", launcher.abilities());
    let words = |words: &[&str]| Program::Exec(words.iter().map(|word| (*word).to_owned()).collect());
    let preload = ["json", "socket", "http.client", "asyncio"].map(str::to_owned).to_vec();
    let forked = Program::Python {
        interpreter: PYTHON.into(),
        preload: preload.clone(),
        script: "import os\nos.write(1, b'x')".to_owned(),
        arguments: Vec::new(),
    };
    launcher.warm(PYTHON.as_ref(), &preload).await.unwrap();
    for (name, program) in [
        ("echo", words(&["/bin/echo", "x"])),
        ("python3 -I -S", words(&[PYTHON, "-I", "-S", "-c", "import os\nos.write(1, b'x')"])),
        ("forked Python", forked),
    ] {
        let bare = match &program {
            Program::Exec(words) => Some(bare(words, rounds).await),
            Program::Python { .. } => None,
        };
        let mut times = Vec::new();
        for round in 0..rounds {
            let plan = Plan::new(InstanceId::from_parts(round, u128::from(std::process::id())), program.clone());
            let start = Instant::now();
            let mut process = launcher.spawn(plan).await.unwrap();
            process.stdout.take().unwrap().read_exact(&mut [0]).await.unwrap();
            times.push(start.elapsed());
            process.wait().await;
            // Cold starts come now and then: the launcher has time to make the next ones ahead.
            tokio::time::sleep(PAUSE).await;
        }
        println!("{name:16} sandboxed {}", quantiles(&mut times));
        if let Some(bare) = bare {
            println!("{name:16} bare      {bare}");
        }
    }
    launcher.stop(Duration::from_secs(10)).await;
}

/// The same program without any sandbox, started by tokio.
async fn bare(words: &[String], rounds: u64) -> String {
    let mut times = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        let mut command = tokio::process::Command::new(&words[0]);
        let mut child = command.args(&words[1..]).stdout(std::process::Stdio::piped()).spawn().unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0]).await.unwrap();
        times.push(start.elapsed());
        child.wait().await.unwrap();
    }
    quantiles(&mut times)
}

fn quantiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    format!("p50 {:8.2?}  p99 {:8.2?}", at(0.5), at(0.99))
}
