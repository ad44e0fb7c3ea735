//! Log lines, as far as they are there now. [`crate::Client::follow_logs`] goes on.

use lyra_types::api::LogView;
use lyra_types::{FunctionName, InstanceId, InvocationId, Timestamp};
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
    /// Only of sessions of this name.
    pub session: Option<String>,
    /// Only of the session of this identity.
    pub session_uid: Option<String>,
    /// Only of instances of this application.
    pub application: Option<String>,
    /// Only of this instance.
    pub instance: Option<InstanceId>,
}

impl Client {
    pub(crate) fn log_request(&self, name: Option<&FunctionName>, filter: &LogFilter) -> RequestBuilder {
        let mut query = Vec::new();
        query.extend(filter.invocation.map(|id| ("invocation", id.to_string())));
        query.extend(filter.since.map(|since| ("since", since.to_string())));
        query.extend(filter.limit.map(|limit| ("limit", limit.to_string())));
        query.extend(filter.session.clone().map(|name| ("session", name)));
        query.extend(filter.session_uid.clone().map(|uid| ("session_uid", uid)));
        query.extend(filter.application.clone().map(|name| ("application", name)));
        query.extend(filter.instance.map(|id| ("instance", id.to_string())));
        let url = match name {
            Some(name) => self.at(&["v1", "functions", name.as_str(), "logs"]),
            None => self.at(&["v1", "logs"]),
        };
        self.http.request(Method::GET, url).query(&query)
    }

    /// The lines that are there, oldest first: of a function, or of whatever function's the filter's session, application or instance
    /// is, one of which must be named then.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn logs(&self, name: Option<&FunctionName>, filter: &LogFilter) -> Result<Vec<Answer<LogView>>> {
        let whole = self.send(self.log_request(name, filter).timeout(self.timeout)).await?;
        let lines = whole.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| Answer::read(line).map_err(|error| self.misunderstood(&error))).collect()
    }
}
