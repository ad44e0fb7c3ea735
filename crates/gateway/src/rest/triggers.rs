//! Triggers: make, show, list, delete, pause, resume, and events that are posted to them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use lyra_types::api::Page;
use lyra_types::trigger::{TriggerPosted, TriggerRequest, TriggerView};
use lyra_types::{Result, TriggerName};
use lyra_wire::control::PageQuery;
use lyra_wire::hooks::{EventsPosted, HookAnswer, HookRequest, TriggerAsk};

use super::Answer;
use super::functions::no_content;
use crate::body;
use crate::extract::{Scope, check_json, expect_json, parse_json};
use crate::headers;
use crate::openapi::{Busy, Missing, Owner, Paging, Refused};
use crate::query::{DEFAULT_PAGE, MAX_PAGE};
use crate::quota;
use crate::service::App;

fn name(scope: &Scope) -> Result<TriggerName> {
    TriggerName::new(scope.part("name"))
}

async fn ask(app: &App, scope: &Scope, ask: TriggerAsk) -> Result<HookAnswer> {
    app.control.hooks(HookRequest::Trigger { tenant: scope.tenant.clone(), ask }).await
}

/// List triggers by name.
#[utoipa::path(
    get, path = "/v1/triggers", tag = "triggers", operation_id = "listTriggers",
    params(Paging, Owner),
    responses((status = 200, description = "A page", body = Page<TriggerView>), Refused, Busy)
)]
pub(crate) async fn list(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let params = scope.params();
    let page = PageQuery { limit: params.limit(DEFAULT_PAGE, MAX_PAGE)?, cursor: params.cursor()? };
    match ask(&app, &scope, TriggerAsk::List(page)).await? {
        HookAnswer::Triggers(page) => Ok(Json(page).into_response()),
        other => Err(other.unfit().into()),
    }
}

/// Show a trigger: how it stands, its last error, what it has done.
#[utoipa::path(
    get, path = "/v1/triggers/{name}", tag = "triggers", operation_id = "getTrigger",
    params(
        ("name" = String, Path, description = "Trigger", example = "orders"),
        Owner,
    ),
    responses((status = 200, description = "The trigger", body = TriggerView), Refused, Missing, Busy)
)]
pub(crate) async fn get(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let (view, _) = ask(&app, &scope, TriggerAsk::Get(name(&scope)?)).await?.trigger()?;
    Ok(Json(view).into_response())
}

/// Make or replace a trigger.
///
/// Each batch of its events is a job of the function. Replacing one keeps its place in the stream, unless its source is another one.
#[utoipa::path(
    put, path = "/v1/triggers/{name}", tag = "triggers", operation_id = "putTrigger",
    params(
        ("name" = String, Path, description = "Trigger", example = "orders"),
        Owner,
    ),
    request_body(content = TriggerRequest, example = json!({"function": "bill", "source": {"kind": "nats", "url": "nats://nats.example.org:4222", "subject": "orders.>"}, "batch_size": 10})),
    responses(
        (status = 200, description = "The trigger, replaced", body = TriggerView),
        (status = 201, description = "The trigger, new", body = TriggerView),
        Refused, Busy
    )
)]
pub(crate) async fn put(State(app): State<Arc<App>>, scope: Scope, request: Request) -> Answer {
    let name = name(&scope)?;
    expect_json(&scope.headers)?;
    let body = body::read(&app, &scope.headers, request.into_body(), app.config.max_json_bytes).await?;
    let wanted: TriggerRequest = parse_json(&body.bytes)?;
    let (view, created) = ask(&app, &scope, TriggerAsk::Put(name, Box::new(wanted))).await?.trigger()?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(view)).into_response())
}

/// Delete a trigger. Jobs that it started go on; messages that are not acknowledged stay in their stream.
#[utoipa::path(
    delete, path = "/v1/triggers/{name}", tag = "triggers", operation_id = "deleteTrigger",
    params(
        ("name" = String, Path, description = "Trigger", example = "orders"),
        Owner,
    ),
    responses((status = 204, description = "It is gone"), Refused, Missing, Busy)
)]
pub(crate) async fn delete(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    ask(&app, &scope, TriggerAsk::Delete(name(&scope)?)).await?;
    Ok(no_content())
}

async fn paused(app: &App, scope: &Scope, paused: bool) -> Result<Response> {
    let (view, _) = ask(app, scope, TriggerAsk::Pause(name(scope)?, paused)).await?.trigger()?;
    Ok(Json(view).into_response())
}

/// Have a trigger take no more events, until it is resumed. Batches under way go on.
#[utoipa::path(
    post, path = "/v1/triggers/{name}/pause", tag = "triggers", operation_id = "pauseTrigger",
    params(
        ("name" = String, Path, description = "Trigger", example = "orders"),
        Owner,
    ),
    responses((status = 200, description = "The trigger", body = TriggerView), Refused, Missing, Busy)
)]
pub(crate) async fn pause(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    Ok(paused(&app, &scope, true).await?)
}

/// Have a paused trigger take events again, from where it was.
#[utoipa::path(
    post, path = "/v1/triggers/{name}/resume", tag = "triggers", operation_id = "resumeTrigger",
    params(
        ("name" = String, Path, description = "Trigger", example = "orders"),
        Owner,
    ),
    responses((status = 200, description = "The trigger", body = TriggerView), Refused, Missing, Busy)
)]
pub(crate) async fn resume(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    Ok(paused(&app, &scope, false).await?)
}

/// Post events to a trigger of the kind `http` or `s3`.
///
/// The body is one JSON object or an array of them, at most 1,000; for `s3` a notification as stores send it. They are in durable jobs
/// once this is answered. Where it fails, none or some of them are: a post with an `Idempotency-Key`, or of events with ids, can be sent
/// again, and nothing is doubled.
#[utoipa::path(
    post, path = "/v1/triggers/{name}/events", tag = "triggers", operation_id = "postEvents",
    params(
        ("name" = String, Path, description = "Trigger", example = "orders"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body give the same jobs; 1 to 255 characters"),
        Owner,
    ),
    request_body(content = serde_json::Value, description = "The events, up to 6 MiB", example = json!([{"order": 17}, {"order": 18}])),
    responses(
        (status = 202, description = "The events are durable", body = TriggerPosted),
        (status = 409, description = "The trigger is paused, or takes its events from NATS (`conflict`)"),
        Refused, Missing, Busy
    )
)]
pub(crate) async fn post(State(app): State<Arc<App>>, scope: Scope, request: Request) -> Answer {
    let name = name(&scope)?;
    expect_json(&scope.headers)?;
    let idempotency_key = headers::idempotency_key(&scope.headers)?;
    let _pass = quota::enter_start(&app, &scope.tenant).await?;
    let body = body::read(&app, &scope.headers, request.into_body(), app.config.max_event_bytes).await?;
    check_json(&body.bytes)?;
    let posted = EventsPosted { body: body.bytes.clone(), idempotency_key, user: scope.identity.account() };
    match ask(&app, &scope, TriggerAsk::Post(name, Box::new(posted))).await? {
        HookAnswer::Posted(posted) => Ok((StatusCode::ACCEPTED, Json(posted)).into_response()),
        other => Err(other.unfit().into()),
    }
}
