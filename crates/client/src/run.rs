//! Runs of workflows: start, wait, command, trace, and tasks that wait for an outside party.

use std::time::Duration;

use lyra_types::api::workflows::{Completion, NewRun, Started, Waiting};
use lyra_types::workflow::{Run, RunStatus, TraceToken};
use lyra_types::{RunId, WorkflowName};
use reqwest::{Method, Url};

use crate::{Answer, Client, Listing, Result, patience};

/// Longest that one long-poll asks the server to wait.
const POLL: Duration = Duration::from_secs(30);

/// Which runs to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunFilter {
    /// Only of this workflow.
    pub workflow: Option<WorkflowName>,
    /// Only with this status.
    pub status: Option<RunStatus>,
}

impl Client {
    fn run_url(&self, id: &RunId, rest: &[&str]) -> Url {
        self.at(&[&["v1", "runs", id.as_str()], rest].concat())
    }

    /// Starts a run. A second start with the same id and input is the same run.
    ///
    /// # Errors
    /// `not_found`, and what is wrong with the input.
    pub async fn start_run(&self, workflow: &WorkflowName, run: &NewRun) -> Result<Answer<Started>> {
        let url = self.at(&["v1", "workflows", workflow.as_str(), "runs"]);
        self.fetch(self.request(Method::POST, url).json(run)).await
    }

    /// A run as it stands; the server waits up to `wait` (30 s at most) for it to end.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn run(&self, id: &RunId, wait: Duration) -> Result<Answer<Run>> {
        let wait = wait.min(POLL);
        let request = self.request(Method::GET, self.run_url(id, &[])).timeout(self.timeout + wait);
        self.fetch(if wait.is_zero() { request } else { request.query(&[("wait", wait.as_secs_f64())]) }).await
    }

    /// Waits for a run to end, for `limit` at most; gives it back as it then stands, ended or not. A server that is away for a moment
    /// meanwhile is waited for.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn wait_run(&self, id: &RunId, limit: Duration) -> Result<Answer<Run>> {
        let look = async || Ok(Some(self.run(id, limit).await?).filter(|run| run.status.is_final()));
        match patience::until(limit, look).await? {
            Some(run) => Ok(run),
            None => self.run(id, Duration::ZERO).await,
        }
    }

    /// Runs, newest first, `limit` at most.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn runs(&self, filter: &RunFilter, limit: usize) -> Result<Listing<Run>> {
        let mut query = Vec::new();
        query.extend(filter.workflow.as_ref().map(|name| ("workflow", name.to_string())));
        query.extend(filter.status.map(|status| ("status", status.to_string())));
        self.list(self.at(&["v1", "runs"]), &query, limit).await
    }

    async fn command(&self, id: &RunId, verb: &str) -> Result<Answer<Run>> {
        self.fetch(self.request(Method::POST, self.run_url(id, &[verb]))).await
    }

    /// Has a run begin no further task.
    ///
    /// # Errors
    /// `not_found`; `conflict` where it has ended.
    pub async fn pause_run(&self, id: &RunId) -> Result<Answer<Run>> {
        self.command(id, "pause").await
    }

    /// Has a paused run go on.
    ///
    /// # Errors
    /// `not_found`; `conflict` where it has ended.
    pub async fn resume_run(&self, id: &RunId) -> Result<Answer<Run>> {
        self.command(id, "resume").await
    }

    /// Ends a run; calls that are under way are given up.
    ///
    /// # Errors
    /// `not_found`; `conflict` where it has ended.
    pub async fn cancel_run(&self, id: &RunId) -> Result<Answer<Run>> {
        self.command(id, "cancel").await
    }

    /// Takes a failed or cancelled run up where it failed.
    ///
    /// # Errors
    /// `not_found`; `conflict` where it is neither.
    pub async fn redrive_run(&self, id: &RunId) -> Result<Answer<Run>> {
        self.command(id, "redrive").await
    }

    /// Deletes a run that has ended, with its history.
    ///
    /// # Errors
    /// `not_found`; `conflict` while it has not ended.
    pub async fn delete_run(&self, id: &RunId) -> Result<()> {
        self.send(self.request(Method::DELETE, self.run_url(id, &[]))).await.map(drop)
    }

    /// What has ended of a run, as OpenTelemetry spans: the JSON of OTLP, for a collector's `/v1/traces`.
    ///
    /// # Errors
    /// `not_found`; `too_large` where the run is too long for that.
    pub async fn spans(&self, id: &RunId) -> Result<Answer<serde_json::Value>> {
        self.fetch(self.request(Method::GET, self.run_url(id, &["trace"])).query(&[("format", "otlp")])).await
    }

    /// What happened in a run: its tokens in order, `limit` at most.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn trace(&self, id: &RunId, limit: usize) -> Result<Listing<TraceToken>> {
        self.list(self.run_url(id, &["trace"]), &[], limit).await
    }

    /// The tasks of a run that wait for an outside party.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn waiting(&self, id: &RunId) -> Result<Listing<Waiting>> {
        self.list(self.run_url(id, &["waiting"]), &[], usize::MAX).await
    }

    /// Completes a task that waits.
    ///
    /// # Errors
    /// `not_found`; `conflict` where it has ended otherwise.
    pub async fn complete_task(&self, token: &str, completion: &Completion) -> Result<()> {
        let url = self.at(&["v1", "callbacks", token]);
        self.send(self.request(Method::POST, url).json(completion)).await.map(drop)
    }
}
