//! The launcher and what is shut in its sandboxes, with the real kernel: as root, on a machine with Python.

mod ends;
mod escapes;
mod lasting;
mod limits;
mod running;

use std::path::{Path, PathBuf};
use std::time::Duration;

use lyra_isolation::process::launch::{Config, Exit, Launcher, Plan, Process, Program};
use lyra_types::InstanceId;
use tokio::io::AsyncReadExt;

/// Longer than anything takes that works, on the slowest machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const PYTHON: &str = "/usr/bin/python3";

/// A launcher with a directory of its own.
pub struct Bench {
    pub launcher: Launcher,
    pub directory: tempfile::TempDir,
}

pub fn config(directory: &Path) -> Config {
    let helper = vec![env!("CARGO_BIN_EXE_lyra-sandbox").into()];
    Config { helper, patience: PATIENCE, ..Config::new(directory) }
}

impl Bench {
    pub async fn start() -> Bench {
        Bench::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Bench {
        assert!(Path::new(PYTHON).exists(), "{PYTHON} is missing: apt-get install python3");
        let directory = tempfile::tempdir().expect("a directory");
        let mut config = config(directory.path());
        change(&mut config);
        let launcher = Launcher::start(config).await.expect("the launcher starts: these tests need root");
        Bench { launcher, directory }
    }

    pub async fn spawn(&self, plan: Plan) -> Process {
        self.launcher.spawn(plan).await.expect("it starts")
    }

    /// Runs a plan to its end.
    pub async fn run(&self, plan: Plan) -> Outcome {
        finish(self.spawn(plan).await).await
    }

    /// Ends everything and shows that nothing is left.
    pub async fn finish(self) {
        assert!(self.launcher.stop(PATIENCE).await, "the launcher has cleared up");
        assert_eq!(groups_of(self.directory.path()), Vec::<PathBuf>::new());
    }
}

/// What came of a sandbox.
#[derive(Debug)]
pub struct Outcome {
    pub exit: Exit,
    pub stdout: String,
    pub stderr: String,
}

/// Reads all that a program writes, and waits for its end.
pub async fn finish(mut process: Process) -> Outcome {
    let (mut stdout, mut stderr) = (process.stdout.take().expect("untaken"), process.stderr.take().expect("untaken"));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let all = async {
        let (one, two) = tokio::join!(stdout.read_to_end(&mut out), stderr.read_to_end(&mut err));
        one.expect("stdout");
        two.expect("stderr");
        process.wait().await
    };
    let exit = tokio::time::timeout(PATIENCE, all).await.expect("the sandbox ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Outcome { exit, stdout: text(&out), stderr: text(&err) }
}

pub fn id() -> InstanceId {
    InstanceId::from_parts(1, lyra_kit::Random::system().u128())
}

pub fn exec(words: &[&str]) -> Plan {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    Plan::new(id(), words)
}

pub fn shell(script: &str) -> Plan {
    exec(&["/bin/sh", "-c", script])
}

/// A Python program, started afresh.
pub fn python(script: &str) -> Plan {
    exec(&[PYTHON, "-I", "-S", "-c", script])
}

/// The same in a fork of an interpreter.
pub fn forked(script: &str) -> Plan {
    let program = Program::Python {
        interpreter: PYTHON.into(),
        preload: vec!["json".to_owned(), "socket".to_owned()],
        script: script.to_owned(),
        arguments: Vec::new(),
    };
    Plan::new(id(), program)
}

/// Cgroups below the directory of a Lyra, in all trees.
pub fn groups_of(directory: &Path) -> Vec<PathBuf> {
    use sha2::Digest as _;
    use std::os::unix::ffi::OsStrExt;
    let digest = sha2::Sha256::digest(directory.canonicalize().expect("it is there").as_os_str().as_bytes());
    let name = format!("lyra-{}", hex::encode(&digest[..6]));
    let mut found = Vec::new();
    let mut next = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(place) = next.pop() {
        let Ok(entries) = std::fs::read_dir(&place) else { continue };
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            if entry.file_name() == name.as_str() {
                found.push(entry.path());
            } else {
                next.push(entry.path());
            }
        }
    }
    found
}

/// Processes of the machine whose command line holds a text.
pub fn processes_with(text: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            *pid != std::process::id() && String::from_utf8_lossy(&line).contains(text)
        })
        .collect()
}
