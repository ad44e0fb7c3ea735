//! One worker process: started by this scaler, or taken up from a former one.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};

use super::register::{Registered, began};

/// How long it has to end in good order: what a node promises, and a little more.
const END: Duration = Duration::from_secs(35);
/// How often one that is not a child is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// A process.
pub(super) struct Process {
    registered: Registered,
    /// None where it is not a child of this process.
    child: Option<Child>,
    /// It ends when this closes, which it does however this process ends.
    _pipe: Option<ChildStdin>,
}

impl Process {
    pub(super) fn start(mut command: Command) -> std::io::Result<Process> {
        let mut child = command.spawn()?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.ok_or_else(|| std::io::Error::other("it has ended already"))?;
        let pipe = child.stdin.take();
        let registered = Registered { pid, began: began(pid).unwrap_or_default() };
        Ok(Process { registered, child: Some(child), _pipe: pipe })
    }

    /// The process of a former start, if it is that one still, and the worker of that name.
    pub(super) fn adopt(registered: Registered, name: &str) -> Option<Process> {
        if began(registered.pid) != Some(registered.began) {
            return None;
        }
        let line = std::fs::read(format!("/proc/{}/cmdline", registered.pid)).ok()?;
        let is_it = line.split(|byte| *byte == 0).any(|argument| argument == name.as_bytes());
        is_it.then_some(Process { registered, child: None, _pipe: None })
    }

    pub(super) fn registered(&self) -> Registered {
        self.registered
    }

    /// Waits for its end; says how it ended.
    pub(super) async fn ended(&mut self) -> String {
        match &mut self.child {
            Some(child) => match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            },
            None => {
                while began(self.registered.pid) == Some(self.registered.began) {
                    tokio::time::sleep(LOOK).await;
                }
                "it is gone".to_owned()
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let is_it = self.child.is_some() || began(self.registered.pid) == Some(self.registered.began);
        if let Some(pid) = Pid::from_raw(self.registered.pid).filter(|_| is_it) {
            // It may have ended by itself.
            let _ = kill_process(pid, signal);
        }
    }

    /// Has it end in good order; kills it when it does not.
    pub(super) async fn end(mut self, name: &str) {
        self.signal(Signal::TERM);
        if tokio::time::timeout(END, self.ended()).await.is_err() {
            tracing::warn!(worker = name, "a worker does not end and is killed");
            self.signal(Signal::KILL);
            self.ended().await;
        }
        tracing::info!(worker = name, "a worker has ended");
    }

    /// Lets it live on.
    pub(super) fn let_go(self) {
        drop(self);
    }
}
