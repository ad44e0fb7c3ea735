//! The program behind a wrapper, and all that it starts.
//!
//! It is started in two steps, without unsafe code: this program runs itself once more, which asks the kernel to be killed
//! when its parent ends, then becomes the program. It leads a process group, so that a signal reaches all of it. The
//! wrapper takes in what is left behind by its children (as a subreaper does), and reaps it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::{
    Pid, Signal, WaitOptions, getpid, getppid, kill_process_group, set_child_subreaper,
    set_parent_process_death_signal, wait,
};
use tokio::sync::watch;

/// First argument of the second step; the parent's process id comes next, then the command.
const BECOME: &str = "--become-program-of";

/// The second step: only returns when this is another call, or on an error.
pub(crate) fn become_program(arguments: &[OsString]) -> Option<String> {
    let [first, parent, program, rest @ ..] = arguments else { return None };
    if first != BECOME {
        return None;
    }
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return Some(format!("can't be tied to its parent: {error}"));
    }
    let is_orphan = getppid().is_none_or(|pid| pid.as_raw_nonzero().to_string().as_bytes() != parent.as_bytes());
    if is_orphan {
        return Some("the wrapper has ended".to_owned());
    }
    let error = Command::new(program).args(rest).exec();
    Some(format!("can't start {}: {error}", program.display()))
}

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
}

impl Exit {
    /// As a shell counts it.
    pub(crate) fn code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "the program ended with exit code {code}"),
            Exit::Signal(signal) => write!(f, "the program was ended by signal {signal}"),
        }
    }
}

/// Makes children's children end up here.
pub(crate) fn take_in_orphans() -> Result<(), String> {
    set_child_subreaper(Some(getpid())).map_err(|error| format!("can't take in orphans: {error}"))
}

/// A running program.
pub(crate) struct Child {
    group: Pid,
    exit: watch::Sender<Option<Exit>>,
}

impl Child {
    /// Starts `command` with `env` on top of this program's environment, without the session server's address.
    pub(crate) fn start(command: &[OsString], env: &[(&str, OsString)]) -> Result<Child, String> {
        let this = std::env::current_exe().map_err(|error| format!("can't find this program: {error}"))?;
        let mut starting = Command::new(this);
        starting.arg(BECOME).arg(getpid().as_raw_nonzero().to_string()).args(command);
        starting.envs(env.iter().map(|(name, value)| (name, value))).env_remove(lyra_session_sdk::ADDRESS);
        let child = starting.stdin(Stdio::null()).process_group(0).spawn();
        let child = child.map_err(|error| format!("can't start {}: {error}", command[0].display()))?;
        // It is reaped by [`Child::reap`], with everything else.
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("a process without an id")?;
        Ok(Child { group, exit: watch::Sender::new(None) })
    }

    /// Sends a signal to the program and all of its group.
    pub(crate) fn signal(&self, signal: Signal) {
        // None may be left.
        let _ = kill_process_group(self.group, signal);
    }

    /// Waits for the program's end.
    pub(crate) async fn wait(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        let ended = exit.wait_for(Option::is_some).await;
        ended.ok().and_then(|exit| *exit).unwrap_or(Exit::Code(0))
    }
}

/// Takes in every process that has ended; one of them may be the program.
pub(crate) fn reap(child: Option<&Child>) {
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        let Some(child) = child.filter(|child| child.group == pid) else { continue };
        let exit = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            // Stopped or continued.
            (None, None) => continue,
        };
        child.exit.send_replace(Some(exit));
    }
}
