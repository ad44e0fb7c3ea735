//! What became of visits to sessions.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::{Result, ensure};
use lyra_client::Error;

use super::record::{KEPT, code};

/// What became of each visit.
#[derive(Debug, Clone, Default)]
pub struct Visited {
    /// Sessions that were open.
    pub opened: u64,
    /// Sessions that were closed and are gone.
    pub closed: u64,
    /// Sessions that ended otherwise, by reason.
    pub ended: BTreeMap<String, u64>,
    /// Times that opening or closing was refused and asked for again, by code.
    pub refused: BTreeMap<String, u64>,
    /// Connections that broke: how many, and the first in words.
    pub cut: (u64, Vec<String>),
    /// Longest from the first request to the open session.
    pub slowest: Duration,
    /// Which session each instance has.
    instances: HashMap<String, String>,
    violations: Vec<String>,
}

impl Visited {
    pub(super) fn violated(&mut self, what: String) {
        if self.violations.len() < KEPT {
            self.violations.push(what);
        }
    }

    pub(super) fn opened(&mut self, session: &str, instance: &str, took: Duration) {
        self.opened += 1;
        self.slowest = self.slowest.max(took);
        if let Some(other) = self.instances.insert(instance.to_owned(), session.to_owned()) {
            self.violated(format!("instance {instance} was given to {session} while {other} was in it"));
        }
    }

    /// A visitor goes: from now on its instance may be given to another.
    pub(super) fn left(&mut self, session: &str) {
        self.instances.retain(|_, of| of != session);
    }

    pub(super) fn ended(&mut self, reason: &str) {
        *self.ended.entry(reason.to_owned()).or_default() += 1;
    }

    pub(super) fn refused(&mut self, error: &Error) {
        *self.refused.entry(code(error)).or_default() += 1;
    }

    pub(super) fn cut(&mut self, what: String) {
        self.cut.0 += 1;
        if self.cut.1.len() < KEPT {
            self.cut.1.push(what);
        }
    }

    /// Asks that no session was in two instances and no instance had two, that each was accepted, opened or ended in time,
    /// and closed in time; and, where no host was lost, that no connection broke and no session ended by itself.
    ///
    /// # Errors
    /// With what does not hold.
    pub fn check(&self, host_lost: bool) -> Result<()> {
        ensure!(self.violations.is_empty(), "{}", self.violations.join("\n"));
        let allowed = |reason: &String| host_lost && reason == "WorkerLost";
        let others: Vec<_> = self.ended.iter().filter(|(reason, _)| !allowed(reason)).collect();
        ensure!(others.is_empty(), "sessions ended by themselves: {others:?}\n{}", self.cut.1.join("\n"));
        ensure!(host_lost || self.cut.0 == 0, "connections broke:\n{}", self.cut.1.join("\n"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_with_two_sessions_is_seen_and_one_after_the_other_is_not() {
        let mut visited = Visited::default();
        visited.opened("a", "i", Duration::ZERO);
        visited.left("a");
        visited.opened("b", "i", Duration::ZERO);
        assert!(visited.check(false).is_ok());
        visited.opened("c", "i", Duration::ZERO);
        assert!(visited.check(true).unwrap_err().to_string().contains("given to c while b"));
    }

    #[test]
    fn sessions_may_end_with_their_host_only() {
        let mut visited = Visited::default();
        visited.cut("a".to_owned());
        visited.ended("WorkerLost");
        assert!(visited.check(true).is_ok() && visited.check(false).is_err());
        visited.ended("Timeout");
        assert!(visited.check(true).is_err());
    }
}
