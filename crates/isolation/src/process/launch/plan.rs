//! What a sandbox shall be: its program, what it sees of the machine, and what it may use.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lyra_types::secret::is_secret_file;
use lyra_types::{InstanceId, Secret, SecretBytes};
use serde::{Deserialize, Serialize};

use super::error::LaunchError;

/// Least memory of a sandbox, in bytes: below it, even a small program can't be started.
pub const MIN_MEMORY: u64 = 4 << 20;

/// Most mounts, mount points, devices or ports of one sandbox, each.
pub const MAX_ENTRIES: usize = 64;

/// Most ports that are listened on from the start: each is a descriptor in the answer.
const MAX_LISTENERS: usize = 16;

/// A sandbox to be started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Names the sandbox and its cgroup.
    pub id: InstanceId,
    /// What runs in it.
    pub program: Program,
    /// The whole environment of the program.
    pub env: Vec<(String, String)>,
    /// Where it starts, inside of the sandbox.
    pub cwd: PathBuf,
    /// What it sees of the machine's files. Mounted in this order.
    pub binds: Vec<Bind>,
    /// Empty directories to be made, as targets for later binds.
    pub mount_points: Vec<PathBuf>,
    /// Size of its private `/tmp`, in bytes. Counts as its memory, as far as it is filled.
    pub tmp_bytes: u64,
    /// What it may use.
    pub limits: Limits,
    /// Device nodes beside `null`, `zero`, `full`, `random` and `urandom`; GPUs for example.
    pub devices: Vec<Device>,
    /// TCP ports (0: any) on 127.0.0.1 of the sandbox's own network to listen on; 16 at most. The sockets come back.
    pub listen: Vec<u16>,
    /// Files with secrets, in a memory file system of its own that only it sees.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretFile>,
    /// It goes on when Lyra's process has ended, for the next one to take over.
    pub lasting: Option<Lasting>,
}

/// What is known of a sandbox that outlives Lyra's process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lasting {
    /// By which the next Lyra knows it again; [`MAX_LABEL`] bytes at most.
    pub label: String,
    /// Time between `SIGTERM` and `SIGKILL` when it is ended because nobody has taken it over.
    pub kill_grace: Duration,
}

/// Longest label of a lasting sandbox, in bytes.
pub const MAX_LABEL: usize = 48 << 10;

impl Plan {
    /// A plan with the system's files, a `/tmp` of 64 MiB, the standard limits, and nothing else.
    pub fn new(id: InstanceId, program: impl Into<Program>) -> Plan {
        Plan {
            id,
            program: program.into(),
            env: Vec::new(),
            cwd: PathBuf::from("/tmp"),
            binds: Bind::system(),
            mount_points: Vec::new(),
            tmp_bytes: 64 << 20,
            limits: Limits::default(),
            devices: Vec::new(),
            listen: Vec::new(),
            secrets: Vec::new(),
            lasting: None,
        }
    }

    /// Refuses what can't be meant, before anything is done.
    pub(super) fn validate(&self) -> Result<(), LaunchError> {
        let invalid = |what: &str| Err(LaunchError::InvalidPlan(what.to_owned()));
        match &self.program {
            Program::Exec(words) => match words.first() {
                Some(program) if program.starts_with('/') => {}
                _ => return invalid("the program must be an absolute path"),
            },
            Program::Python { interpreter, .. } if !interpreter.is_absolute() => {
                return invalid("the interpreter must be an absolute path");
            }
            Program::Python { .. } => {}
        }
        if self.strings().any(|text| text.contains('\0')) {
            return invalid("an argument or a variable holds a zero byte");
        }
        if self.env.iter().any(|(name, _)| name.is_empty() || name.contains('=')) {
            return invalid("the name of a variable is empty or holds '='");
        }
        let longest = self.binds.len().max(self.mount_points.len()).max(self.devices.len());
        if longest > MAX_ENTRIES || self.listen.len() > MAX_LISTENERS {
            return invalid("too many binds, mount points, devices or ports");
        }
        if !self.targets().all(is_plain) || !self.binds.iter().all(|bind| bind.source.is_absolute()) {
            return invalid("paths must be absolute, and those in the sandbox without '..'");
        }
        if self.binds.iter().any(|bind| bind.target.parent().is_none()) {
            return invalid("the root of a sandbox can't be replaced");
        }
        if !self
            .devices
            .iter()
            .all(|device| device.target.starts_with("/dev") && is_plain(&device.target) && is_plain(&device.source))
        {
            return invalid("devices must lie below /dev, and their paths be absolute and without '..'");
        }
        if let Some(lasting) = &self.lasting {
            if lasting.label.len() > MAX_LABEL {
                return invalid("the label is too long");
            }
            if matches!(self.program, Program::Python { .. }) {
                return invalid("a fork of an interpreter can't be lasting");
            }
        }
        if self.secrets.len() > MAX_ENTRIES || !self.secrets.iter().all(|file| is_secret_file(&file.name)) {
            return invalid("the files with secrets are too many, or one has a name that is none");
        }
        if self.limits.memory_bytes < MIN_MEMORY || self.limits.cpu_millis == 0 || self.limits.pids < 2 {
            return invalid("a sandbox needs 4 MiB of memory, a share of a processor and two processes");
        }
        Ok(())
    }

    fn strings(&self) -> impl Iterator<Item = &str> {
        let words: &[String] = match &self.program {
            Program::Exec(words) | Program::Python { arguments: words, .. } => words,
        };
        let variables = self.env.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        words.iter().map(String::as_str).chain(variables)
    }

    fn targets(&self) -> impl Iterator<Item = &Path> {
        let binds = self.binds.iter().map(|bind| bind.target.as_path());
        binds.chain(self.mount_points.iter().map(PathBuf::as_path)).chain([self.cwd.as_path()])
    }
}

/// Whether a path is absolute and names what it seems to name.
pub(super) fn is_plain(path: &Path) -> bool {
    path.is_absolute()
        && path.as_os_str().len() < 4096
        && !path.as_os_str().as_encoded_bytes().contains(&0)
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

/// A file with a secret, in [`lyra_types::secret::SECRETS_DIRECTORY`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SecretFile {
    /// Its name in the directory.
    pub name: String,
    /// What it holds, in base64: messages to the launcher are texts, and short.
    contents: Secret,
}

impl SecretFile {
    /// A file of that name.
    pub fn new(name: &str, contents: &SecretBytes) -> SecretFile {
        SecretFile { name: name.to_owned(), contents: Secret::new(STANDARD.encode(contents.reveal())) }
    }

    /// What it holds; nothing where that can't be read.
    pub(super) fn contents(&self) -> SecretBytes {
        SecretBytes::new(STANDARD.decode(self.contents.reveal()).unwrap_or_default())
    }
}

/// What runs in a sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Program {
    /// A program, started afresh: its absolute path inside of the sandbox, then its arguments.
    Exec(Vec<String>),
    /// A Python script in a fork of an interpreter that is already up, which is several times faster than starting one.
    /// It is as much locked in as any other program, before a line of the script runs.
    ///
    /// What forks of one interpreter share: the layout of their address space and the seed of `hash`.
    Python {
        /// Absolute path of the interpreter (3.9 or newer), outside as well as inside of the sandbox.
        interpreter: PathBuf,
        /// Modules of the standard library to be imported before the fork.
        preload: Vec<String>,
        /// Source text of Lyra's own to be run as `__main__`; compiled once. User code is for the script to load.
        script: String,
        /// `sys.argv[1:]`
        arguments: Vec<String>,
    },
}

impl From<Vec<String>> for Program {
    fn from(words: Vec<String>) -> Program {
        Program::Exec(words)
    }
}

/// Something of the machine's file system that is seen in a sandbox, with all that is mounted below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Absolute path of a directory or file outside. Where it equals `target` and is a relative symbolic link
    /// (`/lib` to `usr/lib`), the link is made anew.
    pub source: PathBuf,
    /// Absolute path inside; it and the directories above it are made where they are missing.
    pub target: PathBuf,
    /// Whether the sandbox may write to it.
    pub writable: bool,
}

impl Bind {
    /// Shows a file or a directory, read-only.
    pub fn new(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Bind {
        Bind { source: source.into(), target: target.into(), writable: false }
    }

    /// The same place inside as outside.
    pub fn same(path: impl Into<PathBuf>) -> Bind {
        let path = path.into();
        Bind::new(path.clone(), path)
    }

    /// What a dynamically linked program of this machine needs: libraries, programs, certificates, the time zone. Names of
    /// users and hosts in `/etc` are the sandbox's own. What a machine does not have is left out.
    pub fn system() -> Vec<Bind> {
        const PATHS: [&str; 11] = [
            "/usr",
            "/bin",
            "/sbin",
            "/lib",
            "/lib32",
            "/lib64",
            "/etc/ld.so.cache",
            "/etc/alternatives",
            "/etc/ssl",
            "/etc/localtime",
            "/etc/mime.types",
        ];
        PATHS.iter().filter(|path| Path::new(path).exists()).map(Bind::same).collect()
    }
}

/// A device node that a sandbox may read and write, as far as the node's mode lets everybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Absolute path of a character device outside.
    pub source: PathBuf,
    /// Absolute path inside, below `/dev`.
    pub target: PathBuf,
}

impl Device {
    /// The same place inside as outside.
    pub fn same(path: impl Into<PathBuf>) -> Device {
        let path = path.into();
        Device { source: path.clone(), target: path }
    }
}

/// What a sandbox may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory, of all its processes and its `/tmp` together.
    pub memory_bytes: u64,
    /// Thousandths of a processor.
    pub cpu_millis: u32,
    /// Processes and threads, Lyra's own first process of the sandbox included.
    pub pids: u32,
    /// Open files of each process.
    pub open_files: u64,
    /// Bytes of the largest file that it may write.
    pub file_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { memory_bytes: 128 << 20, cpu_millis: 1000, pids: 128, open_files: 1024, file_bytes: 512 << 20 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan::new(InstanceId::from_parts(1, 1), vec!["/bin/true".to_owned()])
    }

    fn refused(change: impl FnOnce(&mut Plan)) -> bool {
        let mut plan = plan();
        change(&mut plan);
        matches!(plan.validate(), Err(LaunchError::InvalidPlan(_)))
    }

    #[test]
    fn a_plan_shows_nothing_of_its_secret_files() {
        let file = SecretFile::new("tls.key", &SecretBytes::new(vec![1, 0, 0xff]));
        assert_eq!(file.contents().reveal(), [1, 0, 0xff]);
        let shown = format!("{file:?}");
        assert!(shown.contains("tls.key") && !shown.contains(&STANDARD.encode([1, 0, 0xff])), "{shown}");
    }

    #[test]
    fn a_plan_that_cannot_be_meant_is_refused() {
        plan().validate().unwrap();
        assert!(refused(|plan| plan.program = Vec::new().into()));
        assert!(refused(|plan| plan.program = vec!["sh".to_owned()].into()));
        assert!(refused(|plan| plan.program = vec!["/bin/sh".to_owned(), "a\0b".to_owned()].into()));
        assert!(refused(|plan| plan.env = vec![("A=B".to_owned(), String::new())]));
        assert!(refused(|plan| plan.binds.push(Bind::new("/etc", "/a/../etc"))));
        assert!(refused(|plan| plan.binds.push(Bind::new("etc", "/a"))));
        assert!(refused(|plan| plan.binds.push(Bind::new("/etc", "/"))));
        assert!(refused(|plan| plan.mount_points.push("a".into())));
        assert!(refused(|plan| plan.cwd = "tmp".into()));
        assert!(refused(|plan| plan.devices.push(Device::same("/etc/passwd"))));
        assert!(refused(|plan| plan.devices.push(Device::same("/dev/../etc/passwd"))));
        assert!(refused(|plan| plan.listen = vec![0; 17]));
        let lasting = |length| Some(Lasting { label: "x".repeat(length), kill_grace: Duration::ZERO });
        assert!(refused(|plan| plan.lasting = lasting(MAX_LABEL + 1)) && !refused(|plan| plan.lasting = lasting(9)));
        assert!(refused(|plan| plan.limits.memory_bytes = 0));
        assert!(refused(|plan| plan.limits.pids = 1));
        let file = |name: &str| SecretFile::new(name, &SecretBytes::new(b"hunter2".to_vec()));
        assert!(refused(|plan| plan.secrets.push(file("../a"))) && !refused(|plan| plan.secrets.push(file("a"))));
    }
}
