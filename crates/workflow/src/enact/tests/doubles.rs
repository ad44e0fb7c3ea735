//! A worker and a control that do as a test says, and the callers over them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use lyra_fleet::RouteTable;
use lyra_fleet::quota::Meters;
use lyra_kit::{Clock, Random, Tasks, telemetry};
use lyra_types::api::{AliasRequest, DeployRequest, Page, QuotaView};
use lyra_types::delivery::DestinationsRequest;
use lyra_types::function::Digest;
use lyra_types::invocation::Report;
use lyra_types::job::{Job, JobStatus};
use lyra_types::quota::{Quota, QuotaKey};
use lyra_types::workflow::Run;
use lyra_types::{
    Alias, AliasName, Code, Error, FunctionName, FunctionVersion, JobId, Result, Runtime, SecretBytes, SecretName,
    TenantName, Timestamp, WorkflowName,
};
use lyra_wire::control::{
    Changed, ControlProcess, Deployed, Finished, JobQuery, PageQuery, Precondition, RawCode, Route, RouteEvent, Submit,
    Submitted,
};
use lyra_wire::hooks::RunEnds;
use lyra_wire::quotas::{Claim, Shares};
use lyra_wire::resources::{ResourceAnswer, ResourceRequest};
use lyra_wire::secrets::SecretValue;
use lyra_wire::sessions::SessionEvent;
use lyra_wire::worker::{Call, HttpCall, HttpReply, Prepare, Prepared, Reply};
use lyra_wire::{Control, Quotas, Worker};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::enact::function::{Deps, Functions};

const TIME: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// Callers of functions, over doubles.
pub(crate) struct Site {
    pub(crate) worker: Arc<FakeWorker>,
    pub(crate) control: Arc<FakeControl>,
    pub(crate) functions: Functions,
    pub(crate) meters: Arc<Meters>,
    pub(crate) tasks: Tasks,
    routes: Arc<RouteTable>,
}

impl Site {
    pub(crate) fn new() -> Site {
        let (worker, control) = (Arc::new(FakeWorker::default()), Arc::new(FakeControl::default()));
        let (clock, random, tasks) = (Clock::system(), Random::seeded(1), Tasks::new());
        let routes = Arc::new(RouteTable::new(clock.clone()));
        let (table, followed, chance) = (Arc::clone(&routes), Arc::clone(&control), random.clone());
        tasks.spawn_cancellable("routes", async move { table.follow(&*followed, &chance).await });
        let held = telemetry::Metrics::new().counter("held_total", "Held", &["limit"]);
        let meters = Arc::new(Meters::new(clock.clone(), 1, true, held));
        let functions = Functions::new(Deps {
            routes: Arc::clone(&routes),
            worker: Arc::<FakeWorker>::clone(&worker),
            control: Arc::<FakeControl>::clone(&control),
            meters: Arc::clone(&meters),
            clock,
            random,
            tasks: tasks.clone(),
        });
        Site { worker, control, functions, meters, tasks, routes }
    }

    /// Makes a function with these versions, of which `live` is the live one.
    pub(crate) fn deploy(&self, name: &str, versions: &[u64], live: u64) {
        let function = FunctionName::new(name).expect("a name");
        let made = |version: &u64| {
            let made = FunctionVersion::new(function.clone(), Runtime::Js, Digest("00".repeat(32)));
            (*version, Arc::new(FunctionVersion { version: *version, ..made }))
        };
        let alias =
            Alias { name: AliasName::live(), weights: BTreeMap::from([(live, 1)]), previous: None, updated_at: TIME };
        let route = Route {
            tenant: TenantName::default_tenant(),
            function: function.clone(),
            generation: 1,
            created_at: TIME,
            versions: versions.iter().map(made).collect(),
            aliases: BTreeMap::from([(AliasName::live(), alias)]),
        };
        self.control.publish(Arc::new(route));
    }

    /// Waits until the callers know all that was deployed.
    pub(crate) async fn synced(&self) {
        assert!(self.routes.wait_for(self.control.revision(), Duration::from_secs(60)).await);
    }
}

/// A worker that answers with the event, with what it is told, or never (`Ok(None)` hangs).
pub(crate) struct FakeWorker {
    pub(crate) calls: Mutex<Vec<Call>>,
    /// `Ok(Some(""))` stands for the event itself.
    pub(crate) answer: Mutex<Result<Option<&'static str>>>,
    dropped: Arc<AtomicUsize>,
}

impl Default for FakeWorker {
    fn default() -> FakeWorker {
        FakeWorker { calls: Mutex::default(), answer: Mutex::new(Ok(Some(""))), dropped: Arc::default() }
    }
}

impl FakeWorker {
    /// Calls that were given up.
    pub(crate) fn dropped(&self) -> usize {
        self.dropped.load(Ordering::SeqCst)
    }
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Worker for FakeWorker {
    async fn prepare(&self, _: Prepare) -> Result<Prepared> {
        Err(unasked())
    }

    async fn prewarm(&self, _: Arc<FunctionVersion>, _: u32) -> Result<()> {
        Err(unasked())
    }

    async fn forget(&self, _: u64, _: Option<u64>) -> Result<()> {
        Err(unasked())
    }

    async fn invoke(&self, call: Call) -> Reply {
        self.calls.lock().push(call.clone());
        let report = Report::new(call.id, call.version.version);
        let answer = self.answer.lock().clone();
        let outcome = match answer {
            Ok(Some("")) => Ok(call.event),
            Ok(Some(text)) => Ok(Bytes::from_static(text.as_bytes())),
            Ok(None) => {
                let _dropped = Counted(Arc::clone(&self.dropped));
                std::future::pending().await
            }
            Err(error) => Err(error),
        };
        Reply { report, outcome }
    }

    async fn serve(&self, _: HttpCall) -> HttpReply {
        unreachable!("tasks are no HTTP requests")
    }
}

type Event = Result<(u64, RouteEvent)>;
/// A job's end: status, result, error.
type End = (JobStatus, Option<&'static str>, Option<Error>);

/// A control with routes, and jobs that end as they are told.
pub(crate) struct FakeControl {
    events: Mutex<Vec<(u64, RouteEvent)>>,
    watchers: Mutex<Vec<mpsc::UnboundedSender<Event>>>,
    pub(crate) submits: Mutex<Vec<Submit>>,
    pub(crate) cancelled: Mutex<Vec<JobId>>,
    keys: Mutex<HashMap<String, JobId>>,
    end: Mutex<Option<End>>,
    away: AtomicUsize,
    hold: watch::Sender<bool>,
    /// Secrets by name.
    pub(crate) secrets: Mutex<HashMap<&'static str, &'static str>>,
    /// How many submits, looks and cancellations there were.
    seen: watch::Sender<(usize, usize, usize)>,
}

impl Default for FakeControl {
    fn default() -> FakeControl {
        FakeControl {
            events: Mutex::new(vec![(0, RouteEvent::Synced)]),
            watchers: Mutex::default(),
            submits: Mutex::default(),
            cancelled: Mutex::default(),
            keys: Mutex::default(),
            end: Mutex::default(),
            away: AtomicUsize::new(0),
            hold: watch::Sender::new(false),
            secrets: Mutex::default(),
            seen: watch::Sender::default(),
        }
    }
}

impl FakeControl {
    fn revision(&self) -> u64 {
        self.events.lock().len() as u64 - 1
    }

    fn publish(&self, route: Arc<Route>) {
        let mut events = self.events.lock();
        let event = (events.len() as u64, RouteEvent::Put(route));
        events.push(event.clone());
        self.watchers.lock().retain(|watcher| watcher.send(Ok(event.clone())).is_ok());
    }

    /// Jobs that are handed in from now on have ended like this; until told, they run for ever.
    pub(crate) fn end_with(&self, status: JobStatus, result: Option<&'static str>, error: Option<Error>) {
        *self.end.lock() = Some((status, result, error));
        self.keys.lock().clear();
    }

    /// The next `looks` looks at jobs fail.
    pub(crate) fn away(&self, looks: usize) {
        self.away.store(looks, Ordering::SeqCst);
    }

    pub(crate) fn hold_submits(&self, hold: bool) {
        self.hold.send_replace(hold);
    }

    pub(crate) async fn submitted(&self, count: usize) {
        self.seen.subscribe().wait_for(|seen| seen.0 >= count).await.expect("control lives");
    }

    pub(crate) async fn looked(&self) {
        self.seen.subscribe().wait_for(|seen| seen.1 > 0).await.expect("control lives");
    }

    pub(crate) async fn cancelled(&self, count: usize) {
        self.seen.subscribe().wait_for(|seen| seen.2 >= count).await.expect("control lives");
    }

    fn job_of(&self, id: JobId, status: JobStatus, error: Option<Error>) -> Job {
        Job {
            id,
            tenant: TenantName::default_tenant(),
            function: FunctionName::new("f").expect("a name"),
            version: 1,
            generation: 1,
            status,
            attempts: 1,
            max_attempts: 3,
            created_at: TIME,
            started_at: None,
            finished_at: None,
            next_attempt_at: None,
            invocation: None,
            error,
            cancel_requested: false,
        }
    }
}

fn unasked() -> Error {
    Error::internal("a task never asks for this")
}

#[async_trait]
impl Control for FakeControl {
    async fn watch_routes(&self) -> Result<BoxStream<'static, Event>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        for event in &*self.events.lock() {
            drop(sender.send(Ok(event.clone())));
        }
        self.watchers.lock().push(sender);
        Ok(UnboundedReceiverStream::new(receiver).boxed())
    }

    async fn submit(&self, submit: Submit) -> Result<Submitted> {
        let key = submit.idempotency_key.clone().expect("tasks' jobs have keys");
        self.submits.lock().push(submit);
        self.seen.send_modify(|seen| seen.0 += 1);
        self.hold.subscribe().wait_for(|hold| !hold).await.expect("control lives");
        let mut keys = self.keys.lock();
        let next = JobId::from_parts(1, keys.len() as u128 + 1);
        let created = !keys.contains_key(&key);
        let id = *keys.entry(key).or_insert(next);
        Ok(Submitted { id, status: JobStatus::Queued, created })
    }

    async fn job(&self, _: &TenantName, id: JobId, wait: Duration) -> Result<Finished> {
        self.seen.send_modify(|seen| seen.1 += 1);
        if self.away.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |looks| looks.checked_sub(1)).is_ok() {
            return Err(Error::new(Code::Unavailable, "away"));
        }
        let end = self.end.lock().clone();
        let Some((status, result, error)) = end else {
            tokio::time::sleep(wait).await;
            return Ok(Finished { job: self.job_of(id, JobStatus::Running, None), result: None });
        };
        let result = result.map(|text| Bytes::from_static(text.as_bytes()));
        Ok(Finished { job: self.job_of(id, status, error), result })
    }

    async fn cancel_job(&self, _: &TenantName, id: JobId, _: Duration) -> Result<Job> {
        self.cancelled.lock().push(id);
        self.seen.send_modify(|seen| seen.2 += 1);
        Ok(self.job_of(id, JobStatus::Cancelled, None))
    }

    async fn fetch_secrets(&self, _: &TenantName, names: Vec<SecretName>) -> Result<Vec<SecretValue>> {
        let secrets = self.secrets.lock();
        let value = |name: SecretName| match secrets.get(name.as_str()) {
            Some(value) => Ok(SecretValue { stamp: 1, value: SecretBytes::new(value.as_bytes().to_vec()) }),
            None => Err(Error::not_found("secret", name)),
        };
        names.into_iter().map(value).collect()
    }

    async fn deploy(
        &self,
        _: &TenantName,
        _: &FunctionName,
        _: DeployRequest,
        _: Precondition,
    ) -> Result<Changed<Deployed>> {
        Err(unasked())
    }

    async fn deploy_code(
        &self,
        _: &TenantName,
        _: &FunctionName,
        _: RawCode,
        _: Precondition,
    ) -> Result<Changed<Deployed>> {
        Err(unasked())
    }

    async fn function(&self, _: &TenantName, _: &FunctionName) -> Result<Arc<Route>> {
        Err(unasked())
    }

    async fn functions(&self, _: &TenantName, _: PageQuery) -> Result<Page<Arc<Route>>> {
        Err(unasked())
    }

    async fn delete_function(&self, _: &TenantName, _: &FunctionName) -> Result<Changed<()>> {
        Err(unasked())
    }

    async fn put_alias(
        &self,
        _: &TenantName,
        _: &FunctionName,
        _: &AliasName,
        _: AliasRequest,
    ) -> Result<Changed<Alias>> {
        Err(unasked())
    }

    async fn delete_alias(&self, _: &TenantName, _: &FunctionName, _: &AliasName) -> Result<Changed<()>> {
        Err(unasked())
    }

    async fn rollback(&self, _: &TenantName, _: &FunctionName) -> Result<Changed<Alias>> {
        Err(unasked())
    }

    async fn watch_sessions(&self) -> Result<BoxStream<'static, Result<SessionEvent>>> {
        Err(unasked())
    }

    async fn resources(&self, _: ResourceRequest) -> Result<BoxStream<'static, Result<ResourceAnswer>>> {
        Err(unasked())
    }

    async fn processes(&self) -> Result<Vec<ControlProcess>> {
        Err(unasked())
    }

    async fn jobs(&self, _: &TenantName, _: JobQuery) -> Result<Page<Job>> {
        Err(unasked())
    }

    async fn redrive(&self, _: &TenantName, _: JobId) -> Result<Job> {
        Err(unasked())
    }

    async fn redrive_all(&self, _: &TenantName) -> Result<u64> {
        Err(unasked())
    }

    async fn purge_dead(&self, _: &TenantName, _: Option<JobId>) -> Result<u64> {
        Err(unasked())
    }
}

/// Who hears of the ends of runs: all of them where it `wants` to.
#[derive(Default)]
pub(crate) struct FakeEnds {
    pub(crate) wants: bool,
    /// It takes nothing over.
    pub(crate) away: bool,
    /// What it took over: the run, when it ended, and its notice.
    pub(crate) told: Mutex<Vec<(Run, Timestamp, String)>>,
}

#[async_trait]
impl RunEnds for FakeEnds {
    async fn notice(
        &self,
        _: &TenantName,
        workflow: &WorkflowName,
        own: Option<&DestinationsRequest>,
    ) -> Result<Option<Arc<str>>> {
        let notice = if own.is_some() { "its own".to_owned() } else { format!("that of {workflow}") };
        Ok(self.wants.then(|| notice.into()))
    }

    async fn ended(&self, run: &Run, ended_at: Timestamp, notice: &str) -> Result<()> {
        if self.away {
            return Err(Error::new(Code::Unavailable, "away"));
        }
        self.told.lock().push((run.clone(), ended_at, notice.to_owned()));
        Ok(())
    }
}

/// Nobody who could set a quota.
pub(crate) struct NoQuotas;

#[async_trait]
impl Quotas for NoQuotas {
    async fn quota(&self, _: &QuotaKey) -> Result<QuotaView> {
        Err(unasked())
    }

    async fn quotas(&self, _: PageQuery) -> Result<Page<QuotaView>> {
        Err(unasked())
    }

    async fn set_quota(&self, _: &QuotaKey, _: Quota) -> Result<QuotaView> {
        Err(unasked())
    }

    async fn remove_quota(&self, _: &QuotaKey) -> Result<()> {
        Err(unasked())
    }

    async fn share(&self, _: Claim) -> Result<Shares> {
        Ok(Shares { session: 1, number: 1, tell_all: false, whole: true, limits: Vec::new(), gone: Vec::new() })
    }
}
