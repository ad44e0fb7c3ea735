//! A function's log lines, as far as they are there now. [`crate::Client::follow_logs`] goes on.

use lyra_types::api::LogView;
use lyra_types::{FunctionName, InvocationId, Timestamp};
use reqwest::{Method, RequestBuilder};

use crate::{Answer, Client, Result};

/// Which lines to show.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogFilter {
    /// Only of this call.
    pub invocation: Option<InvocationId>,
    /// Only from this time on.
    pub since: Option<Timestamp>,
    /// At most so many, the newest. Without it the server's default holds.
    pub limit: Option<usize>,
}

impl Client {
    pub(crate) fn log_request(&self, name: &FunctionName, filter: &LogFilter) -> RequestBuilder {
        let mut query = Vec::new();
        query.extend(filter.invocation.map(|id| ("invocation", id.to_string())));
        query.extend(filter.since.map(|since| ("since", since.to_string())));
        query.extend(filter.limit.map(|limit| ("limit", limit.to_string())));
        let url = self.at(&["v1", "functions", name.as_str(), "logs"]);
        self.http.request(Method::GET, url).query(&query)
    }

    /// The lines that are there, oldest first.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn logs(&self, name: &FunctionName, filter: &LogFilter) -> Result<Vec<Answer<LogView>>> {
        let whole = self.send(self.log_request(name, filter).timeout(self.timeout)).await?;
        let lines = whole.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| Answer::read(line).map_err(|error| self.misunderstood(&error))).collect()
    }
}
