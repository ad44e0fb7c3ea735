//! Workers and their instances.

use std::time::Duration;

use bytes::Bytes;
use lyra_types::FunctionName;
use lyra_types::api::{
    CharacteristicsView, CleanedView, Drained, Health, InstanceView, PrewarmRequest, PrewarmedView, WorkerView,
};
use lyra_types::name::Qualifier;
use reqwest::Method;

use crate::{Answer, Client, Invocation, Listing, Result};

impl Client {
    /// Workers by name, `limit` at most.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn workers(&self, limit: usize) -> Result<Listing<WorkerView>> {
        self.list(self.at(&["v1", "workers"]), &[], limit).await
    }

    /// One worker.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn worker(&self, worker: &str) -> Result<Answer<WorkerView>> {
        self.fetch(self.request(Method::GET, self.at(&["v1", "workers", worker]))).await
    }

    /// What a worker knows of each version, `limit` at most.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn characteristics(&self, worker: &str, limit: usize) -> Result<Listing<CharacteristicsView>> {
        self.list(self.at(&["v1", "workers", worker, "characteristics"]), &[], limit).await
    }

    /// Instances of the client's tenant, `limit` at most.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn instances(&self, limit: usize) -> Result<Listing<InstanceView>> {
        self.list(self.at(&["v1", "instances"]), &[], limit).await
    }

    /// Whether a worker works; an answer also when it does not.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn worker_health(&self, worker: &str) -> Result<Answer<Health>> {
        self.fetch(self.request(Method::GET, self.at(&["v1", "workers", worker, "health"]))).await
    }

    /// Has a worker take no more calls.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn cordon(&self, worker: &str) -> Result<Answer<WorkerView>> {
        self.fetch(self.request(Method::POST, self.at(&["v1", "workers", worker, "cordon"]))).await
    }

    /// Has a worker take calls again.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn uncordon(&self, worker: &str) -> Result<Answer<WorkerView>> {
        self.fetch(self.request(Method::POST, self.at(&["v1", "workers", worker, "uncordon"]))).await
    }

    /// Cordons a worker, waits up to `limit` for its calls, ends its idle instances.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn drain(&self, worker: &str, limit: Duration) -> Result<Answer<Drained>> {
        let mut url = self.at(&["v1", "workers", worker, "drain"]);
        url.query_pairs_mut().append_pair("wait", &limit.as_secs_f64().to_string());
        self.fetch(self.http.request(Method::POST, url).timeout(limit + self.timeout)).await
    }

    /// Ends every idle instance of a worker and drops its loaded code.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn clean(&self, worker: &str) -> Result<Answer<CleanedView>> {
        self.fetch(self.request(Method::POST, self.at(&["v1", "workers", worker, "clean"]))).await
    }

    /// Ends an idle instance.
    ///
    /// # Errors
    /// `not_found`; `conflict` while it is not idle.
    pub async fn terminate(&self, worker: &str, instance: &str) -> Result<()> {
        let url = self.at(&["v1", "workers", worker, "instances", instance]);
        self.send(self.request(Method::DELETE, url)).await.map(drop)
    }

    /// Hibernates an idle instance.
    ///
    /// # Errors
    /// As [`Client::terminate`]; `conflict` also for a kind that can't be hibernated.
    pub async fn hibernate(&self, worker: &str, instance: &str) -> Result<()> {
        let url = self.at(&["v1", "workers", worker, "instances", instance, "hibernate"]);
        self.send(self.request(Method::POST, url)).await.map(drop)
    }

    /// Wakes a hibernated instance.
    ///
    /// # Errors
    /// As [`Client::terminate`]; `overloaded` where there is no memory for it.
    pub async fn activate(&self, worker: &str, instance: &str) -> Result<()> {
        let url = self.at(&["v1", "workers", worker, "instances", instance, "activate"]);
        self.send(self.request(Method::POST, url)).await.map(drop)
    }

    /// Loads a version's code and starts instances of it.
    ///
    /// # Errors
    /// `not_found`, `overloaded` where there is no room.
    pub async fn prewarm(&self, worker: &str, request: &PrewarmRequest) -> Result<Answer<PrewarmedView>> {
        self.fetch(self.request(Method::POST, self.at(&["v1", "workers", worker, "prewarm"])).json(request)).await
    }

    /// Calls a function on one worker.
    ///
    /// # Errors
    /// As [`Client::invoke`].
    pub async fn invoke_on(
        &self,
        worker: &str,
        name: &FunctionName,
        qualifier: &Qualifier,
        event: impl Into<Bytes>,
    ) -> Result<Invocation> {
        let url = self.at(&["v1", "workers", worker, "functions", name.as_str(), "invoke"]);
        self.call(self.call_request(url, qualifier, event.into())).await
    }
}
