//! Carrying out what was decided: one order at a time, the newest one.
//!
//! An order to have fewer workers empties those that go first, which may take long. A newer order, or none, ends that: the workers
//! are taken back. What the back end has begun is never broken off.

use std::sync::Arc;
use std::time::Duration;

use lyra_wire::scaler::Load;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::backends::{Backend, Change};
use crate::drain::{empty, take_back};
use crate::metrics::Metrics;
use crate::service::Reach;

/// How many workers there shall be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Order {
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) reason: &'static str,
    /// The load by which it was decided.
    pub(crate) load: Load,
}

/// How an order went.
enum Outcome {
    Done,
    Failed(String),
    /// Another one came.
    GivenUp,
}

/// The order that holds, and who carries it out.
pub(crate) struct Orders {
    backend: Arc<dyn Backend>,
    reach: Reach,
    drain: Duration,
    metrics: Arc<Metrics>,
    wanted: watch::Sender<Option<Order>>,
    fault: Mutex<Option<String>>,
}

impl Orders {
    pub(crate) fn new(backend: Arc<dyn Backend>, reach: Reach, drain: Duration, metrics: Arc<Metrics>) -> Orders {
        Orders { backend, reach, drain, metrics, wanted: watch::Sender::new(None), fault: Mutex::new(None) }
    }

    /// The number that the order under way will come to.
    pub(crate) fn pending(&self) -> Option<u32> {
        self.wanted.borrow().as_ref().map(|order| order.to)
    }

    /// Why the last order could not be carried out.
    pub(crate) fn fault(&self) -> Option<String> {
        self.fault.lock().clone()
    }

    /// Gives an order, in place of the one before.
    pub(crate) fn give(&self, order: Order) {
        self.wanted.send_replace(Some(order));
    }

    /// Gives up the order that is under way, as far as it is not done.
    pub(crate) fn give_up(&self) {
        self.wanted.send_if_modified(|wanted| wanted.take().is_some());
    }

    /// Carries out orders until `stopping`; what is under way then is to be given up.
    pub(crate) async fn carry_out(&self, stopping: CancellationToken) {
        let mut wanted = self.wanted.subscribe();
        loop {
            let order = wanted.borrow_and_update().clone();
            if let Some(order) = order {
                let outcome = self.one(&order, &mut wanted).await;
                let word = match &outcome {
                    Outcome::Done => "ok",
                    Outcome::Failed(_) => "failed",
                    Outcome::GivenUp => "given_up",
                };
                self.metrics.changes.with_label_values(&[word]).inc();
                match outcome {
                    Outcome::Done => *self.fault.lock() = None,
                    Outcome::Failed(reason) => {
                        tracing::warn!(from = order.from, to = order.to, reason, "the workers can't be changed");
                        *self.fault.lock() = Some(reason);
                    }
                    Outcome::GivenUp => tracing::info!(from = order.from, to = order.to, "an order is given up"),
                }
                self.wanted.send_if_modified(|wanted| {
                    let is_it = wanted.as_ref() == Some(&order);
                    if is_it {
                        *wanted = None;
                    }
                    is_it
                });
            }
            tokio::select! {
                _ = wanted.changed() => {}
                () = stopping.cancelled() => return,
            }
        }
    }

    async fn one(&self, order: &Order, wanted: &mut watch::Receiver<Option<Order>>) -> Outcome {
        let Order { from, to, reason, load } = order;
        let going = if to < from { self.backend.going(load, *from, *to) } else { Vec::new() };
        if !going.is_empty() {
            tokio::select! {
                emptied = empty(&self.reach, load, &going, self.drain, &self.metrics.drains) => {
                    if let Err(error) = emptied {
                        take_back(&self.reach, load, &going).await;
                        return Outcome::Failed(error.to_string());
                    }
                }
                _ = wanted.changed() => {
                    take_back(&self.reach, load, &going).await;
                    // The loop looks at it again.
                    wanted.mark_changed();
                    return Outcome::GivenUp;
                }
            }
        }
        let change = Change { from: *from, to: *to, reason, going };
        match self.backend.apply(&change).await {
            Ok(()) => Outcome::Done,
            Err(error) => {
                take_back(&self.reach, load, &change.going).await;
                Outcome::Failed(error.to_string())
            }
        }
    }
}
