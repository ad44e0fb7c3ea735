//! The dead-letter list: jobs whose tries are used up.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use lyra_types::api::{JobView, Page};
use lyra_types::job::JobStatus;
use lyra_types::{Error, JobId, Result, TenantName};
use lyra_wire::control::JobQuery;
use serde::Serialize;

use super::Answer;
use super::functions::no_content;
use super::jobs::{id, job_query};
use crate::extract::Scope;
use crate::openapi::{Busy, Missing, Owner, Paging, Refused};
use crate::service::App;

/// How many jobs something was done to.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Count {
    /// Jobs.
    count: u64,
}

async fn dead(app: &App, tenant: &TenantName, id: JobId) -> Result<JobView> {
    let job = app.control.job(tenant, id, Duration::ZERO).await?.job;
    match job.status {
        JobStatus::Dead => Ok(JobView::from(&job)),
        _ => Err(Error::not_found("dead letter", id)),
    }
}

/// List dead letters, newest first.
#[utoipa::path(
    get, path = "/v1/dead-letters", tag = "dead-letters", operation_id = "listDeadLetters",
    params(
        ("function" = Option<String>, Query, description = "Only of this function"),
        Paging,
        Owner,
    ),
    responses((status = 200, description = "A page", body = Page<JobView>), Refused, Busy)
)]
pub(crate) async fn list(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let query = JobQuery { status: Some(JobStatus::Dead), ..job_query(&scope.params())? };
    let page = app.control.jobs(&scope.tenant, query).await?;
    Ok(Json(page.map(|job| JobView::from(&job))).into_response())
}

/// Show a dead letter.
#[utoipa::path(
    get, path = "/v1/dead-letters/{id}", tag = "dead-letters", operation_id = "getDeadLetter",
    params(
        ("id" = String, Path, description = "Job", example = "job_01jcr2x7k3w9v5t8n6m4p0q2s1"),
        Owner,
    ),
    responses((status = 200, description = "The job", body = JobView), Refused, Missing, Busy)
)]
pub(crate) async fn get(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    Ok(Json(dead(&app, &scope.tenant, id(&scope)?).await?).into_response())
}

/// Put a dead job back in the queue, with its tries counted from zero.
#[utoipa::path(
    post, path = "/v1/dead-letters/{id}/redrive", tag = "dead-letters", operation_id = "redriveDeadLetter",
    params(
        ("id" = String, Path, description = "Job", example = "job_01jcr2x7k3w9v5t8n6m4p0q2s1"),
        Owner,
    ),
    responses(
        (status = 200, description = "The job, queued", body = JobView),
        (status = 409, description = "The job is not dead", body = lyra_types::api::Problem, content_type = "application/problem+json"),
        Refused, Missing, Busy
    )
)]
pub(crate) async fn redrive(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let job = app.control.redrive(&scope.tenant, id(&scope)?).await?;
    Ok(Json(JobView::from(&job)).into_response())
}

/// Put every dead job back in the queue.
#[utoipa::path(
    post, path = "/v1/dead-letters/redrive", tag = "dead-letters", operation_id = "redriveDeadLetters",
    params(Owner),
    responses((status = 200, description = "How many", body = Count), Refused, Busy)
)]
pub(crate) async fn redrive_all(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let count = app.control.redrive_all(&scope.tenant).await?;
    Ok(Json(Count { count }).into_response())
}

/// Delete every dead letter.
#[utoipa::path(
    delete, path = "/v1/dead-letters", tag = "dead-letters", operation_id = "purgeDeadLetters",
    params(Owner),
    responses((status = 200, description = "How many", body = Count), Refused, Busy)
)]
pub(crate) async fn purge(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let count = app.control.purge_dead(&scope.tenant, None).await?;
    Ok(Json(Count { count }).into_response())
}

/// Delete a dead letter.
#[utoipa::path(
    delete, path = "/v1/dead-letters/{id}", tag = "dead-letters", operation_id = "deleteDeadLetter",
    params(
        ("id" = String, Path, description = "Job", example = "job_01jcr2x7k3w9v5t8n6m4p0q2s1"),
        Owner,
    ),
    responses((status = 204, description = "It is gone"), Refused, Missing, Busy)
)]
pub(crate) async fn delete(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let id = id(&scope)?;
    match app.control.purge_dead(&scope.tenant, Some(id)).await? {
        0 => Err(Error::not_found("dead letter", id).into()),
        _ => Ok(no_content()),
    }
}
