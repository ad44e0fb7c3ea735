//! Answers: objects, lists, tables and failures as bytes.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::Request;
use super::content::{Accept, Form};
use super::table;
use crate::cache::Stored;
use crate::kind::Kind;
use crate::{ResourceApi, Status};

/// The body of an answer. A watch's goes on until the watch ends.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

pub(super) fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// An answer of that status and media type.
pub(super) fn with(status: u16, media: &str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if let Ok(media) = HeaderValue::from_str(media) {
        headers.insert(CONTENT_TYPE, media);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// JSON that is bytes already; made YAML where the client wants that.
pub(super) fn bytes(status: u16, accept: &Accept, json: Bytes) -> Response<Body> {
    if accept.yaml
        && let Ok(value) = serde_json::from_slice::<Value>(&json)
        && let Ok(yaml) = serde_saphyr::to_string(&value)
    {
        return with(status, "application/yaml", body(yaml));
    }
    with(status, "application/json", body(json))
}

/// JSON.
pub(super) fn json(status: u16, accept: &Accept, json: &Value) -> Response<Body> {
    bytes(status, accept, json.to_string().into())
}

/// A refusal.
pub(super) fn failure(status: &Status, accept: &Accept) -> Response<Body> {
    let mut response = json(status.code, accept, &status.to_json());
    if status.details.retry_after_seconds > 0 {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(status.details.retry_after_seconds));
    }
    response
}

/// Adds what the client should be warned of.
pub(super) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

/// Metadata of an object without the rest.
pub(super) fn partial<K: Kind>(object: &K) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object.meta(),
    })
}

/// An object in the form that was asked for.
pub(super) fn object<K: Kind>(
    status: u16,
    api: &ResourceApi,
    request: &Request<'_>,
    object: &Stored<K>,
) -> Response<Body> {
    let accept = &request.accept;
    match accept.form {
        Form::Objects => bytes(status, accept, object.json().clone()),
        Form::Metadata => json(status, accept, &partial(object.object())),
        Form::Table => {
            let meta = json!({"resourceVersion": object.meta().resource_version});
            let table = table::of(&[object], request.query.include, true, meta, api.clock.now());
            json(status, accept, &table)
        }
    }
}

/// A list in the form that was asked for.
pub(super) fn list<K: Kind>(
    api: &ResourceApi,
    request: &Request<'_>,
    items: &[&Stored<K>],
    meta: &Value,
) -> Response<Body> {
    let accept = &request.accept;
    match accept.form {
        Form::Objects => {
            let size: usize = items.iter().map(|item| item.json().len() + 1).sum();
            let mut text = Vec::with_capacity(size + 256);
            text.extend_from_slice(
                format!(
                    r#"{{"kind":"{}","apiVersion":"{}/{}","metadata":{meta},"items":["#,
                    K::NAMES.list_kind,
                    K::NAMES.group,
                    K::NAMES.version
                )
                .as_bytes(),
            );
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(b',');
                }
                text.extend_from_slice(item.json());
            }
            text.extend_from_slice(b"]}");
            bytes(200, accept, text.into())
        }
        Form::Metadata => {
            let items: Vec<Value> = items.iter().map(|item| partial(item.object())).collect();
            let list = json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "items": items,
            });
            json(200, accept, &list)
        }
        Form::Table => json(200, accept, &table::of(items, request.query.include, true, meta.clone(), api.clock.now())),
    }
}
