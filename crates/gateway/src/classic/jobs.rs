//! Jobs: status, result, removal. An id tells the number of its user, and the number the tenant.

use std::time::Duration;

use lyra_types::job::{Job, JobStatus};
use lyra_types::{Code, JobId, Result, TenantName};
use lyra_wire::classic::{ClassicAnswer, ClassicJob, ClassicRequest};
use lyra_wire::control::Finished;

use super::Asked;
use super::envelope::Envelope;
use super::users::unexpected;
use crate::query::Params;

/// Numbers whose tenant is remembered; a number never changes its tenant.
const REMEMBERED: usize = 100_000;
/// How long a removal waits for a running job to stop.
const STOP: Duration = Duration::from_secs(15);

/// The tenants of numbers.
#[derive(Default)]
pub(super) struct Owners(papaya::HashMap<u32, TenantName>);

/// A job that a path names.
enum Named {
    Job(TenantName, JobId),
    /// The answer instead.
    Fault(Envelope),
}

fn unknown(id: &str) -> Envelope {
    Envelope::fault(format!("[ERR] Job <{id}> not found."))
}

async fn named(asked: &Asked<'_>, id: &str) -> Result<Named> {
    let Some(job) = ClassicJob::parse(id) else {
        return Ok(Named::Fault(Envelope::fault(format!("[ERR] Invalid job_id ({id})"))));
    };
    let owners = &asked.classic.owners.0;
    let known = owners.pin().get(&job.user).cloned();
    let tenant = match known {
        Some(tenant) => tenant,
        None => match asked.app.control.classic(ClassicRequest::Owner(job.user)).await? {
            ClassicAnswer::Owner(Some(tenant)) => {
                let owners = owners.pin();
                if owners.len() >= REMEMBERED {
                    owners.clear();
                }
                owners.insert(job.user, tenant.clone());
                tenant
            }
            ClassicAnswer::Owner(None) => return Ok(Named::Fault(unknown(id))),
            _ => return Err(unexpected()),
        },
    };
    asked.allowed(&tenant)?;
    Ok(Named::Job(tenant, job.id()))
}

/// The job, after it has ended or the wait that the query asks for is over; else the answer.
async fn finished(asked: &Asked<'_>, id: &str) -> Result<std::result::Result<Finished, Envelope>> {
    let (tenant, job) = match named(asked, id).await? {
        Named::Job(tenant, job) => (tenant, job),
        Named::Fault(envelope) => return Ok(Err(envelope)),
    };
    let wait = Params::of(&asked.parts.uri).wait(asked.app.config.max_wait)?;
    match crate::rest::jobs::finished(asked.app, &tenant, job, wait).await {
        Ok(finished) => Ok(Ok(finished)),
        Err(error) if error.code == Code::NotFound => Ok(Err(unknown(id))),
        Err(error) => Err(error),
    }
}

fn status_of(job: &Job) -> u32 {
    u32::from(job.status.is_final())
}

pub(super) async fn status(asked: &Asked<'_>, id: &str) -> Result<Envelope> {
    Ok(match finished(asked, id).await? {
        Ok(finished) => Envelope::ok(status_of(&finished.job)),
        Err(envelope) => envelope,
    })
}

pub(super) async fn result(asked: &Asked<'_>, id: &str) -> Result<Envelope> {
    Ok(match finished(asked, id).await? {
        Ok(finished) => Envelope::ok(text(&finished)),
        Err(envelope) => envelope,
    })
}

/// Adds to the answer of a run how its job stands after `wait` at most.
pub(super) async fn waited(
    asked: &Asked<'_>,
    tenant: &TenantName,
    job: JobId,
    wait: Duration,
    envelope: Envelope,
) -> Result<Envelope> {
    // The job is accepted: whatever becomes of the wait, its id is the answer.
    Ok(match crate::rest::jobs::finished(asked.app, tenant, job, wait).await {
        Ok(finished) => {
            let envelope = envelope.with("status", status_of(&finished.job));
            match text(&finished) {
                Some(text) => envelope.with("result", text),
                None => envelope,
            }
        }
        Err(_) => envelope,
    })
}

/// What the job came to as text; `None` before it has ended.
fn text(finished: &Finished) -> Option<String> {
    let Finished { job, result } = finished;
    if !job.status.is_final() {
        return None;
    }
    if job.status == JobStatus::Succeeded {
        let result = result.as_deref().unwrap_or_default();
        return Some(String::from_utf8_lossy(result).into_owned());
    }
    Some(match &job.error {
        // Made where the value was thrown.
        Some(error) if matches!(error.code, Code::FunctionError | Code::Timeout) => error.detail.clone(),
        Some(error) => format!("Error: {}", error.detail),
        None => "Error: the job failed".to_owned(),
    })
}

pub(super) async fn remove(asked: &Asked<'_>, id: &str) -> Result<Envelope> {
    let (tenant, job) = match named(asked, id).await? {
        Named::Job(tenant, job) => (tenant, job),
        Named::Fault(_) if ClassicJob::parse(id).is_some() => return Ok(Envelope::ok(0)),
        Named::Fault(envelope) => return Ok(envelope),
    };
    let removed = asked.app.control.remove_job(&tenant, job, STOP).await?;
    Ok(Envelope::ok(u32::from(removed)))
}
