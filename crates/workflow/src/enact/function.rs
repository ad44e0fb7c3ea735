//! Resources of type `Function`: a Lyra function of the same tenant, called, or handed in as a durable job.
//!
//! The version is looked up when the task is called. The input object is the event; the result must be an object.
//!
//! What must hold: a call that is repeated because the engine was killed has the same invocation id (`context.invocationId`)
//! or is the same job, so that a function can tell, and a job runs once; a call that is given up is stopped, a job
//! cancelled. Only when this process itself is to stop a job is left alone: whoever takes up the run finds it again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lyra_fleet::RouteTable;
use lyra_fleet::quota::{Called, Entry, Meters, Pass};
use lyra_kit::{Clock, Random, Tasks};
use lyra_types::job::{Job, JobStatus};
use lyra_types::name::Qualifier;
use lyra_types::workflow::Cause;
use lyra_types::{Code, Error, FunctionVersion, InvocationId, JobId, TenantName};
use lyra_wire::control::{Finished, Submit};
use lyra_wire::worker::{Account, Call};
use lyra_wire::{Control, Worker};
use sha2::{Digest, Sha256};

use super::answer::check_object;
use super::{Enactment, Failure};

/// Longest wait for the route table of a process that has just started.
const ROUTES_WAIT: Duration = Duration::from_secs(5);
/// Longest wait of one look at a job.
const LOOK: Duration = Duration::from_secs(30);
/// Shortest time between two looks at a job that is not told to have ended: control may be away.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What is needed to call functions.
#[derive(Clone)]
pub struct Deps {
    /// Functions by name; somebody must [`RouteTable::follow`] for it.
    pub routes: Arc<RouteTable>,
    /// Runs calls.
    pub worker: Arc<dyn Worker>,
    /// Runs jobs.
    pub control: Arc<dyn Control>,
    /// Time.
    pub clock: Clock,
    /// Chance, for weighted aliases.
    pub random: Random,
    /// What tenants and functions may use.
    pub meters: Arc<Meters>,
    /// Ends what is left of calls that were given up. Once it is told to stop, jobs are left alone.
    pub tasks: Tasks,
}

/// Calls functions.
pub struct Functions {
    deps: Deps,
}

impl Functions {
    /// Puts it together.
    pub fn new(deps: Deps) -> Functions {
        Functions { deps }
    }

    /// Calls `name` (`NAME`, `NAME@VERSION` or `NAME@ALIAS`) with the input and returns the result, a JSON object.
    pub async fn enact(&self, enactment: &Enactment, name: &str, job: bool) -> Result<Bytes, Failure> {
        let wait = ROUTES_WAIT.min(enactment.timeout);
        let version = self.resolve(&enactment.tenant, name, wait).await.map_err(|error| failure_of(&error))?;
        if version.sessions.is_some() {
            let message = format!("sessions serve the calls of function {name}; a task has none");
            return Err(Failure::lasting(Code::Conflict.as_str(), message));
        }
        let result = match job {
            false => self.call(enactment, version).await,
            true => self.job(enactment, name, version).await,
        };
        let result = result.map_err(|error| failure_of(&error))?;
        check_object(&result)?;
        Ok(result)
    }

    /// Who has the tenant's secrets.
    pub(super) fn control(&self) -> &dyn Control {
        self.deps.control.as_ref()
    }

    /// The versions that `name` leads to now, each with its weight: another deploy, or another weight, is something else.
    pub async fn stands_for(&self, tenant: &TenantName, name: &str) -> Result<String, Failure> {
        let (function, qualifier) = Qualifier::split(name).map_err(|error| failure_of(&error))?;
        let route = self.deps.routes.find(tenant.as_str(), function.as_str(), ROUTES_WAIT).await;
        let route = route.map_err(|error| failure_of(&error))?;
        let alias = match &qualifier {
            Qualifier::Version(version) => return Ok(format!("{}:{version}", route.generation)),
            Qualifier::Live => "live",
            Qualifier::Alias(alias) => alias.as_str(),
        };
        let weights = route.aliases.get(alias).map(|alias| &alias.weights);
        let weights = weights.into_iter().flatten().map(|(version, weight)| format!("{version}*{weight}"));
        Ok(format!("{}:{}", route.generation, weights.collect::<Vec<_>>().join(",")))
    }

    /// Waits until a call of `name` may be made under the quotas of its tenant and of the function, as a job's try does: it fails by none.
    /// Of a call that is handed in as a job only the rate counts here, since its tries are let in where they are made.
    pub async fn admit(&self, tenant: &TenantName, name: &str, job: bool) -> Result<Pass, Failure> {
        if self.deps.meters.is_empty() {
            return Ok(Pass::default());
        }
        let version = self.resolve(tenant, name, ROUTES_WAIT).await.map_err(|error| failure_of(&error))?;
        let called = Called { tenant, function: Some(&version.function), memory_mb: version.memory_mb };
        Ok(self.deps.meters.wait(called, if job { Entry::Submit } else { Entry::Call }).await)
    }

    async fn resolve(&self, tenant: &TenantName, name: &str, wait: Duration) -> Result<Arc<FunctionVersion>, Error> {
        let (function, qualifier) = Qualifier::split(name)?;
        let route = self.deps.routes.find(tenant.as_str(), function.as_str(), wait).await?;
        route.resolve(&qualifier, self.deps.random.u64()).map(Arc::clone)
    }

    /// The worker ends the call when its future is dropped.
    async fn call(&self, enactment: &Enactment, version: Arc<FunctionVersion>) -> Result<Bytes, Error> {
        let id = self.invocation(enactment);
        let account = Account { user: enactment.user.clone(), by_caller: false };
        let event = enactment.input.clone();
        let trace = Some(enactment.traceparent.as_str().into());
        let call = Call { id, version, event, timeout: Some(enactment.timeout), account, trace };
        match tokio::time::timeout(enactment.timeout, self.deps.worker.invoke(call)).await {
            Ok(reply) => reply.outcome,
            Err(_) => Err(late(enactment)),
        }
    }

    /// The same for the same try. Ids sort by time, so that one begins with the time of the run where its id has one.
    fn invocation(&self, enactment: &Enactment) -> InvocationId {
        let hash = digest(&[enactment.tenant.as_str(), enactment.run.as_str(), &enactment.key]);
        let (time, chance) = (u64::from_be_bytes(first(&hash[16..])), u128::from_be_bytes(first(&hash)));
        InvocationId::from_parts(enactment.run.millis().unwrap_or(time & ((1 << 48) - 1)), chance)
    }

    async fn job(&self, enactment: &Enactment, name: &str, version: Arc<FunctionVersion>) -> Result<Bytes, Error> {
        let deadline = self.deps.clock.instant() + enactment.timeout;
        let key = format!("lyra-run-{}", hex::encode(digest(&[enactment.run.as_str(), &enactment.key, name])));
        let event = enactment.input.clone();
        let (idempotency_key, user) = (Some(key), enactment.user.clone());
        let submit = Submit { id: None, version, event, idempotency_key, user, destinations: None };
        let submitted = tokio::time::timeout_at(deadline, self.submit(&enactment.tenant, submit));
        let id = submitted.await.map_err(|_| late(enactment))??;
        let guard = Cancel { deps: &self.deps, tenant: &enactment.tenant, job: Some(id) };
        let ended = tokio::time::timeout_at(deadline, self.wait_for_end(&enactment.tenant, id)).await;
        let finished = ended.map_err(|_| late(enactment))??;
        guard.ended();
        match (finished.job.status, finished.result) {
            (JobStatus::Succeeded, Some(result)) => Ok(result),
            _ => Err(error_of(finished.job)),
        }
    }

    /// Hands the job in on a task of its own: one whose caller is gone meanwhile is cancelled, and not left to run.
    async fn submit(&self, tenant: &TenantName, submit: Submit) -> Result<JobId, Error> {
        let (tell, told) = tokio::sync::oneshot::channel();
        let (deps, tenant) = (self.deps.clone(), tenant.clone());
        self.deps.tasks.spawn("submit job", async move {
            let submitted = deps.control.submit(submit).await.map(|submitted| submitted.id);
            if let Err(Ok(id)) = tell.send(submitted) {
                drop(Cancel { deps: &deps, tenant: &tenant, job: Some(id) });
            }
        });
        told.await.unwrap_or_else(|_| Err(Error::new(Code::Unavailable, "this process is to stop")))
    }

    /// Looks until the job has ended. Where control can't be asked it is asked again: the job goes on meanwhile.
    async fn wait_for_end(&self, tenant: &TenantName, id: JobId) -> Result<Finished, Error> {
        loop {
            match self.deps.control.job(tenant, id, LOOK).await {
                Ok(finished) if finished.job.status.is_final() => return Ok(finished),
                Err(error) if !matches!(error.code, Code::Unavailable | Code::Overloaded) => return Err(error),
                Ok(_) | Err(_) => self.deps.clock.sleep(LOOK_AGAIN).await,
            }
        }
    }
}

/// Cancels a job that nobody waits for any more.
struct Cancel<'a> {
    deps: &'a Deps,
    tenant: &'a TenantName,
    job: Option<JobId>,
}

impl Cancel<'_> {
    fn ended(mut self) {
        self.job = None;
    }
}

impl Drop for Cancel<'_> {
    fn drop(&mut self) {
        let Some(job) = self.job else { return };
        if self.deps.tasks.stopping().is_cancelled() {
            return;
        }
        let (control, tenant) = (Arc::clone(&self.deps.control), self.tenant.clone());
        self.deps.tasks.spawn("cancel job", async move {
            if let Err(error) = control.cancel_job(&tenant, job, Duration::ZERO).await {
                tracing::warn!(%job, %error, "the job of a task that was given up can't be cancelled");
            }
        });
    }
}

fn digest(parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes[..N].try_into().expect("the hash has so many")
}

fn late(enactment: &Enactment) -> Error {
    Error::new(Code::Timeout, format!("there was no result within {:?}", enactment.timeout))
}

fn error_of(job: Job) -> Error {
    let status = job.status;
    job.error.unwrap_or_else(|| match status {
        JobStatus::Cancelled => Error::new(Code::Cancelled, format!("{} was cancelled", job.id)),
        status => Error::internal(format!("{} ended as {status} and does not say why", job.id)),
    })
}

/// An error as a task's failure. Faults of the platform and of the code pass: another instance, worker or version may do
/// better, and the policy bounds the tries. What names no function, or breaks the contract of what goes in or out,
/// would come again.
pub(crate) fn failure_of(error: &Error) -> Failure {
    let retryable = match error.code {
        Code::FunctionError | Code::Timeout | Code::OutOfMemory | Code::InstanceCrashed | Code::WorkerLost => true,
        // The engine may have cancelled the job of a try that was late, and been killed before it could write that down.
        Code::Cancelled => true,
        Code::LimitReached | Code::Overloaded | Code::Unavailable | Code::SessionError | Code::Internal => true,
        Code::BadRequest | Code::InvalidName | Code::InvalidField | Code::InvalidCode | Code::NotFound => false,
        Code::Unauthenticated | Code::PermissionDenied | Code::MethodNotAllowed => false,
        Code::Conflict | Code::StaleVersion | Code::IdempotencyMismatch => false,
        Code::TooLarge | Code::UnsupportedMediaType | Code::ResultTooLarge | Code::InvalidResult => false,
    };
    let name = error.thrown.as_ref().map(|thrown| thrown.name.clone());
    let cause = Cause { code: error.code.as_str().to_owned(), message: error.detail.clone(), name, resource: None };
    Failure { cause, retryable, retry_after: error.retry_after }
}
