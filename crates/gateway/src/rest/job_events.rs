//! What becomes of a job, as a stream of events.
//!
//! The end of a job is told when it comes: control is asked to wait for it. That a job began, or is tried again, is seen when the wait is
//! over, within [`LOOK`].

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::{Stream, StreamExt, stream};
use lyra_types::api::{JobView, Problem};
use lyra_types::job::{Job, JobStatus};
use lyra_types::{Code, Error, JobId, TenantName};
use tokio::sync::OwnedSemaphorePermit;

use super::{Answer, jobs};
use crate::extract::Scope;
use crate::openapi::{Busy, Missing, Owner, Refused};
use crate::service::App;

/// Jobs that are followed at once; each is a question to control every [`LOOK`].
pub(crate) const MOST: usize = 1_000;
/// How long a job that has not ended is waited for before it is looked at again.
const LOOK: Duration = Duration::from_secs(1);
/// How often a silent stream shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// When somebody may come again who found no place.
const AGAIN: Duration = Duration::from_secs(5);

/// Follow a job.
///
/// Server-sent events, each with the job: as it is, then whenever its status or its number of tries changes, until it has ended.
/// An event `error` with a problem document ends a stream that fails.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/events", tag = "jobs", operation_id = "followJob",
    params(("id" = String, Path, description = "Job", example = "job_01jcr2x7k3w9v5t8n6m4p0q2s1"), Owner),
    responses(
        (status = 200, description = "Events", content((JobView = "text/event-stream"))),
        Refused, Missing, Busy
    )
)]
pub(crate) async fn events(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let id = jobs::id(&scope)?;
    let full = |_| {
        let detail = format!("{MOST} jobs are followed already, as many as may; wait for this one with ?wait=");
        Error::new(Code::Overloaded, detail).with_retry_after(AGAIN)
    };
    let place = Arc::clone(&app.job_followers).try_acquire_owned().map_err(full)?;
    let first = app.control.job(&scope.tenant, id, Duration::ZERO).await?.job;
    let stopping = app.stopping.clone();
    let follower = Follower { app, tenant: scope.tenant.clone(), id, seen: seen(&first), _place: place };
    let events = stream::once(async move { changed(&first) }).chain(follower.changes());
    let events = events.take_until(stopping.cancelled_owned());
    Ok(Sse::new(events.boxed()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

/// What is told of when it changes.
type Seen = (JobStatus, u32);

fn seen(job: &Job) -> Seen {
    (job.status, job.attempts)
}

struct Follower {
    app: Arc<App>,
    tenant: TenantName,
    id: JobId,
    seen: Seen,
    _place: OwnedSemaphorePermit,
}

impl Follower {
    /// An event for each change, until the job has ended or can't be asked about any more.
    fn changes(self) -> impl Stream<Item = Result<Event, Infallible>> + Send {
        stream::unfold(Some(self), |follower| async move {
            let mut follower = follower?;
            loop {
                if follower.seen.0.is_final() {
                    return None;
                }
                let now = follower.app.clock.instant();
                let job = match follower.app.control.job(&follower.tenant, follower.id, LOOK).await {
                    Ok(finished) => finished.job,
                    Err(error) => return Some((failed(&error), None)),
                };
                if seen(&job) != follower.seen {
                    follower.seen = seen(&job);
                    return Some((changed(&job), Some(follower)));
                }
                // A control that does not wait is asked no more often for that.
                tokio::time::sleep_until(now + LOOK).await;
            }
        })
    }
}

fn changed(job: &Job) -> Result<Event, Infallible> {
    match serde_json::to_string(&JobView::from(job)) {
        Ok(text) => Ok(Event::default().data(text)),
        Err(error) => failed(&Error::internal(format!("a job can't be written as JSON: {error}"))),
    }
}

fn failed(error: &Error) -> Result<Event, Infallible> {
    let problem = serde_json::to_string(&Problem::from(error)).unwrap_or_default();
    Ok(Event::default().event("error").data(problem))
}
