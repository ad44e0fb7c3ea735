//! Lines that functions wrote: as JSON lines, or as a stream of events.

use std::convert::Infallible;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use lyra_types::api::{LogView, Problem};
use lyra_types::log::LogLine;
use lyra_types::{Code, Error, InstanceId, InvocationId, Result};
use lyra_wire::logs::Query;

use super::Answer;
use crate::extract::Scope;
use crate::openapi::{Busy, Missing, Owner, Refused};
use crate::query::Params;
use crate::service::App;

/// Lines when no limit is given.
const DEFAULT_LINES: usize = 1_000;
/// Most lines of one answer.
const MAX_LINES: usize = 10_000;
/// How often a silent stream shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Longest name of a session or an application.
const MAX_NAME: usize = 253;
/// Longest identity of a session.
const MAX_UID: usize = 128;

/// Parameters that narrow what is shown.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "what the document says of them")]
struct Narrowing {
    /// Go on with further lines
    follow: Option<bool>,
    /// Only of this call
    invocation: Option<String>,
    /// Only of this instance
    instance: Option<String>,
    /// Only of instances of this application
    application: Option<String>,
    /// Only of sessions of this name, also of those that are closed
    session: Option<String>,
    /// Only of the session of this identity (`metadata.uid`)
    session_uid: Option<String>,
    /// Only from this time on: RFC 3339, or a time ago such as `10m`
    #[param(example = "10m")]
    since: Option<String>,
    /// The newest so many: 1 to 10000, default 1000
    limit: Option<u32>,
}

/// Show a function's log lines.
///
/// The newest lines, oldest first, one JSON object a line. With `?follow=true` a stream of server-sent events: the same lines,
/// then each further one as it is written, none left out; an event `error` with a problem document ends a stream that fails.
#[utoipa::path(
    get, path = "/v1/functions/{name}/logs", tag = "logs", operation_id = "getLogs",
    params(("name" = String, Path, description = "Function", example = "hello"), Narrowing, Owner),
    responses(
        (status = 200, description = "Lines", content((LogView = "application/x-ndjson"), (LogView = "text/event-stream"))),
        Refused, Missing, Busy
    )
)]
pub(crate) async fn logs(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let function = scope.function()?;
    let query = Query { function: Some(function.clone()), ..query(&app, &scope)? };
    // A function that is not there has no lines; to say "none" would hide a typing error.
    app.table.find(query.tenant.as_str(), function.as_str(), app.config.route_wait).await?;
    show(&app, &scope, query).await
}

/// Show log lines of a session, an application or an instance.
///
/// Those of all functions, as `/v1/functions/{name}/logs` shows those of one: one of `session`, `application` and `instance` must be
/// given. Lines of a session stay after its end, for as long as lines are kept.
#[utoipa::path(
    get, path = "/v1/logs", tag = "logs", operation_id = "findLogs",
    params(Narrowing, Owner),
    responses(
        (status = 200, description = "Lines", content((LogView = "application/x-ndjson"), (LogView = "text/event-stream"))),
        Refused, Busy
    )
)]
pub(crate) async fn find(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let query = query(&app, &scope)?;
    if query.session.is_none() && query.application.is_none() && query.instance.is_none() {
        let reason = "the query parameter is missing: a session, an application or an instance must be named";
        return Err(Error::field(Code::BadRequest, "session", reason).into());
    }
    show(&app, &scope, query).await
}

/// What the parameters ask for, of all functions.
fn query(app: &App, scope: &Scope) -> Result<Query> {
    let params = scope.params();
    Ok(Query {
        invocation: id(&params, "invocation", InvocationId::PREFIX)?,
        instance: id(&params, "instance", InstanceId::PREFIX)?,
        application: named(&params, "application", MAX_NAME)?,
        session: named(&params, "session", MAX_NAME)?,
        session_uid: named(&params, "session_uid", MAX_UID)?,
        since: params.since(app.clock.now())?,
        ..Query::in_tenant(scope.tenant.clone(), params.limit(DEFAULT_LINES, MAX_LINES)?)
    })
}

/// An id of which all begin with `prefix`.
fn id<T: FromStr>(params: &Params<'_>, name: &str, prefix: &str) -> Result<Option<T>> {
    let read = params.text(name)?.map(str::parse).transpose();
    read.map_err(|_| {
        Error::field(Code::BadRequest, name, format!("the query parameter must be an id of the form {prefix}…"))
    })
}

/// A name as objects have it, or their identity.
fn named(params: &Params<'_>, name: &str, most: usize) -> Result<Option<String>> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    match params.text(name)? {
        Some(text) if text.is_empty() || text.len() > most || !text.bytes().all(fits) => {
            let reason = format!("the query parameter must have 1 to {most} of a-z, 0-9, - and .");
            Err(Error::field(Code::BadRequest, name, reason))
        }
        text => Ok(text.map(str::to_owned)),
    }
}

async fn show(app: &App, scope: &Scope, query: Query) -> Answer {
    if scope.params().flag("follow")? {
        let lines = app.logs.follow(query).await?;
        return Ok(events(lines, app.stopping.clone()));
    }
    let lines = app.logs.query(query).await?;
    let mut text = Vec::with_capacity(lines.len() * 128);
    for line in &lines {
        write_line(&mut text, line)?;
        text.push(b'\n');
    }
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

fn write_line(text: &mut Vec<u8>, line: &LogLine) -> Result<()> {
    serde_json::to_writer(text, &LogView::from(line))
        .map_err(|error| Error::internal(format!("a log line can't be written as JSON: {error}")))
}

fn events(lines: BoxStream<'static, Result<LogLine>>, stopping: tokio_util::sync::CancellationToken) -> Response {
    let events: BoxStream<'static, _> = lines.map(event).take_until(stopping.cancelled_owned()).boxed();
    keep_alive(events).into_response()
}

fn keep_alive(
    events: impl Stream<Item = std::result::Result<Event, Infallible>> + Send + 'static,
) -> impl IntoResponse {
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

fn event(line: Result<LogLine>) -> std::result::Result<Event, Infallible> {
    let written = line.and_then(|line| {
        let mut text = Vec::with_capacity(256);
        write_line(&mut text, &line)?;
        String::from_utf8(text).map_err(|_| Error::internal("a log line is not UTF-8"))
    });
    Ok(match written {
        Ok(text) => Event::default().data(text),
        Err(error) => {
            let problem = serde_json::to_string(&Problem::from(&error)).unwrap_or_default();
            Event::default().event("error").data(problem)
        }
    })
}
