//! All kinds of resources behind one door: each call goes to what calls that kind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_fleet::quota::Pass;
use lyra_types::TenantName;
use serde_json::{Map, Value};

use super::function::Functions;
use super::headers::Given;
use super::http::Http;
use super::{Enact, Enactment, Failure, demo};
use crate::mapping::{HeaderText, Resource, ResourceKind};

/// Calls what is itself a run: a sub-workflow here, or a part of a workflow on another Lyra.
///
/// The promises are those of [`Enact`]: an object or a [`Failure`], cancelled by dropping. When it is too late is for whoever asks to say:
/// time in which the run around it is paused does not count.
#[async_trait]
pub trait Nested: Send + Sync + 'static {
    /// Runs the workflow `name` (`NAME` or `NAME@VERSION`) of the same tenant with the input as its own.
    async fn workflow(&self, enactment: &Enactment, name: &str) -> Result<Bytes, Failure>;

    /// What `name` stands for now.
    async fn stands_for(&self, tenant: &TenantName, name: &str) -> Result<String, Failure>;

    /// Runs the part that the function type names (`lyra:cut/NAME`) on the Lyra at `url`, with the token of that name.
    async fn cut(&self, enactment: &Enactment, url: &str, token: Option<&str>) -> Result<Bytes, Failure>;
}

/// Calls resources of every kind.
pub struct Enactables {
    http: Arc<Http>,
    functions: Functions,
    nested: Arc<dyn Nested>,
}

impl Enactables {
    /// Puts the callers together.
    pub fn new(http: Arc<Http>, functions: Functions, nested: Arc<dyn Nested>) -> Enactables {
        Enactables { http, functions, nested }
    }

    /// Calls a URL, with the headers that its resource has beside Lyra's own.
    async fn url(
        &self,
        enactment: &Enactment,
        uri: &str,
        headers: &BTreeMap<String, HeaderText>,
        limit: Option<Duration>,
    ) -> Result<Bytes, Failure> {
        if headers.is_empty() {
            return self.http.enact(enactment, uri, limit).await;
        }
        let given = Given::of(headers, &enactment.tenant, self.functions.control()).await?;
        let outcome = self.http.enact_with(enactment, uri, limit, given.headers()).await;
        given.keep_secret(outcome)
    }
}

#[async_trait]
impl Enact for Enactables {
    fn at_once(
        &self,
        function_type: &str,
        resource: &Resource,
        input: &Map<String, Value>,
    ) -> Option<Result<Map<String, Value>, Failure>> {
        let ready = matches!(resource.kind, ResourceKind::Demo {}) && demo::wait(input).is_zero();
        ready.then(|| demo::compute(function_type, input))
    }

    async fn stands_for(&self, tenant: &TenantName, resource: &Resource) -> Result<String, Failure> {
        match &resource.kind {
            ResourceKind::Function { name, .. } => self.functions.stands_for(tenant, name).await,
            ResourceKind::Workflow { name } => self.nested.stands_for(tenant, name).await,
            _ => Ok(String::new()),
        }
    }

    /// Only calls of functions are held to quotas; a sub-workflow's tasks are, and what is elsewhere is not ours.
    async fn admit(&self, tenant: &TenantName, resource: &Resource) -> Result<Pass, Failure> {
        let ResourceKind::Function { name, job } = &resource.kind else { return Ok(Pass::default()) };
        self.functions.admit(tenant, name, *job).await.map_err(|mut failure| {
            failure.cause.resource = Some(resource.id());
            failure
        })
    }

    async fn fetch(&self, url: &str, limit: Duration) -> Result<Bytes, Failure> {
        self.http.fetch(url, limit).await
    }

    async fn enact(&self, enactment: &Enactment, resource: &Resource) -> Result<Bytes, Failure> {
        let outcome = match &resource.kind {
            ResourceKind::Function { name, job } => self.functions.enact(enactment, name, *job).await,
            ResourceKind::Serverless { uri, headers, .. } => {
                self.url(enactment, uri, headers, resource.timeout()).await
            }
            ResourceKind::Demo {} => within(enactment, demo::enact(&enactment.function_type, &enactment.input)).await,
            ResourceKind::Workflow { name } => self.nested.workflow(enactment, name).await,
            ResourceKind::Cut { url, token } => self.nested.cut(enactment, url, token.as_deref()).await,
            // Refused at deploy; here for a mapping of another version of Lyra.
            ResourceKind::Local { image } => {
                Err(Failure::lasting("unsupported", format!("there is no container back end to run {image}")))
            }
        };
        outcome.map_err(|mut failure| {
            failure.cause.resource = Some(resource.id());
            failure
        })
    }
}

async fn within<F>(enactment: &Enactment, call: F) -> Result<Bytes, Failure>
where
    F: Future<Output = Result<Bytes, Failure>> + Send,
{
    let late = || Failure::passing("timeout", format!("there was no result within {:?}", enactment.timeout));
    tokio::time::timeout(enactment.timeout, call).await.map_err(|_| late())?
}
