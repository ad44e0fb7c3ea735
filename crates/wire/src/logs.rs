//! What others ask of the log service.

use async_trait::async_trait;
use futures::stream::BoxStream;
use lyra_types::log::LogLine;
use lyra_types::{FunctionName, InstanceId, InvocationId, Result, TenantName, Timestamp};
use serde::{Deserialize, Serialize};

/// Which lines to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Owner.
    pub tenant: TenantName,
    /// Function. Without one, those of all functions that the session, instance or application has: one of these must be named then.
    pub function: Option<FunctionName>,
    /// Only of this call.
    pub invocation: Option<InvocationId>,
    /// Only from this time on.
    pub since: Option<Timestamp>,
    /// At most so many, the newest.
    pub limit: usize,
    /// Only of sessions of this name.
    #[serde(default)]
    pub session: Option<String>,
    /// Only of the session of this identity.
    #[serde(default)]
    pub session_uid: Option<String>,
    /// Only of instances of this application.
    #[serde(default)]
    pub application: Option<String>,
    /// Only of this instance.
    #[serde(default)]
    pub instance: Option<InstanceId>,
}

impl Query {
    /// All lines of a function, the newest `limit`.
    pub fn of(tenant: TenantName, function: FunctionName, limit: usize) -> Query {
        Query { function: Some(function), ..Query::in_tenant(tenant, limit) }
    }

    /// The newest `limit` lines of a tenant, to be narrowed.
    pub fn in_tenant(tenant: TenantName, limit: usize) -> Query {
        Query {
            tenant,
            function: None,
            invocation: None,
            since: None,
            limit,
            session: None,
            session_uid: None,
            application: None,
            instance: None,
        }
    }

    /// Whether the line is one of those that are asked for, whatever their number.
    pub fn wants(&self, line: &LogLine) -> bool {
        fn holds<T: PartialEq + ?Sized>(asked: Option<&T>, is: Option<&T>) -> bool {
            asked.is_none() || asked == is
        }
        let session = line.session();
        self.tenant == line.tenant
            && holds(self.function.as_ref(), Some(&line.function))
            && holds(self.invocation.as_ref(), Some(&line.invocation))
            && self.since.is_none_or(|since| line.time >= since)
            && holds(self.session.as_deref(), session.map(|session| session.name.as_str()))
            && holds(self.session_uid.as_deref(), session.map(|session| session.uid.as_str()))
            && holds(self.application.as_deref(), line.application())
            && holds(self.instance.as_ref(), line.instance.as_ref())
    }
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
