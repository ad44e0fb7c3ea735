//! Jobs: show, list, wait, result, cancel.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use lyra_types::api::{JobView, Page};
use lyra_types::function::Contract;
use lyra_types::job::{Job, JobStatus};
use lyra_types::{Code, Error, FunctionName, JobId, Result, TenantName};
use lyra_wire::control::{Finished, JobQuery};

use super::Answer;
use super::invoke::result_response;
use crate::extract::Scope;
use crate::headers;
use crate::openapi::{Busy, Failed, Missing, Owner, Paging, Refused};
use crate::problem;
use crate::query::{DEFAULT_PAGE, MAX_PAGE, Params};
use crate::service::App;

/// How long a cancellation waits for a running job to stop when `?wait=` does not say.
const CANCEL_WAIT: Duration = Duration::from_secs(10);

pub(super) fn id(scope: &Scope) -> Result<JobId> {
    scope.part("id").parse()
}

/// A filter of jobs.
pub(super) fn job_query(params: &Params<'_>) -> Result<JobQuery> {
    let status = params.text("status")?.map(|text| {
        JobStatus::parse(text).ok_or_else(|| {
            let all = JobStatus::ALL.map(JobStatus::as_str).join(", ");
            Error::field(Code::BadRequest, "status", format!("must be one of {all}"))
        })
    });
    Ok(JobQuery {
        function: params.text("function")?.map(FunctionName::new).transpose()?,
        status: status.transpose()?,
        limit: params.limit(DEFAULT_PAGE, MAX_PAGE)?,
        cursor: params.cursor()?,
    })
}

/// The job, after it has ended or `wait` has passed or the gateway is to stop.
pub(crate) async fn finished(app: &App, tenant: &TenantName, id: JobId, wait: Duration) -> Result<Finished> {
    if wait.is_zero() {
        return app.control.job(tenant, id, wait).await;
    }
    tokio::select! {
        finished = app.control.job(tenant, id, wait) => finished,
        () = app.stopping.cancelled() => app.control.job(tenant, id, Duration::ZERO).await,
    }
}

/// List jobs, newest first.
#[utoipa::path(
    get, path = "/v1/jobs", tag = "jobs", operation_id = "listJobs",
    params(
        ("function" = Option<String>, Query, description = "Only of this function"),
        ("status" = Option<JobStatus>, Query, description = "Only with this status"),
        Paging,
        Owner,
    ),
    responses((status = 200, description = "A page", body = Page<JobView>), Refused, Busy)
)]
pub(crate) async fn list(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let page = app.control.jobs(&scope.tenant, job_query(&scope.params())?).await?;
    Ok(Json(page.map(|job| JobView::from(&job))).into_response())
}

/// Show a job.
#[utoipa::path(
    get, path = "/v1/jobs/{id}", tag = "jobs", operation_id = "getJob",
    params(
        ("id" = String, Path, description = "Job", example = "job_01jcr2x7k3w9v5t8n6m4p0q2s1"),
        ("wait" = Option<f64>, Query, description = "Seconds to wait for the job to end: 0 to 60"),
        Owner,
    ),
    responses((status = 200, description = "The job", body = JobView), Refused, Missing, Busy)
)]
pub(crate) async fn get(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let wait = scope.params().wait(app.config.max_wait)?;
    let finished = finished(&app, &scope.tenant, id(&scope)?, wait).await?;
    Ok(Json(JobView::from(&finished.job)).into_response())
}

/// Get a job's result.
///
/// A job that failed answers with the problem that a call would have got; a cancelled one with 409.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/result", tag = "jobs", operation_id = "getJobResult",
    params(
        ("id" = String, Path, description = "Job", example = "job_01jcr2x7k3w9v5t8n6m4p0q2s1"),
        ("wait" = Option<f64>, Query, description = "Seconds to wait for the job to end: 0 to 60"),
        Owner,
    ),
    responses(
        (status = 200, description = "The result", body = serde_json::Value),
        (status = 202, description = "The job has not ended", body = JobView, headers(("Retry-After" = u64, description = "Seconds"))),
        (status = 409, description = "The job was cancelled", body = lyra_types::api::Problem, content_type = "application/problem+json"),
        Failed, Refused, Missing, Busy
    )
)]
pub(crate) async fn result(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let wait = scope.params().wait(app.config.max_wait)?;
    let Finished { job, result } = finished(&app, &scope.tenant, id(&scope)?, wait).await?;
    let mut response = match (job.status, result) {
        (JobStatus::Queued | JobStatus::Running, _) => unfinished(&job),
        // Which contract the version had is not kept with the job: what the result is tells as much.
        (JobStatus::Succeeded, Some(result)) => result_response(Contract::Command, result),
        (JobStatus::Succeeded, None) => {
            problem::respond(&Error::new(Code::NotFound, format!("the result of job {} is not kept any more", job.id)))
        }
        (JobStatus::Cancelled, _) => {
            problem::respond_as(&Error::new(Code::Cancelled, format!("job {} was cancelled", job.id)), 409)
        }
        (JobStatus::Failed | JobStatus::TimedOut | JobStatus::Dead, _) => failed(&job),
    };
    if let Some(invocation) = job.invocation {
        response.headers_mut().insert(headers::INVOCATION_ID, headers::value(invocation));
    }
    Ok(response)
}

fn unfinished(job: &Job) -> Response {
    let mut response = (StatusCode::ACCEPTED, Json(JobView::from(job))).into_response();
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn failed(job: &Job) -> Response {
    match &job.error {
        Some(error) => problem::respond(error),
        None => problem::respond(&Error::new(Code::FunctionError, format!("job {} failed", job.id))),
    }
}

/// Cancel a job, a running one too.
#[utoipa::path(
    delete, path = "/v1/jobs/{id}", tag = "jobs", operation_id = "cancelJob",
    params(
        ("id" = String, Path, description = "Job", example = "job_01jcr2x7k3w9v5t8n6m4p0q2s1"),
        ("wait" = Option<f64>, Query, description = "Seconds to wait for a running job to stop: 0 to 60, default 10"),
        Owner,
    ),
    responses(
        (status = 200, description = "The job has ended: cancelled, or as it had ended before", body = JobView),
        (status = 202, description = "The job is being stopped", body = JobView),
        Refused, Missing, Busy
    )
)]
pub(crate) async fn cancel(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let params = scope.params();
    let wait = match params.text("wait")? {
        None => CANCEL_WAIT.min(app.config.max_wait),
        Some(_) => params.wait(app.config.max_wait)?,
    };
    let job = app.control.cancel_job(&scope.tenant, id(&scope)?, wait).await?;
    let status = if job.status.is_final() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(JobView::from(&job))).into_response())
}
