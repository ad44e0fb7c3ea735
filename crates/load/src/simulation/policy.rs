//! Which policies a simulated worker follows, and what they are called: `queue=fcfs,keep_alive=greedy-dual`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use lyra_worker::keep_alive::Policy as KeepAlive;
use lyra_worker::queue::{self, PolicyKind};
use lyra_worker::{Config, resources};

use super::Machine;
use crate::Error;

/// How long `ttl` keeps an idle instance when nothing else is said, in seconds.
const TTL: u64 = 600;
/// Longest wait for anything: a simulated call is never given up.
const PATIENCE: Duration = Duration::from_secs(86_400);

/// The policies of a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Which waiting call runs next.
    queue: PolicyKind,
    /// Which idle instances stay.
    keep_alive: KeepAlive,
    /// How long `ttl` keeps an idle instance, in seconds.
    ttl: u64,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { queue: PolicyKind::Fcfs, keep_alive: KeepAlive::Ttl, ttl: TTL }
    }
}

impl Policy {
    /// One for each keep-alive policy, over the plain queue.
    pub fn keep_alives() -> Vec<Policy> {
        let names = ["ttl", "lru", "greedy-dual", "landlord", "hybrid"];
        let policies = names.into_iter().filter_map(KeepAlive::parse);
        policies.map(|keep_alive| Policy { keep_alive, ..Policy::default() }).collect()
    }

    /// One for each queue policy, over one and the same keep-alive policy.
    pub fn queues() -> Vec<Policy> {
        PolicyKind::ALL.map(|queue| Policy { queue, keep_alive: KeepAlive::Landlord, ..Policy::default() }).to_vec()
    }

    /// The worker's settings under these policies.
    pub(crate) fn config(&self, machine: &Machine) -> Config {
        Config {
            max_running: machine.max_running,
            max_queued: usize::MAX,
            max_queued_per_function: usize::MAX,
            queue_timeout: PATIENCE,
            start_timeout: PATIENCE,
            max_idle_instances: usize::MAX,
            idle_timeout: Duration::from_secs(self.ttl),
            keep_alive: self.keep_alive.clone(),
            queue: queue::Config { policy: self.queue, ..queue::Config::default() },
            resources: resources::Config { memory: Some(machine.memory_mb << 20), ..resources::Config::default() },
            ..Config::default()
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "queue={},keep_alive={}", self.queue.as_str(), self.keep_alive.name())?;
        if self.keep_alive == KeepAlive::Ttl { write!(f, ":{}s", self.ttl) } else { Ok(()) }
    }
}

impl FromStr for Policy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Policy, Error> {
        let mut policy = Policy::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = |expected: &str| Error::Setting(format!("policy {part:?}: {expected}"));
            match part.split_once('=') {
                Some(("queue", queue)) => {
                    let known = PolicyKind::ALL.into_iter().find(|kind| kind.as_str() == queue);
                    policy.queue = known.ok_or_else(|| wrong(&format!("the queue is {}", queue_names())))?;
                }
                Some(("keep_alive", keep_alive)) => {
                    policy.set_keep_alive(keep_alive).map_err(|reason| wrong(&reason))?
                }
                _ => return Err(wrong("it is neither queue=NAME nor keep_alive=NAME")),
            }
        }
        Ok(policy)
    }
}

fn queue_names() -> String {
    PolicyKind::ALL.map(PolicyKind::as_str).join(", ")
}

impl Policy {
    fn set_keep_alive(&mut self, text: &str) -> Result<(), String> {
        let (name, seconds) = match text.split_once(':') {
            Some((name, seconds)) => (name, Some(seconds)),
            None => (text, None),
        };
        let known = "keep_alive is ttl, ttl:SECONDSs, lru, greedy-dual, landlord or hybrid";
        self.keep_alive = KeepAlive::parse(name).ok_or_else(|| known.to_owned())?;
        match (seconds, &self.keep_alive) {
            (None, _) => {}
            (Some(seconds), KeepAlive::Ttl) => {
                self.ttl = seconds.strip_suffix('s').and_then(|ttl| ttl.parse().ok()).ok_or(known)?;
            }
            (Some(_), _) => return Err("only ttl takes a time".to_owned()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_again() {
        for policy in Policy::keep_alives().into_iter().chain(Policy::queues()) {
            assert_eq!(policy.to_string().parse::<Policy>().expect("reads"), policy);
        }
        assert_eq!("keep_alive=ttl:60s".parse::<Policy>().expect("reads").to_string(), "queue=fcfs,keep_alive=ttl:60s");
        for wrong in ["fcfs", "queue=none", "keep_alive=ttl:60", "keep_alive=lru:60s", "keep_alive=none"] {
            assert!(wrong.parse::<Policy>().is_err(), "{wrong}");
        }
    }
}
