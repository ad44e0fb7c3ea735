//! Sessions that calls of a function open: one for each key, found or made, and closed when no call has come for a while.
//!
//! Any control process does this; the objects keep it together. When one was last in use is an annotation of it, written a few
//! times in the time after which it counts as idle, so that a call seldom costs a write.

use std::sync::Arc;
use std::time::Duration;

use lyra_resources::{Caller, DeleteOptions, Key, Preconditions, Status, Stored, WriteOptions};
use lyra_types::resources::{ApplicationSession, SessionStatus};
use lyra_types::{Code, Error, Result, TenantName, Timestamp};
use lyra_wire::sessions::{SessionRoute, name_by_key};
use tokio::sync::broadcast::error::RecvError;

use super::Shared;

/// Who the controllers are, in the record of changes.
const CONTROLLER: &str = "system:lyra-control";
/// Says that calls opened the session.
const OPENED_BY: (&str, &str) = ("lyra.dev/opened-by", "calls");
/// When it was last in use.
const LAST_USED: &str = "lyra.dev/last-used";
/// Notes of use in the time after which a session is idle.
const NOTES: u32 = 4;

/// When a session was last in use that calls opened, by the clock of who wrote so.
pub(super) fn last_used(object: &ApplicationSession) -> Option<Timestamp> {
    if object.metadata.labels.get(OPENED_BY.0).map(String::as_str) != Some(OPENED_BY.1) {
        return None;
    }
    let used = object.metadata.annotations.get(LAST_USED).and_then(|text| Timestamp::parse(text));
    used.or_else(|| object.metadata.creation_timestamp.map(|at| at.timestamp()))
}

/// Marks a session as one that calls open, in use now.
pub(super) fn open_by_calls(object: &mut ApplicationSession, now: Timestamp) {
    let meta = &mut object.metadata;
    meta.labels.insert(OPENED_BY.0.to_owned(), OPENED_BY.1.to_owned());
    meta.annotations.insert(LAST_USED.to_owned(), now.to_string());
}

impl Shared {
    /// The open session that `key` means; makes it where there is none.
    pub(super) async fn reach(
        &self,
        tenant: &TenantName,
        application: &str,
        key: &str,
        wait: Duration,
    ) -> Result<Arc<SessionRoute>> {
        let name = name_by_key(application, key);
        let found = async {
            // Before the first look, so that no change is missed.
            let mut changes = self.changed.subscribe();
            loop {
                if let Some(route) = self.look_for(tenant, application, &name).await? {
                    return Ok(route);
                }
                loop {
                    match changes.recv().await {
                        Ok(of) if of.tenant == *tenant && *of.name == *name => break,
                        Ok(_) => {}
                        Err(RecvError::Lagged(_)) => break,
                        Err(RecvError::Closed) => return Err(Error::new(Code::Unavailable, "this process ends")),
                    }
                }
            }
        };
        let late = || Error::new(Code::Unavailable, format!("session {name} was not open within {} s", wait.as_secs()));
        tokio::time::timeout(wait, found).await.unwrap_or_else(|_| Err(late()))
    }

    /// The route to the session, if it is open; has it made where it is not there.
    async fn look_for(&self, tenant: &TenantName, application: &str, name: &str) -> Result<Option<Arc<SessionRoute>>> {
        let Some(object) = self.api.sessions().get(tenant, name) else {
            return self.make(tenant, application, name).await.map(|()| None);
        };
        if object.spec.application_name != application {
            let detail = format!("session {name} is one of application {}", object.spec.application_name);
            return Err(Error::new(Code::Conflict, detail));
        }
        let status = object.status.session_status;
        if status.has_ended() && object.metadata.deletion_timestamp.is_none() {
            self.clear(&object).await?;
            if matches!(status, SessionStatus::Timeout) {
                let detail = format!("session {name} could not be opened: {}", object.status.message);
                return Err(Error::new(Code::Unavailable, detail));
            }
            return Ok(None);
        }
        Ok(self.routes.get(&object.metadata.uid))
    }

    async fn make(&self, tenant: &TenantName, application: &str, name: &str) -> Result<()> {
        let mut object = ApplicationSession::default();
        let meta = &mut object.metadata;
        (meta.name, meta.namespace) = (name.to_owned(), tenant.to_string());
        open_by_calls(&mut object, self.clock.now());
        object.spec.application_name = application.to_owned();
        object.spec.ttl_seconds_after_finished = 0;
        let caller = Caller::operator(CONTROLLER);
        let made = self.api.sessions().create(object, WriteOptions { caller: &caller, dry_run: false }).await;
        match made {
            Ok(_) => Ok(()),
            // Another call was there first.
            Err(status) if status.code == 409 && status.reason == "AlreadyExists" => Ok(()),
            Err(status) => Err(error_of(&status, application)),
        }
    }

    /// Takes a session's object away that has ended.
    async fn clear(&self, object: &Stored<ApplicationSession>) -> Result<()> {
        let key = Key::new(&TenantName::new(&object.metadata.namespace)?, &object.metadata.name);
        let deleted = self.delete_session(&key, &object.metadata.uid).await;
        deleted.map_err(|status| error_of(&status, &object.spec.application_name))
    }

    /// Deletes a session's object, as a client does. One that is gone, or another of its name, is none of its business.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn delete_session(&self, key: &Key, uid: &str) -> std::result::Result<(), Status> {
        let caller = Caller::operator(CONTROLLER);
        let preconditions = Preconditions { uid: Some(uid.to_owned()), ..Preconditions::default() };
        let delete = DeleteOptions { preconditions, ..DeleteOptions::default() };
        let options = WriteOptions { caller: &caller, dry_run: false };
        match self.api.sessions().delete(&key.tenant, &key.name, &delete, options).await {
            Err(status) if !matches!(status.code, 404 | 409) => Err(status),
            _ => Ok(()),
        }
    }

    /// Notes that sessions are in use.
    pub(super) async fn touch(&self, sessions: Vec<(TenantName, String)>) -> Result<()> {
        let now = self.clock.now();
        for (_, uid) in sessions {
            let Some(route) = self.routes.get(&uid) else { continue };
            let key = Key::new(&route.key.tenant, &route.key.name);
            let Some(object) = self.api.sessions().get_key(&key).filter(|of| of.metadata.uid == uid) else { continue };
            let Some(unused) = self.ages.unused(&key, object.object()) else { continue };
            if unused < self.config.idle_timeout / NOTES {
                continue;
            }
            let note = |object: &mut ApplicationSession| {
                object.metadata.annotations.insert(LAST_USED.to_owned(), now.to_string());
            };
            let noted = self.api.sessions().update(&key.tenant, &key.name, Some(&uid), note).await;
            noted.map_err(|status| error_of(&status, &route.application))?;
        }
        Ok(())
    }
}

/// What the resource API's refusal means to a call.
fn error_of(status: &Status, application: &str) -> Error {
    let code = match status.code {
        409 => Code::Conflict,
        422 => return Error::not_found("application", application),
        429 => Code::Overloaded,
        _ => Code::Unavailable,
    };
    Error::new(code, status.message.clone()).with_retry_after(Duration::from_secs(1))
}
