//! Destinations, notices and deliveries as they are stored. Secrets stand there sealed.

use bytes::Bytes;
use lyra_store::objects::{Change, Entry};
use lyra_types::delivery::{DeliveryStatus, DeliveryTry, DeliveryView, DestinationView, DestinationsView, KEPT_TRIES};
use lyra_types::{Error, FunctionName, JobId, Result, RunId, TenantName, Timestamp, WorkflowName};
use lyra_wire::hooks::{WORKFLOW, workflow_destinations_key};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::sealed::Kept;

/// What the keys of all destinations begin with.
pub(super) const DESTINATIONS: &str = "destinations/";
/// What the keys of all deliveries begin with.
pub(super) const ALL: &str = "deliveries/";
/// What the keys of the marks of deliveries begin with that have not ended.
pub(super) const PENDING: &str = "deliveries-pending/";
/// What ids of deliveries begin with.
const ID_PREFIX: &str = "dlv_";
/// Digits of an id after its prefix.
const ID_DIGITS: usize = 28;
/// Times fit in so many bits.
const TIME: u64 = (1 << 48) - 1;

/// Whose ends are told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    /// The jobs of a function.
    Function(FunctionName),
    /// The runs of a workflow.
    Workflow(WorkflowName),
}

impl Subject {
    /// The subject of the last part of a key of destinations.
    pub(super) fn parse(name: &str) -> Option<Subject> {
        match name.strip_prefix(WORKFLOW) {
            Some(workflow) => WorkflowName::new(workflow).ok().map(Subject::Workflow),
            None => FunctionName::new(name).ok().map(Subject::Function),
        }
    }

    /// Where its destinations are in the store.
    pub(super) fn key(&self, tenant: &TenantName) -> String {
        match self {
            Subject::Function(name) => destinations_key(tenant, name),
            Subject::Workflow(name) => workflow_destinations_key(tenant, name),
        }
    }

    /// `function` or `workflow`.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Subject::Function(_) => "function",
            Subject::Workflow(_) => "workflow",
        }
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Subject::Function(name) => name.as_str(),
            Subject::Workflow(name) => name.as_str(),
        }
    }

    fn function(&self) -> Option<String> {
        matches!(self, Subject::Function(_)).then(|| self.name().to_owned())
    }

    fn workflow(&self) -> Option<String> {
        matches!(self, Subject::Workflow(_)).then(|| self.name().to_owned())
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}

/// Where word is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Target {
    /// A signed call.
    Url { url: String, secret: Kept },
    /// A job of this function, `NAME[@QUALIFIER]`.
    Function(String),
}

impl Target {
    pub(super) fn view(&self) -> DestinationView {
        match self {
            Target::Url { url, .. } => DestinationView { url: Some(url.clone()), function: None, secret: None },
            Target::Function(name) => DestinationView { url: None, function: Some(name.clone()), secret: None },
        }
    }
}

/// Who hears of the jobs of a function, or of the runs of a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Destinations {
    pub(super) on_success: Option<Target>,
    pub(super) on_failure: Option<Target>,
    pub(super) updated_at: Timestamp,
}

impl Destinations {
    pub(super) fn view(&self, of: &Subject) -> DestinationsView {
        DestinationsView {
            function: of.function(),
            workflow: of.workflow(),
            on_success: self.on_success.as_ref().map(Target::view),
            on_failure: self.on_failure.as_ref().map(Target::view),
            updated_at: self.updated_at,
        }
    }
}

/// What a job or a run carries: who hears of its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Notice {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) on_success: Option<Target>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) on_failure: Option<Target>,
    /// How many deliveries led to it.
    #[serde(default)]
    pub(super) depth: u32,
}

/// A delivery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Delivery {
    pub(super) kind: String,
    /// The function whose job has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) function: Option<FunctionName>,
    pub(super) job: Option<JobId>,
    /// The workflow whose run has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) workflow: Option<WorkflowName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) run: Option<RunId>,
    pub(super) target: Target,
    /// What is sent, the same in each try.
    pub(super) body: String,
    pub(super) depth: u32,
    pub(super) status: DeliveryStatus,
    pub(super) attempts: u32,
    pub(super) created_at: Timestamp,
    /// Since when its tries count: when it was made, or asked for again.
    pub(super) since: Timestamp,
    pub(super) next_attempt_at: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
    pub(super) started_job: Option<JobId>,
    /// Newest first.
    pub(super) log: Vec<DeliveryTry>,
}

impl Delivery {
    pub(super) fn view(self, id: String) -> DeliveryView {
        DeliveryView {
            id,
            kind: self.kind,
            function: self.function.map(|name| name.to_string()),
            job: self.job,
            workflow: self.workflow.map(|name| name.to_string()),
            run: self.run,
            to: self.target.view(),
            status: self.status,
            attempts: self.attempts,
            created_at: self.created_at,
            next_attempt_at: self.next_attempt_at,
            finished_at: self.finished_at,
            started_job: self.started_job,
            log: self.log,
        }
    }

    /// Remembers a try.
    pub(super) fn tried(&mut self, one: DeliveryTry) {
        self.attempts += 1;
        self.log.insert(0, one);
        self.log.truncate(KEPT_TRIES);
    }

    /// It has ended.
    pub(super) fn end(&mut self, status: DeliveryStatus, now: Timestamp) {
        self.status = status;
        self.next_attempt_at = None;
        self.finished_at = Some(now);
    }
}

/// The id of a delivery that is made at `time`, the same for the same `of`. Later ones sort first.
pub(super) fn id(time: Timestamp, of: &str) -> String {
    let millis = u64::try_from(time.millis()).unwrap_or_default() & TIME;
    let digest = hex::encode(Sha256::digest(of));
    format!("{ID_PREFIX}{:012x}{}", TIME - millis, &digest[..ID_DIGITS - 12])
}

/// Whether a text has the form of an id.
pub(super) fn is_id(text: &str) -> bool {
    let digits = text.strip_prefix(ID_PREFIX).unwrap_or_default();
    digits.len() == ID_DIGITS && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

pub(crate) fn destinations_key(tenant: &TenantName, function: &FunctionName) -> String {
    format!("{DESTINATIONS}{tenant}/{function}")
}

pub(super) fn key(tenant: &TenantName, id: &str) -> String {
    format!("{ALL}{tenant}/{id}")
}

pub(super) fn pending_key(tenant: &TenantName, id: &str) -> String {
    format!("{PENDING}{tenant}/{id}")
}

/// What the keys begin with of all that a tenant has of this.
pub(crate) fn of_tenant(tenant: &TenantName) -> [String; 3] {
    [DESTINATIONS, ALL, PENDING].map(|all| format!("{all}{tenant}/"))
}

/// Takes a key apart that is the prefix, a tenant and one more part.
pub(super) fn parse_key<'a>(prefix: &str, key: &'a str) -> Option<(TenantName, &'a str)> {
    let (tenant, rest) = key.strip_prefix(prefix)?.split_once('/')?;
    Some((TenantName::new(tenant).ok()?, rest))
}

pub(super) fn read<T: DeserializeOwned>(entry: &Entry) -> Result<T> {
    serde_json::from_slice(&entry.value).map_err(|error| {
        // The value may hold a secret: only where it is wrong is said.
        tracing::error!(key = %entry.key, line = error.line(), column = error.column(), "a record can't be read");
        Error::internal("a stored delivery or destination can't be read")
    })
}

pub(super) fn put<T: Serialize>(key: String, value: &T) -> Result<Change> {
    let json = serde_json::to_vec(value).map_err(|_| Error::internal("a delivery can't be stored"))?;
    Ok(Change::Put(key, Bytes::from(json)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_newest_first_and_are_the_same_for_the_same() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1_000);
        assert!(id(at(9), "a") < id(at(8), "a"));
        assert_eq!(id(at(9), "a"), id(at(9), "a"));
        assert_ne!(id(at(9), "a"), id(at(9), "b"));
        assert!(is_id(&id(at(1_800_000_000), "a")));
        for bad in ["", "dlv_", "dlv_../../x", "job_0000000000000000000000000000"] {
            assert!(!is_id(bad), "{bad}");
        }
    }
}
