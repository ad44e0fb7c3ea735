//! Errors as Kubernetes words them: a `Status` with a code and a reason that clients act on.

use std::fmt;

use lyra_store::StoreError;
use serde::Serialize;

use crate::kind::{Kind, Names};

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Reason, in the one word that clients know.
    pub reason: &'static str,
    /// Reason for people.
    pub message: String,
    /// What it is about.
    pub details: Details,
}

/// What a [`Status`] is about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Name of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// API group of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Kind (or resource) of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Identity of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Each fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// Seconds after which to try again; 0 where it would be of no use.
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// In one word: `FieldValueInvalid`, `FieldValueRequired`, …
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// Path of the field.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

impl Status {
    /// A status of that code and reason.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Status {
        Status { code, reason, message: message.into(), details: Details::default() }
    }

    /// 400: the request can't be understood.
    pub fn bad_request(message: impl Into<String>) -> Status {
        Status::new(400, "BadRequest", message)
    }

    /// 404: there is nothing at that path.
    pub fn no_such_path() -> Status {
        Status::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// 404: no such object.
    pub fn not_found<K: Kind>(name: &str) -> Status {
        Status::new(404, "NotFound", format!("{}.{} \"{name}\" not found", K::NAMES.plural, K::NAMES.group)).of(
            &K::NAMES,
            K::NAMES.plural,
            name,
        )
    }

    /// 409: there is an object of that name.
    pub fn already_exists<K: Kind>(name: &str) -> Status {
        let message = format!("{}.{} \"{name}\" already exists", K::NAMES.plural, K::NAMES.group);
        Status::new(409, "AlreadyExists", message).of(&K::NAMES, K::NAMES.plural, name)
    }

    /// 409: the object is not as the writer thought.
    pub fn conflict<K: Kind>(name: &str, why: &str) -> Status {
        let resource = format!("{}.{}", K::NAMES.plural, K::NAMES.group);
        let message = format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}");
        Status::new(409, "Conflict", message).of(&K::NAMES, K::NAMES.plural, name)
    }

    /// 422: fields that are not valid.
    pub fn invalid<K: Kind>(name: &str, causes: Vec<Cause>) -> Status {
        let mut faults: Vec<String> = causes
            .iter()
            .map(|cause| match cause.field.as_str() {
                "" => cause.message.clone(),
                field => format!("{field}: {}", cause.message),
            })
            .collect();
        let faults = if faults.len() == 1 { faults.remove(0) } else { format!("[{}]", faults.join(", ")) };
        let message = format!("{}.{} \"{name}\" is invalid: {faults}", K::NAMES.kind, K::NAMES.group);
        let mut status = Status::new(422, "Invalid", message).of(&K::NAMES, K::NAMES.kind, name);
        status.details.causes = causes;
        status
    }

    /// 403: the caller may not do that.
    pub fn forbidden(message: impl Into<String>) -> Status {
        Status::new(403, "Forbidden", message)
    }

    /// 410: the changes that were asked for are not kept any more.
    pub fn expired(message: impl Into<String>) -> Status {
        Status::new(410, "Expired", message)
    }

    /// 429: too much at once; try again after so many seconds.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Status {
        let mut status = Status::new(429, "TooManyRequests", message);
        status.details.retry_after_seconds = retry_after_seconds;
        status
    }

    /// 500: a fault of the platform.
    pub fn internal(message: impl Into<String>) -> Status {
        Status::new(500, "InternalError", message)
    }

    /// 503: a part that is needed can't be reached; try again after so many seconds.
    pub fn unavailable(message: impl Into<String>, retry_after_seconds: u32) -> Status {
        let mut status = Status::new(503, "ServiceUnavailable", message);
        status.details.retry_after_seconds = retry_after_seconds;
        status
    }

    /// What the error of the store means to a client.
    pub(crate) fn store(error: &StoreError) -> Status {
        tracing::warn!(error = error as &dyn std::error::Error, "the store failed a request of the resource API");
        match error {
            StoreError::Indeterminate { .. } | StoreError::Commit { .. } => {
                let mut status = Status::new(
                    504,
                    "Timeout",
                    "the store did not answer in time: the request may have been carried out",
                );
                status.details.retry_after_seconds = 1;
                status
            }
            StoreError::TooLarge { .. } => {
                Status::new(413, "RequestEntityTooLarge", "the object is larger than the store takes")
            }
            _ => Status::unavailable("the store can't be reached", 1),
        }
    }

    /// Names the object that the status is about.
    #[must_use]
    pub fn of(mut self, names: &Names, kind: &str, name: &str) -> Status {
        self.details.name = name.to_owned();
        self.details.group = names.group.to_owned();
        self.details.kind = kind.to_owned();
        self
    }

    /// The status as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        let mut json = serde_json::json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        });
        if self.details != Details::default() {
            json["details"] = serde_json::to_value(&self.details).expect("strings and numbers");
        }
        json
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} {})", self.message, self.code, self.reason)
    }
}

impl std::error::Error for Status {}
