//! This process among those that run workflows: seen by others while it lives, so that they ask it and take its runs when it
//! is gone.
//!
//! That a process is seen decides nothing about its runs: those are its own for as long as it renews itself where runs are kept
//! (`lyra_store::Runs`). Who sees one go looks there at once, which is all.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use lyra_kit::{Clock, Random};
use lyra_store::Objects;
use lyra_store::objects::{Presence, presence};
use lyra_types::Timestamp;
use lyra_wire::workflows::{PROCESSES, WorkflowMember, WorkflowProcess};
use lyra_wire::{Role, Workflows};

use crate::engine::Engine;

/// Longest wait for the store to take note that this process ends.
const PART: Duration = Duration::from_secs(2);
/// Shortest time for which a process that has died is seen; what etcd grants at least.
const LEAST: Duration = Duration::from_secs(2);

/// Who this process is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its name, for people.
    pub name: String,
    /// Where others reach it, `HOST:PORT`; empty where it does not know.
    pub address: String,
    /// The role that its certificate is for.
    pub role: Role,
}

pub(crate) struct Membership {
    process: WorkflowProcess,
    objects: Arc<dyn Objects>,
    clock: Clock,
    /// None where there are no others.
    presence: Option<Presence>,
    /// Every process, this one among them, as a gateway asks them.
    everyone: OnceLock<Arc<dyn Workflows>>,
}

fn written(process: &WorkflowProcess) -> Bytes {
    Bytes::from(serde_json::to_vec(process).unwrap_or_default())
}

impl Membership {
    pub(crate) fn new(
        identity: Identity,
        owner: u64,
        lease: Option<Duration>,
        objects: Arc<dyn Objects>,
        clock: Clock,
        random: Random,
    ) -> Membership {
        let Identity { name, address, role } = identity;
        let since: Timestamp = clock.now();
        let process = WorkflowProcess { name, address, role, owner, since, leaving: false };
        let presence = lease.map(|lease| {
            let (key, ttl) = (format!("{PROCESSES}{owner:016x}"), lease.max(LEAST));
            Presence::new(Arc::clone(&objects), key, written(&process), ttl, clock.clone(), random)
        });
        Membership { process, objects, clock, presence, everyone: OnceLock::new() }
    }

    pub(crate) fn set_everyone(&self, everyone: Arc<dyn Workflows>) {
        // Set once; there is one site.
        let _ = self.everyone.set(everyone);
    }

    pub(crate) fn everyone(&self) -> Option<&Arc<dyn Workflows>> {
        self.everyone.get()
    }

    /// Keeps this process seen, for ever.
    pub(crate) async fn keep(&self) {
        if let Some(presence) = &self.presence {
            presence.keep().await;
        }
    }

    /// Has the engine look for runs whenever another process is seen no more, for ever.
    pub(crate) async fn follow(&self, engine: &Engine) {
        let seen = &engine.deps().metrics.processes;
        seen.set(1);
        if self.presence.is_none() {
            return;
        }
        let mut known: BTreeSet<u64> = BTreeSet::new();
        let tell = |values: Vec<Bytes>| {
            let all = values.iter().filter_map(|value| serde_json::from_slice::<WorkflowProcess>(value).ok());
            let now: BTreeSet<u64> = all.map(|process| process.owner).collect();
            seen.set(i64::try_from(now.len()).unwrap_or(i64::MAX));
            if known.iter().any(|owner| *owner != self.process.owner && !now.contains(owner)) {
                engine.look_now();
            }
            known = now;
        };
        presence::follow(self.objects.as_ref(), PROCESSES, &self.clock, tell).await;
    }

    /// This process, with what it has.
    pub(crate) fn member(&self, engine: &Engine) -> WorkflowMember {
        let leaving = engine.deps().tasks.stopping().is_cancelled();
        WorkflowMember { process: WorkflowProcess { leaving, ..self.process.clone() }, load: Some(engine.load()) }
    }

    /// Others shall ask for nothing more here.
    pub(crate) async fn announce_end(&self) {
        let Some(presence) = &self.presence else { return };
        let leaving = WorkflowProcess { leaving: true, ..self.process.clone() };
        if !matches!(tokio::time::timeout(PART, presence.say(written(&leaving))).await, Ok(Ok(()))) {
            tracing::debug!("others are not told that this process ends");
        }
    }

    /// Gives the runs up, which nothing moves any more, and is seen no more: others take them now.
    pub(crate) async fn hand_over(&self, engine: &Engine) {
        let Some(presence) = &self.presence else { return };
        match tokio::time::timeout(PART, engine.give_up()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "runs are not given up; they go on when the lease has ended"),
            Err(_) => tracing::warn!("runs are not given up in time; they go on when the lease has ended"),
        }
        if !matches!(tokio::time::timeout(PART, presence.leave()).await, Ok(Ok(()))) {
            tracing::debug!("this process is seen for a while yet");
        }
    }
}
