//! Runs of workflows: show, list, wait, command, trace, and tasks that wait for an outside party.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use http::StatusCode;
use lyra_types::api::Page;
use lyra_types::api::workflows::{Completion, Waiting};
use lyra_types::workflow::{Run, RunStatus, TraceToken};
use lyra_types::{Code, Error, Result, RunId, TenantName, WorkflowName};
use lyra_wire::control::PageQuery;
use lyra_wire::spans::spans;
use lyra_wire::workflows::{RunCommand, RunQuery, callback_run};

use super::Answer;
use super::workflows::role;
use crate::access::By;
use crate::access::audit::AuditAs;
use crate::body;
use crate::extract::{Scope, expect_json, parse_json};
use crate::openapi::{Busy, Missing, Owner, Paging, Refused};
use crate::query::{DEFAULT_PAGE, MAX_PAGE};
use crate::service::App;

/// Tokens in a page when no `limit` is given, and the most there may be.
const TOKENS: usize = 1_000;
const MAX_TOKENS: usize = 10_000;
/// Most tokens of a run whose spans are made.
const MAX_SPANNED: usize = 100_000;

/// The run that the path names; text that can't be an id is a run that does not exist.
fn id(scope: &Scope) -> Result<RunId> {
    let text = scope.part("id");
    RunId::new(text).map_err(|_| {
        let shown: String = text.chars().take(80).collect();
        Error::not_found("run", format_args!("\"{}\"", shown.escape_debug()))
    })
}

/// The run, after it has ended or `wait` has passed or the gateway is to stop.
pub(super) async fn settled(app: &App, tenant: &TenantName, id: &RunId, wait: Duration) -> Result<Run> {
    let role = role(app)?;
    if wait.is_zero() {
        return role.run(tenant, id, wait).await;
    }
    tokio::select! {
        run = role.run(tenant, id, wait) => run,
        () = app.stopping.cancelled() => role.run(tenant, id, Duration::ZERO).await,
    }
}

/// List runs, newest first; without their outputs.
#[utoipa::path(
    get, path = "/v1/runs", tag = "runs", operation_id = "listRuns",
    params(
        ("workflow" = Option<String>, Query, description = "Only of this workflow"),
        ("status" = Option<RunStatus>, Query, description = "Only with this status"),
        Paging,
        Owner,
    ),
    responses((status = 200, description = "A page", body = Page<Run>), Refused, Busy)
)]
pub(crate) async fn list(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let params = scope.params();
    let status = params.text("status")?.map(|text| {
        RunStatus::parse(text).ok_or_else(|| {
            let all = RunStatus::ALL.map(RunStatus::as_str).join(", ");
            Error::field(Code::BadRequest, "status", format!("must be one of {all}"))
        })
    });
    let query = RunQuery {
        workflow: params.text("workflow")?.map(WorkflowName::new).transpose()?,
        status: status.transpose()?,
        page: PageQuery { limit: params.limit(DEFAULT_PAGE, MAX_PAGE)?, cursor: params.cursor()? },
    };
    Ok(Json(role(&app)?.runs(&scope.tenant, query).await?).into_response())
}

/// Show a run.
#[utoipa::path(
    get, path = "/v1/runs/{id}", tag = "runs", operation_id = "getRun",
    params(
        ("id" = String, Path, description = "Run", example = "run_01jcr2x7k3w9v5t8n6m4p0q2s1"),
        ("wait" = Option<f64>, Query, description = "Seconds to wait for the run to end: 0 to 60"),
        Owner,
    ),
    responses((status = 200, description = "The run", body = Run), Refused, Missing, Busy)
)]
pub(crate) async fn get(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let wait = scope.params().wait(app.config.max_wait)?;
    Ok(Json(settled(&app, &scope.tenant, &id(&scope)?, wait).await?).into_response())
}

/// Delete a run that has ended: its history, its output, and its values in the blob store.
///
/// One that goes on is refused; cancel it first. So is a part of a run that has not ended. Runs of its own sub-workflows are runs
/// like others, and stay. Its id can be used again for another run.
#[utoipa::path(
    delete, path = "/v1/runs/{id}", tag = "runs", operation_id = "deleteRun",
    params(
        ("id" = String, Path, description = "Run", example = "run_01jcr2x7k3w9v5t8n6m4p0q2s1"),
        Owner,
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 409, description = "The run, or the one that it is a part of, has not ended", body = lyra_types::api::Problem, content_type = "application/problem+json"),
        Refused, Missing, Busy
    )
)]
pub(crate) async fn delete(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    role(&app)?.delete_run(&scope.tenant, &id(&scope)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn command(app: &App, scope: &Scope, command: RunCommand) -> Answer {
    Ok(Json(role(app)?.command(&scope.tenant, &id(scope)?, command).await?).into_response())
}

/// Pause a run: no further task begins.
#[utoipa::path(
    post, path = "/v1/runs/{id}/pause", tag = "runs", operation_id = "pauseRun",
    params(
        ("id" = String, Path, description = "Run", example = "run_01jcr2x7k3w9v5t8n6m4p0q2s1"),
        Owner,
    ),
    responses(
        (status = 200, description = "The run", body = Run),
        (status = 409, description = "The run has ended", body = lyra_types::api::Problem, content_type = "application/problem+json"),
        Refused, Missing, Busy
    )
)]
pub(crate) async fn pause(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    command(&app, &scope, RunCommand::Pause).await
}

/// Let a paused run go on.
#[utoipa::path(
    post, path = "/v1/runs/{id}/resume", tag = "runs", operation_id = "resumeRun",
    params(
        ("id" = String, Path, description = "Run", example = "run_01jcr2x7k3w9v5t8n6m4p0q2s1"),
        Owner,
    ),
    responses(
        (status = 200, description = "The run", body = Run),
        (status = 409, description = "The run has ended", body = lyra_types::api::Problem, content_type = "application/problem+json"),
        Refused, Missing, Busy
    )
)]
pub(crate) async fn resume(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    command(&app, &scope, RunCommand::Resume).await
}

/// Cancel a run: calls that are under way are given up.
#[utoipa::path(
    post, path = "/v1/runs/{id}/cancel", tag = "runs", operation_id = "cancelRun",
    params(
        ("id" = String, Path, description = "Run", example = "run_01jcr2x7k3w9v5t8n6m4p0q2s1"),
        Owner,
    ),
    responses(
        (status = 200, description = "The run", body = Run),
        (status = 409, description = "The run is in a state that does not allow this", body = lyra_types::api::Problem, content_type = "application/problem+json"),
        Refused, Missing, Busy
    )
)]
pub(crate) async fn cancel(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    command(&app, &scope, RunCommand::Cancel).await
}

/// Take up a failed or cancelled run where it failed; what has succeeded is not done again.
#[utoipa::path(
    post, path = "/v1/runs/{id}/redrive", tag = "runs", operation_id = "redriveRun",
    params(
        ("id" = String, Path, description = "Run", example = "run_01jcr2x7k3w9v5t8n6m4p0q2s1"),
        Owner,
    ),
    responses(
        (status = 200, description = "The run", body = Run),
        (status = 409, description = "The run has neither failed nor been cancelled", body = lyra_types::api::Problem, content_type = "application/problem+json"),
        Refused, Missing, Busy
    )
)]
pub(crate) async fn redrive(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    command(&app, &scope, RunCommand::Redrive).await
}

/// Show what happened in a run: its tokens, in order.
///
/// With `?format=otlp` as OpenTelemetry spans: all of what has ended, in the JSON encoding of OTLP, for a collector's
/// `/v1/traces`. Asked again, each span has the same id.
#[utoipa::path(
    get, path = "/v1/runs/{id}/trace", tag = "runs", operation_id = "traceRun",
    params(
        ("id" = String, Path, description = "Run", example = "run_01jcr2x7k3w9v5t8n6m4p0q2s1"),
        ("from" = Option<u64>, Query, description = "Number of the first token, from 0"),
        ("limit" = Option<u32>, Query, description = "Tokens in a page: 1 to 10000, default 1000"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before, in place of `from`"),
        ("format" = Option<String>, Query, description = "`tokens`, which is the default, or `otlp`, which has no pages"),
        Owner,
    ),
    responses((status = 200, description = "A page", body = Page<TraceToken>), Refused, Missing, Busy)
)]
pub(crate) async fn trace(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let params = scope.params();
    match params.text("format")? {
        None | Some("tokens") => {}
        Some("otlp") => return otlp(&app, &scope).await,
        Some(_) => return Err(Error::field(Code::BadRequest, "format", "must be tokens or otlp").into()),
    }
    let from = match (params.number("from")?, params.number("cursor")?) {
        (Some(_), Some(_)) => {
            return Err(Error::field(Code::BadRequest, "from", "give from or cursor, not both").into());
        }
        (from, cursor) => from.or(cursor).unwrap_or(0),
    };
    let limit = params.limit(TOKENS, MAX_TOKENS)?;
    let items = role(&app)?.trace(&scope.tenant, &id(&scope)?, from, limit).await?;
    // A full page may have been the last one: the next is empty then.
    let next = items.last().filter(|_| items.len() >= limit).map(|token| (token.seq + 1).to_string());
    Ok(Json(Page { items, next }).into_response())
}

/// A run's spans.
async fn otlp(app: &App, scope: &Scope) -> Answer {
    let params = scope.params();
    for name in ["from", "limit", "cursor"] {
        if params.text(name)?.is_some() {
            return Err(Error::field(Code::BadRequest, name, "spans have no pages").into());
        }
    }
    let (role, id) = (role(app)?, id(scope)?);
    let run = role.run(&scope.tenant, &id, Duration::ZERO).await?;
    let mut tokens = Vec::new();
    loop {
        let page = role.trace(&scope.tenant, &id, tokens.len() as u64, MAX_TOKENS).await?;
        let last = page.len() < MAX_TOKENS;
        tokens.extend(page);
        if last {
            break;
        }
        if tokens.len() >= MAX_SPANNED {
            let detail = format!("the run has more than {MAX_SPANNED} tokens; read them page by page, as tokens");
            return Err(Error::new(Code::TooLarge, detail).into());
        }
    }
    Ok(Json(spans(&run, &tokens)).into_response())
}

/// List the tasks of a run that wait for an outside party.
///
/// Their tokens, with which anybody completes them, are shown to those who may invoke.
#[utoipa::path(
    get, path = "/v1/runs/{id}/waiting", tag = "runs", operation_id = "listWaiting",
    params(
        ("id" = String, Path, description = "Run", example = "run_01jcr2x7k3w9v5t8n6m4p0q2s1"),
        Owner,
    ),
    responses((status = 200, description = "All of them", body = Page<Waiting>), Refused, Missing, Busy)
)]
pub(crate) async fn waiting(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let mut items = role(&app)?.waiting(&scope.tenant, &id(&scope)?).await?;
    if !scope.identity.may(lyra_types::Scope::Invoke) {
        items.iter_mut().for_each(|task| task.token = None);
    }
    Ok(Json(Page { items, next: None }).into_response())
}

/// Complete a task that waits.
///
/// The token names the task and is what entitles to complete it. Repeating the same completion does nothing. Who has completed what
/// stands in the audit log.
#[utoipa::path(
    post, path = "/v1/callbacks/{token}", tag = "runs", operation_id = "completeTask",
    params(("token" = String, Path, description = "What the waiting task was given, or `GET /v1/runs/{id}/waiting` shows")),
    request_body(content = Completion, example = json!({"output": {"approved": true}})),
    responses(
        (status = 204, description = "The task has ended"),
        (status = 409, description = "The task has ended otherwise", body = lyra_types::api::Problem, content_type = "application/problem+json"),
        Refused, Missing, Busy
    )
)]
pub(crate) async fn complete(State(app): State<Arc<App>>, scope: Scope, request: Request) -> Answer {
    let role = role(&app)?;
    expect_json(&scope.headers)?;
    let body = body::read(&app, &scope.headers, request.into_body(), app.config.max_event_bytes).await?;
    let completion: Completion = parse_json(&body.bytes)?;
    drop(body);
    let token = scope.part("token");
    role.complete(token, completion).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    // The token was good, so what it says is true.
    if let Some((tenant, run)) = callback_run(token) {
        let actor = match scope.identity.by {
            By::Nothing => "callback".to_owned(),
            _ => scope.identity.name.clone(),
        };
        let target = Some(format!("/v1/runs/{run}"));
        response.extensions_mut().insert(AuditAs { actor, tenant: Some(tenant), target });
    }
    Ok(response)
}
