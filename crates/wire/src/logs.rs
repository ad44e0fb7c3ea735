//! What others ask of the log service.

use async_trait::async_trait;
use futures::stream::BoxStream;
use lyra_types::log::LogLine;
use lyra_types::{FunctionName, InvocationId, Result, TenantName, Timestamp};
use serde::{Deserialize, Serialize};

/// Which lines to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Owner.
    pub tenant: TenantName,
    /// Function.
    pub function: FunctionName,
    /// Only of this call.
    pub invocation: Option<InvocationId>,
    /// Only from this time on.
    pub since: Option<Timestamp>,
    /// At most so many, the newest.
    pub limit: usize,
}

/// Keeps lines and shows them.
#[async_trait]
pub trait Logs: Send + Sync + 'static {
    /// Takes a line. Never waits: a line that finds no room is dropped and counted.
    fn offer(&self, line: LogLine);

    /// The lines that `query` asks for, oldest first. Includes every line offered before the call.
    async fn query(&self, query: Query) -> Result<Vec<LogLine>>;

    /// The lines of [`Logs::query`], then each further one as it comes, none twice and none left out
    /// but those that a slow reader missed: then the stream ends with an error that says so.
    async fn follow(&self, query: Query) -> Result<BoxStream<'static, Result<LogLine>>>;

    /// Deletes all lines of a function that was deleted.
    async fn forget(&self, tenant: &TenantName, function: &FunctionName) -> Result<()>;
}
