//! `lyra deploy --watch`: deploys again each time the code changes.
//!
//! What is watched is the directory, not the file: editors replace files, and a watch on a file that was
//! replaced goes blind. Changes are taken together until nothing has happened for a moment. Code that is
//! the same as what was deployed last is not deployed again. An error is shown, and watching goes on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lyra_types::Code;
use notify::{EventKind, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::deploy::{Plan, report};
use crate::failure::{Failure, Result};
use crate::session::Session;
use crate::source::{Loaded, Source};

/// So long must nothing have changed before a deploy: an editor that saves writes several times.
const QUIET: Duration = Duration::from_millis(25);

/// Wait before another try when the server can't be reached.
const RETRY: Duration = Duration::from_secs(1);

/// Wakes up when something in a directory has changed.
struct Changes {
    changed: Arc<Notify>,
    _watcher: notify::RecommendedWatcher,
}

impl Changes {
    fn of(directory: &Path) -> Result<Changes> {
        let failed = |error: notify::Error| {
            Failure::internal(format!("{} can't be watched: {error}", directory.display()))
                .hint("the system's limit of inotify watches may be reached (fs.inotify.max_user_watches)")
        };
        let changed = Arc::new(Notify::new());
        let wake = Arc::clone(&changed);
        let on_event = move |event: notify::Result<notify::Event>| {
            // Our own reading of the code makes access events: those must not wake us again.
            if event.is_err() || event.is_ok_and(|event| !matches!(event.kind, EventKind::Access(_))) {
                wake.notify_one();
            }
        };
        let mut watcher = notify::recommended_watcher(on_event).map_err(failed)?;
        watcher.watch(directory, RecursiveMode::NonRecursive).map_err(failed)?;
        Ok(Changes { changed, _watcher: watcher })
    }

    async fn next(&self) {
        self.changed.notified().await;
        while tokio::time::timeout(QUIET, self.changed.notified()).await.is_ok() {}
    }
}

fn directory_of(path: &Path) -> PathBuf {
    if path.is_dir() {
        return path.to_owned();
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// What one look at the code led to.
enum Outcome {
    /// Deployed, unchanged, or refused: nothing to do until the code changes.
    Settled,
    /// The server was not there: worth another try.
    Retry,
}

struct Watch<'a> {
    path: &'a Path,
    plan: &'a Plan,
    session: &'a Session,
    last: Option<(PathBuf, Loaded)>,
    /// The last error shown, so that retries don't repeat it.
    shown: Option<String>,
}

impl Watch<'_> {
    async fn look(&mut self) -> Result<Outcome> {
        let begin = self.session.clock.instant();
        match self.deploy().await {
            Ok(None) => Ok(Outcome::Settled),
            Ok(Some(deployed)) => {
                self.shown = None;
                report(self.session, &deployed, begin.elapsed())?;
                Ok(Outcome::Settled)
            }
            Err(failure) => {
                let again = matches!(failure.error().code, Code::Unavailable | Code::Overloaded | Code::Timeout);
                let text = failure.error().to_string();
                if !again || self.shown.as_ref() != Some(&text) {
                    failure.report(self.session.json());
                }
                self.shown = Some(text);
                Ok(if again { Outcome::Retry } else { Outcome::Settled })
            }
        }
    }

    async fn deploy(&mut self) -> Result<Option<lyra_client::Deployed>> {
        let source = Source::find(self.path, self.plan.asked())?;
        let runtime = self.plan.runtime(&source)?;
        let code = source.load(runtime)?;
        let (Source::File(file) | Source::Directory(file, _)) = &source else { return Ok(None) };
        let current = (file.clone(), code.clone());
        if self.last.as_ref() == Some(&current) {
            return Ok(None);
        }
        let outcome = self.plan.deploy_code(&self.session.client, &source, runtime, code).await;
        // Refused code is settled too; code that did not reach the server is not.
        let reached = match &outcome {
            Ok(_) => true,
            Err(failure) => failure.error().code == Code::InvalidCode,
        };
        if reached {
            self.last = Some(current);
        }
        outcome.map(Some)
    }
}

/// Deploys the code at `path` now and on each change, until SIGINT or SIGTERM.
///
/// # Errors
/// When the directory can't be watched.
pub async fn run(path: &Path, plan: &Plan, session: &Session) -> Result<()> {
    let stop = lyra_kit::shutdown::on_signals()
        .map_err(|error| Failure::internal(format!("signals can't be handled: {error}")))?;
    let directory = directory_of(path);
    let changes = Changes::of(&directory)?;
    let mut watch = Watch { path, plan, session, last: None, shown: None };
    let work = async {
        loop {
            match Box::pin(watch.look()).await? {
                Outcome::Settled => {
                    if watch.shown.is_none() && watch.last.is_some() {
                        session.note(&format!("watching {}, Ctrl-C ends", path.display()));
                    }
                    changes.next().await;
                }
                Outcome::Retry => {
                    drop(tokio::time::timeout(RETRY, changes.next()).await);
                }
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        outcome = work => outcome,
    }
}
