//! Quotas of tenants and functions.

use lyra_types::api::QuotaView;
use lyra_types::quota::Quota;
use reqwest::{Method, Url};

use crate::{Answer, Client, Listing, Result};

impl Client {
    /// Where the quota of the tenant, or of one of its functions, is.
    fn quota_at(&self, function: Option<&str>) -> Url {
        match function {
            None => self.at(&["v1", "tenants", self.tenant.as_str(), "quota"]),
            Some(function) => self.at(&["v1", "tenants", self.tenant.as_str(), "quota", "functions", function]),
        }
    }

    /// Quotas that were set, of all tenants.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn quotas(&self, limit: usize) -> Result<Listing<QuotaView>> {
        self.list(self.at(&["v1", "quotas"]), &[], limit).await
    }

    /// The tenant's quota, or that of a function, with what counts against it.
    ///
    /// # Errors
    /// `not_found` where the function has none.
    pub async fn quota(&self, function: Option<&str>) -> Result<Answer<QuotaView>> {
        self.fetch(self.request(Method::GET, self.quota_at(function))).await
    }

    /// Sets a quota in place of the one before.
    ///
    /// # Errors
    /// `invalid_field`.
    pub async fn set_quota(&self, function: Option<&str>, quota: &Quota) -> Result<Answer<QuotaView>> {
        self.fetch(self.request(Method::PUT, self.quota_at(function)).json(quota)).await
    }

    /// Takes a quota back.
    ///
    /// # Errors
    /// `not_found` where none was set.
    pub async fn remove_quota(&self, function: Option<&str>) -> Result<()> {
        self.send(self.request(Method::DELETE, self.quota_at(function))).await.map(drop)
    }
}
