//! Clients of a site: calls and jobs at a rate, whatever the answers do, and a record of what became of each.
//!
//! A client goes to the next gateway where one refuses the connection, and to no other where a call may have begun. A job
//! has an idempotency key, so handing it in is tried again until it is accepted; from then on it may not be lost.

mod record;
mod visited;
mod visits;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use lyra_client::{Client, Error};
use lyra_kit::{Clock, Tasks};
use lyra_types::FunctionName;
use lyra_types::name::Qualifier;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Semaphore;

pub use record::{Record, Seen};
pub use visited::Visited;
pub use visits::{PROGRAM, Visiting, Visits};

/// Calls and jobs that may be under way at once; those that are due beyond wait.
const UNDER_WAY: usize = 2_000;
/// Longest wait for the answer to a call.
const ANSWER: Duration = Duration::from_secs(30);
/// How long handing in a job is tried.
const HAND_IN: Duration = Duration::from_secs(60);
/// Between two tries of that.
const AGAIN: Duration = Duration::from_millis(100);
/// How often workers are asked what they have charged.
const SAMPLE: Duration = Duration::from_millis(250);
/// Longest wait for what is under way at the end.
const REST: Duration = Duration::from_secs(90);

/// What is sent.
#[derive(Debug, Clone)]
pub struct Plan {
    /// A function made by [`source`].
    pub function: FunctionName,
    /// Calls a second.
    pub calls: f64,
    /// Jobs a second.
    pub jobs: f64,
}

/// JavaScript of a function that answers with its event, and with the build that it is: for a version `build` of a
/// function, whose instances are kept. An instance that served two versions would show it.
pub fn source(build: u64) -> String {
    format!(
        "const build = {build};\nlet first;\nexport default (n, context) => {{\n  first ??= String(context.functionVersion);\n  \
         return {{ n, build, first }};\n}}\n"
    )
}

/// Traffic that is under way.
#[derive(Debug)]
pub struct Traffic {
    sending: Tasks,
    under_way: Tasks,
    record: Arc<Mutex<Record>>,
}

#[derive(Clone)]
struct Sender {
    gateways: Arc<[Client]>,
    function: FunctionName,
    record: Arc<Mutex<Record>>,
    under_way: Tasks,
    places: Arc<Semaphore>,
    clock: Clock,
}

impl Traffic {
    /// Sends from now on, until [`Traffic::end`].
    pub fn start(gateways: Vec<Client>, plan: &Plan) -> Traffic {
        let record = Arc::new(Mutex::new(Record::default()));
        let (sending, under_way, clock) = (Tasks::new(), Tasks::new(), Clock::system());
        let sender = Sender {
            gateways: gateways.into(),
            function: plan.function.clone(),
            record: Arc::clone(&record),
            under_way: under_way.clone(),
            places: Arc::new(Semaphore::new(UNDER_WAY)),
            clock,
        };
        if plan.calls > 0.0 {
            sending.spawn_cancellable("calls", sender.clone().pace(plan.calls, false));
        }
        if plan.jobs > 0.0 {
            sending.spawn_cancellable("jobs", sender.clone().pace(plan.jobs, true));
        }
        sending.spawn_cancellable("samples", sender.sample());
        Traffic { sending, under_way, record }
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        self.record.lock().seen()
    }

    /// Waits until so many more calls than now had an answer: the site works, or fails them.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn go_on(&self, calls: u64) -> Result<()> {
        let until = self.record.lock().answered() + calls;
        let clock = Clock::system();
        let begun = clock.instant();
        while self.record.lock().answered() < until {
            anyhow::ensure!(clock.instant() - begun < REST, "calls have no answers");
            clock.sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Sends no more, waits for what is under way, and says what became of all.
    pub async fn end(self) -> Record {
        self.sending.stop(Duration::from_secs(5)).await;
        self.under_way.stop(REST).await;
        std::mem::take(&mut *self.record.lock())
    }
}

impl Sender {
    /// Sends at a rate. What is due later than it could be sent is sent at once.
    async fn pace(self, rate: f64, jobs: bool) {
        let begun = self.clock.instant();
        for number in 0_u64.. {
            let due = begun + Duration::from_secs_f64(number as f64 / rate);
            tokio::time::sleep_until(due).await;
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            let sender = self.clone();
            self.under_way.spawn("request", async move {
                match jobs {
                    true => sender.hand_in(number).await,
                    false => sender.call(number).await,
                }
                drop(place);
            });
        }
    }

    /// The gateways, each once, beginning with another one each time.
    fn in_turn(&self, number: u64) -> impl Iterator<Item = &Client> {
        let count = self.gateways.len();
        let first = usize::try_from(number).unwrap_or_default() % count;
        (0..count).map(move |offset| &self.gateways[(first + offset) % count])
    }

    async fn call(&self, number: u64) {
        let event = Bytes::from(number.to_string());
        let begun = self.clock.instant();
        for gateway in self.in_turn(number) {
            let outcome = gateway.invoke(&self.function, &Qualifier::Live, event.clone(), Some(ANSWER)).await;
            match outcome {
                Err(Error::Unreachable { .. }) => {}
                outcome => {
                    let took = self.clock.instant() - begun;
                    self.record.lock().called(number, took, outcome);
                    return;
                }
            }
        }
        self.record.lock().no_gateway();
    }

    async fn hand_in(&self, number: u64) {
        let event = Bytes::from(number.to_string());
        let key = format!("job-{number}");
        let begun = self.clock.instant();
        while self.clock.instant() - begun < HAND_IN {
            for gateway in self.in_turn(number) {
                match gateway.submit(&self.function, &Qualifier::Live, event.clone(), Some(&key)).await {
                    Ok(accepted) => {
                        self.record.lock().accepted(number, &accepted.value.id);
                        return;
                    }
                    Err(error) => self.record.lock().refused(&error),
                }
            }
            self.clock.sleep(AGAIN).await;
        }
        self.record.lock().never_accepted(number);
    }

    /// Looks again and again whether a worker has charged more than it has.
    async fn sample(self) {
        for turn in 0.. {
            if let Some(gateway) = self.in_turn(turn).next()
                && let Ok(workers) = gateway.workers(1_000).await
            {
                self.record.lock().sampled(workers.items.iter().map(|worker| &worker.value));
            }
            self.clock.sleep(SAMPLE).await;
        }
    }
}

/// Whether what a call returned is what the version that is named made of the event.
fn is_right(number: u64, body: &[u8], version: Option<u64>) -> bool {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return false };
    let version = version.unwrap_or_default();
    let first = version.to_string();
    body["n"] == number && body["build"] == version && body["first"] == first.as_str()
}
