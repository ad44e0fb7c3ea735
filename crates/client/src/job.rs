//! Jobs, their results, and waiting for them.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use lyra_types::api::JobView;
use lyra_types::job::JobStatus;
use lyra_types::{FunctionName, JobId};
use reqwest::Method;

use crate::patience::{self, passes};
use crate::transport::Whole;
use crate::{Answer, Client, Error, Listing, Result};

/// Longest that one long-poll asks the server to wait.
const POLL: Duration = Duration::from_secs(30);

/// Which jobs to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobFilter {
    /// Only of this function.
    pub function: Option<FunctionName>,
    /// Only with this status.
    pub status: Option<JobStatus>,
}

/// What `GET …/result` says of a job that has not failed.
#[derive(Debug, Clone)]
pub enum JobResult {
    /// It succeeded with this result.
    Ready(Bytes),
    /// It has not ended yet.
    Pending,
}

impl Client {
    fn job_url(&self, id: JobId, rest: &[&str]) -> reqwest::Url {
        self.at(&[&["v1", "jobs", &id.to_string()], rest].concat())
    }

    async fn poll(&self, url: reqwest::Url, wait: Duration) -> Result<Whole> {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let request = self.request(Method::GET, url).timeout(self.timeout + wait);
        self.send(if seconds == 0 { request } else { request.query(&[("wait", seconds)]) }).await
    }

    /// A job as it stands; the server waits up to `wait` (30 s at most) for it to end.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn job(&self, id: JobId, wait: Duration) -> Result<Answer<JobView>> {
        let whole = self.poll(self.job_url(id, &[]), wait.min(POLL)).await?;
        Answer::read(&whole.body).map_err(|error| self.misunderstood(&error))
    }

    /// Waits for a job to end, for `limit` at most; gives it back as it then stands, ended or not. A server that is away for a moment
    /// meanwhile is waited for.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn wait_job(&self, id: JobId, limit: Duration) -> Result<Answer<JobView>> {
        let look = async || Ok(Some(self.job(id, limit).await?).filter(|job| job.status.is_final()));
        match patience::until(limit, look).await? {
            Some(job) => Ok(job),
            None => self.job(id, Duration::ZERO).await,
        }
    }

    /// A job's result; the server waits up to `wait` (30 s at most) for it.
    ///
    /// # Errors
    /// What the job failed with; `not_found`.
    pub async fn job_result(&self, id: JobId, wait: Duration) -> Result<JobResult> {
        let whole = self.poll(self.job_url(id, &["result"]), wait.min(POLL)).await?;
        Ok(if whole.status == StatusCode::ACCEPTED { JobResult::Pending } else { JobResult::Ready(whole.body) })
    }

    /// Waits for a job's result, for `limit` at most. A server that is away for a moment meanwhile is waited for.
    ///
    /// # Errors
    /// What the job failed with; [`Error::Deadline`] when it has not ended within `limit`.
    pub async fn wait_job_result(&self, id: JobId, limit: Duration) -> Result<Bytes> {
        let ready = |result| match result {
            JobResult::Ready(result) => Some(result),
            JobResult::Pending => None,
        };
        let look = async || match self.job_result(id, limit).await {
            Ok(result) => Ok(ready(result).map(Ok)),
            // What a job failed with may be what a server that is away says.
            Err(error) if passes(&error) && self.job(id, Duration::ZERO).await?.status.is_final() => {
                Ok(Some(Err(error)))
            }
            Err(error) => Err(error),
        };
        match patience::until(limit, look).await? {
            Some(outcome) => outcome,
            None => ready(self.job_result(id, Duration::ZERO).await?).ok_or(Error::Deadline { after: limit }),
        }
    }

    /// Jobs, newest first, `limit` at most.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn jobs(&self, filter: &JobFilter, limit: usize) -> Result<Listing<JobView>> {
        let mut query = Vec::new();
        query.extend(filter.function.as_ref().map(|name| ("function", name.to_string())));
        query.extend(filter.status.map(|status| ("status", status.to_string())));
        self.list(self.at(&["v1", "jobs"]), &query, limit).await
    }

    /// Cancels a job, a running one too. One that has ended stays as it is.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn cancel_job(&self, id: JobId) -> Result<Answer<JobView>> {
        self.fetch(self.request(Method::DELETE, self.job_url(id, &[]))).await
    }
}
