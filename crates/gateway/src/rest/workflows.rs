//! Workflows: deploy, show, list, delete, start.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::LOCATION;
use lyra_fleet::quota::Pass;
use lyra_types::api::Page;
use lyra_types::api::workflows::{Made, NewPart, NewRun, NewWorkflow, Started};
use lyra_types::workflow::{Run, Workflow, WorkflowVersion};
use lyra_types::{Code, Error, Result, WorkflowName};
use lyra_wire::Workflows;
use lyra_wire::control::PageQuery;
use lyra_wire::spans::parse_traceparent;

use super::runs::settled;
use super::{Answer, json_with};
use crate::body;
use crate::extract::{Scope, expect_json, parse_json, parse_secret_json};
use crate::headers;
use crate::openapi::{Busy, Missing, Owner, Paging, Refused};
use crate::query::{DEFAULT_PAGE, MAX_PAGE};
use crate::quota;
use crate::service::App;

/// The workflow role.
///
/// # Errors
/// [`Code::Unavailable`] where this gateway was given none.
pub(super) fn role(app: &App) -> Result<&dyn Workflows> {
    let none = || Error::new(Code::Unavailable, "this gateway knows no workflow role: none was started here");
    app.workflows.as_deref().ok_or_else(none)
}

pub(super) fn name(scope: &Scope) -> Result<WorkflowName> {
    WorkflowName::new(scope.part("name"))
}

/// Make a workflow, or a new version of it.
///
/// The document and the mapping are checked in full before anything is stored. Where the newest version is just this
/// already, nothing is made.
#[utoipa::path(
    post, path = "/v1/workflows", tag = "workflows", operation_id = "deployWorkflow",
    params(Owner),
    request_body(content = NewWorkflow),
    responses(
        (status = 200, description = "The newest version is this already", body = Made),
        (status = 201, description = "A new version", body = Made, headers(("Location" = String, description = "The workflow"))),
        Refused, Busy
    )
)]
pub(crate) async fn deploy(State(app): State<Arc<App>>, scope: Scope, request: Request) -> Answer {
    let role = role(&app)?;
    expect_json(&scope.headers)?;
    let body = body::read(&app, &scope.headers, request.into_body(), app.config.max_event_bytes).await?;
    let workflow: NewWorkflow = parse_json(&body.bytes)?;
    drop(body);
    let made = role.deploy(&scope.tenant, workflow).await?;
    let status = if made.created { StatusCode::CREATED } else { StatusCode::OK };
    let location = headers::value(format_args!("/v1/workflows/{}", made.name));
    Ok(json_with(status, LOCATION, location, &made))
}

/// List workflows, by name.
#[utoipa::path(
    get, path = "/v1/workflows", tag = "workflows", operation_id = "listWorkflows",
    params(Paging, Owner),
    responses((status = 200, description = "A page", body = Page<Workflow>), Refused, Busy)
)]
pub(crate) async fn list(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let params = scope.params();
    let page = PageQuery { limit: params.limit(DEFAULT_PAGE, MAX_PAGE)?, cursor: params.cursor()? };
    Ok(Json(role(&app)?.workflows(&scope.tenant, page).await?).into_response())
}

/// Show a workflow: its newest version.
#[utoipa::path(
    get, path = "/v1/workflows/{name}", tag = "workflows", operation_id = "getWorkflow",
    params(
        ("name" = String, Path, description = "Workflow", example = "thumbnails"),
        ("version" = Option<u64>, Query, description = "This version instead of the newest"),
        Owner,
    ),
    responses((status = 200, description = "The version, with its texts", body = WorkflowVersion), Refused, Missing, Busy)
)]
pub(crate) async fn get(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let version = scope.params().number("version")?;
    if version == Some(0) {
        return Err(Error::field(Code::BadRequest, "version", "versions count from 1").into());
    }
    Ok(Json(role(&app)?.workflow(&scope.tenant, &name(&scope)?, version).await?).into_response())
}

/// Show a version of a workflow.
#[utoipa::path(
    get, path = "/v1/workflows/{name}/versions/{version}", tag = "workflows", operation_id = "getWorkflowVersion",
    params(
        ("name" = String, Path, description = "Workflow", example = "thumbnails"),
        ("version" = u64, Path, description = "Its number", example = 1),
        Owner,
    ),
    responses((status = 200, description = "The version, with its texts", body = WorkflowVersion), Refused, Missing, Busy)
)]
pub(crate) async fn version(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let name = name(&scope)?;
    let text = scope.part("version");
    let number = text.parse().ok().filter(|number: &u64| *number > 0);
    let number = number.ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        Error::not_found("version", format_args!("\"{}\" of workflow {name}", shown.escape_debug()))
    })?;
    Ok(Json(role(&app)?.workflow(&scope.tenant, &name, Some(number)).await?).into_response())
}

/// Delete a workflow with its versions and schedule.
///
/// Runs that have not ended go on.
#[utoipa::path(
    delete, path = "/v1/workflows/{name}", tag = "workflows", operation_id = "deleteWorkflow",
    params(
        ("name" = String, Path, description = "Workflow", example = "thumbnails"),
        Owner,
    ),
    responses((status = 204, description = "It is gone"), Refused, Missing, Busy)
)]
pub(crate) async fn delete(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    role(&app)?.delete_workflow(&scope.tenant, &name(&scope)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The trace that a run's spans stand in: what the body says, else the header.
///
/// A header that is no trace context is left out, as its specification wants; in a body it is an error.
fn traceparent(named: Option<String>, headers: &http::HeaderMap) -> Result<Option<String>> {
    if let Some(text) = named {
        return match parse_traceparent(&text) {
            Some(_) => Ok(Some(text)),
            None => Err(Error::field(
                Code::InvalidField,
                "traceparent",
                "is no W3C trace context, such as 00-4bf9…-00f0…-01",
            )),
        };
    }
    let header = headers.get("traceparent").and_then(|value| value.to_str().ok());
    Ok(header.filter(|text| parse_traceparent(text).is_some()).map(|text| text.trim().to_owned()))
}

/// Start a run.
///
/// The run is durable when the answer comes. A second start with the same `id` and input is the same run. With
/// `?wait=` the answer is the run when it has ended, or as it stands when the time is over.
#[utoipa::path(
    post, path = "/v1/workflows/{name}/runs", tag = "workflows", operation_id = "startRun",
    params(
        ("name" = String, Path, description = "Workflow", example = "thumbnails"),
        ("wait" = Option<f64>, Query, description = "Seconds to wait for the run to end: 0 to 60"),
        ("Lyra-Destinations" = Option<String>, Header, description = "Who hears of the run's end, in place of the workflow's own destinations; JSON as for `PUT …/destinations`, in which a URL needs a secret"),
        Owner,
    ),
    request_body(content = NewRun, example = json!({"input": {"image": "cat.png"}})),
    responses(
        (status = 200, description = "With `?wait=`: the run has ended", body = Run, headers(("Location" = String, description = "The run"))),
        (status = 202, description = "The run is durable; with `?wait=` it has not ended, and the body is the run", body = Started,
            headers(("Location" = String, description = "The run"))),
        Refused, Missing, Busy
    )
)]
pub(crate) async fn start(State(app): State<Arc<App>>, scope: Scope, request: Request) -> Answer {
    let role = role(&app)?;
    let name = name(&scope)?;
    let wait = match scope.params().text("wait")? {
        None => None,
        Some(_) => Some(scope.params().wait(app.config.max_wait)?),
    };
    expect_json(&scope.headers)?;
    let _pass = quota::enter_start(&app, &scope.tenant).await?;
    let body = body::read(&app, &scope.headers, request.into_body(), app.config.max_event_bytes).await?;
    let mut run: NewRun = match body.bytes.is_empty() {
        true => NewRun::default(),
        false => parse_start(&body.bytes)?,
    };
    drop(body);
    run.traceparent = traceparent(run.traceparent.take(), &scope.headers)?;
    run.user = charged(&scope, run.user.as_deref())?;
    if let Some(destinations) = headers::destinations(&scope.headers)? {
        run.destinations = Some(Box::new(destinations));
    }
    let started = role.start(&scope.tenant, &name, run).await?;
    let location = headers::value(format_args!("/v1/runs/{}", started.id));
    let respond = |status: StatusCode, body: Response| -> Response {
        let mut response = (status, body).into_response();
        response.headers_mut().insert(LOCATION, location);
        response
    };
    let Some(wait) = wait else {
        return Ok(respond(StatusCode::ACCEPTED, Json(started).into_response()));
    };
    let run = settled(&app, &scope.tenant, &started.id, wait).await?;
    let status = if run.status.is_final() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(respond(status, Json(run).into_response()))
}

/// Who is charged for what a run calls: whoever starts it.
fn charged(scope: &Scope, asked: Option<&str>) -> Result<Option<Arc<str>>> {
    match asked {
        Some(_) => Err(Error::field(Code::InvalidField, "user", "is for gateways to say")),
        None => Ok(scope.identity.account()),
    }
}

/// Reads a run to start. What is wrong with its destinations is said without a word of what they hold.
fn parse_start(bytes: &[u8]) -> Result<NewRun> {
    parse_json(bytes).or_else(|error: Error| {
        let secret = error.errors.first().is_some_and(|field| field.field.starts_with("destinations"));
        if secret { parse_secret_json(bytes) } else { Err(error) }
    })
}

/// Run a part of another Lyra's workflow.
///
/// Another Lyra asks for this where a workflow's document cuts a part out for this one. Asked again with the same id
/// it waits for the same run. 200 where the run has ended within `wait`, else 202. It needs the scopes `deploy` and `invoke`: the part
/// comes with its definition. The run is cancelled as any other, by its id.
#[utoipa::path(
    post, path = "/v1/cuts", tag = "workflows", operation_id = "runCut",
    params(
        ("wait" = Option<u32>, Query, description = "Seconds to wait for the end"),
        Owner,
    ),
    request_body(content = NewPart),
    responses(
        (status = 200, description = "The run, which has ended", body = Run),
        (status = 202, description = "The run, which has not ended", body = Run),
        Refused, Busy
    )
)]
pub(crate) async fn start_part(State(app): State<Arc<App>>, scope: Scope, request: Request) -> Answer {
    let role = role(&app)?;
    let wait = scope.params().wait(app.config.max_wait)?;
    expect_json(&scope.headers)?;
    let body = body::read(&app, &scope.headers, request.into_body(), app.config.max_event_bytes).await?;
    let mut part: NewPart = parse_json(&body.bytes)?;
    drop(body);
    part.traceparent = traceparent(part.traceparent.take(), &scope.headers)?;
    part.user = charged(&scope, part.user.as_deref())?;
    // One that waits for a part that was started before starts nothing.
    let _pass = match role.run(&scope.tenant, &part.id, Duration::ZERO).await {
        Ok(_) => Pass::default(),
        Err(_) => quota::enter_start(&app, &scope.tenant).await?,
    };
    let started = role.start_part(&scope.tenant, part).await?;
    let run = settled(&app, &scope.tenant, &started.id, wait).await?;
    let status = if run.status.is_final() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(run)).into_response())
}
