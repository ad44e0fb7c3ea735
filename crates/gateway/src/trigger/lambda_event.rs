//! Handlers behind a URL: the event and the answer of the AWS HTTP API, payload format 2.0, so that a handler
//! written for it runs unchanged.

use std::borrow::Cow;

use axum::body::Body;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, SET_COOKIE, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use lyra_types::{Code, Error, FunctionVersion, InvocationId, Result, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Request;
use crate::auth::{authority, without_port};
use crate::extract::media_type;
use crate::headers::strip_hop_by_hop;
use crate::service::App;

type Pairs<'a> = indexmap::IndexMap<Cow<'a, str>, String>;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    version: &'static str,
    route_key: &'static str,
    raw_path: &'a str,
    raw_query_string: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cookies: Vec<&'a str>,
    headers: Pairs<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query_string_parameters: Option<Pairs<'a>>,
    request_context: Context<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Cow<'a, str>>,
    is_base64_encoded: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Context<'a> {
    account_id: &'a str,
    api_id: &'a str,
    domain_name: &'a str,
    domain_prefix: &'a str,
    http: Http<'a>,
    request_id: String,
    route_key: &'static str,
    stage: &'static str,
    time: String,
    time_epoch: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Http<'a> {
    method: &'a str,
    path: &'a str,
    protocol: String,
    source_ip: String,
    user_agent: Cow<'a, str>,
}

/// The event for a request, as JSON. The account is the tenant, the API is the function.
pub(super) fn of_request(
    app: &App,
    id: InvocationId,
    version: &FunctionVersion,
    request: &Request,
    body: &Bytes,
) -> Result<Vec<u8>> {
    let parts = &request.parts;
    let path = request.target.path.path();
    let query = request.target.path.query().unwrap_or_default();
    let domain = authority(parts)?.map_or("localhost", without_port);
    let now = app.clock.now();
    let (text, is_base64_encoded) = body_text(&parts.headers, body);
    let event = Event {
        version: "2.0",
        route_key: "$default",
        raw_path: path,
        raw_query_string: query,
        cookies: cookies(&parts.headers),
        headers: header_pairs(&parts.headers, request.caller.strip_authorization),
        query_string_parameters: query_pairs(query),
        request_context: Context {
            account_id: version.tenant.as_str(),
            api_id: version.function.as_str(),
            domain_name: domain,
            domain_prefix: domain.split('.').next().unwrap_or_default(),
            http: Http {
                method: parts.method.as_str(),
                path,
                protocol: format!("{:?}", parts.version),
                source_ip: request.caller.peer.ip().to_canonical().to_string(),
                user_agent: parts.headers.get(USER_AGENT).map_or(Cow::Borrowed(""), |value| lossy(value)),
            },
            request_id: id.to_string(),
            route_key: "$default",
            stage: "$default",
            time: log_time(now),
            time_epoch: now.millis(),
        },
        body: text,
        is_base64_encoded,
    };
    serde_json::to_vec(&event).map_err(|error| Error::internal(format!("the event can't be written as JSON: {error}")))
}

/// `12/Mar/2020:19:03:58 +0000`
fn log_time(now: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(now.millis())
        .map(|time| time.strftime("%d/%b/%Y:%H:%M:%S %z").to_string())
        .unwrap_or_default()
}

fn lossy(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

fn cookies(headers: &HeaderMap) -> Vec<&str> {
    let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(';')).map(str::trim).filter(|cookie| !cookie.is_empty()).collect()
}

fn header_pairs(headers: &HeaderMap, strip_authorization: bool) -> Pairs<'_> {
    let mut pairs = Pairs::new();
    for (name, value) in headers {
        if name == COOKIE || (strip_authorization && name == AUTHORIZATION) {
            continue;
        }
        add(&mut pairs, Cow::Borrowed(name.as_str()), &lossy(value));
    }
    pairs
}

fn query_pairs(query: &str) -> Option<Pairs<'_>> {
    if query.is_empty() {
        return None;
    }
    let mut pairs = Pairs::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        add(&mut pairs, name, &value);
    }
    Some(pairs)
}

/// Values of one name are joined by commas.
fn add<'a>(pairs: &mut Pairs<'a>, name: Cow<'a, str>, value: &str) {
    let joined = pairs.entry(name);
    match joined {
        indexmap::map::Entry::Occupied(mut entry) => {
            let text = entry.get_mut();
            text.push(',');
            text.push_str(value);
        }
        indexmap::map::Entry::Vacant(entry) => drop(entry.insert(value.to_owned())),
    }
}

/// The body as text where its type says that it is text, else in base64.
fn body_text<'a>(headers: &HeaderMap, body: &'a Bytes) -> (Option<Cow<'a, str>>, bool) {
    if body.is_empty() {
        return (None, false);
    }
    let text = std::str::from_utf8(body).ok();
    match text.filter(|_| is_text(&media_type(headers)) && !headers.contains_key(CONTENT_ENCODING)) {
        Some(text) => (Some(Cow::Borrowed(text)), false),
        None => (Some(Cow::Owned(STANDARD.encode(body))), true),
    }
}

fn is_text(media_type: &str) -> bool {
    matches!(
        media_type,
        "" | "application/json"
            | "application/javascript"
            | "application/xml"
            | "application/x-www-form-urlencoded"
            | "application/graphql"
            | "application/x-ndjson"
    ) || media_type.starts_with("text/")
        || media_type.ends_with("+json")
        || media_type.ends_with("+xml")
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    #[serde(borrow, default)]
    status_code: Option<&'a RawValue>,
    #[serde(default)]
    headers: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(default)]
    multi_value_headers: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(default)]
    cookies: Option<Vec<String>>,
    #[serde(borrow, default)]
    body: Option<&'a RawValue>,
    #[serde(default)]
    is_base64_encoded: Option<bool>,
}

/// Only whether there is a `statusCode`, so that an answer of another shape is never refused for its other fields.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape<'a> {
    #[serde(borrow, default)]
    status_code: Option<&'a RawValue>,
}

/// The HTTP answer that a result means: an object with `statusCode` says what to answer, anything else is
/// the body of a 200 of type `application/json`.
///
/// # Errors
/// [`Code::InvalidResult`] where it has a `statusCode` and can't be an answer.
pub(super) fn to_response(result: &Bytes) -> Result<Response> {
    let is_answer = result.trim_ascii_start().first() == Some(&b'{')
        && serde_json::from_slice::<Shape<'_>>(result).is_ok_and(|shape| shape.status_code.is_some());
    if !is_answer {
        let mut response = Response::new(Body::from(result.clone()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        return Ok(response);
    }
    let answer: Answer<'_> =
        serde_json::from_slice(result).map_err(|error| invalid(format!("it is not an HTTP answer: {error}")))?;
    let status = status(answer.status_code.map_or("", RawValue::get))?;
    let mut headers = HeaderMap::new();
    for (name, value) in answer.headers.iter().flatten() {
        headers.insert(header_name(name)?, header_value(name, value)?);
    }
    for (name, values) in answer.multi_value_headers.iter().flatten() {
        let serde_json::Value::Array(values) = values else {
            return Err(invalid(format!("multiValueHeaders.{name} is not an array")));
        };
        let parsed = header_name(name)?;
        headers.remove(&parsed);
        for value in values {
            headers.append(parsed.clone(), header_value(name, value)?);
        }
    }
    for cookie in answer.cookies.iter().flatten() {
        let value = HeaderValue::from_str(cookie).map_err(|_| invalid("a cookie holds what a header can't"))?;
        headers.append(SET_COOKIE, value);
    }
    // How many bytes are sent, and how, is not the function's to say.
    strip_hop_by_hop(&mut headers);
    headers.remove(CONTENT_LENGTH);
    headers.remove(HOST);
    let (body, media_type) = answer_body(answer.body, answer.is_base64_encoded == Some(true))?;
    if let Some(media_type) = media_type {
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(media_type));
    }
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// A number, or a string that holds one.
fn status(text: &str) -> Result<StatusCode> {
    let digits = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    digits
        .parse::<u16>()
        .ok()
        .filter(|status| (200..600).contains(status))
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(|| invalid("statusCode is not a number from 200 to 599"))
}

fn answer_body(body: Option<&RawValue>, is_base64: bool) -> Result<(Vec<u8>, Option<&'static str>)> {
    let Some(raw) = body.map(RawValue::get).filter(|raw| *raw != "null") else { return Ok((Vec::new(), None)) };
    if !raw.starts_with('"') {
        return Ok((raw.as_bytes().to_vec(), Some("application/json")));
    }
    let text: String = serde_json::from_str(raw).map_err(|_| invalid("body is a string that is not Unicode"))?;
    if !is_base64 {
        return Ok((text.into_bytes(), Some("text/plain; charset=utf-8")));
    }
    let bytes = STANDARD.decode(text).map_err(|_| invalid("body is not base64, though isBase64Encoded says so"))?;
    Ok((bytes, Some("application/octet-stream")))
}

fn header_name(name: &str) -> Result<HeaderName> {
    name.parse().map_err(|_| invalid(format!("\"{}\" is not a header's name", name.escape_debug())))
}

fn header_value(name: &str, value: &serde_json::Value) -> Result<HeaderValue> {
    let text = match value {
        serde_json::Value::String(text) => Cow::Borrowed(text.as_str()),
        serde_json::Value::Number(_) | serde_json::Value::Bool(_) => Cow::Owned(value.to_string()),
        _ => return Err(invalid(format!("the header {name} is neither text nor a number"))),
    };
    HeaderValue::from_str(&text).map_err(|_| invalid(format!("the header {name} holds what a header can't")))
}

fn invalid(reason: impl std::fmt::Display) -> Error {
    Error::new(Code::InvalidResult, format!("the function's result can't be made an HTTP answer: {reason}"))
}
