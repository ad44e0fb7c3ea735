//! Python interpreters that are forked into sandboxes.
//!
//! There is one process for each interpreter and list of preloaded modules. It is started when it is first wanted, and
//! again when it has ended. It needs the right to enter the namespaces of sandboxes, so it keeps the two capabilities for
//! that, and it runs nothing but `zygote.py`; a sandbox's script runs in a child that has given
//! all of that up.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

use super::super::error::{Fault, Step};
use super::super::plan::{Plan, Program};
use super::super::{system, wire};
use super::filter::Filter;
use super::first;

const SCRIPT: &str = include_str!("zygote.py");

/// What entering a sandbox takes: its network namespace belongs to the launcher (`CAP_SYS_ADMIN`), and its first process
/// lets nobody look into it (`CAP_SYS_PTRACE`).
const CAPABILITIES: [libc::c_ulong; 2] = [21, 19];

/// What one interpreter is known by.
pub(super) type Key = (PathBuf, Vec<String>);

/// A running interpreter.
pub(super) struct Zygote {
    process: Child,
    pub(super) socket: OwnedFd,
    pub(super) ready: bool,
    /// Requests to be answered when it is ready.
    pub(super) waiting: Vec<u64>,
    /// Children and their sandboxes.
    pub(super) children: HashMap<i32, u64>,
    /// Sandboxes that have asked for a child.
    pub(super) asked: Vec<u64>,
}

#[derive(Serialize)]
struct Setup<'a> {
    preload: &'a [String],
    filter: String,
}

#[derive(Serialize)]
struct Fork<'a> {
    id: u64,
    script: &'a str,
    arguments: &'a [String],
    env: HashMap<&'a str, &'a str>,
    cwd: &'a std::path::Path,
    limits: Vec<(u32, u64)>,
    user: u32,
    leave_groups: bool,
}

/// What an interpreter tells.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Told {
    /// It can be forked.
    Ready {
        /// Always true.
        #[serde(rename = "ready")]
        _ready: bool,
    },
    /// A child runs in the sandbox.
    Forked { id: u64, forked: i32 },
    /// It could not be forked.
    Failed { id: u64, failed: String, errno: i32 },
    /// A child has ended.
    Ended { ended: i32, status: i32 },
}

fn hexadecimal(filter: &[seccompiler::sock_filter]) -> String {
    let bytes = filter.iter().flat_map(|one| {
        let [code, k] = [one.code.to_ne_bytes().to_vec(), one.k.to_ne_bytes().to_vec()];
        [code, vec![one.jt, one.jf], k].concat()
    });
    hex::encode(bytes.collect::<Vec<u8>>())
}

impl Zygote {
    /// Starts an interpreter; it tells when it is ready.
    pub(super) fn start(key: &Key, filter: &Filter) -> Result<Zygote, Fault> {
        let (interpreter, preload) = key;
        let step = format!("starting {}", interpreter.display());
        let (socket, its) = system::socket_pair().step(&step)?;
        let mut command = Command::new(interpreter);
        command.args(["-I", "-S", "-B", "-c", SCRIPT]).env_clear().env("LANG", "C.UTF-8");
        command.current_dir("/").stdin(Stdio::from(its)).stdout(Stdio::null());
        limit_rights(&mut command);
        let process = command.spawn().step(&step)?;
        let setup = Setup { preload, filter: hexadecimal(&filter.0) };
        let bytes = wire::encode(&setup).unwrap_or_default();
        wire::send(socket.as_fd(), &bytes, &[]).step(&step)?;
        system::set_nonblocking(socket.as_fd()).step(&step)?;
        let (waiting, asked) = (Vec::new(), Vec::new());
        Ok(Zygote { process, socket, ready: false, waiting, children: HashMap::new(), asked })
    }

    /// Number of the process.
    pub(super) fn pid(&self) -> i32 {
        i32::try_from(self.process.id()).unwrap_or(i32::MAX)
    }

    /// Asks for a child in a sandbox that stands.
    pub(super) fn fork(
        &mut self,
        id: u64,
        plan: &Plan,
        descriptors: &[BorrowedFd<'_>],
        (leave_groups, count_processes): (bool, bool),
    ) -> Result<(), Fault> {
        const STEP: &str = "forking an interpreter";
        let Program::Python { script, arguments, .. } = &plan.program else { return Ok(()) };
        let limits = first::process_limits(&plan.limits, count_processes);
        let request = Fork {
            id,
            script,
            arguments,
            env: plan.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
            cwd: &plan.cwd,
            limits: limits.into_iter().map(|(resource, value)| (resource as u32, value)).collect(),
            user: first::USER,
            leave_groups,
        };
        let too_long = || io::Error::from_raw_os_error(libc::E2BIG);
        let bytes = wire::encode(&request).ok_or_else(too_long).step(STEP)?;
        wire::send(self.socket.as_fd(), &bytes, descriptors).step(STEP)?;
        self.asked.push(id);
        Ok(())
    }
}

/// Leaves the interpreter the capabilities that it needs.
#[expect(unsafe_code, reason = "std can't limit capabilities of a child")]
fn limit_rights(command: &mut Command) {
    // SAFETY: the launcher has one thread, and the closure only makes system calls.
    unsafe {
        command.pre_exec(|| {
            system::unblock_all_signals()?;
            system::take_huge_pages();
            system::set_control(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)?;
            system::drop_bounding_except(&CAPABILITIES)
        });
    }
}
