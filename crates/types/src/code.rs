//! The one table of error codes: what each means to HTTP, to gRPC and to a shell.

use serde::{Deserialize, Serialize};

/// What went wrong, in a word that programs can branch on.
///
/// The set is closed: every error that a user sees carries one of these, and [`Code::row`] is the
/// only place that says how it looks on each interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request can't be understood: malformed JSON, a bad query parameter, a bad header.
    BadRequest,
    /// A name breaks the naming rule.
    InvalidName,
    /// A field is missing, unknown, of the wrong type or out of range.
    InvalidField,
    /// The code can't be loaded: a syntax error, a missing export, not a WebAssembly file.
    InvalidCode,
    /// The request has no valid credentials.
    Unauthenticated,
    /// The caller may not do this.
    PermissionDenied,
    /// No such function, version, alias, job, or route.
    NotFound,
    /// The route exists, but not with this method.
    MethodNotAllowed,
    /// The object is in a state that does not allow this.
    Conflict,
    /// `If-Match` named a version that is not the newest any more.
    StaleVersion,
    /// An idempotency key was used before with another body.
    IdempotencyMismatch,
    /// The body is larger than the limit that the detail names.
    TooLarge,
    /// The body's media type is not one that this route takes.
    UnsupportedMediaType,
    /// The caller's own limit is reached (concurrency of a function, rate, quota).
    LimitReached,
    /// No capacity: the worker's queue is full or the wait for a free place was too long.
    Overloaded,
    /// The platform is starting, draining, or a part of it can't be reached.
    Unavailable,
    /// The function threw, rejected, or ended with a non-zero status.
    FunctionError,
    /// The function did not end before its deadline.
    Timeout,
    /// The function needed more memory than its limit.
    OutOfMemory,
    /// The instance died: a trap, an abort, a stack overflow.
    InstanceCrashed,
    /// The worker was lost while it had the call, which may have run.
    WorkerLost,
    /// A session gave no answer; it may have seen the request.
    SessionError,
    /// The function's result is larger than the limit that the detail names.
    ResultTooLarge,
    /// The function's result is not what its contract asks for.
    InvalidResult,
    /// The call or job was cancelled.
    Cancelled,
    /// A fault of Lyra itself.
    Internal,
}

/// One line of the table: HTTP status, gRPC status, exit code of the CLI, title for people.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// HTTP status code.
    pub http: u16,
    /// gRPC status code (google.rpc.Code).
    pub grpc: u8,
    /// Exit code of `lyra` (interfaces: 0 done … 70 internal fault).
    pub exit: u8,
    /// Title of the problem document.
    pub title: &'static str,
}

impl Code {
    /// Every code, in the order of the table.
    pub const ALL: [Code; 26] = [
        Code::BadRequest,
        Code::InvalidName,
        Code::InvalidField,
        Code::InvalidCode,
        Code::Unauthenticated,
        Code::PermissionDenied,
        Code::NotFound,
        Code::MethodNotAllowed,
        Code::Conflict,
        Code::StaleVersion,
        Code::IdempotencyMismatch,
        Code::TooLarge,
        Code::UnsupportedMediaType,
        Code::LimitReached,
        Code::Overloaded,
        Code::Unavailable,
        Code::FunctionError,
        Code::Timeout,
        Code::OutOfMemory,
        Code::InstanceCrashed,
        Code::WorkerLost,
        Code::SessionError,
        Code::ResultTooLarge,
        Code::InvalidResult,
        Code::Cancelled,
        Code::Internal,
    ];

    /// This code's line of the table.
    pub const fn row(self) -> Row {
        const fn row(http: u16, grpc: u8, exit: u8, title: &'static str) -> Row {
            Row { http, grpc, exit, title }
        }
        match self {
            Code::BadRequest => row(400, 3, 2, "Bad request"),
            Code::InvalidName => row(422, 3, 2, "Invalid name"),
            Code::InvalidField => row(422, 3, 2, "Invalid field"),
            Code::InvalidCode => row(422, 3, 2, "Code can't be loaded"),
            Code::Unauthenticated => row(401, 16, 4, "Not authenticated"),
            Code::PermissionDenied => row(403, 7, 4, "Not allowed"),
            Code::NotFound => row(404, 5, 3, "Not found"),
            Code::MethodNotAllowed => row(405, 12, 2, "Method not allowed"),
            Code::Conflict => row(409, 9, 2, "Conflict"),
            Code::StaleVersion => row(412, 9, 2, "Stale version"),
            Code::IdempotencyMismatch => row(422, 9, 2, "Idempotency key used before"),
            Code::TooLarge => row(413, 3, 2, "Too large"),
            Code::UnsupportedMediaType => row(415, 3, 2, "Unsupported media type"),
            Code::LimitReached => row(429, 8, 5, "Limit reached"),
            Code::Overloaded => row(503, 14, 5, "Overloaded"),
            Code::Unavailable => row(503, 14, 7, "Unavailable"),
            Code::FunctionError => row(500, 2, 1, "The function failed"),
            Code::Timeout => row(504, 4, 6, "Deadline passed"),
            Code::OutOfMemory => row(500, 8, 1, "Out of memory"),
            Code::InstanceCrashed => row(500, 10, 1, "The instance crashed"),
            Code::WorkerLost => row(500, 15, 7, "The worker was lost"),
            Code::SessionError => row(502, 2, 1, "The session failed"),
            Code::ResultTooLarge => row(500, 11, 1, "Result too large"),
            Code::InvalidResult => row(500, 2, 1, "Invalid result"),
            Code::Cancelled => row(499, 1, 1, "Cancelled"),
            Code::Internal => row(500, 13, 70, "Internal fault"),
        }
    }

    /// The code as it stands in JSON: `function_error`, `not_found`, …
    pub const fn as_str(self) -> &'static str {
        match self {
            Code::BadRequest => "bad_request",
            Code::InvalidName => "invalid_name",
            Code::InvalidField => "invalid_field",
            Code::InvalidCode => "invalid_code",
            Code::Unauthenticated => "unauthenticated",
            Code::PermissionDenied => "permission_denied",
            Code::NotFound => "not_found",
            Code::MethodNotAllowed => "method_not_allowed",
            Code::Conflict => "conflict",
            Code::StaleVersion => "stale_version",
            Code::IdempotencyMismatch => "idempotency_mismatch",
            Code::TooLarge => "too_large",
            Code::UnsupportedMediaType => "unsupported_media_type",
            Code::LimitReached => "limit_reached",
            Code::Overloaded => "overloaded",
            Code::Unavailable => "unavailable",
            Code::FunctionError => "function_error",
            Code::Timeout => "timeout",
            Code::OutOfMemory => "out_of_memory",
            Code::InstanceCrashed => "instance_crashed",
            Code::WorkerLost => "worker_lost",
            Code::SessionError => "session_error",
            Code::ResultTooLarge => "result_too_large",
            Code::InvalidResult => "invalid_result",
            Code::Cancelled => "cancelled",
            Code::Internal => "internal",
        }
    }

    /// The code whose JSON form is `text`.
    pub fn parse(text: &str) -> Option<Code> {
        Code::ALL.into_iter().find(|code| code.as_str() == text)
    }

    /// Whether the function itself, not the platform or the caller, is at fault.
    pub const fn is_function_fault(self) -> bool {
        matches!(
            self,
            Code::FunctionError
                | Code::Timeout
                | Code::OutOfMemory
                | Code::InstanceCrashed
                | Code::ResultTooLarge
                | Code::InvalidResult
        )
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_form_is_the_same_in_serde_and_by_hand() {
        for code in Code::ALL {
            let json = serde_json::to_string(&code).expect("a code serializes");
            assert_eq!(json, format!("\"{}\"", code.as_str()));
            assert_eq!(Code::parse(code.as_str()), Some(code));
        }
    }

    #[test]
    fn every_code_maps_to_an_error_status() {
        for code in Code::ALL {
            let row = code.row();
            assert!((400..600).contains(&row.http), "{code}");
            assert!((1..=16).contains(&row.grpc), "{code}");
            assert!([1, 2, 3, 4, 5, 6, 7, 70].contains(&row.exit), "{code}");
        }
    }
}
