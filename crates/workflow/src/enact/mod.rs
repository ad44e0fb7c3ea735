//! Enactables: how each kind of resource is called.
//!
//! What must hold: a call ends by its deadline, whatever the other side does; an answer that is no JSON object, or no
//! success, is a [`Failure`] with a code of its own; dropping the future gives the call up.

mod answer;
pub mod demo;
mod dispatch;
pub mod function;
mod headers;
pub mod http;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_fleet::quota::Pass;
use lyra_types::workflow::Cause;
use lyra_types::{RunId, TenantName};
use serde_json::{Map, Value};

use crate::mapping::Resource;

pub use dispatch::{Enactables, Nested};

/// One try of one task on one resource.
#[derive(Debug, Clone)]
pub struct Enactment {
    /// Owner.
    pub tenant: TenantName,
    /// The run.
    pub run: RunId,
    /// The task with its place: `resize[3]`.
    pub task: String,
    /// The same for the same try, also when it is repeated because the engine was killed: who takes it as an idempotency
    /// key does the work once.
    pub key: String,
    /// Which try, from 1.
    pub attempt: u32,
    /// The function type.
    pub function_type: String,
    /// A JSON object of exactly the declared inputs.
    pub input: Bytes,
    /// Longest time to the answer.
    pub timeout: Duration,
    /// The W3C trace context of the try, for what is called.
    pub traceparent: String,
    /// Who is charged for it: whoever started the run; `None` where that is not known.
    pub user: Option<Arc<str>>,
}

/// Why a try failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// What a user is told.
    pub cause: Cause,
    /// Whether another try may go better.
    pub retryable: bool,
    /// How long the other side asked to be left alone.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure that another try may mend.
    pub fn passing(code: impl Into<String>, message: impl Into<String>) -> Failure {
        Failure {
            cause: Cause { code: code.into(), message: message.into(), name: None, resource: None },
            retryable: true,
            retry_after: None,
        }
    }

    /// A failure that would come again.
    pub fn lasting(code: impl Into<String>, message: impl Into<String>) -> Failure {
        Failure { retryable: false, ..Failure::passing(code, message) }
    }
}

/// Calls resources.
#[async_trait]
pub trait Enact: Send + Sync + 'static {
    /// The output where it can be computed here and now, without a wait and without an effect outside: such a task is
    /// done again after a crash, so that nobody needs to wait for the journal before it.
    fn at_once(
        &self,
        function_type: &str,
        resource: &Resource,
        input: &Map<String, Value>,
    ) -> Option<Result<Map<String, Value>, Failure>> {
        let _ = (function_type, resource, input);
        None
    }

    /// What the name of a resource stands for now, where that may become something else: a result that is kept for the next time is good
    /// for as long as this is the same.
    async fn stands_for(&self, tenant: &TenantName, resource: &Resource) -> Result<String, Failure> {
        let _ = (tenant, resource);
        Ok(String::new())
    }

    /// Waits until a call may be made under the quotas that hold for it. It counts there until what is returned is dropped.
    async fn admit(&self, tenant: &TenantName, resource: &Resource) -> Result<Pass, Failure> {
        let _ = (tenant, resource);
        Ok(Pass::default())
    }

    /// Fetches JSON that an answer gave by URL.
    async fn fetch(&self, url: &str, limit: Duration) -> Result<Bytes, Failure> {
        let _ = limit;
        Err(Failure::lasting("unsupported", format!("nothing is fetched here, nor is {url}")))
    }

    /// Makes the call and returns the output, a JSON object.
    async fn enact(&self, enactment: &Enactment, resource: &Resource) -> Result<Bytes, Failure>;
}

#[cfg(test)]
pub(crate) mod tests;
