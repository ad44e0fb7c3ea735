//! Lines that a function wrote: as JSON lines, or as a stream of events.

use std::convert::Infallible;
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
use lyra_types::{Code, Error, Result};
use lyra_wire::logs::Query;

use super::Answer;
use crate::extract::Scope;
use crate::openapi::{Busy, Missing, Owner, Refused};
use crate::service::App;

/// Lines when no limit is given.
const DEFAULT_LINES: usize = 1_000;
/// Most lines of one answer.
const MAX_LINES: usize = 10_000;
/// How often a silent stream shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Show a function's log lines.
///
/// The newest lines, oldest first, one JSON object a line. With `?follow=true` a stream of server-sent events: the same lines,
/// then each further one as it is written, none left out; an event `error` with a problem document ends a stream that fails.
#[utoipa::path(
    get, path = "/v1/functions/{name}/logs", tag = "logs", operation_id = "getLogs",
    params(
        ("name" = String, Path, description = "Function", example = "hello"),
        ("follow" = Option<bool>, Query, description = "Go on with further lines"),
        ("invocation" = Option<String>, Query, description = "Only of this call"),
        ("since" = Option<String>, Query, description = "Only from this time on: RFC 3339, or a time ago such as `10m`", example = "10m"),
        ("limit" = Option<u32>, Query, description = "The newest so many: 1 to 10000, default 1000"),
        Owner,
    ),
    responses(
        (status = 200, description = "Lines", content((LogView = "application/x-ndjson"), (LogView = "text/event-stream"))),
        Refused, Missing, Busy
    )
)]
pub(crate) async fn logs(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let params = scope.params();
    let function = scope.function()?;
    let invocation = params.text("invocation")?.map(str::parse).transpose().map_err(|_: Error| {
        Error::field(Code::BadRequest, "invocation", "the query parameter must be an id of the form inv_…")
    })?;
    let query = Query {
        tenant: scope.tenant.clone(),
        invocation,
        since: params.since(app.clock.now())?,
        limit: params.limit(DEFAULT_LINES, MAX_LINES)?,
        function,
    };
    let follow = params.flag("follow")?;
    // A function that is not there has no lines; to say "none" would hide a typing error.
    app.table.find(query.tenant.as_str(), query.function.as_str(), app.config.route_wait).await?;
    if follow {
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
