//! The tries of one call: on one worker after the other, for as long as it can't have run.

use std::sync::Arc;
use std::time::Duration;

use lyra_types::invocation::Report;
use lyra_types::{Code, Error, FunctionVersion, Result};

use crate::fleet::{Inner, WAIT};
use crate::metrics::Outcome;
use crate::node::{Entered, Node};

/// Most workers that a call is tried on.
pub(crate) const TRIES: usize = 3;

/// One call's way through the workers.
pub(crate) struct Tries<'a> {
    inner: &'a Inner,
    version: &'a FunctionVersion,
    /// Names of those that it was tried on.
    tried: Vec<String>,
    /// The last one that did not take it.
    refused: Option<Arc<Node>>,
}

/// A call that a worker has.
pub(crate) struct Try {
    pub(crate) node: Arc<Node>,
    entered: Entered,
}

impl<'a> Tries<'a> {
    pub(crate) fn new(inner: &'a Inner, version: &'a FunctionVersion) -> Tries<'a> {
        Tries { inner, version, tried: Vec::new(), refused: None }
    }

    /// The worker that gets the call next, which counts as having it from now on; `None` when there is none left to try.
    pub(crate) async fn next(&mut self) -> Option<Try> {
        if self.tried.len() >= TRIES {
            return None;
        }
        let wait = if self.tried.is_empty() { WAIT } else { Duration::ZERO };
        let node = self.inner.look(wait, || self.inner.choose(self.version, &self.tried)).await?;
        if let Some(measured) = self.refused.take().as_ref().and_then(|node| node.measured(self.inner.measured.get())) {
            measured.retried();
        }
        let entered = self.inner.enter(&node, self.version);
        Some(Try { node, entered })
    }

    /// How a try ended; whether another worker may have the call, since it can't have run.
    pub(crate) fn ended<T>(&mut self, this: Try, report: &Report, outcome: &Result<T>) -> bool {
        let Try { node, mut entered } = this;
        let failed = outcome.as_ref().err();
        entered.ended(self.version, report, failed);
        drop(entered);
        if let Some(measured) = node.measured(self.inner.measured.get()) {
            measured.called(Outcome::of(outcome, report.start.is_some()));
        }
        if !may_go_elsewhere(report, failed) {
            return false;
        }
        if failed.is_some_and(|error| error.code == Code::Unavailable) {
            node.suspect(self.inner.clock.instant());
        }
        self.tried.push(node.name.clone());
        self.refused = Some(node);
        true
    }
}

/// Whether the call can't have run, and another worker may take it.
fn may_go_elsewhere(report: &Report, failed: Option<&Error>) -> bool {
    let elsewhere = |error: &Error| matches!(error.code, Code::Unavailable | Code::Overloaded);
    report.start.is_none() && failed.is_some_and(elsewhere)
}
