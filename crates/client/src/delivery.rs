//! Who hears of the ends of jobs and runs, and the deliveries that tell them.

use lyra_types::delivery::{DeliveryStatus, DeliveryView, DestinationsRequest, DestinationsView};
use lyra_types::{FunctionName, JobId, RunId, WorkflowName};
use reqwest::Method;

use crate::{Answer, Client, Listing, Result};

/// Which deliveries to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeliveryFilter {
    /// Only of this job.
    pub job: Option<JobId>,
    /// Only of this run.
    pub run: Option<RunId>,
    /// Only with this status.
    pub status: Option<DeliveryStatus>,
}

/// Whose ends are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndsOf<'a> {
    /// The jobs of a function.
    Jobs(&'a FunctionName),
    /// The runs of a workflow.
    Runs(&'a WorkflowName),
}

impl<'a> From<&'a FunctionName> for EndsOf<'a> {
    fn from(function: &'a FunctionName) -> EndsOf<'a> {
        EndsOf::Jobs(function)
    }
}

impl<'a> From<&'a WorkflowName> for EndsOf<'a> {
    fn from(workflow: &'a WorkflowName) -> EndsOf<'a> {
        EndsOf::Runs(workflow)
    }
}

impl Client {
    fn destinations_url(&self, of: EndsOf<'_>, rest: &[&str]) -> reqwest::Url {
        let (kind, name) = match of {
            EndsOf::Jobs(name) => ("functions", name.as_str()),
            EndsOf::Runs(name) => ("workflows", name.as_str()),
        };
        self.at(&[&["v1", kind, name, "destinations"], rest].concat())
    }

    /// Sets who hears of the jobs of a function, or the runs of a workflow, that begin from now on.
    ///
    /// # Errors
    /// `not_found` for the function or the workflow, `invalid_field` with the field at fault.
    pub async fn put_destinations(
        &self,
        of: impl Into<EndsOf<'_>>,
        destinations: &DestinationsRequest,
    ) -> Result<Answer<DestinationsView>> {
        self.fetch(self.request(Method::PUT, self.destinations_url(of.into(), &[])).json(destinations)).await
    }

    /// Who hears of the jobs of a function, or of the runs of a workflow.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn destinations(&self, of: impl Into<EndsOf<'_>>) -> Result<Answer<DestinationsView>> {
        self.fetch(self.request(Method::GET, self.destinations_url(of.into(), &[]))).await
    }

    /// Has nobody hear of the jobs of a function, or the runs of a workflow, that begin from now on.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn delete_destinations(&self, of: impl Into<EndsOf<'_>>) -> Result<()> {
        self.send(self.request(Method::DELETE, self.destinations_url(of.into(), &[]))).await.map(drop)
    }

    /// Sends a message of no meaning to each destination of a function or a workflow.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn test_destinations(&self, of: impl Into<EndsOf<'_>>) -> Result<Listing<DeliveryView>> {
        let whole = self.send(self.request(Method::POST, self.destinations_url(of.into(), &["test"]))).await?;
        Listing::read(&whole.body).map_err(|error| self.misunderstood(&error))
    }

    /// Deliveries, newest first, `limit` at most.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn deliveries(&self, filter: &DeliveryFilter, limit: usize) -> Result<Listing<DeliveryView>> {
        let mut query = Vec::new();
        query.extend(filter.job.map(|job| ("job", job.to_string())));
        query.extend(filter.run.as_ref().map(|run| ("run", run.to_string())));
        query.extend(filter.status.map(|status| ("status", status.as_str().to_owned())));
        self.list(self.at(&["v1", "deliveries"]), &query, limit).await
    }

    /// A delivery with its last tries.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn delivery(&self, id: &str) -> Result<Answer<DeliveryView>> {
        self.fetch(self.request(Method::GET, self.at(&["v1", "deliveries", id]))).await
    }

    /// Has a delivery tried again.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn redeliver(&self, id: &str) -> Result<Answer<DeliveryView>> {
        self.fetch(self.request(Method::POST, self.at(&["v1", "deliveries", id, "redeliver"]))).await
    }
}
