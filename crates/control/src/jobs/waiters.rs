//! Callers that wait for a job to end.

use std::collections::HashMap;
use std::sync::Arc;

use lyra_types::JobId;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Callers that wait, by job; a bounded number of them.
pub(super) struct Waiters {
    by_job: Mutex<HashMap<JobId, Slot>>,
    most: usize,
}

struct Slot {
    notify: Arc<Notify>,
    waiting: usize,
}

/// A place among those who wait for a job.
pub(super) struct Waiter<'a> {
    waiters: &'a Waiters,
    id: JobId,
    notify: Arc<Notify>,
}

impl Waiters {
    pub(super) fn new(most: usize) -> Waiters {
        Waiters { by_job: Mutex::default(), most }
    }

    /// A place among those who wait for this job; `None` when too many jobs are waited for.
    pub(super) fn register(&self, id: JobId) -> Option<Waiter<'_>> {
        let mut by_job = self.by_job.lock();
        if by_job.len() >= self.most && !by_job.contains_key(&id) {
            return None;
        }
        let slot = by_job.entry(id).or_insert_with(|| Slot { notify: Arc::new(Notify::new()), waiting: 0 });
        slot.waiting += 1;
        Some(Waiter { waiters: self, id, notify: Arc::clone(&slot.notify) })
    }

    /// Tells all who wait for this job to look at it again.
    pub(super) fn notify(&self, id: JobId) {
        if let Some(slot) = self.by_job.lock().get(&id) {
            slot.notify.notify_waiters();
        }
    }
}

impl Waiters {
    /// Tells all who wait to look again.
    pub(super) fn notify_all(&self) {
        for slot in self.by_job.lock().values() {
            slot.notify.notify_waiters();
        }
    }
}

impl Waiter<'_> {
    /// Resolves when the job has ended after this future was enabled.
    pub(super) fn ended(&self) -> Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut by_job = self.waiters.by_job.lock();
        if let Some(slot) = by_job.get_mut(&self.id) {
            slot.waiting -= 1;
            if slot.waiting == 0 {
                by_job.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_who_wait_for_a_job_are_told_and_leave_nothing_behind() {
        let waiters = Waiters::new(1);
        let id = JobId::from_parts(1, 1);
        let (one, two) = (waiters.register(id).unwrap(), waiters.register(id).unwrap());
        assert!(waiters.register(JobId::from_parts(1, 2)).is_none(), "only so many jobs are waited for");
        let mut ended = Box::pin(futures::future::join(one.ended(), two.ended()));
        assert!(futures::poll!(&mut ended).is_pending());
        waiters.notify(JobId::from_parts(9, 9));
        assert!(futures::poll!(&mut ended).is_pending());
        waiters.notify(id);
        ended.await;
        drop((one, two));
        assert!(waiters.by_job.lock().is_empty());
    }
}
