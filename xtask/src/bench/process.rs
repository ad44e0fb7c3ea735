//! A server under test: a process of its own, its memory, its processor time, its end.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use lyra_kit::Clock;
use lyra_kit::clock::block_for;

/// How long a server may take to start.
const START: Duration = Duration::from_secs(60);
/// How long it may take to stop before it is killed.
const STOP: Duration = Duration::from_secs(30);

/// A running server. Killed when dropped.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// From before the process was made until it said, or showed, that it serves.
    pub ready_after: Duration,
}

/// Memory of a process and its children, in MB (10^6 bytes).
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Resident set.
    pub rss_mb: f64,
    /// Proportional set: pages that are shared count by their share.
    pub pss_mb: f64,
}

impl Server {
    /// Starts `command` and waits until it prints a line that begins with `ready`.
    ///
    /// # Errors
    /// When it ends, or a minute passes, before that.
    pub fn start_and_read(
        mut command: Command,
        address: SocketAddr,
        ready: &str,
        log: &Path,
    ) -> anyhow::Result<Server> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(log)?);
        let began = Clock::system().instant();
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let mut server = Server { child, address, ready_after: Duration::ZERO };
        let (found, seen) = std::sync::mpsc::channel();
        let ready = ready.to_owned();
        std::thread::spawn(move || {
            // Reads to the end, so that the server never waits for a reader.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.starts_with(&ready) {
                    let _ = found.send(began.elapsed());
                }
            }
        });
        server.ready_after = seen
            .recv_timeout(START)
            .ok()
            .with_context(|| format!("{command:?} does not get ready: {}", last_lines(log)))?;
        Ok(server)
    }

    /// Starts `command` and waits until its port takes connections.
    ///
    /// # Errors
    /// When it ends, or a minute passes, before that.
    pub fn start_and_connect(mut command: Command, address: SocketAddr, log: &Path) -> anyhow::Result<Server> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(log)?);
        let began = Clock::system().instant();
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        let mut server = Server { child, address, ready_after: Duration::ZERO };
        while TcpStream::connect(address).is_err() {
            let ended = server.child.try_wait()?;
            anyhow::ensure!(ended.is_none(), "{command:?} ended before it was ready: {}", last_lines(log));
            anyhow::ensure!(began.elapsed() < START, "{command:?} takes no connection: {}", last_lines(log));
            block_for(Duration::from_micros(500));
        }
        server.ready_after = began.elapsed();
        Ok(server)
    }

    /// Memory now, of the whole tree.
    ///
    /// # Errors
    /// When `/proc` can't be read.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        memory_of(&self.tree())
    }

    /// Memory of the process itself, without its children.
    ///
    /// # Errors
    /// When `/proc` can't be read.
    pub fn own_memory(&self) -> anyhow::Result<Memory> {
        memory_of(&[self.child.id()])
    }

    /// Processor time that the process and its children have used so far, to 10 ms.
    ///
    /// # Errors
    /// When `/proc` can't be read.
    pub fn processor_time(&self) -> anyhow::Result<Duration> {
        processor_time_of(&self.tree())
    }

    /// As [`Server::processor_time`], without the children.
    ///
    /// # Errors
    /// When `/proc` can't be read.
    pub fn own_processor_time(&self) -> anyhow::Result<Duration> {
        processor_time_of(&[self.child.id()])
    }

    /// Asks it to end and waits for that.
    ///
    /// # Errors
    /// When it has to be killed.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().context("kill")?;
        let began = Clock::system().instant();
        while self.child.try_wait()?.is_none() {
            anyhow::ensure!(began.elapsed() < STOP, "process {pid} does not end");
            block_for(Duration::from_millis(2));
        }
        Ok(())
    }

    fn tree(&self) -> Vec<u32> {
        let mut pids = vec![self.child.id()];
        let mut at = 0;
        while let Some(pid) = pids.get(at) {
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            let children: Vec<u32> = tasks
                .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
                .flat_map(|line| line.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
                .collect();
            pids.extend(children);
            at += 1;
        }
        pids
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn processor_time_of(pids: &[u32]) -> anyhow::Result<Duration> {
    let mut ticks = 0u64;
    for pid in pids {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // The second field is a name in brackets, which may hold anything.
        let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        ticks += fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    }
    // USER_HZ is 100 on every Linux that Rust runs on.
    Ok(Duration::from_millis(ticks * 10))
}

fn memory_of(pids: &[u32]) -> anyhow::Result<Memory> {
    // One that has ended since it was listed, or waits for its parent to notice, holds nothing.
    let of = |pid: &u32| {
        let rss = kilobytes(&format!("/proc/{pid}/status"), "VmRSS:")?;
        Some((rss, kilobytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:")?))
    };
    let held: Vec<(u64, u64)> = pids.iter().filter_map(of).collect();
    anyhow::ensure!(!held.is_empty(), "none of the server's processes is there");
    let mb = |kib: u64| kib as f64 * 1_024.0 / 1e6;
    Ok(Memory { rss_mb: mb(held.iter().map(|held| held.0).sum()), pss_mb: mb(held.iter().map(|held| held.1).sum()) })
}

fn kilobytes(path: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}

/// An address of this machine that nothing listens on.
///
/// # Errors
/// When there is none.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
