//! What a worker holds, as control knows it.

use std::collections::BTreeMap;

use lyra_types::InstanceId;
use lyra_types::function::VersionKey;
use lyra_wire::registry::{Change, Hold, InstanceReport, Workload};
use lyra_wire::sessions::{AppKey, HostedReport, SessionReport};
use lyra_wire::worker::InstanceState;

/// A worker's workload by key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Holdings {
    /// See [`Workload::node`].
    pub(crate) node: u64,
    /// See [`Workload::revision`].
    pub(crate) revision: u64,
    pub(crate) instances: BTreeMap<InstanceId, InstanceReport>,
    /// None of no instances, unless it follows a schedule.
    pub(crate) holds: BTreeMap<VersionKey, Hold>,
    /// Standing instances by version; none of no instances.
    pub(crate) stands: BTreeMap<AppKey, u32>,
    pub(crate) hosted: BTreeMap<InstanceId, HostedReport>,
    /// By identity.
    pub(crate) sessions: BTreeMap<String, SessionReport>,
}

impl Holdings {
    pub(crate) fn of(workload: Workload) -> Holdings {
        let Workload { node, revision, instances, holds, stands, hosted, sessions } = workload;
        Holdings {
            node,
            revision,
            instances: instances.into_iter().map(|of| (of.id, of)).collect(),
            holds: holds.into_iter().map(|of| (of.version.clone(), of)).collect(),
            stands: stands.into_iter().map(|of| (of.app, of.instances)).collect(),
            hosted: hosted.into_iter().map(|of| (of.id, of)).collect(),
            sessions: sessions.into_iter().map(|of| (of.key.uid.clone(), of)).collect(),
        }
    }

    /// Takes in the next change.
    pub(crate) fn apply(&mut self, change: Change) {
        self.revision += 1;
        match change {
            Change::Instance(gone) if gone.state == InstanceState::Terminated => drop(self.instances.remove(&gone.id)),
            Change::Instance(of) => drop(self.instances.insert(of.id, of)),
            Change::Hold(of) if of.instances == 0 && !of.schedule => drop(self.holds.remove(&of.version)),
            Change::Hold(of) => drop(self.holds.insert(of.version.clone(), of)),
            Change::Stand(of) if of.instances == 0 => drop(self.stands.remove(&of.app)),
            Change::Stand(of) => drop(self.stands.insert(of.app, of.instances)),
            Change::Hosted(gone) if gone.state == InstanceState::Terminated => drop(self.hosted.remove(&gone.id)),
            Change::Hosted(of) => drop(self.hosted.insert(of.id, of)),
            Change::Session(of) => drop(self.sessions.insert(of.key.uid.clone(), *of)),
            Change::Forgotten(uid) => drop(self.sessions.remove(&uid)),
        }
    }
}
