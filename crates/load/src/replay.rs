//! Load on a running Lyra over its public interface.
//!
//! Closed loop: so many clients, each sends the next call when the answer is there. Open loop: calls are due at a
//! rate whatever the answers do, and a latency counts from when the call was due: a server that stalls shows all the
//! waits that it caused ("coordinated omission" after Gil Tene is left no room). At most so many calls are under
//! way; one that is due when all are taken waits, and its wait counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lyra_client::{CallInfo, Client};
use lyra_kit::{Clock, Random};
use lyra_types::FunctionName;
use lyra_types::name::Qualifier;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::Error;
use crate::latency::Latencies;

/// How calls come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrivals {
    /// Each client sends its next call when the answer is there.
    Closed {
        /// Clients.
        clients: usize,
    },
    /// So many are due in a second.
    Open {
        /// Calls a second.
        rate: f64,
        /// At random (exponential gaps) instead of evenly.
        random: bool,
        /// Most calls under way.
        in_flight: usize,
    },
}

/// What to send, and for how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Function to call.
    pub function: FunctionName,
    /// Which version of it.
    pub qualifier: Qualifier,
    /// The event of every call.
    pub event: Bytes,
    /// How calls come.
    pub arrivals: Arrivals,
    /// How long calls are sent; those under way at the end are waited for.
    pub duration: Duration,
    /// Longest wait for one answer.
    pub timeout: Duration,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// Calls with a result.
    pub ok: u64,
    /// Calls without one, by error code.
    pub errors: BTreeMap<String, u64>,
    /// Calls by how they started: `warm`, `prewarmed`, `cold`.
    pub starts: BTreeMap<String, u64>,
    /// From the first call to the last answer, in seconds.
    pub seconds: f64,
    /// Results a second.
    pub rps: f64,
    /// Calls a second that were asked for; open loop only.
    pub asked_rps: Option<f64>,
    /// Latency of calls with a result, from when each was due, in µs.
    pub latency_us: Percentiles,
    /// What the worker said of its phases: means, in µs.
    pub phases_us: PhaseMeans,
}

/// Percentiles.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th.
    pub p90: f64,
    /// 99th.
    pub p99: f64,
    /// 99.9th.
    pub p999: f64,
    /// Largest.
    pub max: f64,
}

/// Means of the phases that `Server-Timing` tells.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct PhaseMeans {
    /// Waiting for a place to run.
    pub queue: f64,
    /// Loading code and starting an instance.
    pub start: f64,
    /// In the handler.
    pub exec: f64,
}

struct Seen {
    latencies: Latencies,
    errors: BTreeMap<String, u64>,
    starts: BTreeMap<String, u64>,
    phases: [Duration; 3],
}

impl Seen {
    fn new() -> Seen {
        Seen {
            latencies: Latencies::new(),
            errors: BTreeMap::new(),
            starts: BTreeMap::new(),
            phases: Default::default(),
        }
    }

    fn add(&mut self, outcome: Result<CallInfo, lyra_client::Error>, latency: Duration) {
        match outcome {
            Ok(call) => {
                self.latencies.add(latency);
                if let Some(start) = call.start {
                    *self.starts.entry(start).or_default() += 1;
                }
                let phases = call.phases.unwrap_or_default();
                for (sum, one) in self.phases.iter_mut().zip([phases.queue, phases.start, phases.exec]) {
                    *sum += one;
                }
            }
            Err(error) => *self.errors.entry(error.code().as_str().to_owned()).or_default() += 1,
        }
    }

    fn outcome(&self, plan: &Plan, took: Duration) -> Outcome {
        let (latencies, ok) = (&self.latencies, self.latencies.count());
        let mean = |sum: Duration| if ok == 0 { 0.0 } else { sum.as_secs_f64() * 1e6 / ok as f64 };
        let [queue, start, exec] = self.phases.map(mean);
        Outcome {
            ok,
            errors: self.errors.clone(),
            starts: self.starts.clone(),
            seconds: took.as_secs_f64(),
            rps: ok as f64 / took.as_secs_f64().max(1e-9),
            asked_rps: match plan.arrivals {
                Arrivals::Open { rate, .. } => Some(rate),
                Arrivals::Closed { .. } => None,
            },
            latency_us: Percentiles {
                mean: latencies.mean_us(),
                p50: latencies.us(0.5),
                p90: latencies.us(0.9),
                p99: latencies.us(0.99),
                p999: latencies.us(0.999),
                max: latencies.us(1.0),
            },
            phases_us: PhaseMeans { queue, start, exec },
        }
    }
}

/// Sends the calls.
///
/// # Errors
/// [`Error::Setting`] when the plan makes no sense. Calls that fail are counted, not an error.
pub async fn run(client: &Client, plan: &Plan, clock: &Clock, random: &Random) -> Result<Outcome, Error> {
    let sender = Sender {
        client: client.clone(),
        plan: Arc::new(plan.clone()),
        clock: clock.clone(),
        seen: Arc::new(Mutex::new(Seen::new())),
    };
    let began = clock.instant();
    match plan.arrivals {
        Arrivals::Closed { clients } if !(1..=100_000).contains(&clients) => {
            return Err(Error::Setting("clients: from 1 to 100000".to_owned()));
        }
        Arrivals::Open { rate, in_flight, .. } if !(0.001..=1e6).contains(&rate) || in_flight == 0 => {
            return Err(Error::Setting(
                "rate: from 0.001 to 1000000 a second, with one call under way at least".to_owned(),
            ));
        }
        Arrivals::Closed { clients } => sender.closed(clients, began).await,
        Arrivals::Open { rate, random: poisson, in_flight } => {
            let gaps = Gaps { rate, random: poisson.then(|| random.clone()) };
            sender.open(gaps, in_flight, began).await;
        }
    }
    let took = clock.instant() - began;
    Ok(sender.seen.lock().outcome(plan, took))
}

#[derive(Clone)]
struct Sender {
    client: Client,
    plan: Arc<Plan>,
    clock: Clock,
    seen: Arc<Mutex<Seen>>,
}

impl Sender {
    async fn one(&self, due: Instant) {
        let plan = &self.plan;
        let sent = self.client.invoke(&plan.function, &plan.qualifier, plan.event.clone(), Some(plan.timeout)).await;
        let latency = self.clock.instant() - due;
        self.seen.lock().add(sent.map(|sent| sent.call), latency);
    }

    async fn closed(&self, clients: usize, began: Instant) {
        let until = began + self.plan.duration;
        let clients = (0..clients).map(|_| {
            let sender = self.clone();
            lyra_kit::tasks::spawn("load-client", async move {
                let mut now = began;
                while now < until {
                    sender.one(now).await;
                    now = sender.clock.instant();
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            drop(client.await);
        }
    }

    async fn open(&self, gaps: Gaps, in_flight: usize, began: Instant) {
        let places = Arc::new(Semaphore::new(in_flight.min(Semaphore::MAX_PERMITS)));
        let mut due = began;
        let until = began + self.plan.duration;
        while due < until {
            let wait = due - self.clock.instant();
            if !wait.is_zero() {
                self.clock.sleep(wait).await;
            }
            let Ok(place) = places.clone().acquire_owned().await else { break };
            let (sender, call_due) = (self.clone(), due);
            drop(lyra_kit::tasks::spawn("load-call", async move {
                sender.one(call_due).await;
                drop(place);
            }));
            due += gaps.next();
        }
        // All places are free when the last answer is there.
        let all = u32::try_from(in_flight).unwrap_or(u32::MAX);
        drop(places.acquire_many(all).await);
    }
}

/// Times between calls.
struct Gaps {
    rate: f64,
    random: Option<Random>,
}

impl Gaps {
    fn next(&self) -> Duration {
        let mean = 1.0 / self.rate;
        let gap = match &self.random {
            Some(random) => -mean * (1.0 - random.unit()).ln(),
            None => mean,
        };
        Duration::from_secs_f64(gap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_gaps_have_the_mean_of_even_ones() {
        let even = Gaps { rate: 100.0, random: None };
        assert_eq!(even.next(), Duration::from_millis(10));
        let random = Gaps { rate: 100.0, random: Some(Random::seeded(1)) };
        let sum: Duration = (0..10_000).map(|_| random.next()).sum();
        assert!((sum.as_secs_f64() - 100.0).abs() < 3.0, "{sum:?}");
    }
}
