//! What a worker holds, as control knows it.

use std::collections::BTreeMap;

use lyra_types::InstanceId;
use lyra_types::function::VersionKey;
use lyra_wire::registry::{Change, Hold, InstanceReport, Workload};
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
}

impl Holdings {
    pub(crate) fn of(workload: Workload) -> Holdings {
        let Workload { node, revision, instances, holds } = workload;
        Holdings {
            node,
            revision,
            instances: instances.into_iter().map(|of| (of.id, of)).collect(),
            holds: holds.into_iter().map(|of| (of.version.clone(), of)).collect(),
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
        }
    }
}
