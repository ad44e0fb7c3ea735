//! Who hears of the ends of jobs and runs: destinations of functions and workflows, and deliveries.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use lyra_types::api::Page;
use lyra_types::delivery::{DeliveryStatus, DeliveryView, DestinationsRequest, DestinationsView};
use lyra_types::{Code, Error, JobId, RunId};
use lyra_wire::control::PageQuery;
use lyra_wire::hooks::{DeliveryAsk, DeliveryQuery, HookAnswer, HookRequest};

use super::Answer;
use super::functions::no_content;
use super::workflows::name;
use crate::body;
use crate::extract::{Scope, expect_json, parse_secret_json};
use crate::openapi::{Busy, Missing, Owner, Paging, Refused};
use crate::query::{DEFAULT_PAGE, MAX_PAGE};
use crate::service::App;

/// Asks control, and answers with what it says.
async fn ask(app: &App, scope: &Scope, ask: DeliveryAsk, status: StatusCode) -> Answer {
    let answer: Response = match app.control.hooks(HookRequest::Delivery { tenant: scope.tenant.clone(), ask }).await? {
        HookAnswer::Destinations(view) => (status, Json(view)).into_response(),
        HookAnswer::Deliveries(page) => (status, Json(page)).into_response(),
        HookAnswer::Delivery(view) => (status, Json(view)).into_response(),
        HookAnswer::Done => no_content(),
        other => return Err(other.unfit().into()),
    };
    Ok(answer)
}

/// Show who hears of the jobs of a function. Secrets are not shown.
#[utoipa::path(
    get, path = "/v1/functions/{name}/destinations", tag = "deliveries", operation_id = "getDestinations",
    params(
        ("name" = String, Path, description = "Function", example = "hello"),
        Owner,
    ),
    responses((status = 200, description = "The destinations", body = DestinationsView), Refused, Missing, Busy)
)]
pub(crate) async fn destinations(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    ask(&app, &scope, DeliveryAsk::Destinations(scope.function()?), StatusCode::OK).await
}

/// Set who hears of the jobs of a function that are accepted from now on.
///
/// A URL is called by POST, signed as Standard Webhooks has it; a function gets the message as the event of a job. Where a URL comes
/// without a secret one is made and shown in this answer, this once.
#[utoipa::path(
    put, path = "/v1/functions/{name}/destinations", tag = "deliveries", operation_id = "putDestinations",
    params(
        ("name" = String, Path, description = "Function", example = "hello"),
        Owner,
    ),
    request_body(content = DestinationsRequest, example = json!({"on_success": {"url": "https://example.org/hook"}, "on_failure": {"function": "repair@live"}})),
    responses((status = 200, description = "The destinations", body = DestinationsView), Refused, Missing, Busy)
)]
pub(crate) async fn put_destinations(State(app): State<Arc<App>>, scope: Scope, request: Request) -> Answer {
    let function = scope.function()?;
    expect_json(&scope.headers)?;
    let body = body::read(&app, &scope.headers, request.into_body(), app.config.max_json_bytes).await?;
    let wanted: DestinationsRequest = parse_secret_json(&body.bytes)?;
    ask(&app, &scope, DeliveryAsk::PutDestinations(function, Box::new(wanted)), StatusCode::OK).await
}

/// Have nobody hear of the jobs of a function that are accepted from now on.
#[utoipa::path(
    delete, path = "/v1/functions/{name}/destinations", tag = "deliveries", operation_id = "deleteDestinations",
    params(
        ("name" = String, Path, description = "Function", example = "hello"),
        Owner,
    ),
    responses((status = 204, description = "They are gone"), Refused, Missing, Busy)
)]
pub(crate) async fn delete_destinations(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    ask(&app, &scope, DeliveryAsk::DeleteDestinations(scope.function()?), StatusCode::OK).await
}

/// Send a message of type `webhook.test` to each destination of a function.
#[utoipa::path(
    post, path = "/v1/functions/{name}/destinations/test", tag = "deliveries", operation_id = "testDestinations",
    params(
        ("name" = String, Path, description = "Function", example = "hello"),
        Owner,
    ),
    responses((status = 202, description = "The deliveries", body = Page<DeliveryView>), Refused, Missing, Busy)
)]
pub(crate) async fn test(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    ask(&app, &scope, DeliveryAsk::Test(scope.function()?), StatusCode::ACCEPTED).await
}

/// Show who hears of the runs of a workflow. Secrets are not shown.
#[utoipa::path(
    get, path = "/v1/workflows/{name}/destinations", tag = "deliveries", operation_id = "getWorkflowDestinations",
    params(
        ("name" = String, Path, description = "Workflow", example = "thumbnails"),
        Owner,
    ),
    responses((status = 200, description = "The destinations", body = DestinationsView), Refused, Missing, Busy)
)]
pub(crate) async fn of_workflow(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    ask(&app, &scope, DeliveryAsk::WorkflowDestinations(name(&scope)?), StatusCode::OK).await
}

/// Set who hears of the runs of a workflow that are started from now on, whoever starts them.
///
/// As for functions; the messages are `run.succeeded`, and `run.failed`, `run.cancelled` or `run.timed_out`.
#[utoipa::path(
    put, path = "/v1/workflows/{name}/destinations", tag = "deliveries", operation_id = "putWorkflowDestinations",
    params(
        ("name" = String, Path, description = "Workflow", example = "thumbnails"),
        Owner,
    ),
    request_body(content = DestinationsRequest, example = json!({"on_success": {"url": "https://example.org/hook"}, "on_failure": {"function": "repair@live"}})),
    responses((status = 200, description = "The destinations", body = DestinationsView), Refused, Missing, Busy)
)]
pub(crate) async fn put_of_workflow(State(app): State<Arc<App>>, scope: Scope, request: Request) -> Answer {
    let workflow = name(&scope)?;
    expect_json(&scope.headers)?;
    let body = body::read(&app, &scope.headers, request.into_body(), app.config.max_json_bytes).await?;
    let wanted: DestinationsRequest = parse_secret_json(&body.bytes)?;
    let put = DeliveryAsk::PutWorkflowDestinations(workflow, Box::new(wanted));
    ask(&app, &scope, put, StatusCode::OK).await
}

/// Have nobody hear of the runs of a workflow that are started from now on.
#[utoipa::path(
    delete, path = "/v1/workflows/{name}/destinations", tag = "deliveries", operation_id = "deleteWorkflowDestinations",
    params(
        ("name" = String, Path, description = "Workflow", example = "thumbnails"),
        Owner,
    ),
    responses((status = 204, description = "They are gone"), Refused, Missing, Busy)
)]
pub(crate) async fn delete_of_workflow(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    ask(&app, &scope, DeliveryAsk::DeleteWorkflowDestinations(name(&scope)?), StatusCode::OK).await
}

/// Send a message of type `webhook.test` to each destination of a workflow.
#[utoipa::path(
    post, path = "/v1/workflows/{name}/destinations/test", tag = "deliveries", operation_id = "testWorkflowDestinations",
    params(
        ("name" = String, Path, description = "Workflow", example = "thumbnails"),
        Owner,
    ),
    responses((status = 202, description = "The deliveries", body = Page<DeliveryView>), Refused, Missing, Busy)
)]
pub(crate) async fn test_of_workflow(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    ask(&app, &scope, DeliveryAsk::TestWorkflow(name(&scope)?), StatusCode::ACCEPTED).await
}

/// List deliveries, newest first.
#[utoipa::path(
    get, path = "/v1/deliveries", tag = "deliveries", operation_id = "listDeliveries",
    params(
        ("job" = Option<String>, Query, description = "Only of this job"),
        ("run" = Option<String>, Query, description = "Only of this run"),
        ("status" = Option<DeliveryStatus>, Query, description = "Only with this status"),
        Paging,
        Owner,
    ),
    responses((status = 200, description = "A page", body = Page<DeliveryView>), Refused, Busy)
)]
pub(crate) async fn list(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let params = scope.params();
    let status = params.text("status")?.map(|text| {
        DeliveryStatus::parse(text).ok_or_else(|| {
            let all = DeliveryStatus::ALL.map(DeliveryStatus::as_str).join(", ");
            Error::field(Code::BadRequest, "status", format!("must be one of {all}"))
        })
    });
    let query = DeliveryQuery {
        job: params.text("job")?.map(str::parse::<JobId>).transpose()?,
        run: params.text("run")?.map(RunId::new).transpose()?,
        status: status.transpose()?,
        page: PageQuery { limit: params.limit(DEFAULT_PAGE, MAX_PAGE)?, cursor: params.cursor()? },
    };
    ask(&app, &scope, DeliveryAsk::List(query), StatusCode::OK).await
}

/// Show a delivery, with its last tries.
#[utoipa::path(
    get, path = "/v1/deliveries/{id}", tag = "deliveries", operation_id = "getDelivery",
    params(
        ("id" = String, Path, description = "Delivery", example = "dlv_fe5cc2f7a3ff9a1b2c3d4e5f6071"),
        Owner,
    ),
    responses((status = 200, description = "The delivery", body = DeliveryView), Refused, Missing, Busy)
)]
pub(crate) async fn get(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    ask(&app, &scope, DeliveryAsk::Get(scope.part("id").to_owned()), StatusCode::OK).await
}

/// Try a delivery again, with its tries counted from zero and the same `webhook-id`.
#[utoipa::path(
    post, path = "/v1/deliveries/{id}/redeliver", tag = "deliveries", operation_id = "redeliver",
    params(
        ("id" = String, Path, description = "Delivery", example = "dlv_fe5cc2f7a3ff9a1b2c3d4e5f6071"),
        Owner,
    ),
    responses((status = 202, description = "The delivery, which is due", body = DeliveryView), Refused, Missing, Busy)
)]
pub(crate) async fn redeliver(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    ask(&app, &scope, DeliveryAsk::Redeliver(scope.part("id").to_owned()), StatusCode::ACCEPTED).await
}
