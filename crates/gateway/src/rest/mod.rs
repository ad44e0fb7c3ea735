//! The REST routes, one file for each kind of thing.

pub(crate) mod aliases;
pub(crate) mod audit;
pub(crate) mod control;
pub(crate) mod dead_letters;
pub(crate) mod deliveries;
pub(crate) mod functions;
pub(crate) mod invoke;
pub(crate) mod job_events;
pub(crate) mod jobs;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod members;
pub(crate) mod meta;
pub(crate) mod quotas;
pub(crate) mod runs;
pub(crate) mod scaler;
pub(crate) mod schedules;
pub(crate) mod secrets;
pub(crate) mod tenants;
pub(crate) mod tokens;
pub(crate) mod triggers;
pub(crate) mod usage;
pub(crate) mod users;
pub(crate) mod values;
pub(crate) mod versions;
pub(crate) mod workers;
pub(crate) mod workflows;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode};
use lyra_types::api::Page;
use serde::Serialize;

use crate::problem::Fault;
use crate::query::{DEFAULT_PAGE, MAX_PAGE, Params};

/// What a route returns.
pub(crate) type Answer = Result<Response, Fault>;

/// A JSON answer with one more header.
pub(crate) fn json_with(status: StatusCode, name: HeaderName, value: HeaderValue, body: &impl Serialize) -> Response {
    let mut response = (status, Json(body)).into_response();
    response.headers_mut().insert(name, value);
    response
}

/// The page of `items` that `params` ask for. `key` is what a cursor holds: unique, and in the items' order.
pub(crate) fn page<T>(items: Vec<T>, params: &Params<'_>, key: impl Fn(&T) -> String) -> lyra_types::Result<Page<T>> {
    let limit = params.limit(DEFAULT_PAGE, MAX_PAGE)?;
    let begin = match params.cursor()? {
        None => 0,
        // Where the item that ended the page before is gone, the list has changed under the reader: begin again.
        Some(cursor) => items.iter().position(|item| key(item) == cursor).map_or(0, |at| at + 1),
    };
    let mut rest = items.into_iter().skip(begin);
    let page: Vec<T> = rest.by_ref().take(limit).collect();
    let more = rest.next().is_some();
    let next = page.last().filter(|_| more).map(&key);
    Ok(Page { items: page, next })
}
