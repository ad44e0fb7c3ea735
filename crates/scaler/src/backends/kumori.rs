//! The platform of the classic system, by its own tool.
//!
//! How many workers there shall be is a variable of the deployment's manifest: its file is written anew, then `kumorictl update deployment`
//! puts it into force. How many there are is read from `kumorictl describe deployment`. Before each command the tool is logged in, by a
//! terminal, since it asks for the password there; the password is typed, never an argument, and what the tool prints meanwhile is thrown
//! away. The file of credentials may come late: until then nothing is done.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use lyra_types::Secret;
use lyra_wire::scaler::Load;
use tokio::process::Command;

use super::command::{Output, run};
use super::{Backend, BackendError, Change};
use crate::config::Kumori;

/// Largest file of credentials, in bytes.
const MAX_CREDENTIALS: u64 = 4_096;

/// Has the platform's tool change a deployment.
pub struct KumoriBackend {
    config: Kumori,
    /// That others may read the credentials was said.
    warned: AtomicBool,
}

struct Credentials {
    user: String,
    password: Secret,
}

impl KumoriBackend {
    /// A back end with these settings.
    pub fn new(config: Kumori) -> KumoriBackend {
        KumoriBackend { config, warned: AtomicBool::new(false) }
    }

    async fn credentials(&self) -> Result<Credentials, BackendError> {
        let (path, shown) = (self.config.credentials.clone(), self.config.credentials.display().to_string());
        let read = lyra_kit::tasks::blocking(move || read_credentials(&path)).await;
        let read = read.map_err(|_| BackendError::failed("reading the credentials", "the process ends"))?;
        let (text, mode) = match read {
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(BackendError::NotReady(format!("{shown} is not there yet")));
            }
            Err(error) => return Err(BackendError::failed("reading the credentials", format!("{shown}: {error}"))),
        };
        if mode & 0o077 != 0 && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(file = shown, "others may read the credentials; chmod 600 keeps them from it");
        }
        // What is there so far may be half of it.
        let short = || BackendError::NotReady(format!("{shown} does not have two lines yet"));
        let (user, rest) = text.split_once('\n').ok_or_else(short)?;
        let (user, password) = (user.trim_end_matches('\r'), rest.lines().next().unwrap_or_default());
        if user.is_empty() || password.is_empty() {
            return Err(short());
        }
        // The name becomes a word of a command line, which a terminal's program reads.
        let is_name = user.chars().all(|letter| letter.is_ascii_alphanumeric() || "@._+-".contains(letter));
        if !is_name || user.starts_with('-') {
            let reason = format!("{shown}: the first line is no name of a user");
            return Err(BackendError::failed("reading the credentials", reason));
        }
        Ok(Credentials { user: user.to_owned(), password: Secret::new(password) })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.config.program);
        command.args(arguments).current_dir(&self.config.directory);
        command
    }

    async fn log_in(&self) -> Result<(), BackendError> {
        const OPERATION: &str = "kumorictl login";
        let Credentials { user, password } = self.credentials().await?;
        // A terminal of its own (util-linux), which hands on what is written to it.
        let line = "\"$LYRA_KUMORICTL\" login \"$LYRA_KUMORI_USER\"";
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command", line, "/dev/null"]).current_dir(&self.config.directory);
        command.env("LYRA_KUMORICTL", &self.config.program).env("LYRA_KUMORI_USER", user).env("SHELL", "/bin/sh");
        let typed = format!("{}\n", password.reveal());
        let ended = run(command, typed.as_bytes(), Output::Nothing, self.config.timeout, OPERATION).await?;
        ended.well(OPERATION).map(drop)
    }
}

fn read_credentials(path: &Path) -> std::io::Result<(String, u32)> {
    let metadata = fs::metadata(path)?;
    if metadata.len() > MAX_CREDENTIALS {
        return Err(std::io::Error::other("it is too large to be two lines"));
    }
    Ok((fs::read_to_string(path)?, metadata.permissions().mode()))
}

/// Replaces a file as a whole: who reads it sees the one or the other.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let fresh = path.with_extension("new");
    fs::write(&fresh, text)?;
    fs::rename(&fresh, path)
}

/// How many workers a description shows: each has a line that names the role, and so has the role itself.
fn count(description: &str) -> Option<u32> {
    let lines = description.lines().filter(|line| line.contains("worker")).count();
    u32::try_from(lines.checked_sub(1)?).ok()
}

#[async_trait]
impl Backend for KumoriBackend {
    fn name(&self) -> &'static str {
        "kumori"
    }

    async fn current(&self, _: &Load) -> Result<u32, BackendError> {
        const OPERATION: &str = "kumorictl describe";
        self.log_in().await?;
        let command = self.command(&["describe", "deployment", &self.config.deployment]);
        let ended = run(command, b"", Output::Read, self.config.timeout, OPERATION).await?.well(OPERATION)?;
        count(&ended.output).ok_or_else(|| BackendError::failed(OPERATION, "shows no role worker"))
    }

    fn going(&self, _: &Load, _: u32, _: u32) -> Vec<String> {
        // The platform chooses; its workers end in good order when they are told to.
        Vec::new()
    }

    async fn apply(&self, change: &Change) -> Result<(), BackendError> {
        const OPERATION: &str = "kumorictl update";
        let path = self.config.directory.join(&self.config.variable);
        let (text, shown) = (format!("package num_workers\n#NUM_WORKERS: {}\n", change.to), path.display().to_string());
        let written = lyra_kit::tasks::blocking(move || replace(&path, &text)).await;
        let written = written.map_err(|_| BackendError::failed(OPERATION, "the process ends"))?;
        written.map_err(|error| BackendError::failed("writing the variable", format!("{shown}: {error}")))?;
        self.log_in().await?;
        let manifest = self.config.manifest.display().to_string();
        let command = self.command(&["update", "deployment", &self.config.deployment, "--deployment", &manifest]);
        run(command, b"", Output::Log, self.config.timeout, OPERATION).await?.well(OPERATION).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_has_a_line_for_each_worker_and_one_for_the_role() {
        let shown = "Deployment\n  role worker:\n    worker-0 running\n    worker-1 running\n  role frontend\n";
        assert_eq!(count(shown), Some(2));
        assert_eq!(count("nothing of the kind"), None);
    }
}
