//! Problem documents: how every error looks in an answer.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use lyra_types::api::Problem;
use lyra_types::{Code, Error, InvocationId};

/// An error on its way to becoming an answer.
#[derive(Debug)]
pub(crate) struct Fault(Box<Error>);

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault(Box::new(error))
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        respond(&self.0)
    }
}

/// The answer that tells of `error`.
pub(crate) fn respond(error: &Error) -> Response {
    respond_as(error, error.code.row().http)
}

/// The answer that tells of a call that failed.
pub(crate) fn of_call(id: InvocationId, error: &Error) -> Response {
    // What the platform did wrong is worth a line; a full platform would write one for each call.
    if matches!(error.code, Code::Internal | Code::Unavailable) {
        tracing::warn!(invocation = %id, code = %error.code, detail = %error.detail, "invocation failed");
    } else {
        tracing::debug!(invocation = %id, code = %error.code, "invocation failed");
    }
    render(error, error.code.row().http)
}

/// The answer that tells of a session that was not reached. That is the session's matter, and comes as often as clients ask.
pub(crate) fn of_session(error: &Error) -> Response {
    tracing::debug!(code = %error.code, detail = %error.detail, "a session was not reached");
    render(error, error.code.row().http)
}

/// As [`respond`], with another status.
pub(crate) fn respond_as(error: &Error, status: u16) -> Response {
    match error.code {
        Code::Internal => tracing::error!(detail = %error.detail, "request failed"),
        Code::Unavailable => tracing::warn!(detail = %error.detail, "request refused"),
        code => tracing::debug!(%code, detail = %error.detail, "request refused"),
    }
    render(error, status)
}

fn render(error: &Error, status: u16) -> Response {
    let problem = Problem { status, ..Problem::from(error) };
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // For the audit log.
    response.extensions_mut().insert(error.code);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if error.retry_after.is_some() || matches!(status, 429 | 503) {
        headers.insert(RETRY_AFTER, HeaderValue::from(retry_seconds(error)));
    }
    if status == 401 {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"lyra\""));
    }
    response
}

/// Whole seconds, at least 1: the header has no finer unit, and 0 would ask for a storm.
fn retry_seconds(error: &Error) -> u64 {
    error.retry_after.map_or(1, |after| after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn retry_after_is_rounded_up_and_never_zero() {
        for (after, seconds) in [(None, 1), (Some(0), 1), (Some(1), 1), (Some(1_000), 1), (Some(1_001), 2)] {
            let mut error = Error::new(Code::Overloaded, "full");
            error.retry_after = after.map(Duration::from_millis);
            assert_eq!(respond(&error).headers()[RETRY_AFTER], seconds.to_string());
        }
        assert!(respond(&Error::new(Code::NotFound, "x")).headers().get(RETRY_AFTER).is_none());
    }
}
