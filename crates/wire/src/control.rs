//! What the gateway asks of the control role: functions, aliases, jobs, and the route table.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use lyra_types::api::{AliasRequest, DeployRequest, Page, ScalerChange};
use lyra_types::delivery::DestinationsRequest;
use lyra_types::function::Digest;
use lyra_types::job::{Job, JobStatus};
use lyra_types::name::Qualifier;
use lyra_types::usage::{UsageBatch, UsageQuery, UsageSum};
use lyra_types::{
    Alias, AliasName, Error, FunctionName, FunctionVersion, JobId, Result, SecretName, TenantName, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::classic::{ClassicAnswer, ClassicRequest};
use crate::hooks::{HookAnswer, HookRequest, RunEndAsk};
use crate::resources::{ResourceAnswer, ResourceRequest};
use crate::scaler::{ScalerAnswer, ScalerStatus, ScalerTurn};
use crate::secrets::{PutSecret, Resealed, SealingKey, SecretInfo, SecretKey, SecretPut, SecretValue};
use crate::sessions::{SessionEvent, SessionRoute};
use crate::workflows::WorkflowProcess;

/// A function as control knows it and as gateways route it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Owner.
    pub tenant: TenantName,
    /// Function.
    pub function: FunctionName,
    /// See [`FunctionVersion::generation`].
    pub generation: u64,
    /// When the function was first deployed.
    pub created_at: Timestamp,
    /// All versions.
    pub versions: BTreeMap<u64, Arc<FunctionVersion>>,
    /// All aliases.
    pub aliases: BTreeMap<AliasName, Alias>,
}

impl Route {
    /// The version that `qualifier` means; `draw` is uniform over `u64`, for weighted aliases.
    ///
    /// # Errors
    /// [`lyra_types::Code::NotFound`] when there is no such version or alias.
    pub fn resolve(&self, qualifier: &Qualifier, draw: u64) -> Result<&Arc<FunctionVersion>> {
        let by_alias = |name: &str| self.aliases.get(name).and_then(|alias| alias.pick(draw));
        let version = match qualifier {
            Qualifier::Version(version) => Some(*version),
            Qualifier::Live => by_alias("live"),
            Qualifier::Alias(alias) => by_alias(alias.as_str()),
        };
        version.and_then(|version| self.versions.get(&version)).ok_or_else(|| match qualifier {
            Qualifier::Version(version) => {
                Error::not_found("version", format_args!("{version} of function {}", self.function))
            }
            Qualifier::Live => Error::not_found("alias", format_args!("live of function {}", self.function)),
            Qualifier::Alias(alias) => Error::not_found("alias", format_args!("{alias} of function {}", self.function)),
        })
    }
}

/// A control process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlProcess {
    /// Its name.
    pub name: String,
    /// Where other roles reach it, `HOST:PORT`; empty where it is alone.
    pub address: String,
    /// When it was started.
    pub since: Timestamp,
    /// Of the one that leads: the number of its term, higher than that of every term before.
    pub epoch: Option<u64>,
}

/// A change of the route table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum RouteEvent {
    /// A function is new or has changed.
    Put(Arc<Route>),
    /// A function was deleted.
    Remove(TenantName, FunctionName),
    /// The table is complete up to the revision that comes with this event.
    Synced,
}

/// Something that was changed, and the store's revision from which it is seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed<T> {
    /// The outcome.
    pub value: T,
    /// A gateway that has applied this revision routes by it.
    pub revision: u64,
}

/// Outcome of a deploy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployed {
    /// The function with its new version.
    pub route: Arc<Route>,
    /// The new version's number.
    pub version: u64,
    /// Whether the function is new.
    pub created: bool,
}

/// What a deploy depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// The newest version has this number (`If-Match: "3"`).
    Newest(u64),
    /// The function exists (`If-Match: *`).
    Exists,
    /// The function does not exist (`If-None-Match: *`).
    Absent,
}

/// A new job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Submit {
    /// The job's id, where whoever asks has made it: then asking twice makes one job. `None`: control makes it.
    #[serde(default)]
    pub id: Option<JobId>,
    /// The version, pinned.
    pub version: Arc<FunctionVersion>,
    /// The event.
    #[serde(with = "crate::octets")]
    pub event: Bytes,
    /// The caller's idempotency key.
    pub idempotency_key: Option<String>,
    /// Who called; `None` where that is not known.
    #[serde(default)]
    pub user: Option<Arc<str>>,
    /// Who hears of its end, in place of the function's own destinations.
    #[serde(default)]
    pub destinations: Option<Box<DestinationsRequest>>,
}

/// Outcome of [`Control::submit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// The job.
    pub id: JobId,
    /// Where it stands.
    pub status: JobStatus,
    /// False when the idempotency key was known and this is the job from then.
    pub created: bool,
}

/// A job with its result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// The job.
    pub job: Job,
    /// Its result, when it succeeded.
    #[serde(with = "crate::octets::option")]
    pub result: Option<Bytes>,
}

/// Which jobs to list, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JobQuery {
    /// Only of this function.
    pub function: Option<FunctionName>,
    /// Only with this status.
    pub status: Option<JobStatus>,
    /// At most so many.
    pub limit: usize,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

/// A page to ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PageQuery {
    /// At most so many.
    pub limit: usize,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

/// Registry of functions and owner of jobs.
#[async_trait]
pub trait Control: Send + Sync + 'static {
    /// Checks, compiles and stores a new version; moves `live` to it unless told not to.
    /// Nothing is stored when anything is wrong.
    async fn deploy(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        request: DeployRequest,
        precondition: Precondition,
    ) -> Result<Changed<Deployed>>;

    /// A new version with the settings of the newest one and other code.
    /// `code` is what the raw body of `PUT …/code` held; for a function that does not exist yet, defaults apply.
    async fn deploy_code(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        code: RawCode,
        precondition: Precondition,
    ) -> Result<Changed<Deployed>>;

    /// One function.
    async fn function(&self, tenant: &TenantName, function: &FunctionName) -> Result<Arc<Route>>;

    /// Functions by name.
    async fn functions(&self, tenant: &TenantName, page: PageQuery) -> Result<Page<Arc<Route>>>;

    /// Deletes a function with its versions, aliases, logs, and its jobs that have not begun.
    async fn delete_function(&self, tenant: &TenantName, function: &FunctionName) -> Result<Changed<()>>;

    /// Makes or moves an alias.
    async fn put_alias(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        alias: &AliasName,
        request: AliasRequest,
    ) -> Result<Changed<Alias>>;

    /// Deletes an alias; `live` can't be deleted.
    async fn delete_alias(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        alias: &AliasName,
    ) -> Result<Changed<()>>;

    /// Moves `live` to what it pointed at before its last change; where that is not known or gone, to the
    /// newest version below the lowest that it points at.
    async fn rollback(&self, tenant: &TenantName, function: &FunctionName) -> Result<Changed<Alias>>;

    /// Every route, then each change, with the store's revision.
    async fn watch_routes(&self) -> Result<BoxStream<'static, Result<(u64, RouteEvent)>>>;

    /// Every open session, then [`SessionEvent::Synced`], then each change.
    async fn watch_sessions(&self) -> Result<BoxStream<'static, Result<SessionEvent>>>;

    /// The open session of an application that `key` means, whose name is [`crate::sessions::name_by_key`]: the one that is
    /// there, else one that is opened. Waits up to `wait` for it to be open.
    ///
    /// # Errors
    /// [`lyra_types::Code::NotFound`] where there is no such application, [`lyra_types::Code::Overloaded`] where it may have no
    /// more sessions now, [`lyra_types::Code::Conflict`] where a session of another application has the name, and
    /// [`lyra_types::Code::Unavailable`] where it is not open in time.
    async fn reach_session(
        &self,
        tenant: &TenantName,
        application: &str,
        key: &str,
        wait: Duration,
    ) -> Result<Arc<SessionRoute>> {
        let _ = (key, wait);
        Err(Error::not_found("application", format_args!("{application} of tenant {tenant}")))
    }

    /// These sessions, by owner and identity, were in use since they were told of last; those that this control did not open by
    /// itself are of no account.
    async fn touch_sessions(&self, sessions: Vec<(TenantName, String)>) -> Result<()> {
        let _ = sessions;
        Ok(())
    }

    /// Answers a request of the Kubernetes-style API: the head of the answer, then its body. What is wrong with the request is
    /// said in the answer.
    async fn resources(&self, request: ResourceRequest) -> Result<BoxStream<'static, Result<ResourceAnswer>>>;

    /// The control processes that there are, by name; the one that leads has an epoch.
    async fn processes(&self) -> Result<Vec<ControlProcess>>;

    /// The processes that run workflows, then all again at each change.
    async fn watch_workflows(&self) -> Result<BoxStream<'static, Result<Vec<WorkflowProcess>>>> {
        Err(Error::new(lyra_types::Code::Unavailable, "this control process knows of no processes that run workflows"))
    }

    /// Accepts a job. It is durable when this returns. One with an id that was accepted before is that job.
    async fn submit(&self, submit: Submit) -> Result<Submitted>;

    /// A job; waits up to `wait` for it to end.
    async fn job(&self, tenant: &TenantName, id: JobId, wait: Duration) -> Result<Finished>;

    /// Jobs, newest first.
    async fn jobs(&self, tenant: &TenantName, query: JobQuery) -> Result<Page<Job>>;

    /// Cancels a job, a running one too; returns when it has stopped or `wait` has passed.
    /// A job that has ended stays as it is.
    async fn cancel_job(&self, tenant: &TenantName, id: JobId, wait: Duration) -> Result<Job>;

    /// Puts a dead job back in the queue with its tries counted from zero.
    async fn redrive(&self, tenant: &TenantName, id: JobId) -> Result<Job>;

    /// Redrives every dead job; returns how many.
    async fn redrive_all(&self, tenant: &TenantName) -> Result<u64>;

    /// Deletes dead jobs (all, or one); returns how many.
    async fn purge_dead(&self, tenant: &TenantName, id: Option<JobId>) -> Result<u64>;

    /// Removes a job from the record with its result, whatever its status: one that runs is stopped first, for which this waits
    /// up to `wait`. Says whether there was one.
    ///
    /// # Errors
    /// [`lyra_types::Code::Conflict`] where it has not stopped in time.
    async fn remove_job(&self, tenant: &TenantName, id: JobId, wait: Duration) -> Result<bool> {
        let _ = (tenant, wait);
        Err(Error::not_found("job", id))
    }

    /// Takes what a worker has counted. A batch that was taken before counts for nothing.
    async fn record_usage(&self, batch: UsageBatch) -> Result<()> {
        let _ = batch;
        Err(Error::new(lyra_types::Code::Unavailable, "this control process counts no usage"))
    }

    /// What attempts used, added up.
    async fn usage(&self, query: UsageQuery) -> Result<Vec<UsageSum>> {
        let _ = query;
        Err(Error::new(lyra_types::Code::Unavailable, "this control process counts no usage"))
    }

    /// A scaler's turn: it tells what it did, and learns whether it leads, what operators ask for, and what there is to do.
    async fn scaler_turn(&self, turn: ScalerTurn) -> Result<ScalerAnswer> {
        let _ = turn;
        Err(Error::new(lyra_types::Code::Unavailable, "this control process has no scaler"))
    }

    /// How the scaler stands, and what it decided of late.
    async fn scaler(&self) -> Result<ScalerStatus> {
        Err(Error::new(lyra_types::Code::Unavailable, "this control process has no scaler"))
    }

    /// Has every scaler keep to this from now on.
    async fn steer_scaler(&self, change: ScalerChange) -> Result<ScalerStatus> {
        let _ = change;
        Err(Error::new(lyra_types::Code::Unavailable, "this control process has no scaler"))
    }

    /// Sets a secret.
    ///
    /// # Errors
    /// [`lyra_types::Code::InvalidField`] for a value that is empty, too large, or that no variable can hold where functions want it
    /// as one; [`lyra_types::Code::Unavailable`] where control has no key.
    async fn put_secret(&self, put: PutSecret) -> Result<SecretPut> {
        let _ = put;
        Err(no_secrets())
    }

    /// What is known of a secret.
    async fn secret(&self, key: &SecretKey) -> Result<SecretInfo> {
        let _ = key;
        Err(no_secrets())
    }

    /// What is known of a tenant's secrets, by name.
    async fn secrets(&self, tenant: &TenantName, page: PageQuery) -> Result<Page<SecretInfo>> {
        let _ = (tenant, page);
        Err(no_secrets())
    }

    /// Deletes a secret.
    ///
    /// # Errors
    /// [`lyra_types::Code::Conflict`] where a function is given it, unless `force` is set.
    async fn delete_secret(&self, key: &SecretKey, force: bool) -> Result<()> {
        let _ = (key, force);
        Err(no_secrets())
    }

    /// Values of a tenant's secrets, in the order of their names, for a worker that starts an instance.
    ///
    /// # Errors
    /// [`lyra_types::Code::NotFound`] with the first that is not there.
    async fn fetch_secrets(&self, tenant: &TenantName, names: Vec<SecretName>) -> Result<Vec<SecretValue>> {
        let _ = (tenant, names);
        Err(no_secrets())
    }

    /// The stamps of secrets, in their order; `None` for one that is not there.
    async fn secret_stamps(&self, keys: Vec<SecretKey>) -> Result<Vec<Option<u64>>> {
        let _ = keys;
        Err(no_secrets())
    }

    /// The code of this digest, in pieces, for a worker that shares no blobs with control.
    ///
    /// # Errors
    /// [`lyra_types::Code::NotFound`] where control has none.
    async fn fetch_code(&self, digest: &Digest) -> Result<BoxStream<'static, Result<Bytes>>> {
        let _ = digest;
        Err(Error::new(lyra_types::Code::Unavailable, "this control process hands out no code"))
    }

    /// The keys that secrets are sealed with, those of the key file first.
    async fn sealing_keys(&self) -> Result<Vec<SealingKey>> {
        Err(no_secrets())
    }

    /// Seals every secret with the first key of the key file, which is read anew. Where it is broken off, doing it once more goes on.
    async fn reseal_secrets(&self) -> Result<Resealed> {
        Err(no_secrets())
    }

    /// Does what a classic route asks for.
    async fn classic(&self, request: ClassicRequest) -> Result<ClassicAnswer> {
        let _ = request;
        Err(Error::new(lyra_types::Code::Unavailable, "this control process has no classic users"))
    }

    /// Has somebody hear of the ends of runs. Asked for a notice, it answers with what the new run shall carry, if anybody wants to hear of
    /// it; else with nothing, once the end is taken over for good.
    async fn run_ends(&self, ask: RunEndAsk) -> Result<Option<Arc<str>>> {
        let _ = ask;
        Err(Error::new(lyra_types::Code::Unavailable, "this control process tells nobody of the ends of runs"))
    }

    /// Does what is asked about what happens by itself: schedules.
    async fn hooks(&self, request: HookRequest) -> Result<HookAnswer> {
        let _ = request;
        Err(Error::new(lyra_types::Code::Unavailable, "this control process keeps no schedules"))
    }
}

fn no_secrets() -> Error {
    Error::new(lyra_types::Code::Unavailable, "this control process keeps no secrets")
}

/// The raw body of `PUT …/code`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RawCode {
    /// `text/javascript`.
    JavaScript(#[serde(with = "crate::octets")] Bytes),
    /// `text/x-python`.
    Python(#[serde(with = "crate::octets")] Bytes),
    /// `application/wasm`.
    Wasm(#[serde(with = "crate::octets")] Bytes),
    /// `application/zip`.
    Zip(#[serde(with = "crate::octets")] Bytes),
}
