//! An application as the leader knows it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lyra_resources::{Key, Stored};
use lyra_types::resources::{Application, DeploymentHistory};
use lyra_wire::sessions::AppConfig;
use tokio::time::Instant;

use super::field::Returned;
use super::versions::{Fault, Version};

/// An application.
pub(super) struct App {
    pub(super) key: Key,
    pub(super) object: Arc<Stored<Application>>,
    /// All versions that are kept, once they were read.
    pub(super) versions: Option<BTreeMap<u64, Version>>,
    /// The version that new sessions get; 0: none yet.
    pub(super) current: u64,
    /// Why no version can be made of the spec, or its code can't be had.
    pub(super) fault: Option<Fault>,
    pub(super) config: Arc<AppConfig>,
    /// Workers that were told of this configuration.
    pub(super) configured: BTreeSet<String>,
    /// All that have anything of the application are among them.
    pub(super) is_configured: bool,
    /// Reading or making a version, preloading, or deleting is under way.
    pub(super) working: bool,
    /// When it is to be looked at again after a failure.
    pub(super) not_before: Option<Instant>,
    /// Sessions that have no instance yet, in the order in which they came.
    pub(super) waiting: BTreeSet<(u64, String)>,
    /// Sessions that have one, or were given one, and have not ended.
    pub(super) bound: BTreeMap<String, u64>,
    /// Of these, the ones whose worker has not shown yet what it made of them.
    pub(super) fresh: BTreeSet<String>,
    /// Standing instances by worker, as they are to be.
    pub(super) targets: BTreeMap<String, u32>,
    /// Workers whose instances stand again while their sessions, named here, are still bound to them.
    returned: BTreeMap<String, String>,
    /// Commands under way that say how many stand, by worker and version.
    pub(super) commands: BTreeMap<(String, u64), u32>,
    /// Instances that failed since one got ready: how many, and why the last did.
    pub(super) failing: Option<(u32, String)>,
    /// A write of its status is under way.
    pub(super) writing: bool,
    pub(super) written: Option<Instant>,
    /// What was done for it, newest first.
    pub(super) history: Vec<DeploymentHistory>,
}

impl App {
    pub(super) fn new(key: Key, object: Arc<Stored<Application>>) -> App {
        let config = super::versions::config(&object.spec, revision(&object));
        App {
            key,
            current: object.status.version,
            history: object.status.history.clone(),
            object,
            versions: None,
            fault: None,
            config: Arc::new(config),
            configured: BTreeSet::new(),
            is_configured: false,
            working: false,
            not_before: None,
            waiting: BTreeSet::new(),
            bound: BTreeMap::new(),
            fresh: BTreeSet::new(),
            targets: BTreeMap::new(),
            returned: BTreeMap::new(),
            commands: BTreeMap::new(),
            failing: None,
            writing: false,
            written: None,
        }
    }

    /// Takes the object as it is now.
    pub(super) fn update(&mut self, object: Arc<Stored<Application>>) {
        if object.spec.config_data != self.object.spec.config_data {
            self.config = Arc::new(super::versions::config(&object.spec, revision(&object)));
            self.configured.clear();
            self.is_configured = false;
        }
        if object.spec != self.object.spec {
            self.fault = None;
            self.not_before = None;
        }
        self.object = object;
    }

    /// An instance stands again. Its place is counted once its session is not any more, so that both never count together.
    pub(super) fn returned(&mut self, of: Returned) {
        if self.bound.contains_key(&of.session) {
            self.returned.insert(of.session, of.worker);
        } else {
            self.keep(of.app.version, of.worker);
        }
    }

    /// A session has its instance no more. Says whether it had one.
    pub(super) fn release(&mut self, session: &str) -> bool {
        let Some(version) = self.bound.remove(session) else { return false };
        if let Some(worker) = self.returned.remove(session) {
            self.keep(version, worker);
        }
        true
    }

    /// One more stands on the worker: whether that is one too many is for the scaling policy to say.
    fn keep(&mut self, version: u64, worker: String) {
        if version == self.current {
            *self.targets.entry(worker).or_default() += 1;
        }
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.object.metadata.deletion_timestamp.is_some()
    }

    /// The version that new sessions get.
    pub(super) fn version(&self) -> Option<&Version> {
        self.versions.as_ref()?.get(&self.current)
    }

    /// The version that was made last.
    pub(super) fn newest(&self) -> Option<&Version> {
        self.versions.as_ref()?.values().next_back()
    }

    /// Standing instances that are wanted, on all workers.
    pub(super) fn standing(&self) -> u32 {
        self.targets.values().sum()
    }

    pub(super) fn allocated(&self) -> u32 {
        u32::try_from(self.bound.len()).unwrap_or(u32::MAX)
    }
}

fn revision(object: &Stored<Application>) -> u64 {
    u64::try_from(object.metadata.generation).unwrap_or(0)
}
