//! An application's versions in the leader's hands: they are read, made when the containers change, brought to the workers, and
//! cleared away when nobody has them any more, or with the application.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use lyra_resources::EventType;
use lyra_types::resources::Application;
use lyra_types::{Code, Error, Result};
use lyra_wire::sessions::AppVersion;

use super::Shared;
use super::admission::APPLICATION_FINALIZER;
use super::app::App;
use super::leading::{Done, Leading, Wake};
use super::versions::{self, Fault, Version};

/// How long a version waits for further workers to have its code once one has.
const FOR_OTHERS: Duration = Duration::from_secs(10);
/// A version could not be stored.
const STORE_FAILED: &str = "StoreFailed";

impl Leading {
    /// Whether an application may be worked on now. Where it may later, it is looked at again then: the timer that was set
    /// with its failure may have been taken by an earlier look.
    pub(super) fn is_due(&mut self, uid: &str) -> bool {
        let now = self.now();
        let Some(app) = self.apps.get(uid).filter(|app| !app.working) else { return false };
        let Some(later) = app.not_before.filter(|at| now < *at) else { return true };
        self.at(later, Wake::App(uid.to_owned()));
        false
    }

    pub(super) fn load(&mut self, uid: &str) {
        if !self.is_due(uid) {
            return;
        }
        let Some(app) = self.apps.get_mut(uid) else { return };
        app.working = true;
        let (of, tenant, uid) = (Arc::clone(&self.of), app.key.tenant.clone(), uid.to_owned());
        self.begin(async move {
            let loaded = versions::load(&*of.objects, &tenant, &uid).await;
            Done::Loaded(uid, loaded)
        });
    }

    pub(super) fn loaded(&mut self, uid: &str, outcome: Result<BTreeMap<u64, Version>>) {
        let Some(app) = self.apps.get_mut(uid) else { return };
        app.working = false;
        match outcome {
            Ok(versions) => {
                if !versions.contains_key(&app.current) {
                    app.current = 0;
                }
                app.versions = Some(versions);
                self.dirty_apps.insert(uid.to_owned());
            }
            Err(error) => {
                tracing::warn!(%error, application = %app.key, "the versions of an application can't be read yet");
                self.again(uid.to_owned());
            }
        }
    }

    /// Makes a version where the containers have changed, and has workers get its code before it is the current one.
    pub(super) fn bring_up(&mut self, uid: &str) {
        if !self.is_due(uid) {
            return;
        }
        let Some(app) = self.apps.get_mut(uid) else { return };
        let newest = app.newest();
        let is_made = newest.is_some_and(|newest| newest.template == versions::template(&app.object.spec));
        let number = newest.map_or(0, |newest| newest.version.key.version);
        if !is_made {
            let made =
                versions::make(&self.of.table, &app.object, &app.key.tenant, number + 1, Arc::clone(&app.config));
            let made = made.and_then(|version| self.of.with_secrets(version));
            app.working = true;
            let (of, uid) = (Arc::clone(&self.of), uid.to_owned());
            self.begin(async move {
                let stored = match made {
                    Ok(version) => store(&of, version).await,
                    Err(fault) => Err(fault),
                };
                Done::Made(uid, stored)
            });
        } else if number > app.current
            && let Some(version) = newest.map(|newest| Arc::clone(&newest.version))
        {
            app.working = true;
            self.preload(uid, &version);
        } else {
            self.drop_old_versions(uid);
        }
    }

    pub(super) fn made(&mut self, uid: &str, outcome: std::result::Result<Version, Fault>) {
        let Some(app) = self.apps.get_mut(uid) else { return };
        app.working = false;
        match outcome {
            Ok(version) => {
                let number = version.version.key.version;
                let message = format!("version {number} was made of {}", version.version.function.key());
                self.of.api.events().record(app.object.object(), EventType::Normal, "VersionMade", &message);
                app.fault = None;
                app.versions.get_or_insert_default().insert(number, version);
                self.dirty_apps.insert(uid.to_owned());
            }
            Err(fault) => {
                if fault.reason == STORE_FAILED {
                    // What is stored may be other than what is known.
                    app.versions = None;
                }
                self.fail(uid, fault);
            }
        }
    }

    fn fail(&mut self, uid: &str, fault: Fault) {
        let Some(app) = self.apps.get_mut(uid) else { return };
        if app.fault.as_ref() != Some(&fault) {
            self.of.api.events().record(app.object.object(), EventType::Warning, fault.reason, &fault.message);
        }
        app.fault = Some(fault);
        self.dirty_apps.insert(uid.to_owned());
        self.again(uid.to_owned());
    }

    /// Has every worker that may run the version get its code.
    fn preload(&mut self, uid: &str, version: &Arc<AppVersion>) {
        let able = self.field.nodes.iter().filter(|(_, node)| node.is_open() && node.runs(version));
        let able: Vec<String> = able.map(|(name, _)| name.clone()).collect();
        let none = if able.is_empty() { Some(self.field.why_none(version)) } else { None };
        let (of, epoch, version, uid) = (Arc::clone(&self.of), self.epoch, Arc::clone(version), uid.to_owned());
        self.begin(async move {
            let number = version.key.version;
            let outcome = match none {
                Some(why) => Err(Error::new(Code::Unavailable, why)),
                None => on_all(&of, &able, epoch, &version).await,
            };
            Done::Preloaded(uid, number, outcome)
        });
    }

    /// Has a worker that has just become ready get the code of the applications that it may run.
    pub(super) fn preload_at(&mut self, name: &str) {
        let Some(node) = self.field.nodes.get(name).filter(|node| node.is_open()) else { return };
        let current = self.apps.values().filter(|app| !app.is_deleted()).filter_map(App::version);
        let versions: Vec<_> = current.map(|of| Arc::clone(&of.version)).filter(|version| node.runs(version)).collect();
        let (of, epoch, name) = (Arc::clone(&self.of), self.epoch, name.to_owned());
        self.begin(async move {
            // One after the other: it has calls to serve, too. What fails here is had when an instance is started.
            for version in versions {
                drop(of.preload(&name, epoch, &version).await);
            }
            Done::Nothing
        });
    }

    pub(super) fn preloaded(&mut self, uid: &str, number: u64, outcome: Result<()>) {
        let Some(app) = self.apps.get_mut(uid) else { return };
        app.working = false;
        match outcome {
            Ok(()) => {
                let message = format!("version {number} is on the workers; new sessions get it");
                self.of.api.events().record(app.object.object(), EventType::Normal, "VersionReady", &message);
                app.current = number;
                app.fault = None;
                app.targets.clear();
                self.dirty_apps.insert(uid.to_owned());
            }
            Err(error) => {
                let message = format!("version {number}: {}", error.detail);
                self.fail(uid, Fault { reason: "PreloadFailed", message });
            }
        }
    }

    /// Versions that nobody has any more go.
    fn drop_old_versions(&mut self, uid: &str) {
        let Some(app) = self.apps.get_mut(uid) else { return };
        if app.versions.as_ref().is_none_or(|all| all.len() < 2) {
            return;
        }
        let (tally, current) = (self.field.tally(uid), app.current);
        let used = |number: &u64| {
            *number >= current || tally.contains_key(number) || app.bound.values().any(|of| of == number)
        };
        let Some(versions) = &app.versions else { return };
        let old: Vec<u64> = versions.keys().copied().filter(|number| !used(number)).collect();
        if old.is_empty() || current == 0 {
            return;
        }
        if let Some(versions) = &mut app.versions {
            versions.retain(|number, _| !old.contains(number));
        }
        let (of, tenant, uid) = (Arc::clone(&self.of), app.key.tenant.clone(), uid.to_owned());
        self.begin(async move {
            if let Err(error) = versions::delete(&*of.objects, &tenant, &uid, Some(old)).await {
                tracing::debug!(%error, "old versions of an application are left for now");
            }
            Done::Nothing
        });
    }

    /// Takes an application down that was deleted: its sessions, then its instances, then its versions, then the object.
    pub(super) fn tear_down(&mut self, uid: &str) {
        if let Some(app) = self.apps.get_mut(uid) {
            app.targets.clear();
        }
        let sessions: Vec<String> =
            self.sessions.iter().filter(|(_, of)| of.app.as_deref() == Some(uid)).map(|(uid, _)| uid.clone()).collect();
        sessions.iter().for_each(|session| self.delete(session));
        if !sessions.is_empty() || !self.field.holders(uid).is_empty() || !self.is_due(uid) || !self.knows_all() {
            return;
        }
        let Some(app) = self.apps.get_mut(uid) else { return };
        app.working = true;
        let (of, key, uid) = (Arc::clone(&self.of), app.key.clone(), uid.to_owned());
        self.begin(async move {
            let cleared = async {
                versions::delete(&*of.objects, &key.tenant, &uid, None).await?;
                let change =
                    |object: &mut Application| object.metadata.finalizers.retain(|of| of != APPLICATION_FINALIZER);
                let outcome = of.api.applications().update(&key.tenant, &key.name, Some(&uid), change).await;
                outcome.map(drop).map_err(|status| Error::new(Code::Unavailable, status.to_string()))
            };
            let outcome = cleared.await;
            Done::Cleared(uid, outcome)
        });
    }

    /// Deletes the versions of an application whose object is gone, where somebody took its finalizer away.
    pub(super) fn clear(&self, app: &App, uid: &str) {
        let (of, tenant, uid) = (Arc::clone(&self.of), app.key.tenant.clone(), uid.to_owned());
        self.begin(async move {
            if let Err(error) = versions::delete(&*of.objects, &tenant, &uid, None).await {
                tracing::warn!(%error, application = uid, "versions of a deleted application are left in the store");
            }
            Done::Nothing
        });
    }

    pub(super) fn cleared(&mut self, uid: &str, outcome: Result<()>) {
        let Some(app) = self.apps.get_mut(uid) else { return };
        app.working = false;
        if let Err(error) = outcome {
            tracing::warn!(%error, application = %app.key, "a deleted application can't be cleared away yet");
        }
        self.again(uid.to_owned());
    }
}

/// Whether at least one of the workers has the code. Those that are slow are not waited for once another has it; nor is
/// one that can't have it now: it gets it when it starts an instance.
async fn on_all(of: &Shared, workers: &[String], epoch: u64, version: &Arc<AppVersion>) -> Result<()> {
    let mut under_way: FuturesUnordered<_> = workers.iter().map(|name| of.preload(name, epoch, version)).collect();
    let (mut failed, mut until) = (None, None);
    loop {
        let next = async {
            match until {
                Some(until) => tokio::time::timeout_at(until, under_way.next()).await.unwrap_or(None),
                None => under_way.next().await,
            }
        };
        match next.await {
            Some(Ok(())) => until = until.or_else(|| Some(of.clock.instant() + FOR_OTHERS)),
            Some(Err(error)) => drop(failed.get_or_insert(error)),
            None => break,
        }
    }
    match (until, failed) {
        (None, Some(error)) => Err(error),
        _ => Ok(()),
    }
}

async fn store(of: &Shared, version: Version) -> std::result::Result<Version, Fault> {
    let fault = |message: String| Fault { reason: STORE_FAILED, message };
    match versions::store(&*of.objects, &version).await {
        Ok(true) => Ok(version),
        Ok(false) => Err(fault("another control process has made a version at the same time".to_owned())),
        Err(error) => Err(fault(error.to_string())),
    }
}
