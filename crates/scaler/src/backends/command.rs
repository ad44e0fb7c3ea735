//! Programs of the operator's that are run to their end.
//!
//! A program has a process group of its own, which is killed when its time is over or nobody waits for it any more. What it writes to
//! stderr goes where the scaler's own log goes, unless it may hold a secret.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::BackendError;

/// Bytes of a program's output that are read; what is more is thrown away.
const MAX_OUTPUT: u64 = 1 << 20;

/// How a program ended.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// What it wrote to stdout, where that was asked for.
    pub(super) output: String,
}

impl Ended {
    /// Itself, where the program ended well.
    pub(super) fn well(self, operation: &'static str) -> Result<Ended, BackendError> {
        match self.status.success() {
            true => Ok(self),
            false => Err(BackendError::failed(operation, self.status)),
        }
    }
}

/// What becomes of what a program writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    /// stdout is read, stderr goes to the log.
    Read,
    /// stderr goes to the log.
    Log,
    /// All is thrown away: it may hold a secret.
    Nothing,
}

struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // It may have ended by itself.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Runs a program to its end, with `input` on its stdin, for `limit` at most.
pub(super) async fn run(
    mut command: Command,
    input: &[u8],
    output: Output,
    limit: Duration,
    operation: &'static str,
) -> Result<Ended, BackendError> {
    let failed = |reason: String| BackendError::failed(operation, reason);
    let stdout = if output == Output::Read { Stdio::piped() } else { Stdio::null() };
    let stderr = if output == Output::Nothing { Stdio::null() } else { Stdio::inherit() };
    command.stdin(Stdio::piped()).stdout(stdout).stderr(stderr).process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let mut group = Group(pid);
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let whole = async {
        let write = async {
            if let Some(mut stdin) = stdin {
                // A program that does not read closes it: nothing is wrong with that.
                drop(stdin.write_all(input).await);
            }
        };
        let read = async {
            let mut bytes = Vec::new();
            if let Some(stdout) = stdout {
                let mut bounded = stdout.take(MAX_OUTPUT);
                drop(bounded.read_to_end(&mut bytes).await);
                drop(tokio::io::copy(&mut bounded.into_inner(), &mut tokio::io::sink()).await);
            }
            bytes
        };
        tokio::join!(write, read, child.wait())
    };
    let ended = tokio::time::timeout(limit, whole).await;
    let ((), bytes, status) = ended.map_err(|_| failed(format!("has not ended within {limit:?} and was killed")))?;
    let status = status.map_err(|error| failed(error.to_string()))?;
    // What it has left behind in its group goes on, as is usual for programs that start others.
    group.0 = None;
    Ok(Ended { status, output: String::from_utf8_lossy(&bytes).into_owned() })
}
