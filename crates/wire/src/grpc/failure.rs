//! Errors as gRPC carries them: the status of the one table of codes, and the whole error in the status' details.

use std::error::Error as _;

use lyra_types::{Code, Error};
use tonic::Status;

use super::packed::{pack, unpack};
use super::seldom::is_time_to_say;

/// The status that carries `error`.
pub fn to_status(error: &Error) -> Status {
    let code = tonic::Code::from_i32(i32::from(error.code.row().grpc));
    let details = pack(error).unwrap_or_default();
    Status::with_details(code, error.detail.clone(), details)
}

/// The error that a status carries. One without details comes from the transport or from a stranger: `what` was asked
/// names it then.
pub fn from_status(status: &Status, what: &str) -> Error {
    if !status.details().is_empty()
        && let Ok(error) = unpack::<Error>(status.details())
    {
        return error;
    }
    let why = chain(status);
    if status.code() == tonic::Code::PermissionDenied {
        // Whoever asked is a node, not a user, and nothing was done: another node may be believed.
        if is_time_to_say(&format!("{what} {why}")) {
            tracing::warn!(what, why, "this node is refused");
        }
        return Error::new(Code::Unavailable, format!("{what} refuses this node: {why}"));
    }
    let code = match status.code() {
        tonic::Code::Unauthenticated => Code::Unauthenticated,
        tonic::Code::DeadlineExceeded => Code::Timeout,
        tonic::Code::OutOfRange | tonic::Code::ResourceExhausted => Code::TooLarge,
        tonic::Code::Unimplemented | tonic::Code::InvalidArgument | tonic::Code::Internal => Code::Internal,
        _ => Code::Unavailable,
    };
    tracing::debug!(%status, what, "a call to another role failed");
    Error::new(code, format!("{what} can't be reached: {why}"))
}

/// A status with its causes, since the transport's own says "transport error" and no more.
pub(super) fn chain(status: &Status) -> String {
    causes(status.message().to_owned(), status.source())
}

/// An error with its causes.
pub(super) fn causes(mut text: String, mut cause: Option<&(dyn std::error::Error + 'static)>) -> String {
    while let Some(next) = cause {
        let said = next.to_string();
        // Some repeat what their cause says.
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = next.source();
    }
    text
}

/// Whether the question never left, since there was no connection.
pub(super) fn is_unsent(status: &Status) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lyra_types::error::{FieldError, Thrown};

    use super::*;

    #[test]
    fn an_error_crosses_whole() {
        for code in Code::ALL {
            let mut error = Error::new(code, "what to do")
                .with_field(FieldError { line: Some(3), column: Some(7), ..FieldError::new("code", "no") })
                .with_retry_after(Duration::from_millis(1_500));
            error.thrown = Some(Thrown { name: "E".into(), message: "m".into(), stack: "s".into() });
            let status = to_status(&error);
            assert_eq!(status.code() as i32, i32::from(code.row().grpc));
            assert_eq!(from_status(&status, "worker w1"), error);
        }
    }

    #[test]
    fn a_strange_status_is_told_from_an_answer() {
        let error = from_status(&Status::unavailable("connection refused"), "worker w1");
        assert_eq!(error.code, Code::Unavailable);
        assert!(error.detail.contains("worker w1") && error.detail.contains("connection refused"));
        let status = Status::with_details(tonic::Code::Unknown, "x", bytes::Bytes::from_static(b"\xc1 garbage"));
        assert_eq!(from_status(&status, "w").code, Code::Unavailable);
    }
}
