//! Which policies a simulated worker follows, and what they are called: `queue=fcfs,keep_alive=ttl:10m`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use lyra_worker::Config;

use super::Machine;
use crate::Error;

/// The policies of a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// How long an idle instance is kept.
    ttl: Duration,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { ttl: Duration::from_secs(600) }
    }
}

impl Policy {
    /// One for each keep-alive policy, over the plain queue.
    pub fn keep_alives() -> Vec<Policy> {
        [60, 600].map(|seconds| Policy { ttl: Duration::from_secs(seconds) }).to_vec()
    }

    /// One for each queue policy, over the plain keep-alive.
    pub fn queues() -> Vec<Policy> {
        vec![Policy::default()]
    }

    /// The worker's settings under these policies.
    pub(crate) fn config(&self, machine: &Machine) -> Config {
        Config {
            max_running: machine.max_running,
            max_queued: usize::MAX,
            max_queued_per_function: usize::MAX,
            queue_timeout: Duration::from_secs(86_400),
            start_timeout: Duration::from_secs(86_400),
            max_idle_instances: usize::MAX,
            idle_timeout: self.ttl,
            ..Config::default()
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "queue=fcfs,keep_alive=ttl:{}s", self.ttl.as_secs())
    }
}

impl FromStr for Policy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Policy, Error> {
        let mut policy = Policy::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let wrong = |expected: &str| Error::Setting(format!("policy {part:?}: {expected}"));
            match part.split_once('=') {
                Some(("queue", "fcfs")) => {}
                Some(("queue", _)) => return Err(wrong("the queue is fcfs")),
                Some(("keep_alive", keep_alive)) => {
                    let seconds = keep_alive.strip_prefix("ttl:").and_then(|ttl| ttl.strip_suffix('s')?.parse().ok());
                    policy.ttl = Duration::from_secs(seconds.ok_or_else(|| wrong("keep_alive is ttl:SECONDSs"))?);
                }
                _ => return Err(wrong("expected queue=… or keep_alive=…")),
            }
        }
        Ok(policy)
    }
}
