//! Headers that Lyra reads, writes, and takes out on the way to and from functions.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use lyra_types::delivery::DestinationsRequest;
use lyra_types::invocation::{Report, header as names};
use lyra_types::{Code, Error, Result};
use lyra_wire::control::Precondition;

use crate::extract::parse_secret_json;

/// Owner of what the request is about.
pub(crate) const TENANT: HeaderName = HeaderName::from_static("lyra-tenant");
/// Function that the request is for, on any path.
pub(crate) const TRIGGER_ID: HeaderName = HeaderName::from_static("x-trigger-id");
/// A key that makes a repeated submit safe.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Who hears of the end of a job.
pub(crate) const DESTINATIONS: HeaderName = HeaderName::from_static("lyra-destinations");
/// Longest value of it, in bytes.
const MAX_DESTINATIONS: usize = 6 << 10;
/// RFC 7240.
pub(crate) const PREFER: HeaderName = HeaderName::from_static("prefer");
/// RFC 7240.
pub(crate) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// Id of a call.
pub(crate) const INVOCATION_ID: HeaderName = HeaderName::from_static(names::INVOCATION_ID);
const VERSION: HeaderName = HeaderName::from_static(names::VERSION);
const START: HeaderName = HeaderName::from_static(names::START);
const INSTANCE: HeaderName = HeaderName::from_static(names::INSTANCE);
const SERVER_TIMING: HeaderName = HeaderName::from_static(names::SERVER_TIMING);

/// Longest idempotency key, in bytes.
pub(crate) const MAX_IDEMPOTENCY_KEY: usize = 255;

/// A value of text that holds only visible ASCII.
pub(crate) fn value(text: impl std::fmt::Display) -> HeaderValue {
    let mut buffer = String::with_capacity(64);
    // Writing to a String can't fail.
    let _ = write!(buffer, "{text}");
    HeaderValue::from_maybe_shared(Bytes::from(buffer)).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Adds what every answer of an invocation carries.
pub(crate) fn stamp(report: &Report, headers: &mut HeaderMap) {
    tracing::debug!(invocation = %report.invocation, version = report.version, start = ?report.start, "invocation answered");
    headers.insert(INVOCATION_ID, value(report.invocation));
    headers.insert(VERSION, HeaderValue::from(report.version));
    // A call that was refused, or given up while it waited, had no instance.
    if let Some(start) = report.start {
        headers.insert(START, HeaderValue::from_static(start.as_str()));
        headers.insert(INSTANCE, HeaderValue::from_static(report.instance_word()));
    }
    headers.append(SERVER_TIMING, value(report.phases.server_timing()));
}

/// The tag of a function whose newest version is `version`.
pub(crate) fn etag(version: u64) -> HeaderValue {
    value(format_args!("\"{version}\""))
}

/// What `If-Match` and `If-None-Match` of a deploy ask for.
///
/// # Errors
/// [`Code::BadRequest`] for anything but `If-Match: *`, `If-Match: "3"` and `If-None-Match: *`.
pub(crate) fn precondition(headers: &HeaderMap) -> Result<Precondition> {
    let text = |name: &HeaderName| -> Result<Option<&str>> {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => value.to_str().map(|value| Some(value.trim())).map_err(|_| bad_tag(name)),
            (Some(_), Some(_)) => Err(bad_tag(name)),
        }
    };
    match (text(&header::IF_MATCH)?, text(&header::IF_NONE_MATCH)?) {
        (None, None) => Ok(Precondition::None),
        (Some("*"), None) => Ok(Precondition::Exists),
        (Some(tag), None) => tag_version(tag).map(Precondition::Newest).ok_or_else(|| bad_tag(&header::IF_MATCH)),
        (None, Some("*")) => Ok(Precondition::Absent),
        (None, Some(_)) => {
            Err(Error::new(Code::BadRequest, "If-None-Match of a deploy must be *: create, never replace"))
        }
        (Some(_), Some(_)) => Err(Error::new(Code::BadRequest, "send If-Match or If-None-Match, not both")),
    }
}

fn bad_tag(name: &HeaderName) -> Error {
    Error::new(Code::BadRequest, format!("{name} must be * or one version in quotes: \"3\""))
}

fn tag_version(tag: &str) -> Option<u64> {
    let digits = tag.strip_prefix('"')?.strip_suffix('"')?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Whether `If-None-Match` of a GET names `version`: the client has it already.
pub(crate) fn has_already(headers: &HeaderMap, version: u64) -> bool {
    let own = etag(version);
    headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value
            .split(',')
            .map(str::trim)
            .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == own.as_bytes())
    })
}

/// Whether `Prefer` holds `respond-async`.
pub(crate) fn prefers_async(headers: &HeaderMap) -> bool {
    headers
        .get_all(PREFER)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split([',', ';']).any(|preference| preference.trim().eq_ignore_ascii_case("respond-async")))
}

/// The idempotency key, if there is one.
///
/// # Errors
/// [`Code::BadRequest`] when it is empty, too long, or not visible ASCII.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| !key.is_empty() && key.len() <= MAX_IDEMPOTENCY_KEY);
    match (key, keys.next()) {
        (Some(key), None) => Ok(Some(key.to_owned())),
        _ => Err(Error::new(
            Code::BadRequest,
            format!("Idempotency-Key must be one value of 1 to {MAX_IDEMPOTENCY_KEY} visible ASCII characters"),
        )),
    }
}

/// Who hears of the end of a job: JSON, which may hold secrets.
///
/// # Errors
/// [`Code::BadRequest`] or [`Code::InvalidField`], without a word of what it holds.
pub(crate) fn destinations(headers: &HeaderMap) -> Result<Option<DestinationsRequest>> {
    let mut given = headers.get_all(DESTINATIONS).iter();
    let Some(one) = given.next() else { return Ok(None) };
    if given.next().is_some() || one.len() > MAX_DESTINATIONS {
        let detail = format!("Lyra-Destinations must be one value of at most {MAX_DESTINATIONS} bytes");
        return Err(Error::new(Code::BadRequest, detail));
    }
    let fault = |error: Error| Error::new(error.code, format!("Lyra-Destinations: {}", error.detail));
    parse_secret_json(one.as_bytes()).map(Some).map_err(fault)
}

/// Headers that speak of one connection only (RFC 9110, 7.6.1), and what `Connection` names.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
    const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    for name in [
        KEEP_ALIVE,
        PROXY_CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ] {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn preconditions_are_read_strictly() {
        let read = |pairs| precondition(&headers(pairs));
        assert_eq!(read(&[]), Ok(Precondition::None));
        assert_eq!(read(&[("if-match", "\"3\"")]), Ok(Precondition::Newest(3)));
        assert_eq!(read(&[("if-match", "*")]), Ok(Precondition::Exists));
        assert_eq!(read(&[("if-none-match", "*")]), Ok(Precondition::Absent));
        for bad in [
            &[("if-match", "3")][..],
            &[("if-match", "\"x\"")],
            &[("if-match", "W/\"3\"")],
            &[("if-match", "\"1\", \"2\"")],
            &[("if-match", "\"99999999999999999999999\"")],
            &[("if-none-match", "\"3\"")],
            &[("if-match", "*"), ("if-none-match", "*")],
            &[("if-match", "*"), ("if-match", "*")],
        ] {
            assert_eq!(read(bad).unwrap_err().code, Code::BadRequest, "{bad:?}");
        }
    }

    #[test]
    fn hop_by_hop_headers_are_taken_out_with_those_that_connection_names() {
        let mut map = headers(&[
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("x-public", "2"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("keep-alive", "timeout=5"),
        ]);
        strip_hop_by_hop(&mut map);
        assert_eq!(map.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-public"]);
    }

    #[test]
    fn prefer_is_found_among_others() {
        assert!(prefers_async(&headers(&[("prefer", "wait=10, respond-async")])));
        assert!(prefers_async(&headers(&[("prefer", "return=minimal"), ("prefer", "Respond-Async")])));
        assert!(!prefers_async(&headers(&[("prefer", "respond-asynchronously")])));
    }

    #[test]
    fn destinations_are_read_and_their_faults_show_no_secret() {
        assert_eq!(destinations(&headers(&[])), Ok(None));
        let good = r#"{"on_failure":{"url":"https://example.org/","secret":"whsec_c2VjcmV0"}}"#;
        assert!(destinations(&headers(&[("lyra-destinations", good)])).unwrap().unwrap().on_failure.is_some());
        for bad in [r#"{"on_failure":{"secret":["c2VjcmV0"]}}"#, r#"{"c2VjcmV0":1}"#, "c2VjcmV0", "{"] {
            let error = destinations(&headers(&[("lyra-destinations", bad)])).unwrap_err();
            assert!(!error.detail.contains("c2VjcmV0") || bad.contains("\"c2VjcmV0\":"), "{error}");
        }
        let twice = [("lyra-destinations", good), ("lyra-destinations", good)];
        assert!(destinations(&headers(&twice)).is_err());
    }

    #[test]
    fn idempotency_keys_are_bounded() {
        assert_eq!(idempotency_key(&headers(&[])), Ok(None));
        assert_eq!(idempotency_key(&headers(&[("idempotency-key", "a b")])), Ok(Some("a b".to_owned())));
        assert!(idempotency_key(&headers(&[("idempotency-key", "")])).is_err());
        let mut long = HeaderMap::new();
        long.insert(IDEMPOTENCY_KEY, HeaderValue::from_str(&"x".repeat(256)).unwrap());
        assert!(idempotency_key(&long).is_err());
    }

    #[test]
    fn a_client_that_has_the_version_is_told_so() {
        assert!(has_already(&headers(&[("if-none-match", "\"2\", W/\"3\"")]), 3));
        assert!(!has_already(&headers(&[("if-none-match", "\"2\"")]), 3));
    }
}
