//! HTTP for handlers, which take events: the payload format 2.0 of Lambda's function URLs, with the session beside it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use lyra_types::{Code, Error};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::Body;
use crate::session::Files;

/// The file that says which session it is.
const SESSION: &str = "session.json";

/// What a handler is told of its session: its files.
pub(super) struct Told {
    /// `session.json`, or `null`.
    session: Box<RawValue>,
    /// The others: text by name.
    files: Box<RawValue>,
}

impl Told {
    pub(super) fn of(files: &Files) -> Told {
        let null = || RawValue::NULL.to_owned();
        let session = files.get(SESSION).and_then(|bytes| serde_json::from_slice(bytes).ok());
        let others = files.iter().filter(|(name, _)| *name != SESSION);
        let others: BTreeMap<&str, _> =
            others.map(|(name, bytes)| (name.as_str(), String::from_utf8_lossy(bytes))).collect();
        Told {
            session: session.unwrap_or_else(null),
            files: serde_json::value::to_raw_value(&others).unwrap_or_else(|_| null()),
        }
    }
}

/// See the format's documentation; `session` and `files` are Lyra's own.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    version: &'static str,
    raw_path: &'a str,
    raw_query_string: &'a str,
    headers: BTreeMap<&'a str, String>,
    request_context: RequestContext<'a>,
    body: Option<String>,
    is_base64_encoded: bool,
    session: &'a RawValue,
    files: &'a RawValue,
}

#[derive(Serialize)]
struct RequestContext<'a> {
    http: HttpContext<'a>,
}

#[derive(Serialize)]
struct HttpContext<'a> {
    method: &'a str,
    path: &'a str,
}

/// The event for a request.
pub(super) fn of(parts: &Parts, body: &Bytes, told: &Told) -> Result<Bytes, Error> {
    let mut headers = BTreeMap::<&str, String>::new();
    for (name, value) in &parts.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        // Several of a name are one, with commas between.
        headers
            .entry(name.as_str())
            .and_modify(|all| *all = format!("{all},{value}"))
            .or_insert_with(|| value.into_owned());
    }
    let text = std::str::from_utf8(body);
    let path = parts.uri.path();
    let event = Event {
        version: "2.0",
        raw_path: path,
        raw_query_string: parts.uri.query().unwrap_or_default(),
        headers,
        request_context: RequestContext { http: HttpContext { method: parts.method.as_str(), path } },
        is_base64_encoded: text.is_err(),
        body: match text {
            Ok("") => None,
            Ok(text) => Some(text.to_owned()),
            Err(_) => Some(STANDARD.encode(body)),
        },
        session: &told.session,
        files: &told.files,
    };
    serde_json::to_vec(&event).map(Bytes::from).map_err(|error| Error::internal(error.to_string()))
}

/// A result that says more than a body.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    status_code: u16,
    #[serde(default)]
    headers: BTreeMap<String, Value>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
}

/// The response to a result: an object with `statusCode` says all of it, everything else is the body, as JSON.
pub(super) fn answer(result: &Bytes) -> Result<Response<Body>, Error> {
    // A list would be read as the fields in order.
    let is_object = result.trim_ascii_start().starts_with(b"{");
    let Some(said) = is_object.then(|| serde_json::from_slice::<Said>(result).ok()).flatten() else {
        let mut response = Response::new(whole(result.clone()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        return Ok(response);
    };
    let invalid =
        |what: String| Error::new(Code::InvalidResult, format!("the handler's response can't be sent: {what}"));
    let body = said.body.unwrap_or_default();
    let body = match said.is_base64_encoded {
        true => STANDARD.decode(&body).map_err(|error| invalid(format!("its body is not base64: {error}")))?,
        false => body.into_bytes(),
    };
    let mut response = Response::new(whole(body.into()));
    let status = StatusCode::from_u16(said.status_code).ok().filter(|status| !status.is_informational());
    *response.status_mut() = status.ok_or_else(|| invalid(format!("{} is no final status", said.status_code)))?;
    for (name, value) in said.headers {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let header = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(&text).ok());
        let (header, value) = header.ok_or_else(|| invalid(format!("header {name:?} can't be")))?;
        // The length and the framing are the server's to say.
        if !matches!(header.as_str(), "content-length" | "transfer-encoding" | "connection" | "upgrade") {
            response.headers_mut().insert(header, value);
        }
    }
    response.headers_mut().entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    Ok(response)
}

/// A body that is all there.
pub(super) fn whole(body: Bytes) -> Body {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(result: &str) -> (u16, String, String) {
        let response = answer(&Bytes::from(result.to_owned())).unwrap();
        let kind = response.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
        let status = response.status().as_u16();
        let body = futures::executor::block_on(response.into_body().collect()).unwrap().to_bytes();
        (status, kind, String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn a_request_is_told_whole_with_its_session() {
        let files = Files::from([
            (SESSION.to_owned(), Bytes::from_static(b"{\n  \"id\": \"s1\"\n}")),
            ("config/map".to_owned(), Bytes::from_static(b"forest")),
        ]);
        let request = http::Request::put("/a/b?c=1").header("x-a", "1").header("x-a", "2").body(()).unwrap();
        let (parts, ()) = request.into_parts();
        let event = of(&parts, &Bytes::from_static(b"hi"), &Told::of(&files)).unwrap();
        let event: Value = serde_json::from_slice(&event).unwrap();
        assert_eq!((&event["rawPath"], &event["rawQueryString"]), (&"/a/b".into(), &"c=1".into()));
        assert_eq!(event["requestContext"]["http"]["method"], "PUT");
        assert_eq!((&event["headers"]["x-a"], &event["body"]), (&"1,2".into(), &"hi".into()));
        assert_eq!((&event["session"]["id"], &event["files"]["config/map"]), (&"s1".into(), &"forest".into()));
        let binary = of(&parts, &Bytes::from_static(b"\xff"), &Told::of(&Files::new())).unwrap();
        let binary: Value = serde_json::from_slice(&binary).unwrap();
        assert_eq!((&binary["body"], &binary["isBase64Encoded"]), (&"/w==".into(), &true.into()));
        assert_eq!(binary["session"], Value::Null);
    }

    #[test]
    fn a_result_is_a_body_or_says_all_of_the_response() {
        assert_eq!(said("[1]"), (200, "application/json".into(), "[1]".into()));
        assert_eq!(said(r#"{"status":1}"#), (200, "application/json".into(), r#"{"status":1}"#.into()));
        let text = r#"{"statusCode":201,"headers":{"Content-Type":"text/plain"},"body":"made"}"#;
        assert_eq!(said(text), (201, "text/plain".into(), "made".into()));
        let encoded = r#"{"statusCode":200,"isBase64Encoded":true,"body":"aGk="}"#;
        assert_eq!(said(encoded), (200, "application/json".into(), "hi".into()));
        for bad in [
            r#"{"statusCode":99}"#,
            r#"{"statusCode":101}"#,
            r#"{"statusCode":200,"headers":{"a b":"c"}}"#,
            r#"{"statusCode":200,"isBase64Encoded":true,"body":"?"}"#,
        ] {
            let error = answer(&Bytes::from(bad)).map(|_| ()).unwrap_err();
            assert_eq!(error.code, Code::InvalidResult, "{bad}");
        }
    }
}
