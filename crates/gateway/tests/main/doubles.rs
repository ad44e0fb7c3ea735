//! Scripted control, worker and log services: the gateway's neighbours at the wire.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http_body_util::BodyExt;
use lyra_types::api::{AliasRequest, DeployRequest, Page};
use lyra_types::error::Thrown;
use lyra_types::function::{Contract, Digest};
use lyra_types::invocation::{Phases, Report, Start};
use lyra_types::job::{Job, JobStatus};
use lyra_types::log::LogLine;
use lyra_types::usage::{UsageQuery, UsageSum};
use lyra_types::{
    Alias, AliasName, Code, Error, FunctionName, FunctionVersion, InvocationId, JobId, Result, Runtime, TenantName,
    Timestamp,
};
use lyra_wire::classic::{ClassicAnswer, ClassicRequest};
use lyra_wire::control::*;
use lyra_wire::logs::Query;
use lyra_wire::worker::*;
use lyra_wire::{Control, Logs, Operated, Worker};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::sessions::feed::SessionFeed;

type Event = Result<(u64, RouteEvent)>;

/// A registry in memory. A label `contract` says what a version's contract is.
#[derive(Default)]
pub struct FakeControl {
    routes: Mutex<BTreeMap<(TenantName, FunctionName), Arc<Route>>>,
    watchers: Mutex<Vec<mpsc::UnboundedSender<Event>>>,
    revision: AtomicU64,
    pub jobs: Mutex<HashMap<JobId, Finished>>,
    pub submits: Mutex<Vec<Submit>>,
    /// Watches are refused.
    pub deaf: AtomicBool,
    /// Events are held back until told.
    pub hold: AtomicBool,
    held: Mutex<Vec<(u64, RouteEvent)>>,
    pub watches: AtomicUsize,
    pub sessions: SessionFeed,
}

impl FakeControl {
    pub fn add(&self, name: &str, contract: Contract) {
        let request = DeployRequest {
            runtime: "js".into(),
            labels: BTreeMap::from([("contract".into(), format!("{contract:?}"))]),
            ..DeployRequest::default()
        };
        let (tenant, function) = (TenantName::default_tenant(), FunctionName::new(name).unwrap());
        futures::executor::block_on(self.deploy(&tenant, &function, request, Precondition::None)).unwrap();
    }

    fn publish(&self, event: RouteEvent) -> u64 {
        let revision = self.revision.fetch_add(1, Ordering::SeqCst) + 1;
        if self.hold.load(Ordering::SeqCst) {
            self.held.lock().push((revision, event));
        } else {
            self.send(revision, event);
        }
        revision
    }

    fn send(&self, revision: u64, event: RouteEvent) {
        self.watchers.lock().retain(|watcher| watcher.send(Ok((revision, event.clone()))).is_ok());
    }

    /// Lets held events go.
    pub fn release(&self) {
        self.hold.store(false, Ordering::SeqCst);
        for (revision, event) in self.held.lock().drain(..) {
            self.send(revision, event);
        }
    }

    /// Breaks every watch.
    pub fn break_watches(&self) {
        for watcher in self.watchers.lock().drain(..) {
            drop(watcher.send(Err(Error::new(Code::Unavailable, "broken"))));
        }
    }

    /// Changes the registry without telling the watchers, as if they were cut off.
    pub fn remove_silently(&self, name: &str) {
        self.routes.lock().retain(|(_, function), _| function.as_str() != name);
    }

    pub fn job_of(&self, status: JobStatus, error: Option<Error>, result: Option<&'static str>) -> JobId {
        let id = JobId::from_parts(1, self.revision.fetch_add(1, Ordering::SeqCst).into());
        let job = Job {
            id,
            tenant: TenantName::default_tenant(),
            function: FunctionName::new("echo").unwrap(),
            version: 1,
            generation: 1,
            status,
            attempts: 1,
            max_attempts: 3,
            created_at: Timestamp::from_millis(1),
            started_at: None,
            finished_at: None,
            next_attempt_at: None,
            invocation: Some(InvocationId::from_parts(1, 1)),
            error,
            cancel_requested: false,
        };
        self.jobs.lock().insert(id, Finished { job, result: result.map(|text| Bytes::from_static(text.as_bytes())) });
        id
    }

    fn change<T>(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        change: impl FnOnce(&mut Route) -> Result<T>,
    ) -> Result<Changed<T>> {
        let mut routes = self.routes.lock();
        let route = routes
            .get_mut(&(tenant.clone(), function.clone()))
            .ok_or_else(|| Error::not_found("function", function))?;
        let mut changed = Route::clone(route);
        let value = change(&mut changed)?;
        *route = Arc::new(changed);
        let event = RouteEvent::Put(Arc::clone(route));
        drop(routes);
        Ok(Changed { value, revision: self.publish(event) })
    }
}

fn live(version: u64) -> Alias {
    Alias {
        name: AliasName::live(),
        weights: BTreeMap::from([(version, 1)]),
        previous: None,
        updated_at: Timestamp::from_millis(1_700_000_000_000),
    }
}

#[async_trait]
impl Control for FakeControl {
    async fn deploy(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        request: DeployRequest,
        precondition: Precondition,
    ) -> Result<Changed<Deployed>> {
        let runtime = Runtime::parse(&request.runtime)
            .ok_or_else(|| Error::field(Code::InvalidField, "runtime", "is not known"))?;
        let key = (tenant.clone(), function.clone());
        let mut routes = self.routes.lock();
        let newest = routes.get(&key).and_then(|route| route.versions.keys().next_back().copied());
        let holds = match precondition {
            Precondition::None => true,
            Precondition::Newest(version) => newest == Some(version),
            Precondition::Exists => newest.is_some(),
            Precondition::Absent => newest.is_none(),
        };
        if !holds {
            return Err(Error::new(Code::StaleVersion, "the precondition does not hold"));
        }
        let created_at = Timestamp::from_millis(1_700_000_000_000);
        let number = newest.unwrap_or(0) + 1;
        let contract = match request.labels.get("contract").map(String::as_str) {
            Some("Http") => Contract::Http,
            Some("Command") => Contract::Command,
            _ => Contract::Handler,
        };
        let version = FunctionVersion {
            tenant: tenant.clone(),
            version: number,
            contract,
            handler: request.handler,
            code_size: request.code.source.map_or(0, |source| source.len() as u64),
            memory_mb: request.memory_mb.unwrap_or(128),
            timeout_ms: request.timeout_ms.unwrap_or(60_000),
            env: request.env,
            reuse: false,
            sessions: request.sessions.and_then(|sessions| sessions.check().ok()),
            max_instances: 1,
            labels: request.labels,
            created_at,
            ..FunctionVersion::new(function.clone(), runtime, Digest("00".repeat(32)))
        };
        let mut route = routes.get(&key).map_or_else(
            || Route {
                tenant: tenant.clone(),
                function: function.clone(),
                generation: 1,
                created_at,
                versions: BTreeMap::new(),
                aliases: BTreeMap::new(),
            },
            |route| Route::clone(route),
        );
        route.versions.insert(number, Arc::new(version));
        if request.promote != Some(false) {
            route.aliases.insert(AliasName::live(), live(number));
        }
        let route = Arc::new(route);
        routes.insert(key, Arc::clone(&route));
        drop(routes);
        let revision = self.publish(RouteEvent::Put(Arc::clone(&route)));
        Ok(Changed { value: Deployed { route, version: number, created: newest.is_none() }, revision })
    }

    async fn deploy_code(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        code: RawCode,
        precondition: Precondition,
    ) -> Result<Changed<Deployed>> {
        let (runtime, bytes) = match code {
            RawCode::JavaScript(bytes) => ("js", bytes),
            RawCode::Python(bytes) => ("python", bytes),
            RawCode::Wasm(bytes) | RawCode::Zip(bytes) => ("wasm", bytes),
        };
        let mut request = DeployRequest { runtime: runtime.into(), ..DeployRequest::default() };
        request.code.source = Some(String::from_utf8_lossy(&bytes).into_owned());
        self.deploy(tenant, function, request, precondition).await
    }

    async fn function(&self, tenant: &TenantName, function: &FunctionName) -> Result<Arc<Route>> {
        let routes = self.routes.lock();
        routes.get(&(tenant.clone(), function.clone())).cloned().ok_or_else(|| Error::not_found("function", function))
    }

    async fn functions(&self, tenant: &TenantName, page: PageQuery) -> Result<Page<Arc<Route>>> {
        let routes = self.routes.lock();
        let mut items = routes.iter().filter(|((owner, _), _)| owner == tenant).map(|(_, route)| Arc::clone(route));
        let items = items.by_ref().take(page.limit).collect();
        Ok(Page { items, next: page.cursor })
    }

    async fn delete_function(&self, tenant: &TenantName, function: &FunctionName) -> Result<Changed<()>> {
        let key = (tenant.clone(), function.clone());
        self.routes.lock().remove(&key).ok_or_else(|| Error::not_found("function", function))?;
        Ok(Changed { value: (), revision: self.publish(RouteEvent::Remove(key.0, key.1)) })
    }

    async fn put_alias(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        alias: &AliasName,
        request: AliasRequest,
    ) -> Result<Changed<Alias>> {
        let weights = request.weights.or_else(|| Some(BTreeMap::from([(request.version?, 1)])));
        let weights = weights.ok_or_else(|| Error::field(Code::InvalidField, "weights", "is missing"))?;
        self.change(tenant, function, |route| {
            let alias = Alias { name: alias.clone(), weights, ..live(1) };
            route.aliases.insert(alias.name.clone(), alias.clone());
            Ok(alias)
        })
    }

    async fn delete_alias(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        alias: &AliasName,
    ) -> Result<Changed<()>> {
        self.change(tenant, function, |route| {
            route.aliases.remove(alias).map(drop).ok_or_else(|| Error::not_found("alias", alias))
        })
    }

    async fn rollback(&self, tenant: &TenantName, function: &FunctionName) -> Result<Changed<Alias>> {
        self.change(tenant, function, |route| {
            let newest = route.versions.keys().next_back().copied().unwrap_or(1);
            let alias = live(
                newest
                    .checked_sub(1)
                    .filter(|v| *v > 0)
                    .ok_or_else(|| Error::new(Code::Conflict, "there is no version to go back to"))?,
            );
            route.aliases.insert(AliasName::live(), alias.clone());
            Ok(alias)
        })
    }

    async fn watch_sessions(&self) -> Result<BoxStream<'static, Result<lyra_wire::sessions::SessionEvent>>> {
        self.sessions.watch()
    }

    async fn reach_session(
        &self,
        _: &TenantName,
        application: &str,
        key: &str,
        _: Duration,
    ) -> Result<Arc<lyra_wire::sessions::SessionRoute>> {
        self.sessions.reach(application, key).await
    }

    async fn touch_sessions(&self, sessions: Vec<(TenantName, String)>) -> Result<()> {
        self.sessions.touched.lock().extend(sessions.into_iter().map(|(_, uid)| uid));
        Ok(())
    }

    async fn resources(
        &self,
        _: lyra_wire::resources::ResourceRequest,
    ) -> Result<BoxStream<'static, Result<lyra_wire::resources::ResourceAnswer>>> {
        Err(Error::new(Code::Unavailable, "this control serves no resources"))
    }

    async fn watch_routes(&self) -> Result<BoxStream<'static, Event>> {
        self.watches.fetch_add(1, Ordering::SeqCst);
        if self.deaf.load(Ordering::SeqCst) {
            return Err(Error::new(Code::Unavailable, "deaf"));
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        let revision = self.revision.load(Ordering::SeqCst);
        for route in self.routes.lock().values() {
            drop(sender.send(Ok((revision, RouteEvent::Put(Arc::clone(route))))));
        }
        drop(sender.send(Ok((revision, RouteEvent::Synced))));
        self.watchers.lock().push(sender);
        Ok(UnboundedReceiverStream::new(receiver).boxed())
    }

    async fn processes(&self) -> Result<Vec<ControlProcess>> {
        let process = |name: &str, epoch| ControlProcess {
            name: name.to_owned(),
            address: format!("{name}:7070"),
            since: Timestamp::from_millis(0),
            epoch,
        };
        Ok(vec![process("c1", None), process("c2", Some(7))])
    }

    /// Classic jobs of the number 3 are the default tenant's; there are no users.
    async fn classic(&self, request: ClassicRequest) -> Result<ClassicAnswer> {
        match request {
            ClassicRequest::Owner(3) => Ok(ClassicAnswer::Owner(Some(TenantName::default_tenant()))),
            _ => Err(Error::new(Code::Unavailable, "there are no others here")),
        }
    }

    async fn usage(&self, _: UsageQuery) -> Result<Vec<UsageSum>> {
        Ok(Vec::new())
    }

    async fn submit(&self, submit: Submit) -> Result<Submitted> {
        self.submits.lock().push(submit);
        Ok(Submitted { id: self.job_of(JobStatus::Queued, None, None), status: JobStatus::Queued, created: true })
    }

    async fn job(&self, _: &TenantName, id: JobId, wait: Duration) -> Result<Finished> {
        let job = self.jobs.lock().get(&id).cloned().ok_or_else(|| Error::not_found("job", id))?;
        if !wait.is_zero() && !job.job.status.is_final() {
            tokio::time::sleep(wait).await;
        }
        Ok(job)
    }

    async fn jobs(&self, _: &TenantName, query: JobQuery) -> Result<Page<Job>> {
        let jobs = self.jobs.lock();
        let wanted = |job: &Job| query.status.is_none_or(|status| job.status == status);
        let mut items: Vec<Job> = jobs.values().map(|job| job.job.clone()).filter(wanted).collect();
        items.sort_by_key(|job| std::cmp::Reverse(job.id));
        items.truncate(query.limit);
        Ok(Page { items, next: None })
    }

    async fn cancel_job(&self, _: &TenantName, id: JobId, _: Duration) -> Result<Job> {
        let mut jobs = self.jobs.lock();
        let job = jobs.get_mut(&id).ok_or_else(|| Error::not_found("job", id))?;
        if job.job.status == JobStatus::Queued {
            job.job.status = JobStatus::Cancelled;
        }
        Ok(job.job.clone())
    }

    async fn redrive(&self, _: &TenantName, id: JobId) -> Result<Job> {
        let mut jobs = self.jobs.lock();
        let job = jobs.get_mut(&id).ok_or_else(|| Error::not_found("job", id))?;
        if job.job.status != JobStatus::Dead {
            return Err(Error::new(Code::Conflict, "the job is not dead"));
        }
        job.job.status = JobStatus::Queued;
        Ok(job.job.clone())
    }

    async fn redrive_all(&self, _: &TenantName) -> Result<u64> {
        let mut jobs = self.jobs.lock();
        let dead = jobs.values_mut().filter(|job| job.job.status == JobStatus::Dead);
        Ok(dead.map(|job| job.job.status = JobStatus::Queued).count() as u64)
    }

    async fn purge_dead(&self, _: &TenantName, id: Option<JobId>) -> Result<u64> {
        let mut jobs = self.jobs.lock();
        let before = jobs.len();
        jobs.retain(|key, job| job.job.status != JobStatus::Dead || id.is_some_and(|id| id != *key));
        Ok((before - jobs.len()) as u64)
    }
}

/// Does what a function's name says.
#[derive(Default)]
pub struct FakeWorker {
    pub calls: Mutex<Vec<(u64, Bytes)>>,
    pub http_calls: Mutex<Vec<http::request::Parts>>,
    pub cancelled: Arc<Notify>,
    pub hanging: Arc<Notify>,
}

/// Tells when it is dropped.
struct Guard(Arc<Notify>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

fn report(id: InvocationId, version: u64, start: Option<Start>) -> Report {
    let ms = Duration::from_micros;
    Report {
        invocation: id,
        version,
        start,
        reused: false,
        instance: None,
        phases: Phases { queue: ms(12), start: ms(345), exec: ms(6_789) },
        cpu: Duration::ZERO,
    }
}

#[async_trait]
impl Worker for FakeWorker {
    async fn prepare(&self, _: Prepare) -> Result<Prepared, Error> {
        Err(Error::internal("the gateway never prepares"))
    }

    async fn prewarm(&self, _: Arc<FunctionVersion>, _: u32) -> Result<(), Error> {
        Err(Error::internal("the gateway never prewarms"))
    }

    async fn forget(&self, _: u64, _: Option<u64>) -> Result<(), Error> {
        Ok(())
    }

    async fn invoke(&self, call: Call) -> Reply {
        self.calls.lock().push((call.version.version, call.event.clone()));
        let mut report = report(call.id, call.version.version, Some(Start::Cold));
        let error = |code: Code| Err(Error::new(code, format!("{code} of the worker")));
        let outcome = match call.version.function.as_str() {
            "panic" => panic!("the worker's client fell over"),
            "hang" => {
                let _guard = Guard(Arc::clone(&self.cancelled));
                self.hanging.notify_one();
                std::future::pending().await
            }
            "throw" => Err(Error::thrown(Thrown {
                name: "TypeError".into(),
                message: "x is not a function".into(),
                stack: "at handler (index.js:1:2)".into(),
            })),
            "busy" => {
                report.start = None;
                Err(Error::new(Code::Overloaded, "full").with_retry_after(Duration::from_millis(2_500)))
            }
            // The result is what the event of an HTTP trigger has as its body.
            "lambda" => {
                let event: serde_json::Value = serde_json::from_slice(&call.event).unwrap();
                Ok(Bytes::from(event["body"].as_str().unwrap_or("null").to_owned()))
            }
            name => match Code::parse(&name.replace('-', "_")) {
                Some(code) => error(code),
                None => Ok(call.event),
            },
        };
        Reply { report, outcome }
    }

    async fn serve(&self, call: HttpCall) -> HttpReply {
        let report = report(call.id, call.version.version, Some(Start::Warm));
        let (parts, body) = call.request.into_parts();
        let outcome = match parts.uri.path() {
            "/fail" => Err(Error::new(Code::InstanceCrashed, "trap")),
            "/interim" => Ok(http::Response::builder().status(103).body(lyra_wire::full_body("")).unwrap()),
            "/unread" => Ok(http::Response::builder().status(202).body(lyra_wire::full_body("done")).unwrap()),
            "/hang" => {
                let guard = Guard(Arc::clone(&self.cancelled));
                // The headers come, the body never ends.
                let first = futures::stream::once(async { Ok(http_body::Frame::data(Bytes::from_static(b"first"))) });
                let rest = futures::stream::poll_fn(move |_| {
                    let _ = &guard;
                    std::task::Poll::Pending
                });
                let body = http_body_util::StreamBody::new(first.chain(rest));
                Ok(http::Response::new(lyra_wire::Body::new(body)))
            }
            _ => Ok(http::Response::builder()
                .status(207)
                .header("x-mine", "kept")
                .header("connection", "close, x-private")
                .header("x-private", "dropped")
                .header("lyra-version", "forged")
                .body(body.boxed_unsync())
                .unwrap()),
        };
        self.http_calls.lock().push(parts);
        HttpReply { report, outcome }
    }
}

#[async_trait]
impl Operated for FakeWorker {
    async fn status(&self) -> Result<Status, Error> {
        Ok(Status { running: 1, queued: 2, idle_instances: 3, ..Status::default() })
    }

    async fn instances(&self) -> Result<Vec<lyra_wire::worker::InstanceStatus>, Error> {
        Ok(Vec::new())
    }

    async fn health(&self) -> Result<lyra_wire::worker::Health, Error> {
        Ok(lyra_wire::worker::Health { healthy: true, checks: Vec::new() })
    }

    async fn cordon(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn uncordon(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn drain(&self, _: Duration) -> Result<lyra_wire::worker::Drained, Error> {
        Ok(lyra_wire::worker::Drained::default())
    }

    async fn instruct(&self, _: lyra_types::InstanceId, _: InstanceCommand) -> Result<(), Error> {
        Ok(())
    }

    async fn clean(&self) -> Result<usize, Error> {
        Ok(0)
    }
}

/// Holds lines and passes on new ones.
#[derive(Default)]
pub struct FakeLogs {
    pub lines: Mutex<Vec<LogLine>>,
    pub queries: Mutex<Vec<Query>>,
    pub live: Mutex<Option<mpsc::UnboundedSender<Result<LogLine>>>>,
}

#[async_trait]
impl Logs for FakeLogs {
    fn offer(&self, line: LogLine) {
        self.lines.lock().push(line);
    }

    async fn query(&self, query: Query) -> Result<Vec<LogLine>> {
        self.queries.lock().push(query);
        Ok(self.lines.lock().clone())
    }

    async fn follow(&self, query: Query) -> Result<BoxStream<'static, Result<LogLine>>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        for line in self.query(query).await? {
            drop(sender.send(Ok(line)));
        }
        *self.live.lock() = Some(sender);
        Ok(UnboundedReceiverStream::new(receiver).boxed())
    }

    async fn forget(&self, _: &TenantName, _: &FunctionName) -> Result<()> {
        Ok(())
    }
}
