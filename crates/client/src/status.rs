//! Errors of the Kubernetes-style API as Lyra's own: a `Status` object becomes an error with a code of the one table, and keeps
//! its message, the fields at fault and when to try again.

use std::time::Duration;

use lyra_types::error::FieldError;
use lyra_types::{Code, Error};
use serde::Deserialize;

/// What a failed request of the API is answered with (`meta/v1` Status), as far as it matters here.
#[derive(Debug, Deserialize)]
struct Status {
    kind: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    code: u16,
    #[serde(default)]
    details: Details,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Details {
    causes: Vec<Cause>,
    retry_after_seconds: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cause {
    reason: String,
    message: String,
    field: String,
}

/// The cause of an object that names another one, which is not there.
const NOT_THERE: &str = "FieldValueNotFound";

/// The error that `body` tells of; `None` when it is no `Status`.
pub(crate) fn read(body: &[u8]) -> Option<Error> {
    let status: Status = serde_json::from_slice(body).ok().filter(|status: &Status| status.kind == "Status")?;
    let causes = &status.details.causes;
    let code = match status.code {
        400 => Code::BadRequest,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        405 => Code::MethodNotAllowed,
        409 => Code::Conflict,
        410 => Code::StaleVersion,
        413 => Code::TooLarge,
        415 => Code::UnsupportedMediaType,
        422 if !causes.is_empty() && causes.iter().all(|cause| cause.reason == NOT_THERE) => Code::NotFound,
        422 => Code::InvalidField,
        429 => Code::LimitReached,
        503 => Code::Unavailable,
        504 => Code::Timeout,
        402..=499 => Code::BadRequest,
        _ => Code::Internal,
    };
    // Several faults are listed one by one after the sentence.
    let detail = match status.message.split_once(": [") {
        Some((before, _)) if causes.len() > 1 => before.to_owned(),
        _ => status.message.clone(),
    };
    let mut error = Error::new(code, detail);
    error.errors = status
        .details
        .causes
        .into_iter()
        .filter(|cause| !cause.field.is_empty())
        .map(|cause| FieldError::new(cause.field, cause.message))
        .collect();
    let after = Some(status.details.retry_after_seconds).filter(|seconds| *seconds > 0);
    error.retry_after = after.map(Duration::from_secs);
    Some(error)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error(code: u16, message: &str, details: &serde_json::Value) -> Error {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": "R", "code": code, "details": details});
        read(status.to_string().as_bytes()).expect("a Status")
    }

    #[test]
    fn a_busy_application_is_to_be_tried_again_later() {
        let error = error(429, "application \"a\" is busy", &json!({"retryAfterSeconds": 1}));
        assert_eq!((error.code.row().exit, error.retry_after), (5, Some(Duration::from_secs(1))));
    }

    #[test]
    fn fields_at_fault_are_named_once() {
        let cause = json!({"reason": "FieldValueRequired", "message": "Required value", "field": "spec.a"});
        let one = error(422, "A \"x\" is invalid: spec.a: Required value", &json!({"causes": [cause]}));
        assert_eq!((one.code, one.errors.len()), (Code::InvalidField, 1));
        assert!(one.detail.ends_with("spec.a: Required value"));
        let two = error(422, "A \"x\" is invalid: [spec.a: Required value, …]", &json!({"causes": [cause, cause]}));
        assert_eq!((two.detail.as_str(), two.errors.len()), ("A \"x\" is invalid", 2));
    }

    #[test]
    fn an_application_that_is_not_there_is_not_found() {
        let cause = json!({"reason": NOT_THERE, "message": "Not found: \"a\"", "field": "spec.applicationName"});
        assert_eq!(error(422, "is invalid", &json!({"causes": [cause]})).code, Code::NotFound);
        assert_eq!(error(404, "applications.lyra.dev \"a\" not found", &json!({})).code, Code::NotFound);
    }

    #[test]
    fn what_is_no_status_is_left_to_others() {
        for body in ["", "{}", r#"{"kind":"Other"}"#, r#"{"type":"t","status":404,"code":"not_found","kind":1}"#] {
            assert!(read(body.as_bytes()).is_none(), "{body}");
        }
    }
}
