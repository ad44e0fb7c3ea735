//! Which scaler leads, what operators ask of it, what it decided, and the load that it goes by.
//!
//! Three objects in the store, which all control processes share: the lease of the scaler that leads, the orders of operators, and the
//! last decisions. A lease is taken, renewed and given up by compare-and-set, so that of two scalers one leads. It is over
//! for the control process that is asked when that has seen it unchanged for its length: so clocks of control processes may differ.

use std::sync::Arc;

use bytes::Bytes;
use lyra_kit::Clock;
use lyra_store::jobs::Jobs as JobStore;
use lyra_store::objects::{Change, Check, Entry, Txn};
use lyra_store::{Objects, TxnError};
use lyra_types::api::{ScalerChange, ScalerDecision, ScalerOrders};
use lyra_types::job::JobStatus;
use lyra_types::{Code, Error, Result, Timestamp};
use lyra_wire::registry::Member;
use lyra_wire::scaler::{LEASES, Load, MAX_WORKERS, ScalerAnswer, ScalerReport, ScalerStatus, ScalerTurn, WorkerLoad};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::registry::Registry;

const LEASE: &str = "scaler/lease";
const ORDERS: &str = "scaler/orders";
const HISTORY: &str = "scaler/history";

/// Decisions that are remembered.
const REMEMBERED: usize = 200;
/// Decisions that one turn may tell.
const TOLD: usize = 50;
/// Longest name of a scaler, in bytes.
const MAX_NAME: usize = 100;
/// Tries of one change, where others change the same.
const TRIES: u32 = 8;

/// Who leads, and until when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Lease {
    process: u64,
    name: String,
    at: Timestamp,
    until: Timestamp,
    report: Option<ScalerReport>,
}

/// What control knows of scalers.
pub(crate) struct Scaler {
    objects: Arc<dyn Objects>,
    jobs: Arc<dyn JobStore>,
    registry: Registry,
    clock: Clock,
    /// The change of the lease that was seen last, and when that was first.
    seen: Mutex<Option<(u64, Instant)>>,
}

impl Scaler {
    pub(crate) fn new(deps: &crate::Deps) -> Scaler {
        Scaler {
            objects: Arc::clone(&deps.objects),
            jobs: Arc::clone(&deps.jobs),
            registry: deps.registry.clone(),
            clock: deps.clock.clone(),
            seen: Mutex::new(None),
        }
    }

    /// A scaler's turn.
    ///
    /// # Errors
    /// [`Code::BadRequest`] for a turn that none would take, [`Code::Unavailable`] where the store can't be asked.
    pub(crate) async fn turn(&self, turn: ScalerTurn) -> Result<ScalerAnswer> {
        if turn.name.is_empty() || turn.name.len() > MAX_NAME || turn.decided.len() > TOLD {
            return Err(Error::new(Code::BadRequest, "no scaler takes a turn like this"));
        }
        let (leads, leader) = self.lead(&turn).await?;
        if leads && !turn.decided.is_empty() {
            self.remember(&turn.decided).await?;
        }
        Ok(ScalerAnswer { leads, leader, orders: self.orders().await?, load: self.load().await? })
    }

    /// Takes, renews or gives up the lease; says whether the scaler leads, and who does.
    async fn lead(&self, turn: &ScalerTurn) -> Result<(bool, Option<String>)> {
        for _ in 0..TRIES {
            let (found, now) = (self.objects.get(LEASE).await?, self.clock.now());
            let other = self.held(found.as_ref()).filter(|lease| lease.process != turn.process);
            if let Some(other) = other {
                return Ok((false, Some(other.name)));
            }
            let change = match (turn.leaves, &found) {
                (true, None) => return Ok((false, None)),
                (true, Some(_)) => Change::Delete(LEASE.to_owned()),
                (false, _) => {
                    let until = now + turn.lease.clamp(LEASES.0, LEASES.1);
                    let (name, report) = (turn.name.clone(), turn.report.clone());
                    let lease = Lease { process: turn.process, name, at: now, until, report };
                    Change::Put(LEASE.to_owned(), written(&lease)?)
                }
            };
            if let Some(revision) = self.changed(LEASE, found.as_ref(), change).await? {
                *self.seen.lock() = Some((revision, self.clock.instant()));
                let leads = !turn.leaves;
                return Ok((leads, leads.then(|| turn.name.clone())));
            }
        }
        Err(contended())
    }

    async fn remember(&self, decided: &[ScalerDecision]) -> Result<()> {
        for _ in 0..TRIES {
            let found = self.objects.get(HISTORY).await?;
            let mut history: Vec<ScalerDecision> = found.as_ref().and_then(read).unwrap_or_default();
            // A turn whose answer was lost is taken again.
            let fresh: Vec<_> = decided.iter().filter(|decision| !history.contains(decision)).cloned().collect();
            history.splice(0..0, fresh.into_iter().rev());
            history.truncate(REMEMBERED);
            let change = Change::Put(HISTORY.to_owned(), written(&history)?);
            if self.changed(HISTORY, found.as_ref(), change).await?.is_some() {
                return Ok(());
            }
        }
        Err(contended())
    }

    /// How the scaler stands.
    ///
    /// # Errors
    /// Where the store can't be asked.
    pub(crate) async fn status(&self) -> Result<ScalerStatus> {
        let lease = self.objects.get(LEASE).await?;
        let lease = self.held(lease.as_ref());
        let history = self.objects.get(HISTORY).await?;
        Ok(ScalerStatus {
            leader: lease.map(|lease| (lease.name, lease.at, lease.report)),
            orders: self.orders().await?,
            history: history.as_ref().and_then(read).unwrap_or_default(),
        })
    }

    /// Changes what operators ask for.
    ///
    /// # Errors
    /// [`Code::InvalidField`] for bounds that can't be kept.
    pub(crate) async fn steer(&self, change: ScalerChange) -> Result<ScalerStatus> {
        for _ in 0..TRIES {
            let found = self.objects.get(ORDERS).await?;
            let orders = steered(found.as_ref().and_then(read).unwrap_or_default(), change)?;
            let change = Change::Put(ORDERS.to_owned(), written(&orders)?);
            if self.changed(ORDERS, found.as_ref(), change).await?.is_some() {
                return self.status().await;
            }
        }
        Err(contended())
    }

    async fn orders(&self) -> Result<ScalerOrders> {
        Ok(self.objects.get(ORDERS).await?.as_ref().and_then(read).unwrap_or_default())
    }

    async fn load(&self) -> Result<Load> {
        let counts = self.jobs.counts().await?;
        let ended = JobStatus::ALL.into_iter().filter(|status| status.is_final()).map(|status| counts.of(status)).sum();
        let workers = self.registry.seen().iter().map(|seen| worker(&seen.member)).collect();
        Ok(Load { queued: counts.of(JobStatus::Queued), ended, workers })
    }

    /// The lease, if somebody holds it.
    fn held(&self, found: Option<&Entry>) -> Option<Lease> {
        let entry = found?;
        let lease: Lease = read(entry)?;
        let now = self.clock.instant();
        let since = match &mut *self.seen.lock() {
            Some((change, since)) if *change == entry.modified => *since,
            seen => seen.insert((entry.modified, now)).1,
        };
        (now - since < lease.until.since(lease.at)).then_some(lease)
    }

    /// Carries out a change if nobody has changed the object since it was found; gives its revision if it did.
    async fn changed(&self, key: &str, found: Option<&Entry>, change: Change) -> Result<Option<u64>> {
        let check = match found {
            Some(entry) => Check::Modified(key.to_owned(), entry.modified),
            None => Check::Absent(key.to_owned()),
        };
        match self.objects.txn(Txn { checks: vec![check], changes: vec![change] }).await {
            Ok(revision) => Ok(Some(revision)),
            Err(TxnError::Failed { .. }) => Ok(None),
            Err(TxnError::Store(error)) => Err(error.into()),
        }
    }
}

/// What cannot be read any more counts as not there: it is written anew with the next turn.
fn read<T: DeserializeOwned>(entry: &Entry) -> Option<T> {
    serde_json::from_slice(&entry.value).ok()
}

fn written(value: &impl Serialize) -> Result<Bytes> {
    let written =
        serde_json::to_vec(value).map_err(|error| Error::internal(format!("it can't be written: {error}")))?;
    Ok(Bytes::from(written))
}

fn contended() -> Error {
    Error::new(Code::Unavailable, "others change the same at this moment; try again")
}

/// The orders with a change.
fn steered(orders: ScalerOrders, change: ScalerChange) -> Result<ScalerOrders> {
    let bound = |field: &str, asked: Option<u32>, stands: Option<u32>| match asked {
        None => Ok(stands),
        Some(0) => Ok(None),
        Some(count) if count <= MAX_WORKERS => Ok(Some(count)),
        Some(_) => Err(Error::field(Code::InvalidField, field, format!("must be 0 to {MAX_WORKERS}"))),
    };
    let orders = ScalerOrders {
        min: bound("min", change.min, orders.min)?,
        max: bound("max", change.max, orders.max)?,
        paused: change.paused.unwrap_or(orders.paused),
    };
    match (orders.min, orders.max) {
        (Some(min), Some(max)) if min > max => {
            let reason = format!("is {min}, more than the most workers that are asked for: {max}");
            Err(Error::field(Code::InvalidField, "min", reason))
        }
        _ => Ok(orders),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share, for which a few figures are enough")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64).clamp(0.0, 1.0) }
}

fn worker(member: &Member) -> WorkerLoad {
    let (of, state) = (&member.registration, &member.registration.state);
    let places = share(state.running as u64, state.concurrency_limit as u64);
    let processors = state.cpu.total.map_or(0.0, |total| share(state.cpu.charged, total));
    WorkerLoad {
        name: of.name.clone(),
        address: of.address.clone(),
        state: member.state,
        running: state.running as u64,
        queued: state.queued as u64,
        utilisation: places.max(processors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(min: Option<u32>, max: Option<u32>, paused: Option<bool>) -> ScalerChange {
        ScalerChange { min, max, paused }
    }

    #[test]
    fn orders_keep_what_a_change_leaves_out() {
        let one = steered(ScalerOrders::default(), change(Some(2), Some(8), None)).unwrap();
        assert_eq!((one.min, one.max, one.paused), (Some(2), Some(8), false));
        let two = steered(one, change(None, None, Some(true))).unwrap();
        assert_eq!((two.min, two.max, two.paused), (Some(2), Some(8), true));
        let three = steered(two, change(Some(0), None, None)).unwrap();
        assert_eq!((three.min, three.max, three.paused), (None, Some(8), true));
    }

    #[test]
    fn bounds_that_cannot_be_kept_are_refused() {
        let refused = |change| steered(ScalerOrders::default(), change).unwrap_err().code;
        assert_eq!(refused(change(Some(9), Some(8), None)), Code::InvalidField);
        assert_eq!(refused(change(None, Some(MAX_WORKERS + 1), None)), Code::InvalidField);
    }

    #[test]
    fn shares_stay_between_nothing_and_all() {
        assert_eq!((share(0, 0), share(5, 0), share(1, 2), share(9, 3)), (0.0, 0.0, 0.5, 1.0));
    }
}
