//! Tests of the callers: real sockets for URLs, doubles of worker and control for functions, and all kinds together.

pub(crate) mod doubles;
mod function;
mod http;
mod mixture;
pub(crate) mod target;

use std::time::Duration;

use bytes::Bytes;
use lyra_types::{RunId, TenantName};
use serde_json::Value;

use super::{Enactment, Failure};

/// The first try of a task, with the time that a loaded machine may need.
fn enactment(function_type: &str, input: &Value) -> Enactment {
    Enactment {
        tenant: TenantName::default_tenant(),
        run: RunId::new("run-1").expect("an id"),
        task: "resize[3]".to_owned(),
        key: "run-1/resize[3]/1".to_owned(),
        attempt: 1,
        function_type: function_type.to_owned(),
        input: Bytes::from(input.to_string()),
        timeout: Duration::from_secs(60),
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned(),
        user: Some("ada".into()),
    }
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("an output is JSON")
}

fn code(outcome: Result<Bytes, Failure>) -> (String, bool) {
    let failure = outcome.expect_err("a failure");
    (failure.cause.code, failure.retryable)
}
