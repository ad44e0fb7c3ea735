//! What control has a say in before an application or a session is written.
//!
//! Every control process answers clients, so this goes by what each knows from its own copy of the objects; what slips
//! through when several are asked at once, the leader finds out and says in the session's status.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use lyra_resources::{Admission, Cause, Key, Operation, ResourceApi, Review, Status};
use lyra_types::TenantName;
use lyra_types::quota::{LimitKind, QuotaKey};
use lyra_types::resources::{Application, ApplicationSession};
use parking_lot::Mutex;

use crate::quotas::Quotas;

/// Keeps a session's object until its worker has closed it.
pub(super) const SESSION_FINALIZER: &str = "lyra.dev/session";
/// Keeps an application's object until its sessions and instances are gone.
pub(super) const APPLICATION_FINALIZER: &str = "lyra.dev/instances";
/// Seconds after which a client that was refused may try again.
const RETRY: u32 = 1;

/// What is known of applications, to judge sessions by.
#[derive(Debug, Default)]
pub(crate) struct Census {
    of: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Most instances of each application, and whether it was deleted.
    applications: HashMap<Key, (u32, bool)>,
    /// Sessions that have not ended, by application.
    open: HashMap<Key, u32>,
    /// The same by tenant.
    of_tenant: HashMap<TenantName, u32>,
    /// The application of each of them.
    sessions: HashMap<Key, Key>,
}

impl Census {
    /// An application is there, or not any more.
    pub(super) fn application(&self, key: &Key, object: Option<&Application>) {
        let mut counts = self.of.lock();
        match object {
            Some(object) => {
                counts.applications.insert(key.clone(), most_and_deleted(object));
            }
            None => drop(counts.applications.remove(key)),
        }
    }

    /// A session is there, or not any more.
    pub(super) fn session(&self, key: &Key, object: Option<&ApplicationSession>) {
        let counts = &mut *self.of.lock();
        let open = object.filter(|object| !object.status.session_status.has_ended());
        let now = open.map(|object| Key::new(&key.tenant, &object.spec.application_name));
        let before = match &now {
            Some(application) => counts.sessions.insert(key.clone(), application.clone()),
            None => counts.sessions.remove(key),
        };
        if before == now {
            return;
        }
        if let Some(application) = before {
            take_one(&mut counts.of_tenant, &application.tenant);
            take_one(&mut counts.open, &application);
        }
        if let Some(application) = now {
            *counts.of_tenant.entry(application.tenant.clone()).or_default() += 1;
            *counts.open.entry(application).or_default() += 1;
        }
    }

    /// Sessions of a tenant that have not ended.
    pub(crate) fn open_of(&self, tenant: &TenantName) -> u32 {
        self.of.lock().of_tenant.get(tenant).copied().unwrap_or(0)
    }
}

fn take_one<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, u32>, of: &K) {
    if let Some(count) = counts.get_mut(of) {
        *count -= 1;
        if *count == 0 {
            counts.remove(of);
        }
    }
}

/// Looks at what clients write.
pub(super) struct Gate {
    census: Arc<Census>,
    quotas: Arc<Quotas>,
    api: OnceLock<Weak<ResourceApi>>,
}

impl Gate {
    pub(super) fn new(census: Arc<Census>, quotas: Arc<Quotas>) -> Gate {
        Gate { census, quotas, api: OnceLock::new() }
    }

    /// Where objects are, which know of this gate themselves.
    pub(super) fn knows(&self, api: &Arc<ResourceApi>) {
        self.api.get_or_init(|| Arc::downgrade(api));
    }

    /// Most instances of an application, and whether it was deleted. One that the census does not have may just have been
    /// made, here or in another process.
    async fn application_of(&self, key: &Key) -> Result<Option<(u32, bool)>, Status> {
        if let Some(known) = self.census.of.lock().applications.get(key).copied() {
            return Ok(Some(known));
        }
        let Some(api) = self.api.get().and_then(Weak::upgrade) else { return Ok(None) };
        api.applications().refresh().await?;
        let object = api.applications().get_key(key);
        Ok(object.map(|of| most_and_deleted(of.object())))
    }
}

fn most_and_deleted(of: &Application) -> (u32, bool) {
    (of.spec.scaling_policy.maximum_instance, of.metadata.deletion_timestamp.is_some())
}

#[async_trait]
impl Admission for Gate {
    async fn application(&self, review: Review<'_, Application>) -> Result<(), Status> {
        if review.operation == Operation::Create {
            hold(&mut review.object.metadata.finalizers, APPLICATION_FINALIZER);
        }
        Ok(())
    }

    async fn session(&self, review: Review<'_, ApplicationSession>) -> Result<(), Status> {
        if review.operation != Operation::Create {
            return Ok(());
        }
        let object = review.object;
        let name = &object.spec.application_name;
        let tenant = TenantName::new(&object.metadata.namespace).map_err(|error| Status::bad_request(error.detail))?;
        let key = Key::new(&tenant, name);
        let known = self.application_of(&key).await?;
        if let Some(most) = self.quotas.sessions(&tenant) {
            let open = self.census.open_of(&tenant);
            if open >= most {
                let of = QuotaKey { tenant: tenant.clone(), function: None };
                let refusal = LimitKind::Sessions.refusal(
                    &of,
                    most,
                    format!("{open} are open"),
                    Duration::from_secs(RETRY.into()),
                );
                return Err(Status::too_many_requests(refusal.detail, RETRY));
            }
        }
        let open = self.census.of.lock().open.get(&key).copied().unwrap_or(0);
        match known {
            None => {
                let message = format!("Not found: \"{name}\"");
                let field = "spec.applicationName".to_owned();
                let cause = Cause { reason: "FieldValueNotFound", message, field };
                return Err(Status::invalid::<ApplicationSession>(&object.metadata.name, vec![cause]));
            }
            Some((_, true)) => {
                return Err(Status::conflict::<ApplicationSession>(
                    &object.metadata.name,
                    &format!("application \"{name}\" is being deleted"),
                ));
            }
            Some((most, false)) if open >= most => {
                let message = format!(
                    "application \"{name}\" is busy: all of its {most} instances (scalingPolicy.maximumInstance) have a \
                     session; please retry later"
                );
                return Err(Status::too_many_requests(message, RETRY));
            }
            Some(_) => {}
        }
        hold(&mut object.metadata.finalizers, SESSION_FINALIZER);
        Ok(())
    }
}

fn hold(finalizers: &mut Vec<String>, finalizer: &str) {
    if !finalizers.iter().any(|of| of == finalizer) {
        finalizers.push(finalizer.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use lyra_types::resources::SessionStatus;

    use super::*;

    #[test]
    fn sessions_that_have_not_ended_are_counted_by_their_application() {
        let census = Census::default();
        let tenant = TenantName::default_tenant();
        let key = |name: &str| Key::new(&tenant, name);
        let mut session = ApplicationSession::default();
        session.spec.application_name = "a".to_owned();
        let open = || census.of.lock().open.get(&key("a")).copied().unwrap_or(0);
        for _ in 0..2 {
            census.session(&key("one"), Some(&session));
            census.session(&key("two"), Some(&session));
        }
        assert_eq!(open(), 2);
        session.status.session_status = SessionStatus::Closed;
        census.session(&key("one"), Some(&session));
        census.session(&key("two"), None);
        census.session(&key("two"), None);
        assert_eq!(open(), 0);
        let counts = census.of.lock();
        assert!(counts.open.is_empty() && counts.of_tenant.is_empty() && counts.sessions.is_empty());
    }
}
