//! Who hears of the ends of jobs, and the deliveries that tell them.

use lyra_types::delivery::{DeliveryStatus, DeliveryView, DestinationsRequest, DestinationsView};
use lyra_types::{FunctionName, JobId};
use reqwest::Method;

use crate::{Answer, Client, Listing, Result};

/// Which deliveries to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeliveryFilter {
    /// Only of this job.
    pub job: Option<JobId>,
    /// Only with this status.
    pub status: Option<DeliveryStatus>,
}

impl Client {
    fn destinations_url(&self, function: &FunctionName, rest: &[&str]) -> reqwest::Url {
        self.at(&[&["v1", "functions", function.as_str(), "destinations"], rest].concat())
    }

    /// Sets who hears of the jobs of a function that are accepted from now on.
    ///
    /// # Errors
    /// `not_found` for the function, `invalid_field` with the field at fault.
    pub async fn put_destinations(
        &self,
        function: &FunctionName,
        destinations: &DestinationsRequest,
    ) -> Result<Answer<DestinationsView>> {
        self.fetch(self.request(Method::PUT, self.destinations_url(function, &[])).json(destinations)).await
    }

    /// Who hears of the jobs of a function.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn destinations(&self, function: &FunctionName) -> Result<Answer<DestinationsView>> {
        self.fetch(self.request(Method::GET, self.destinations_url(function, &[]))).await
    }

    /// Has nobody hear of the jobs of a function that are accepted from now on.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn delete_destinations(&self, function: &FunctionName) -> Result<()> {
        self.send(self.request(Method::DELETE, self.destinations_url(function, &[]))).await.map(drop)
    }

    /// Sends a message of no meaning to each destination of a function.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn test_destinations(&self, function: &FunctionName) -> Result<Listing<DeliveryView>> {
        let whole = self.send(self.request(Method::POST, self.destinations_url(function, &["test"]))).await?;
        Listing::read(&whole.body).map_err(|error| self.misunderstood(&error))
    }

    /// Deliveries, newest first, `limit` at most.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn deliveries(&self, filter: &DeliveryFilter, limit: usize) -> Result<Listing<DeliveryView>> {
        let mut query = Vec::new();
        query.extend(filter.job.map(|job| ("job", job.to_string())));
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
