//! What session servers and attached programs cost: `many_instances [INSTANCES] [SECONDS]`.
//!
//! Starts so many session servers, each on a Unix socket of its own, and as many programs with the library in a process apart; opens a session
//! in each, waits, and prints how long opens took and what the servers' process used of memory and processor while nothing happened.
#![expect(clippy::disallowed_methods, reason = "a measurement of its own, outside of Lyra")]
#![expect(clippy::print_stdout, reason = "it prints what it measured")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lyra_kit::Clock;
use lyra_session::{Open, SessionHandle, SessionServer, Settings};
use lyra_session_sdk::{Address, Event, Lyra};

const PROGRAMS: &str = "--programs";
const LIMIT: Duration = Duration::from_secs(60);

fn socket(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("{number}.sock"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, folder, count] = arguments.as_slice()
        && first == PROGRAMS
    {
        return programs(Path::new(folder), count.parse()?).await;
    }
    let number = |at: usize, usual| arguments.get(at).map_or(Ok(usual), |text| text.parse());
    let (count, seconds) = (number(0, 1_000)?, number(1, 30)?);
    let folder = tempfile::tempdir()?;
    let empty = usage()?;
    let mut handles = Vec::new();
    for number in 0..count {
        let listener = tokio::net::UnixListener::bind(socket(folder.path(), number))?;
        handles.push(SessionServer::start(lyra_session::unix(listener), Settings::default(), Clock::system()));
    }
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(PROGRAMS).arg(folder.path()).arg(count.to_string()).stdin(Stdio::null());
    let mut child = command.spawn()?;
    for handle in &handles {
        handle.attached().wait_for(Option::is_some).await?;
    }
    let attached = usage()?;
    tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
    let idle = usage()?;
    let mut opens = Vec::new();
    for (number, handle) in handles.iter().enumerate() {
        opens.push(open(handle, number).await?);
    }
    let began = Instant::now();
    let closing: Vec<_> = handles.iter().map(|handle| handle.close(LIMIT)).collect();
    for close in closing {
        close.await;
    }
    let closed = began.elapsed();
    child.kill()?;
    child.wait()?;
    opens.sort();
    let percentile = |percent: usize| opens[(opens.len() - 1) * percent / 100].as_micros();
    println!("instances attached: {count}");
    println!("memory for each: {} KiB", (attached.memory_kb.saturating_sub(empty.memory_kb)) / count as u64);
    println!("processor while idle: {:.2} % of one", (idle.ticks - attached.ticks) as f64 / seconds as f64);
    println!("open to ready, one after the other: p50 {} us, p99 {} us", percentile(50), percentile(99));
    println!("close of all: {} us each", closed.as_micros() / count as u128);
    Ok(())
}

async fn open(handle: &SessionHandle, number: usize) -> Result<Duration, lyra_types::Error> {
    let open = Open {
        id: number.to_string().into(),
        name: "s".to_owned(),
        tenant: "t".to_owned(),
        application: "a".to_owned(),
        application_version: 1,
        data: bytes::Bytes::from_static(b"data"),
    };
    let began = Instant::now();
    handle.open(open, LIMIT).await?;
    Ok(began.elapsed())
}

async fn programs(folder: &Path, count: usize) -> Result<(), Box<dyn std::error::Error>> {
    let mut running = tokio::task::JoinSet::new();
    for number in 0..count {
        let mut lyra = Lyra::at(Address::Unix(socket(folder, number)));
        running.spawn(async move {
            while let Some(event) = lyra.next().await {
                match event {
                    Event::Open(session) => session.ready(),
                    Event::Close(close) => close.session.closed().await,
                    Event::Configuration(_) => {}
                }
            }
        });
    }
    running.join_all().await;
    Ok(())
}

struct Usage {
    memory_kb: u64,
    /// Processor time, in hundredths of a second.
    ticks: u64,
}

fn usage() -> Result<Usage, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let memory_kb = line.trim().trim_end_matches(" kB").parse()?;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    Ok(Usage { memory_kb, ticks: fields[11].parse::<u64>()? + fields[12].parse::<u64>()? })
}
