//! The form of every classic answer: `{"error":…,"res":…}`.

use axum::body::Body;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::header::{CONTENT_TYPE, ETAG, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use lyra_types::{Code, Error};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::problem;

/// An answer.
#[derive(Debug)]
pub(super) struct Envelope {
    status: StatusCode,
    error: bool,
    res: Value,
    /// What stands beside `res`.
    beside: Map<String, Value>,
    headers: HeaderMap,
}

impl Envelope {
    /// What was asked for.
    pub(super) fn ok(res: impl Into<Value>) -> Envelope {
        Envelope {
            status: StatusCode::OK,
            error: false,
            res: res.into(),
            beside: Map::new(),
            headers: HeaderMap::new(),
        }
    }

    /// What is wrong, in the words that clients of these routes know.
    pub(super) fn fault(message: String) -> Envelope {
        Envelope { error: true, ..Envelope::ok(message) }
    }

    /// Adds a field beside `res`.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Envelope {
        self.beside.insert(name.to_owned(), value.into());
        self
    }

    /// What an error of Lyra comes to here.
    pub(super) fn of(error: &Error) -> Envelope {
        let mut envelope = Envelope::fault(format!("[ERR] {}", error.detail));
        let status = match error.code {
            Code::BadRequest
            | Code::Unauthenticated
            | Code::PermissionDenied
            | Code::TooLarge
            | Code::UnsupportedMediaType
            | Code::IdempotencyMismatch
            | Code::LimitReached
            | Code::Overloaded
            | Code::Unavailable
            | Code::Internal => error.code.row().http,
            // The request's own matter.
            _ => 200,
        };
        envelope.status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Logged, and with the headers, as for every other route.
        let problem = problem::respond_as(error, status);
        for name in [RETRY_AFTER, WWW_AUTHENTICATE] {
            if let Some(value) = problem.headers().get(&name) {
                envelope.headers.insert(name, value.clone());
            }
        }
        envelope
    }

    /// The response; `read`: for a `GET`, with its `If-None-Match`, if it has one.
    pub(super) fn into_response(self, read: Option<Option<HeaderValue>>) -> Response {
        let mut body = Map::with_capacity(2 + self.beside.len());
        body.insert("error".to_owned(), Value::Bool(self.error));
        body.insert("res".to_owned(), self.res);
        body.extend(self.beside);
        let bytes = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        if let Some(known) = read
            && self.status == StatusCode::OK
        {
            let tag = tag(&bytes);
            let same = known.as_ref().and_then(|known| known.to_str().ok()).is_some_and(|known| has(known, &tag));
            if let Ok(tag) = HeaderValue::from_str(&tag) {
                response.headers_mut().insert(ETAG, tag);
            }
            if same {
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                response.headers_mut().remove(CONTENT_TYPE);
                return response;
            }
        }
        *response.body_mut() = Body::from(bytes);
        response
    }
}

fn tag(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    format!("W/\"{:x}-{}\"", bytes.len(), STANDARD_NO_PAD.encode(&digest[..20]))
}

fn has(known: &str, tag: &str) -> bool {
    let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    known.trim() == "*" || known.split(',').any(|one| strong(one) == strong(tag))
}

/// The answer where there is no such route.
pub(super) fn nothing_here() -> Response {
    let mut envelope = Envelope::fault("[ERR] Not Found".to_owned());
    envelope.status = StatusCode::NOT_FOUND;
    envelope.into_response(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_has_the_answer_is_told_so() {
        let first = Envelope::ok(1).into_response(Some(None));
        let tag = first.headers()[ETAG].clone();
        let again = Envelope::ok(1).into_response(Some(Some(tag.clone())));
        assert_eq!((first.status(), again.status()), (StatusCode::OK, StatusCode::NOT_MODIFIED));
        assert_eq!(Envelope::ok(2).into_response(Some(Some(tag))).status(), StatusCode::OK);
    }

    #[test]
    fn only_what_is_not_the_requests_own_matter_has_a_status() {
        let status = |code| Envelope::of(&Error::new(code, "x")).status.as_u16();
        assert_eq!(status(Code::InvalidCode), 200);
        assert_eq!(status(Code::NotFound), 200);
        assert_eq!((status(Code::Unauthenticated), status(Code::PermissionDenied)), (401, 403));
        assert_eq!((status(Code::TooLarge), status(Code::LimitReached), status(Code::Overloaded)), (413, 429, 503));
        let busy = Envelope::of(&Error::new(Code::Overloaded, "x")).into_response(None);
        assert_eq!(busy.headers()[RETRY_AFTER], "1");
    }
}
