//! What calls used.

use lyra_types::api::UsageReport;
use reqwest::Method;

use crate::{Answer, Client, Result};

/// What of the usage to get; all of it where nothing is said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UsageFilter {
    /// From the hour of this time on (RFC 3339).
    pub from: Option<String>,
    /// Before the hour of this time (RFC 3339).
    pub to: Option<String>,
    /// One sum for each of these, parted by commas.
    pub group: Option<String>,
    /// Only of this function.
    pub function: Option<String>,
    /// Of all tenants.
    pub all: bool,
}

impl UsageFilter {
    fn query(&self) -> Vec<(&'static str, String)> {
        let given = [("from", &self.from), ("to", &self.to), ("group", &self.group), ("function", &self.function)];
        let given = given.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
        given.chain(self.all.then(|| ("all", "true".to_owned()))).collect()
    }
}

impl Client {
    /// Sums of what calls used: one page of them, and the sum of all.
    ///
    /// # Errors
    /// `bad_request` for a time or a group that is none.
    pub async fn usage(&self, filter: &UsageFilter) -> Result<Answer<UsageReport>> {
        let request = self.request(Method::GET, self.at(&["v1", "usage"]));
        self.fetch(request.query(&filter.query())).await
    }

    /// The same as CSV.
    ///
    /// # Errors
    /// As [`Client::usage`].
    pub async fn usage_csv(&self, filter: &UsageFilter) -> Result<String> {
        let request = self.request(Method::GET, self.at(&["v1", "usage"]));
        let whole = self.send(request.query(&filter.query()).query(&[("format", "csv")])).await?;
        Ok(String::from_utf8_lossy(&whole.body).into_owned())
    }
}
