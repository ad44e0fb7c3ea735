//! The role: workflows, runs, and what is asked of them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use lyra_afcl::graph::DataKind;
use lyra_fleet::RouteTable;
use lyra_fleet::quota::Meters;
use lyra_kit::{Clock, Random, Tasks, telemetry};
use lyra_store::runs::{RunFilter, RunRecord};
use lyra_store::{Blobs, Objects, Runs, RunsError};
use lyra_types::api::Page;
use lyra_types::function::Digest;
use lyra_types::quota::Quota;
use lyra_types::workflow::{Parent, Run, RunStatus, TraceToken, Workflow, WorkflowVersion};
use lyra_types::{Code, Error, FieldError, Result, RunId, TenantName, WorkflowName};
use lyra_wire::control::PageQuery;
use lyra_wire::hooks::RunEnds;
use lyra_wire::workflows::{
    Completion, Made, NewPart, NewRun, NewWorkflow, RunCommand, RunQuery, Started, Waiting, WorkflowMember, WorkflowUse,
};
use lyra_wire::{Control, Quotas, Worker, Workflows};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};

use crate::config::Config;
use crate::definitions::{self, Definitions};
use crate::deletion;
use crate::enact::function::{self, Functions};
use crate::enact::http::{self, Http};
use crate::enact::{Enactables, Nested};
use crate::engine::links::Links;
use crate::engine::{self, Begin, Engine, Handle, Head, Message, Summary};
use crate::export;
use crate::membership::{Identity, Membership};
use crate::metrics::Metrics;
use crate::nested::{DEPTH, NestedRuns};

/// Most runs of a page.
const PAGE: usize = 1_000;
/// How often a run of another host is looked at while somebody waits for its end.
const LOOK: Duration = Duration::from_millis(200);
/// Most tokens of a page of a trace.
const TOKENS: usize = 10_000;
/// Longest wait for a run to take a command in.
const COMMAND: Duration = Duration::from_secs(30);

/// What the role is made of.
pub struct Deps {
    /// Where workflows are kept.
    pub objects: Arc<dyn Objects>,
    /// Where texts, graphs and large values are kept. A place of the role's own: what no version and no run refers to is
    /// deleted there.
    pub blobs: Arc<dyn Blobs>,
    /// Where runs are kept.
    pub runs: Arc<dyn Runs>,
    /// Who knows functions, and takes jobs.
    pub control: Arc<dyn Control>,
    /// Who says what tenants may use; of several processes the one that leads is found by it.
    pub quotas: Arc<dyn Quotas>,
    /// What tenants may use that have no quota of their own.
    pub default_quota: Quota,
    /// Who tells whoever wants to hear of it that a run has ended.
    pub ends: Arc<dyn RunEnds>,
    /// Who runs functions.
    pub worker: Arc<dyn Worker>,
    /// The clock.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// Where metrics go.
    pub metrics: telemetry::Metrics,
    /// Whether tasks call public addresses only, and those that the settings allow: where not everybody who may deploy a workflow is to
    /// reach what this host reaches.
    pub public_only: bool,
    /// Whether no other process uses the store: runs of an earlier process are taken up at once then.
    pub alone: bool,
    /// Who this process is, for others.
    pub identity: Identity,
}

/// The workflow role. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    engine: Engine,
    definitions: Arc<Definitions>,
    membership: Arc<Membership>,
    ends: Arc<dyn RunEnds>,
    default_quota: Arc<Quota>,
}

/// A run to start, with what only the platform itself may say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origin {
    pub parent: Option<Parent>,
    pub schedule: Option<String>,
    /// How many runs stand around it.
    pub depth: u32,
}

/// A handle on the service that does not keep it: what the service itself holds must not.
pub(crate) struct WeakService {
    engine: Weak<engine::Inner>,
    definitions: Weak<Definitions>,
    membership: Weak<Membership>,
    ends: Weak<dyn RunEnds>,
    default_quota: Arc<Quota>,
}

impl WeakService {
    pub(crate) fn upgrade(&self) -> Option<Service> {
        let engine = Engine::upgrade(&self.engine)?;
        let (definitions, membership) = (self.definitions.upgrade()?, self.membership.upgrade()?);
        let default_quota = Arc::clone(&self.default_quota);
        Some(Service { engine, definitions, membership, ends: self.ends.upgrade()?, default_quota })
    }
}

impl Service {
    pub(crate) fn downgrade(&self) -> WeakService {
        let (definitions, membership) = (Arc::downgrade(&self.definitions), Arc::downgrade(&self.membership));
        let (ends, default_quota) = (Arc::downgrade(&self.ends), Arc::clone(&self.default_quota));
        WeakService { engine: self.engine.downgrade(), definitions, membership, ends, default_quota }
    }

    /// Starts the role. Runs that an earlier process had under way go on when this returns.
    ///
    /// # Errors
    /// When the store can't be read, or no client of HTTP can be made.
    pub fn start(config: Config, deps: Deps) -> BoxFuture<'static, Result<Service>> {
        Box::pin(async move {
            let tasks = Tasks::new();
            let routes = Arc::new(RouteTable::new(deps.clock.clone()));
            let follow = {
                let (routes, control, random) = (Arc::clone(&routes), Arc::clone(&deps.control), deps.random.clone());
                async move { routes.follow(control.as_ref(), &random).await }
            };
            tasks.spawn_cancellable("routes of functions", follow);
            let metrics = Metrics::new(&deps.metrics);
            let meters = Meters::new(deps.clock.clone(), deps.random.u64(), true, metrics.quota_held.clone());
            let meters = Arc::new(meters);
            let follow = {
                let (meters, quotas) = (Arc::clone(&meters), deps.quotas);
                async move { meters.follow(|claim| quotas.share(claim), || std::future::ready(HashMap::new())).await }
            };
            tasks.spawn_cancellable("shares of quotas", follow);
            let functions = Functions::new(function::Deps {
                meters,
                routes,
                worker: deps.worker,
                control: deps.control,
                clock: deps.clock.clone(),
                random: deps.random.clone(),
                tasks: tasks.clone(),
            });
            let calls = http::Config {
                public_only: deps.public_only,
                allow: config.http.allow.clone(),
                trusted: !config.otlp_endpoint.is_empty() || !config.cut_tokens.is_empty(),
                ..http::Config::default()
            };
            let http = Arc::new(Http::new(calls, deps.clock.clone())?);
            let nested = Arc::new(NestedRuns::new(Arc::clone(&http), config.cut_tokens.clone(), tasks.clone()));
            let enact = Arc::new(Enactables::new(Arc::clone(&http), functions, Arc::clone(&nested) as Arc<dyn Nested>));
            let (export, ended) = match (config.otlp_endpoint.as_str(), http.trusted()) {
                ("", _) | (_, None) => (None, None),
                (endpoint, Some(client)) => {
                    let (ended, receiver) = mpsc::channel(export::QUEUE);
                    (Some((export::address(endpoint)?, client, receiver)), Some(ended))
                }
            };
            let (objects, clock, random) = (Arc::clone(&deps.objects), deps.clock.clone(), deps.random.clone());
            let definitions =
                Definitions { objects: deps.objects, blobs: Arc::clone(&deps.blobs), clock: deps.clock.clone() };
            let links = Links::open(definitions.objects.as_ref(), &deps.random, &config.public_url).await?;
            let engine = Engine::new(engine::Deps {
                links: Arc::new(links),
                runs: deps.runs,
                blobs: deps.blobs,
                enact,
                config,
                clock: deps.clock,
                random: deps.random,
                tasks,
                metrics,
                ended,
            });
            let lease = (!deps.alone).then(|| engine.deps().config.lease);
            let membership = Membership::new(deps.identity, engine.owner(), lease, objects, clock, random);
            let (definitions, membership) = (Arc::new(definitions), Arc::new(membership));
            let default_quota = Arc::new(deps.default_quota);
            let service = Service { engine, definitions, membership, ends: deps.ends, default_quota };
            nested.belongs_to(&service);
            service.engine.take_over(deps.alone).await?;
            let tasks = &service.engine.deps().tasks;
            let keeps = Arc::clone(&service.membership);
            tasks.spawn_cancellable("presence of a workflow process", async move { keeps.keep().await });
            let (follows, engine) = (Arc::clone(&service.membership), service.engine.clone());
            tasks.spawn_cancellable("other workflow processes", async move { follows.follow(&engine).await });
            tasks.spawn_cancellable("schedules of workflows", service.clone().follow_schedules());
            if let Some((url, client, ended)) = export {
                tasks.spawn_cancellable("spans of runs", service.clone().export_spans(url, client, ended));
            }
            tasks.spawn_cancellable("ends of runs", service.clone().pass_on_ends());
            tasks.spawn_cancellable("unused blobs", service.clone().collect_unused());
            Ok(service)
        })
    }

    /// Begins nothing more and gives calls up that are under way; another process takes every run up where its journal ends, at
    /// once where there is one.
    pub fn stop(&self, grace: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.membership.announce_end().await;
            self.engine.deps().tasks.stop(grace).await;
            self.membership.hand_over(&self.engine).await;
        })
    }

    /// Says how every process is asked, where there may be others: for runs of theirs that a task here is to end.
    pub fn set_everyone(&self, everyone: Arc<dyn Workflows>) {
        self.membership.set_everyone(everyone);
    }

    /// Those who are asked where another process may have a run.
    pub(crate) fn everyone(&self) -> Option<&Arc<dyn Workflows>> {
        self.membership.everyone()
    }

    pub(crate) fn default_quota(&self) -> &Quota {
        &self.default_quota
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.engine.deps().clock
    }

    pub(crate) fn objects(&self) -> &dyn Objects {
        self.definitions.objects.as_ref()
    }

    pub(crate) async fn start_run(
        &self,
        tenant: &TenantName,
        name: &WorkflowName,
        run: NewRun,
        origin: Origin,
    ) -> Result<Started> {
        if run.timeout_ms == Some(0) {
            return Err(Error::field(Code::InvalidField, "timeout_ms", "must be above 0"));
        }
        let found = self.definitions.version(tenant, name, run.version);
        let (found, quota) = tokio::try_join!(found, self.quota_of(tenant))?;
        let program = self.engine.program(&found.program).await?;
        check_input(&program, &run.input, self.engine.deps().config.max_value_bytes)?;
        let notice = self.ends.notice(tenant, name, run.destinations.as_deref()).await?;
        let deps = self.engine.deps();
        let millis = u64::try_from(deps.clock.now().millis()).unwrap_or(0);
        let id = run.id.unwrap_or_else(|| RunId::from_parts(millis, deps.random.u128()));
        let begin = Begin {
            tenant: tenant.clone(),
            id: id.clone(),
            workflow: name.clone(),
            version: found.version,
            fingerprint: fingerprint(name, run.version, &run.input),
            program,
            head: Head {
                program: found.program,
                input: run.input,
                secret: format!("{:032x}", deps.random.u128()),
                parent: origin.parent,
                depth: origin.depth,
                schedule: origin.schedule,
                timeout_ms: run.timeout_ms,
                traceparent: run.traceparent,
                user: run.user,
                limits: None,
            },
            notice,
            most_live: quota.runs,
        };
        let created = self.engine.begin(begin).await?;
        Ok(Started { id, created })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    /// The run, if it is under way here.
    pub(crate) fn active(&self, tenant: &TenantName, id: &RunId) -> Option<Handle> {
        self.engine.active(tenant, id)
    }

    pub(crate) fn ends(&self) -> &dyn RunEnds {
        self.ends.as_ref()
    }

    pub(crate) async fn look(&self, tenant: &TenantName, id: &RunId) -> Result<Run> {
        let handle = self.engine.active(tenant, id);
        let (record, output) = self.engine.deps().runs.get(tenant.clone(), id.clone(), true).await?;
        let mut run = shown(record, handle.as_ref())?;
        if let Some(output) = output.filter(|_| run.status == RunStatus::Succeeded) {
            let read = serde_json::from_slice(&output);
            run.output = Some(read.map_err(|error| Error::internal(format!("an output can't be read: {error}")))?);
        }
        Ok(run)
    }

    /// The run, which must be under way here.
    fn under_way(&self, tenant: &TenantName, id: &RunId) -> Result<Handle> {
        self.engine.active(tenant, id).ok_or_else(|| {
            let detail = format!("run \"{id}\" is with another host, or being taken over");
            Error::new(Code::Unavailable, detail).with_retry_after(Duration::from_secs(1))
        })
    }

    async fn tell(&self, handle: &Handle, message: Message, answer: oneshot::Receiver<Result<()>>) -> Result<()> {
        let gone = || Error::new(Code::Conflict, "the run has just ended");
        let told = async {
            handle.mail.send(message).await.map_err(|_| gone())?;
            answer.await.unwrap_or_else(|_| Err(gone()))
        };
        match tokio::time::timeout(COMMAND, told).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::new(Code::Unavailable, "the run does not take the command in; its store may be away")),
        }
    }
}

fn check_input(program: &engine::Program, input: &Map<String, Value>, most: usize) -> Result<()> {
    let missing = program.plan.graph.data.iter().filter_map(|data| match &data.kind {
        DataKind::Input { key } if !input.contains_key(key) => Some(key),
        _ => None,
    });
    let mut error = Error::new(Code::InvalidField, "the input lacks what the workflow reads");
    let mut any = false;
    for key in missing {
        any = true;
        error = error.with_field(FieldError::new(format!("input.{key}"), "is missing"));
    }
    if any {
        return Err(error);
    }
    let bytes = serde_json::to_vec(input).map_or(0, |bytes| bytes.len());
    if bytes > most {
        return Err(Error::new(Code::TooLarge, format!("the input has {bytes} bytes; the limit is {most}")));
    }
    Ok(())
}

/// What an id of a run stands for.
fn fingerprint(name: &WorkflowName, version: Option<u64>, input: &Map<String, Value>) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(name.as_str());
    hash.update([0]);
    hash.update(version.unwrap_or(0).to_be_bytes());
    hash.update(serde_json::to_vec(input).unwrap_or_default());
    hash.finalize().into()
}

pub(crate) fn shown(record: RunRecord, handle: Option<&Handle>) -> Result<Run> {
    let summary: Summary = serde_json::from_slice(&record.summary)
        .map_err(|error| Error::internal(format!("the summary of a run can't be read: {error}")))?;
    // What is recorded of a run under way is as old as its last change of status.
    let seen = handle.map(|handle| *handle.seen.borrow()).filter(|_| !record.status.is_final());
    Ok(Run {
        id: record.id,
        tenant: record.tenant,
        workflow: record.workflow,
        version: record.version,
        status: record.status,
        created_at: record.created_at,
        ended_at: record.ended_at,
        output: None,
        error: summary.error.filter(|_| record.status == RunStatus::Failed),
        tasks: seen.map_or(summary.counts, |seen| seen.counts),
        parent: summary.parent,
        schedule: summary.schedule,
        traceparent: summary.traceparent,
        stuck: summary.stuck.filter(|_| handle.is_none() && !record.status.is_final()),
    })
}

#[async_trait]
impl Workflows for Service {
    async fn deploy(&self, tenant: &TenantName, workflow: NewWorkflow) -> Result<Made> {
        self.deploy_pinned(tenant, workflow).await
    }

    async fn workflows(&self, tenant: &TenantName, page: PageQuery) -> Result<Page<Workflow>> {
        self.definitions.list(tenant, &page).await
    }

    async fn workflow(
        &self,
        tenant: &TenantName,
        name: &WorkflowName,
        version: Option<u64>,
    ) -> Result<WorkflowVersion> {
        self.definitions.get(tenant, name, version).await
    }

    async fn delete_workflow(&self, tenant: &TenantName, name: &WorkflowName) -> Result<()> {
        self.definitions.delete(tenant, name).await
    }

    async fn start(&self, tenant: &TenantName, name: &WorkflowName, run: NewRun) -> Result<Started> {
        self.start_run(tenant, name, run, Origin::default()).await
    }

    async fn start_part(&self, tenant: &TenantName, part: NewPart) -> Result<Started> {
        let depth = part.depth.saturating_add(1);
        if depth > DEPTH {
            let reason = format!("workflows stand in one another {DEPTH} deep, which is the limit");
            return Err(Error::field(Code::InvalidField, "depth", reason));
        }
        let (compiled, name) = definitions::part(&part)?;
        let bytes = serde_json::to_vec(&compiled)
            .map_err(|error| Error::internal(format!("a part can't be written: {error}")))?;
        let (digest, pin) = self.put_pinned(Bytes::from(bytes)).await?;
        let program = self.engine.program(&digest).await?;
        check_input(&program, &part.input, self.engine.deps().config.max_value_bytes)?;
        let deps = self.engine.deps();
        let begin = Begin {
            tenant: tenant.clone(),
            id: part.id.clone(),
            fingerprint: fingerprint(&name, None, &part.input),
            workflow: name,
            // It belongs to no version that is kept here.
            version: 0,
            program,
            head: Head {
                program: digest,
                input: part.input,
                secret: format!("{:032x}", deps.random.u128()),
                parent: None,
                depth,
                schedule: None,
                timeout_ms: None,
                traceparent: part.traceparent,
                user: part.user,
                limits: None,
            },
            notice: None,
            most_live: self.quota_of(tenant).await?.runs,
        };
        let created = self.engine.begin(begin).await?;
        self.unpin(pin);
        Ok(Started { id: part.id, created })
    }

    async fn run(&self, tenant: &TenantName, id: &RunId, wait: Duration) -> Result<Run> {
        let clock = &self.engine.deps().clock;
        let until = clock.instant() + wait;
        loop {
            let handle = self.engine.active(tenant, id);
            let run = self.look(tenant, id).await?;
            let left = until.saturating_duration_since(clock.instant());
            if run.status.is_final() || left.is_zero() {
                return Ok(run);
            }
            match handle {
                // The sender is dropped when the run's actor is gone.
                Some(mut handle) => {
                    let ended = handle.seen.wait_for(|seen| seen.status.is_final());
                    // Either way the record is looked at again.
                    drop(tokio::time::timeout(left, ended).await);
                }
                None => clock.sleep(LOOK.min(left)).await,
            }
        }
    }

    async fn runs(&self, tenant: &TenantName, query: RunQuery) -> Result<Page<Run>> {
        let before = match &query.page.cursor {
            Some(cursor) => Some(
                cursor.parse().map_err(|_| Error::field(Code::BadRequest, "cursor", "is not one that a list gave"))?,
            ),
            None => None,
        };
        let limit = query.page.limit.clamp(1, PAGE);
        let filter = RunFilter { workflow: query.workflow, status: query.status, before, limit: limit + 1 };
        let mut records = self.engine.deps().runs.list(tenant.clone(), filter).await?;
        let more = records.len() > limit;
        records.truncate(limit);
        let next = records.last().filter(|_| more).map(|last| last.order.to_string());
        let show = |record: RunRecord| {
            let handle = self.engine.active(&record.tenant, &record.id);
            shown(record, handle.as_ref())
        };
        let items = records.into_iter().map(show).collect::<Result<_>>()?;
        Ok(Page { items, next })
    }

    async fn command(&self, tenant: &TenantName, id: &RunId, command: RunCommand) -> Result<Run> {
        let run = self.look(tenant, id).await?;
        let conflict = |what: &str| Error::new(Code::Conflict, format!("run \"{id}\" is {}: {what}", run.status));
        match (command, run.status) {
            (RunCommand::Redrive, RunStatus::Failed | RunStatus::Cancelled) => {
                if self.engine.active(tenant, id).is_some() {
                    return Err(conflict("it is being redriven already"));
                }
                if run.ended_at.is_some_and(|at| self.engine.is_over(at)) {
                    return Err(conflict("the time that runs are kept for is over, and it is about to be forgotten"));
                }
                self.check_room(tenant).await?;
                self.engine.redrive(tenant, id).await?;
            }
            (RunCommand::Redrive, _) => {
                return Err(conflict("only a run that failed or was cancelled is redriven"));
            }
            (RunCommand::Cancel, RunStatus::Cancelled) => {}
            (_, status) if status.is_final() => return Err(conflict("it has ended")),
            _ => {
                if command == RunCommand::Cancel && self.engine.cancel_stuck(tenant, id).await? {
                    return self.look(tenant, id).await;
                }
                let handle = self.under_way(tenant, id)?;
                let (reply, answer) = oneshot::channel();
                self.tell(&handle, Message::Command(command, reply), answer).await?;
                if command == RunCommand::Cancel {
                    return self.run(tenant, id, COMMAND).await;
                }
            }
        }
        self.look(tenant, id).await
    }

    async fn delete_run(&self, tenant: &TenantName, id: &RunId) -> Result<()> {
        deletion::delete(self, tenant, id).await
    }

    async fn usage(&self, tenant: &TenantName) -> Result<WorkflowUse> {
        self.used(tenant).await
    }

    async fn trace(&self, tenant: &TenantName, id: &RunId, from: u64, limit: usize) -> Result<Vec<TraceToken>> {
        self.engine.trace(tenant, id, from, limit.clamp(1, TOKENS)).await
    }

    async fn waiting(&self, tenant: &TenantName, id: &RunId) -> Result<Vec<Waiting>> {
        if self.look(tenant, id).await?.status.is_final() {
            return Ok(Vec::new());
        }
        let handle = self.under_way(tenant, id)?;
        let (reply, answer) = oneshot::channel();
        // A run that ends in this moment has nothing that waits.
        if handle.mail.send(Message::Waiting(reply)).await.is_err() {
            return Ok(Vec::new());
        }
        Ok(answer.await.unwrap_or_default())
    }

    async fn clear(&self, tenant: &TenantName) -> Result<bool> {
        self.clear_tenant(tenant).await
    }

    async fn value(&self, token: &str) -> Result<Bytes> {
        // Whatever is wrong with it, nobody is told what it would have been good for.
        let unknown = || Error::new(Code::NotFound, "there is no value of this URL, or not any more");
        let deps = self.engine.deps();
        let claim = deps.links.read(token, deps.clock.now()).ok_or_else(unknown)?;
        match deps.runs.get(claim.tenant, claim.run, false).await {
            Ok(_) => {}
            Err(RunsError::NotFound(_)) => return Err(unknown()),
            Err(error) => return Err(error.into()),
        }
        let found = deps.blobs.get(&Digest(claim.digest)).await?;
        Ok(engine::journal::value_of(&found.ok_or_else(unknown)?))
    }

    async fn complete(&self, token: &str, completion: Completion) -> Result<()> {
        let unknown = || Error::new(Code::NotFound, "no task waits for this token");
        let (tenant, id, ..) = engine::parse_callback(token).ok_or_else(unknown)?;
        let run = self.look(&tenant, &id).await.map_err(|_| unknown())?;
        if run.status.is_final() {
            return Err(unknown());
        }
        let handle = self.under_way(&tenant, &id)?;
        let (reply, answer) = oneshot::channel();
        let message = Message::Complete { token: token.to_owned(), completion, reply };
        self.tell(&handle, message, answer).await
    }

    /// This process only: whoever knows the others asks them.
    async fn members(&self) -> Result<Vec<WorkflowMember>> {
        Ok(vec![self.membership.member(&self.engine)])
    }
}
