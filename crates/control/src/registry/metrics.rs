//! Metrics of the registry of workers.

use std::sync::{Arc, OnceLock};

use lyra_kit::telemetry::Metrics as Registry;
use lyra_wire::registry::{MemberEvent, MemberState};
use prometheus::{IntCounter, IntGaugeVec};

/// Metrics of the registry, once somebody measures.
#[derive(Debug, Clone, Default)]
pub(super) struct Metrics(Arc<OnceLock<Handles>>);

#[derive(Debug)]
struct Handles {
    workers: IntGaugeVec,
    joins: IntCounter,
    refused: IntCounter,
    lost: IntCounter,
}

impl Metrics {
    /// Begins to count in `registry`.
    pub(super) fn begin(&self, registry: &Registry) {
        let plain = |name, help| registry.counter(name, help, &[]).with_label_values::<&str>(&[]);
        let handles = Handles {
            workers: registry.gauge("lyra_registry_workers", "Workers that control knows, by state.", &["state"]),
            joins: plain("lyra_registry_joins_total", "Workers that were let join."),
            refused: plain("lyra_registry_refused_total", "Workers that were not let join."),
            lost: plain("lyra_registry_lost_total", "Workers whose lease was over."),
        };
        drop(self.0.set(handles));
    }

    /// A worker was let join.
    pub(super) fn joined(&self) {
        self.count(|handles| handles.joins.inc());
    }

    /// A worker was not.
    pub(super) fn refused(&self) {
        self.count(|handles| handles.refused.inc());
    }

    /// Workers have changed.
    pub(super) fn changed(&self, events: &[MemberEvent]) {
        let lost =
            |event: &&MemberEvent| matches!(event, MemberEvent::Put(member) if member.state == MemberState::Lost);
        self.count(|handles| handles.lost.inc_by(events.iter().filter(lost).count() as u64));
    }

    /// How many there are in each state.
    pub(super) fn set_workers(&self, states: impl Iterator<Item = MemberState>) {
        let mut counts = [0; MemberState::ALL.len()];
        states.for_each(|state| counts[state as usize] += 1);
        self.count(|handles| {
            for state in MemberState::ALL {
                handles.workers.with_label_values(&[state.as_str()]).set(counts[state as usize]);
            }
        });
    }

    fn count(&self, count: impl FnOnce(&Handles)) {
        if let Some(handles) = self.0.get() {
            count(handles);
        }
    }
}
