//! Has what was done written down by control.
//!
//! A change is answered when it is written down too, for a bounded time: where control can't write, the change stands and its entry
//! waits, bounded in number; entries that find no place are counted and stand in the gateway's own log.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use http::Method;
use lyra_kit::Clock;
use lyra_kit::telemetry::prometheus::IntCounter;
use lyra_types::{Code, TenantName};
use lyra_wire::Accounts;
use lyra_wire::accounts::AuditEvent;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::Identity;

/// Entries that wait for control.
const WAITING: usize = 1_024;
/// Entries that are written at once.
const BATCH: usize = 50;
/// Longest that an answer waits for its entry.
const WAIT: Duration = Duration::from_secs(2);
/// Wait before control is asked again.
const AGAIN: Duration = Duration::from_secs(1);

struct Entry {
    event: AuditEvent,
    written: oneshot::Sender<()>,
}

/// Put into an answer by handlers that know better than the request who did it, or to whom.
#[derive(Debug, Clone)]
pub(crate) struct AuditAs {
    pub actor: String,
    pub tenant: Option<TenantName>,
    /// What it was done to, where the path does not say so.
    pub target: Option<String>,
}

impl AuditAs {
    /// An answer that tells of something new: the entry names it, where the path can't.
    pub(crate) fn made(mut answer: Response, by: &Identity, tenant: Option<TenantName>, target: String) -> Response {
        let by = AuditAs { actor: by.name.clone(), tenant, target: Some(target) };
        answer.extensions_mut().insert(by);
        answer
    }
}

/// What an entry says beside who and when.
pub(crate) struct Done<'a> {
    pub method: &'a Method,
    pub route: &'a str,
    pub path: &'a str,
    pub tenant: Option<TenantName>,
    pub status: u16,
    pub code: Option<Code>,
    pub address: String,
}

/// The way to the audit log.
pub(crate) struct AuditLog {
    queue: mpsc::Sender<Entry>,
    entries: Mutex<mpsc::Receiver<Entry>>,
    lost: IntCounter,
    clock: Clock,
}

impl AuditLog {
    pub(crate) fn new(clock: Clock, lost: IntCounter) -> AuditLog {
        let (queue, entries) = mpsc::channel(WAITING);
        AuditLog { queue, entries: Mutex::new(entries), lost, clock }
    }

    /// Writes down what somebody did.
    pub(crate) async fn write(&self, identity: &Identity, done: Done<'_>, by: Option<AuditAs>) {
        let outcome = match done.code {
            Some(code) => code.as_str(),
            None if done.status < 400 => "ok",
            None if done.status < 500 => "refused",
            None => "failed",
        };
        let AuditAs { actor, tenant, target } =
            by.unwrap_or_else(|| AuditAs { actor: identity.name.clone(), tenant: done.tenant, target: None });
        let event = AuditEvent {
            time: self.clock.now(),
            actor,
            token: identity.token,
            address: done.address,
            tenant,
            action: format!("{} {}", done.method, done.route),
            target: target.unwrap_or_else(|| done.path.to_owned()),
            outcome: outcome.to_owned(),
            status: done.status,
        };
        let (written, wait) = oneshot::channel();
        if let Err(error) = self.queue.try_send(Entry { event, written }) {
            self.lost.inc();
            let event = error.into_inner().event;
            tracing::warn!(
                actor = event.actor,
                action = event.action,
                target = event.target,
                outcome = event.outcome,
                "the audit log can't be written; this entry stands here only"
            );
            return;
        }
        drop(tokio::time::timeout(WAIT, wait).await);
    }

    /// Hands entries to control for ever.
    pub(crate) async fn run(&self, accounts: &Arc<dyn Accounts>) {
        let mut entries = self.entries.lock().await;
        let mut batch = Vec::with_capacity(BATCH);
        while entries.recv_many(&mut batch, BATCH).await > 0 {
            let (events, waiting): (Vec<_>, Vec<_>) = batch.drain(..).map(|entry| (entry.event, entry.written)).unzip();
            while let Err(error) = accounts.record(events.clone()).await {
                tracing::warn!(%error, "the audit log can't be written yet");
                self.clock.sleep(AGAIN).await;
            }
            for written in waiting {
                // Who waited too long has gone.
                let _ = written.send(());
            }
        }
    }
}
