//! Background tasks that have a name and an owner that ends them.
#![expect(clippy::disallowed_methods, reason = "this module is where tasks are spawned")]

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Spawns a task with no owner but its handle. Prefer [`Tasks::spawn`].
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let _ = name;
    tokio::spawn(future)
}

/// Runs blocking work (disk, compilation) off the async threads.
///
/// # Errors
/// When the work panics or the runtime is shutting down.
pub async fn blocking<F, T>(work: F) -> Result<T, tokio::task::JoinError>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    tokio::task::spawn_blocking(work).await
}

/// Starts blocking work off the async threads and does not wait for it. While it runs, tokio's paused clock does
/// not advance by itself, so virtual time stands still during disk work.
pub fn start_blocking<F>(work: F)
where
    F: FnOnce() + Send + 'static,
{
    drop(tokio::task::spawn_blocking(work));
}

/// The background tasks of one service: all are told to stop together, and waited for.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Default for Tasks {
    fn default() -> Tasks {
        Tasks::new()
    }
}

impl Tasks {
    /// No tasks yet.
    pub fn new() -> Tasks {
        Tasks { tracker: TaskTracker::new(), stop: CancellationToken::new() }
    }

    /// The token that a task must watch.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Spawns a task that ends by itself once [`Tasks::stopping`] is cancelled.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let _ = name;
        self.tracker.spawn(future);
    }

    /// Spawns a task that is dropped, at its next await, once the tasks are told to stop.
    pub fn spawn_cancellable<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        self.spawn(name, async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = future => {}
            }
        });
    }

    /// Runs `work` every `period` until the tasks are told to stop.
    pub fn every<F, Fut>(&self, name: &'static str, period: Duration, mut work: F)
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.spawn_cancellable(name, async move {
            let mut ticks = tokio::time::interval(period);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                work().await;
            }
        });
    }

    /// Tells every task to stop and waits for them, `limit` at most. Says whether all have ended.
    pub async fn stop(&self, limit: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(limit, self.tracker.wait()).await.is_ok()
    }
}
