//! Schedules: make, show, list, delete, pause, resume, run now.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use lyra_fleet::quota::{Entry, Pass};
use lyra_types::api::Page;
use lyra_types::name::Qualifier;
use lyra_types::schedule::{ScheduleRequest, ScheduleRun, ScheduleView};
use lyra_types::{Result, ScheduleName};
use lyra_wire::control::PageQuery;
use lyra_wire::hooks::{HookAnswer, HookRequest, ScheduleAsk};

use super::Answer;
use super::functions::no_content;
use crate::body;
use crate::extract::{Scope, expect_json, parse_json};
use crate::openapi::{Busy, Missing, Owner, Paging, Refused};
use crate::query::{DEFAULT_PAGE, MAX_PAGE};
use crate::quota;
use crate::service::App;

fn name(scope: &Scope) -> Result<ScheduleName> {
    ScheduleName::new(scope.part("name"))
}

async fn ask(app: &App, scope: &Scope, ask: ScheduleAsk) -> Result<HookAnswer> {
    app.control.hooks(HookRequest::Schedule { tenant: scope.tenant.clone(), ask }).await
}

/// List schedules by name.
#[utoipa::path(
    get, path = "/v1/schedules", tag = "schedules", operation_id = "listSchedules",
    params(Paging, Owner),
    responses((status = 200, description = "A page", body = Page<ScheduleView>), Refused, Busy)
)]
pub(crate) async fn list(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let params = scope.params();
    let page = PageQuery { limit: params.limit(DEFAULT_PAGE, MAX_PAGE)?, cursor: params.cursor()? };
    match ask(&app, &scope, ScheduleAsk::List(page)).await? {
        HookAnswer::Schedules(page) => Ok(Json(page).into_response()),
        other => Err(other.unfit().into()),
    }
}

/// Show a schedule, with its next times and last firings.
#[utoipa::path(
    get, path = "/v1/schedules/{name}", tag = "schedules", operation_id = "getSchedule",
    params(
        ("name" = String, Path, description = "Schedule", example = "nightly"),
        Owner,
    ),
    responses((status = 200, description = "The schedule", body = ScheduleView), Refused, Missing, Busy)
)]
pub(crate) async fn get(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let (view, _) = ask(&app, &scope, ScheduleAsk::Get(name(&scope)?)).await?.schedule()?;
    Ok(Json(view).into_response())
}

/// Make or replace a schedule.
///
/// Each time of its pattern starts one job of the function. Replacing one keeps its history.
#[utoipa::path(
    put, path = "/v1/schedules/{name}", tag = "schedules", operation_id = "putSchedule",
    params(
        ("name" = String, Path, description = "Schedule", example = "nightly"),
        Owner,
    ),
    request_body(content = ScheduleRequest, example = json!({"cron": "0 3 * * *", "time_zone": "Europe/Madrid", "function": "hello", "event": {}})),
    responses(
        (status = 200, description = "The schedule, replaced", body = ScheduleView),
        (status = 201, description = "The schedule, new", body = ScheduleView),
        Refused, Busy
    )
)]
pub(crate) async fn put(State(app): State<Arc<App>>, scope: Scope, request: Request) -> Answer {
    let name = name(&scope)?;
    expect_json(&scope.headers)?;
    let body = body::read(&app, &scope.headers, request.into_body(), app.config.max_json_bytes).await?;
    let wanted: ScheduleRequest = parse_json(&body.bytes)?;
    let (view, created) = ask(&app, &scope, ScheduleAsk::Put(name, Box::new(wanted))).await?.schedule()?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(view)).into_response())
}

/// Delete a schedule. Jobs that it started go on.
#[utoipa::path(
    delete, path = "/v1/schedules/{name}", tag = "schedules", operation_id = "deleteSchedule",
    params(
        ("name" = String, Path, description = "Schedule", example = "nightly"),
        Owner,
    ),
    responses((status = 204, description = "It is gone"), Refused, Missing, Busy)
)]
pub(crate) async fn delete(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    ask(&app, &scope, ScheduleAsk::Delete(name(&scope)?)).await?;
    Ok(no_content())
}

/// Lets a firing by hand in as what it starts: a job of the function. Where there is no such function, the firing says so.
async fn enter(app: &App, scope: &Scope) -> Result<Pass> {
    let (view, _) = ask(app, scope, ScheduleAsk::Get(name(scope)?)).await?.schedule()?;
    let (function, qualifier) = Qualifier::split(&view.schedule.function)?;
    match app.table.find(scope.tenant.as_str(), function.as_str(), app.config.route_wait).await {
        Ok(route) => match route.resolve(&qualifier, app.random.u64()) {
            Ok(version) => quota::enter(app, version, Entry::Submit).await,
            Err(_) => quota::enter_start(app, &scope.tenant).await,
        },
        Err(_) => quota::enter_start(app, &scope.tenant).await,
    }
}

async fn paused(app: &App, scope: &Scope, paused: bool) -> Result<Response> {
    let (view, _) = ask(app, scope, ScheduleAsk::Pause(name(scope)?, paused)).await?.schedule()?;
    Ok(Json(view).into_response())
}

/// Have a schedule fire no more, until it is resumed.
#[utoipa::path(
    post, path = "/v1/schedules/{name}/pause", tag = "schedules", operation_id = "pauseSchedule",
    params(
        ("name" = String, Path, description = "Schedule", example = "nightly"),
        Owner,
    ),
    responses((status = 200, description = "The schedule", body = ScheduleView), Refused, Missing, Busy)
)]
pub(crate) async fn pause(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    Ok(paused(&app, &scope, true).await?)
}

/// Have a paused schedule fire again, from now on.
#[utoipa::path(
    post, path = "/v1/schedules/{name}/resume", tag = "schedules", operation_id = "resumeSchedule",
    params(
        ("name" = String, Path, description = "Schedule", example = "nightly"),
        Owner,
    ),
    responses((status = 200, description = "The schedule", body = ScheduleView), Refused, Missing, Busy)
)]
pub(crate) async fn resume(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    Ok(paused(&app, &scope, false).await?)
}

/// Start a job of a schedule now, paused or not, whatever its overlap policy says.
#[utoipa::path(
    post, path = "/v1/schedules/{name}/run", tag = "schedules", operation_id = "runSchedule",
    params(
        ("name" = String, Path, description = "Schedule", example = "nightly"),
        Owner,
    ),
    responses((status = 202, description = "The job is durable", body = ScheduleRun), Refused, Missing, Busy)
)]
pub(crate) async fn run(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let _pass = enter(&app, &scope).await?;
    match ask(&app, &scope, ScheduleAsk::Run(name(&scope)?)).await? {
        HookAnswer::Ran(run) => Ok((StatusCode::ACCEPTED, Json(run)).into_response()),
        other => Err(other.unfit().into()),
    }
}
