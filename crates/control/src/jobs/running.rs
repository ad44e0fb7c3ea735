//! The tries that this process runs now, and how they are told to stop.

use std::collections::HashMap;

use lyra_store::jobs::Lease;
use lyra_types::{FunctionName, JobId, TenantName};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Why a try must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The job's owner wants it cancelled.
    Cancel,
    /// The lease is lost: nothing of the try will be recorded.
    Lost,
    /// The process goes down: the try is given back and does not count.
    Drain,
}

/// The tries that run now.
#[derive(Default)]
pub(super) struct Running {
    by_job: Mutex<HashMap<JobId, Try>>,
    /// Held while jobs are leased and not yet in the map, so that no cancellation falls between.
    leasing: tokio::sync::Mutex<()>,
}

struct Try {
    lease: Lease,
    function: FunctionName,
    stop: Option<oneshot::Sender<Stop>>,
}

impl Running {
    /// To be held from before a lease until the leased jobs were added.
    pub(super) async fn leasing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.leasing.lock().await
    }

    /// Adds a try; what is returned resolves when it must stop.
    pub(super) fn add(&self, lease: Lease, function: FunctionName) -> oneshot::Receiver<Stop> {
        let (stop, stopped) = oneshot::channel();
        self.by_job.lock().insert(lease.id, Try { lease, function, stop: Some(stop) });
        stopped
    }

    /// The try has ended. A later one of the same job stays.
    pub(super) fn remove(&self, lease: &Lease) {
        let mut by_job = self.by_job.lock();
        if by_job.get(&lease.id).is_some_and(|running| running.lease == *lease) {
            by_job.remove(&lease.id);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_job.lock().len()
    }

    pub(super) fn leases(&self) -> Vec<Lease> {
        self.by_job.lock().values().map(|running| running.lease.clone()).collect()
    }

    /// How many tries of each function run.
    pub(super) fn by_function(&self) -> HashMap<(TenantName, FunctionName), usize> {
        let mut counts = HashMap::new();
        for running in self.by_job.lock().values() {
            *counts.entry((running.lease.tenant.clone(), running.function.clone())).or_default() += 1;
        }
        counts
    }

    /// Tells the job's try to stop, if it runs here.
    pub(super) async fn stop(&self, id: JobId, why: Stop) {
        let _leased_are_added = self.leasing.lock().await;
        if let Some(stop) = self.by_job.lock().get_mut(&id).and_then(|running| running.stop.take()) {
            tell(stop, why);
        }
    }

    /// Tells this very try to stop.
    pub(super) fn stop_lease(&self, lease: &Lease, why: Stop) {
        let mut by_job = self.by_job.lock();
        if let Some(running) = by_job.get_mut(&lease.id).filter(|running| running.lease == *lease)
            && let Some(stop) = running.stop.take()
        {
            tell(stop, why);
        }
    }

    /// Tells all to stop; returns how many.
    pub(super) fn stop_all(&self, why: Stop) -> usize {
        let mut by_job = self.by_job.lock();
        let stops = by_job.values_mut().filter_map(|running| running.stop.take());
        stops.map(|stop| tell(stop, why)).count()
    }
}

/// A try that ended by itself meanwhile does not listen any more.
fn tell(stop: oneshot::Sender<Stop>, why: Stop) {
    let _ended = stop.send(why);
}
