//! Emptying workers before they are ended.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use lyra_types::Result;
use lyra_wire::Operated;
use lyra_wire::registry::MemberState;
use lyra_wire::scaler::Load;
use prometheus::IntCounterVec;

use crate::service::Reach;

/// Longest wait for a worker to take calls again.
const UNCORDON: Duration = Duration::from_secs(10);

/// The workers of these names that can be emptied; those that nothing is heard of can't, and have nothing that could be saved.
fn reachable(reach: &Reach, load: &Load, names: &[String]) -> Vec<(String, Result<Arc<dyn Operated>>)> {
    let alive = load.workers.iter().filter(|worker| worker.state != MemberState::Lost);
    let meant = alive.filter(|worker| names.contains(&worker.name));
    meant.map(|worker| (worker.name.clone(), reach(&worker.name, &worker.address))).collect()
}

/// Has the workers of these names take no more, and waits until all that they have is done, `limit` at most.
///
/// # Errors
/// Where one of them can't be asked: it may have something to do still.
pub(crate) async fn empty(
    reach: &Reach,
    load: &Load,
    names: &[String],
    limit: Duration,
    outcomes: &IntCounterVec,
) -> Result<()> {
    let count = |outcome: &str| outcomes.with_label_values(&[outcome]).inc();
    let mut drains: FuturesUnordered<_> = reachable(reach, load, names)
        .into_iter()
        .map(|(name, worker)| async move {
            let drained = match worker {
                Ok(worker) => worker.drain(limit).await,
                Err(error) => Err(error),
            };
            (name, drained)
        })
        .collect();
    while let Some((name, drained)) = drains.next().await {
        match drained {
            Ok(drained) if drained.ended => {
                count("ended");
                tracing::info!(worker = name, "a worker is empty");
            }
            Ok(drained) => {
                count("late");
                tracing::warn!(worker = name, left = drained.left, "a worker is ended with something left to do");
            }
            Err(error) => {
                count("failed");
                tracing::warn!(worker = name, %error, "a worker can't be emptied");
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Has the workers of these names take calls again.
pub(crate) async fn take_back(reach: &Reach, load: &Load, names: &[String]) {
    let workers = reachable(reach, load, names).into_iter().map(|(name, worker)| async move {
        let taken = match worker {
            Ok(worker) => tokio::time::timeout(UNCORDON, worker.uncordon()).await,
            Err(error) => Ok(Err(error)),
        };
        match taken {
            Ok(Ok(())) => tracing::info!(worker = name, "a worker is taken back"),
            Ok(Err(error)) => tracing::warn!(worker = name, %error, "a worker can't be taken back"),
            Err(_) => tracing::warn!(worker = name, "a worker can't be taken back in time"),
        }
    });
    futures::future::join_all(workers).await;
}
