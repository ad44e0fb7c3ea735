//! Why something could not be started or done.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A sandbox can't be started, or something asked of it can't be done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LaunchError {
    /// This machine does not allow what sandboxes need; the sentence says what to switch on.
    #[error("this machine can't run sandboxes: {0}")]
    Unsupported(String),
    /// The launcher's own process can't be started.
    #[error("the launcher can't be started: {0}")]
    Helper(String),
    /// Another Lyra works with the same directory.
    #[error("another process uses the directory {0}")]
    InUse(String),
    /// What was asked for makes no sense.
    #[error("the plan of a sandbox is wrong: {0}")]
    InvalidPlan(String),
    /// The kernel or the program's file refused a step.
    #[error("{0}")]
    Refused(Fault),
    /// No answer came in time.
    #[error("the launcher has not answered for {0:?}")]
    Late(Duration),
    /// The launcher or the sandbox has ended.
    #[error("the launcher or the sandbox has ended")]
    Gone,
}

impl LaunchError {
    /// An operation of this process on a sandbox that failed.
    pub(super) fn failed(operation: &str, error: &io::Error) -> LaunchError {
        LaunchError::Refused(Fault::new(operation, error))
    }
}

/// A step that failed, as told from process to process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What was tried.
    pub operation: String,
    /// Number of the error, 0 where there is none.
    pub errno: i32,
    /// What to do or what else is known; may be empty.
    pub advice: String,
}

impl Fault {
    /// A failed step.
    pub fn new(operation: &str, error: &io::Error) -> Fault {
        let errno = error.raw_os_error().unwrap_or(0);
        let advice = if errno == 0 { error.to_string() } else { String::new() };
        Fault { operation: operation.to_owned(), errno, advice }
    }

    /// The same with a word on what to do.
    pub(super) fn advise(mut self, advice: &str) -> Fault {
        advice.clone_into(&mut self.advice);
        self
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} failed", self.operation)?;
        if self.errno != 0 {
            write!(f, ": {}", io::Error::from_raw_os_error(self.errno))?;
        }
        if !self.advice.is_empty() {
            write!(f, ": {}", self.advice)?;
        }
        Ok(())
    }
}

/// Names the step that failed.
pub(super) trait Step<T> {
    /// What was tried, for whoever reads the error.
    fn step(self, operation: &str) -> Result<T, Fault>;
}

impl<T> Step<T> for io::Result<T> {
    fn step(self, operation: &str) -> Result<T, Fault> {
        self.map_err(|error| Fault::new(operation, &error))
    }
}
