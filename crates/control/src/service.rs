//! The control role as a whole: its parts, their start and their end.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use lyra_kit::{Clock, Random, Tasks, telemetry};
use lyra_store::objects::{Change, Check};
use lyra_store::{Blobs, Jobs as JobStore, Objects};
use lyra_types::api::{AliasRequest, DeployRequest, Page, ScalerChange};
use lyra_types::function::Digest;
use lyra_types::job::Job;
use lyra_types::usage::{UsageBatch, UsageQuery, UsageSum};
use lyra_types::{Alias, AliasName, Code, Error, FunctionName, JobId, Result, SecretName, TenantName};
use lyra_wire::classic::{ClassicAnswer, ClassicRequest};
use lyra_wire::control::{
    Changed, ControlProcess, Deployed, Finished, JobQuery, PageQuery, Precondition, RawCode, Route, RouteEvent, Submit,
    Submitted,
};
use lyra_wire::hooks::{HookAnswer, HookRequest, RunEndAsk};
use lyra_wire::resources::{ResourceAnswer, ResourceRequest};
use lyra_wire::scaler::{ScalerAnswer, ScalerStatus, ScalerTurn};
use lyra_wire::secrets::{PutSecret, Resealed, SealingKey, SecretInfo, SecretKey, SecretPut, SecretValue};
use lyra_wire::sessions::{SessionEvent, SessionRoute};
use lyra_wire::workflows::WorkflowProcess;
use lyra_wire::{Control, Logs, Worker};

use crate::Config;
use crate::accounts::Accounts;
use crate::classic::{Classic, Numbers};
use crate::deliveries::{self, Deliveries};
use crate::functions::Functions;
use crate::jobs::Jobs;
use crate::leader::{Leader, Term};
use crate::metrics::Metrics;
use crate::placement::Placement;
use crate::quotas::Quotas;
use crate::registry::Registry;
use crate::scaler::Scaler;
use crate::schedules::Schedules;
use crate::secrets::{Sealer, SecretTable, Secrets};
use crate::sessions::Sessions;
use crate::triggers::Triggers;
use crate::workflows::WorkflowProcesses;

/// What the control role needs of others.
#[derive(Clone)]
pub struct Deps {
    /// Keeps functions.
    pub objects: Arc<dyn Objects>,
    /// Keeps jobs.
    pub jobs: Arc<dyn JobStore>,
    /// Keeps code.
    pub blobs: Arc<dyn Blobs>,
    /// Checks code and runs jobs.
    pub worker: Arc<dyn Worker>,
    /// Forgets the lines of deleted functions.
    pub logs: Arc<dyn Logs>,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// Where metrics are registered.
    pub metrics: telemetry::Metrics,
    /// Workers of other processes, and that of this one.
    pub registry: Registry,
    /// Name of this process, for people.
    pub name: String,
    /// Where other roles reach it, `HOST:PORT`; empty where it is alone.
    pub address: String,
}

/// The control role.
pub struct Service {
    functions: Arc<Functions>,
    classic: Arc<Classic>,
    jobs: Arc<Jobs>,
    schedules: Arc<Schedules>,
    triggers: Arc<Triggers>,
    deliveries: Arc<Deliveries>,
    accounts: Arc<Accounts>,
    quotas: Arc<Quotas>,
    secrets: Arc<Secrets>,
    placement: Arc<Placement>,
    leader: Arc<Leader>,
    registry: Registry,
    workflows: Arc<WorkflowProcesses>,
    scaler: Scaler,
    /// There once this was started.
    sessions: OnceLock<Arc<Sessions>>,
    config: Config,
    deps: Deps,
    metrics: Arc<Metrics>,
    /// Standing for election, and what the leader does.
    leading: Tasks,
    tasks: Tasks,
}

/// How long background work may take to end once jobs have ended.
const LAST: Duration = Duration::from_secs(2);
/// How long the leader's duties may take to end.
const LET_GO: Duration = Duration::from_secs(5);

impl Service {
    /// Makes the service. It answers nothing of use before [`Service::start`].
    pub fn new(config: Config, deps: Deps) -> Service {
        let metrics = Arc::new(Metrics::new(&deps.metrics));
        let secret_table = Arc::new(SecretTable::new(Arc::clone(&deps.objects), deps.clock.clone()));
        let known = Arc::clone(&secret_table);
        let functions = Arc::new(Functions::new(config.clone(), &deps, known, Arc::clone(&metrics)));
        let table = Arc::clone(functions.table());
        let secrets = Arc::new(Secrets::new(config.secrets.clone(), &deps, secret_table, table));
        let owner = deps.registry.process();
        let leader = Arc::new(Leader::new(&deps, owner, config.leader_lease));
        let numbers = Arc::new(Numbers::new(&deps));
        let classic = Arc::new(Classic::new(&deps, Arc::clone(&functions), Arc::clone(&numbers)));
        let table = Arc::clone(functions.table());
        let quotas = Arc::new(Quotas::new(config.quota.clone(), &deps, Arc::clone(&table)));
        let sealer = Arc::clone(secrets.sealer());
        let directory = deliveries::directory(&deps, &config.webhooks, Arc::clone(&table), sealer);
        let asked = (Arc::clone(&quotas), Arc::clone(&directory));
        let jobs = Jobs::new(config.jobs.clone(), &deps, owner, table, numbers, asked, Arc::clone(&metrics));
        let jobs = Arc::new(jobs);
        let table = Arc::clone(functions.table());
        let (of_jobs, of) = (Arc::clone(&jobs), Arc::clone(&metrics));
        let deliveries = Deliveries::new(&deps, config.webhooks.clone(), directory, of_jobs, Arc::clone(&table), of);
        let schedules = Schedules::new(&deps, Arc::clone(&jobs), Arc::clone(&table), Arc::clone(&metrics));
        let parts = (Arc::clone(&jobs), Arc::clone(&table), Arc::clone(&secrets));
        let triggers = Arc::new(Triggers::new(&deps, config.triggers.clone(), parts, Arc::clone(&metrics)));
        let placement = Placement::new(deps.registry.clone(), table, deps.clock.clone(), Arc::clone(&metrics));
        let accounts = Accounts::new(config.accounts.clone(), &deps, Arc::clone(&functions), Arc::clone(&metrics));
        measure(&deps, &leader, Arc::clone(&metrics));
        Service {
            functions,
            classic,
            jobs,
            schedules: Arc::new(schedules),
            triggers,
            deliveries: Arc::new(deliveries),
            accounts: Arc::new(accounts),
            quotas,
            secrets,
            placement: Arc::new(placement),
            leader,
            registry: deps.registry.clone(),
            workflows: Arc::new(WorkflowProcesses::new()),
            scaler: Scaler::new(&deps),
            sessions: OnceLock::new(),
            config,
            deps,
            metrics,
            leading: Tasks::new(),
            tasks: Tasks::new(),
        }
    }

    /// Reads what is stored, and stands for election. The leader deals with what killed processes left behind and
    /// dispatches jobs.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn start(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            // First: without its keys a process is of no use, and says so.
            self.triggers.check_settings()?;
            self.secrets.start(&self.tasks).await?;
            self.functions.start(&self.tasks).await?;
            self.quotas.start(&self.tasks).await?;
            self.deliveries.start(&self.tasks).await?;
            self.jobs.start(&self.tasks).await;
            self.triggers.start(&self.tasks);
            let (config, metrics) = (self.config.sessions.clone(), Arc::clone(&self.metrics));
            let tables = (Arc::clone(self.functions.table()), Arc::clone(self.secrets.table()));
            let sessions = Sessions::start(&self.deps, config, tables, &self.quotas, metrics, &self.tasks).await?;
            let sessions = Arc::clone(self.sessions.get_or_init(|| Arc::new(sessions)));
            self.secrets.know(sessions.api());
            self.accounts.start(Arc::clone(sessions.api()), &self.tasks).await?;
            let leader = Arc::clone(&self.leader);
            self.tasks.spawn_cancellable("presence", async move { leader.keep_present().await });
            let (leader, registry) = (Arc::clone(&self.leader), self.registry.clone());
            self.tasks.spawn_cancellable("announce-controls", async move { leader.announce(&registry).await });
            let (workflows, objects, clock) =
                (Arc::clone(&self.workflows), Arc::clone(&self.deps.objects), self.deps.clock.clone());
            let follow = async move { workflows.follow(objects.as_ref(), &clock).await };
            self.tasks.spawn_cancellable("workflow processes", follow);
            let classic = Arc::clone(&self.classic);
            let (leader, jobs, functions, placement) = (
                Arc::clone(&self.leader),
                Arc::clone(&self.jobs),
                Arc::clone(&self.functions),
                Arc::clone(&self.placement),
            );
            let (accounts, quotas) = (Arc::clone(&self.accounts), Arc::clone(&self.quotas));
            let (schedules, deliveries) = (Arc::clone(&self.schedules), Arc::clone(&self.deliveries));
            let triggers = Arc::clone(&self.triggers);
            self.leading.spawn("lead", async move {
                let duties = |term: Term| {
                    let (leader, jobs, functions, placement) = (&leader, &jobs, &functions, &placement);
                    let (sessions, accounts, classic, quotas) = (&sessions, &accounts, &classic, &quotas);
                    let (schedules, deliveries, triggers) = (&schedules, &deliveries, &triggers);
                    async move {
                        tokio::join!(
                            jobs.lead(leader, &term),
                            functions.lead(&term),
                            classic.lead(&term),
                            placement.lead(&term),
                            sessions.lead(&term),
                            accounts.lead(&term),
                            quotas.lead(&term),
                            schedules.lead(&term),
                            triggers.lead(&term),
                            deliveries.lead(&term)
                        );
                    }
                };
                Box::pin(leader.lead(duties)).await;
            });
            Ok(())
        })
    }

    /// Applications and sessions as objects, for clients; `None` before [`Service::start`].
    pub fn resources(&self) -> Option<Arc<lyra_resources::ResourceApi>> {
        self.sessions.get().map(|sessions| Arc::clone(sessions.api()))
    }

    /// Says, before [`Service::start`], that [`Service::set_workflows`] will follow: until it does no tenant goes.
    pub fn expect_workflows(&self) {
        self.accounts.expect_workflows();
    }

    /// Says who has the workflows of tenants, so that they go with a tenant that is deleted.
    pub fn set_workflows(&self, workflows: Arc<dyn lyra_wire::Workflows>) {
        self.accounts.set_workflows(Some(workflows));
    }

    /// Who has the workflows of tenants, if that is known.
    pub(crate) fn workflows_of_tenants(&self) -> Option<Arc<dyn lyra_wire::Workflows>> {
        self.accounts.workflows()
    }

    fn started_sessions(&self) -> Result<&Sessions> {
        let starting = || Error::new(Code::Unavailable, "this control process is starting");
        self.sessions.get().map(|sessions| &**sessions).ok_or_else(starting)
    }

    /// What seals secrets, with the keys of the key file.
    pub fn sealer(&self) -> &Arc<Sealer> {
        self.secrets.sealer()
    }

    #[cfg(test)]
    pub(crate) fn secrets_part(&self) -> &Arc<Secrets> {
        &self.secrets
    }

    pub(crate) fn accounts(&self) -> &Arc<Accounts> {
        &self.accounts
    }

    pub(crate) fn quota_book(&self) -> &Quotas {
        &self.quotas
    }

    /// Whether there is a tenant, or a function of one that nobody has made.
    ///
    /// # Errors
    /// [`Code::NotFound`].
    pub(crate) fn tenant_is_there(&self, tenant: &TenantName) -> Result<()> {
        match self.accounts.tenant(tenant) {
            Err(error) if self.functions.table().count_of(tenant) == 0 => Err(error),
            _ => Ok(()),
        }
    }

    /// What must hold, and what is to be written with it, where something is given to a tenant.
    ///
    /// # Errors
    /// As [`Service::tenant_is_there`]; [`Code::Conflict`] where the tenant is being deleted.
    pub(crate) async fn holder_of_quota(&self, tenant: &TenantName) -> Result<(Check, Option<Change>)> {
        match self.accounts.holder(tenant).await {
            Err(error) if error.code == Code::NotFound => {
                self.tenant_is_there(tenant)?;
                Ok((Accounts::absent(tenant), None))
            }
            found => found,
        }
    }

    /// The epoch of this process while it leads.
    pub fn epoch(&self) -> Option<u64> {
        self.leader.term().borrow().as_ref().map(|term| term.epoch)
    }

    /// Where the process is reached that leads, where that is another one and known.
    pub fn leads_elsewhere(&self) -> Option<String> {
        if self.epoch().is_some() { None } else { self.leader.address() }
    }

    /// Hands the lead over, lets the jobs that run here end within their drain limit, gives the rest back, and stops.
    pub fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.leader.resign().await;
            if let Some(sessions) = self.sessions.get() {
                sessions.stop().await;
            }
            if !self.leading.stop(LET_GO).await {
                tracing::warn!("the leader's duties did not end in time");
            }
            self.accounts.set_workflows(None);
            self.jobs.stop().await;
            self.deliveries.stop().await;
            self.triggers.write_down().await;
            self.tasks.stop(LAST).await;
            self.leader.leave().await;
        })
    }
}

/// Shows what is read when metrics are.
fn measure(deps: &Deps, leader: &Leader, metrics: Arc<Metrics>) {
    deps.registry.measure(&deps.metrics);
    let term = leader.term();
    deps.metrics.before_render(move || {
        let epoch = term.borrow().as_ref().map_or(0, |term| term.epoch);
        metrics.leader.set(i64::try_from(epoch).unwrap_or(i64::MAX));
    });
}

#[async_trait]
impl Control for Service {
    async fn deploy(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        request: DeployRequest,
        precondition: Precondition,
    ) -> Result<Changed<Deployed>> {
        self.functions.deploy(tenant, function, request, precondition).await
    }

    async fn deploy_code(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        code: RawCode,
        precondition: Precondition,
    ) -> Result<Changed<Deployed>> {
        self.functions.deploy_code(tenant, function, code, precondition).await
    }

    async fn function(&self, tenant: &TenantName, function: &FunctionName) -> Result<Arc<Route>> {
        self.functions.get(tenant, function)
    }

    async fn functions(&self, tenant: &TenantName, page: PageQuery) -> Result<Page<Arc<Route>>> {
        self.functions.list(tenant, page)
    }

    async fn delete_function(&self, tenant: &TenantName, function: &FunctionName) -> Result<Changed<()>> {
        self.functions.delete(tenant, function).await
    }

    async fn put_alias(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        alias: &AliasName,
        request: AliasRequest,
    ) -> Result<Changed<Alias>> {
        self.functions.put_alias(tenant, function, alias, request).await
    }

    async fn delete_alias(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        alias: &AliasName,
    ) -> Result<Changed<()>> {
        self.functions.delete_alias(tenant, function, alias).await
    }

    async fn rollback(&self, tenant: &TenantName, function: &FunctionName) -> Result<Changed<Alias>> {
        self.functions.rollback(tenant, function).await
    }

    async fn watch_routes(&self) -> Result<BoxStream<'static, Result<(u64, RouteEvent)>>> {
        Ok(self.functions.table().subscribe())
    }

    async fn watch_sessions(&self) -> Result<BoxStream<'static, Result<SessionEvent>>> {
        Ok(self.started_sessions()?.watch())
    }

    async fn reach_session(
        &self,
        tenant: &TenantName,
        application: &str,
        key: &str,
        wait: Duration,
    ) -> Result<Arc<SessionRoute>> {
        self.started_sessions()?.reach(tenant, application, key, wait).await
    }

    async fn resources(&self, request: ResourceRequest) -> Result<BoxStream<'static, Result<ResourceAnswer>>> {
        crate::sessions::serve(self.started_sessions()?.api(), request).await
    }

    async fn touch_sessions(&self, sessions: Vec<(TenantName, String)>) -> Result<()> {
        self.started_sessions()?.touch(sessions).await
    }

    async fn processes(&self) -> Result<Vec<ControlProcess>> {
        self.leader.processes().await
    }

    async fn watch_workflows(&self) -> Result<BoxStream<'static, Result<Vec<WorkflowProcess>>>> {
        Ok(self.workflows.watch())
    }

    async fn submit(&self, submit: Submit) -> Result<Submitted> {
        self.jobs.submit(submit).await
    }

    async fn job(&self, tenant: &TenantName, id: JobId, wait: Duration) -> Result<Finished> {
        self.jobs.get(tenant, id, wait).await
    }

    async fn jobs(&self, tenant: &TenantName, query: JobQuery) -> Result<Page<Job>> {
        self.jobs.list(tenant, query).await
    }

    async fn cancel_job(&self, tenant: &TenantName, id: JobId, wait: Duration) -> Result<Job> {
        self.jobs.cancel(tenant, id, wait).await
    }

    async fn redrive(&self, tenant: &TenantName, id: JobId) -> Result<Job> {
        self.jobs.redrive(tenant, id).await
    }

    async fn redrive_all(&self, tenant: &TenantName) -> Result<u64> {
        self.jobs.redrive_all(tenant).await
    }

    async fn purge_dead(&self, tenant: &TenantName, id: Option<JobId>) -> Result<u64> {
        self.jobs.purge(tenant, id).await
    }

    async fn remove_job(&self, tenant: &TenantName, id: JobId, wait: Duration) -> Result<bool> {
        self.jobs.remove(tenant, id, wait).await
    }

    async fn record_usage(&self, batch: UsageBatch) -> Result<()> {
        self.jobs.record_usage(batch).await
    }

    async fn usage(&self, query: UsageQuery) -> Result<Vec<UsageSum>> {
        self.jobs.usage(query).await
    }

    async fn scaler_turn(&self, turn: ScalerTurn) -> Result<ScalerAnswer> {
        self.scaler.turn(turn).await
    }

    async fn scaler(&self) -> Result<ScalerStatus> {
        self.scaler.status().await
    }

    async fn steer_scaler(&self, change: ScalerChange) -> Result<ScalerStatus> {
        self.scaler.steer(change).await
    }

    async fn put_secret(&self, put: PutSecret) -> Result<SecretPut> {
        self.secrets.put(put).await
    }

    async fn secret(&self, key: &SecretKey) -> Result<SecretInfo> {
        self.secrets.get(key).await
    }

    async fn secrets(&self, tenant: &TenantName, page: PageQuery) -> Result<Page<SecretInfo>> {
        self.secrets.list(tenant, &page)
    }

    async fn delete_secret(&self, key: &SecretKey, force: bool) -> Result<()> {
        self.secrets.delete(key, force).await
    }

    async fn fetch_secrets(&self, tenant: &TenantName, names: Vec<SecretName>) -> Result<Vec<SecretValue>> {
        self.secrets.fetch(tenant, names).await
    }

    async fn secret_stamps(&self, keys: Vec<SecretKey>) -> Result<Vec<Option<u64>>> {
        Ok(self.secrets.stamps(&keys))
    }

    async fn fetch_code(&self, digest: &Digest) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.functions.code(digest).await
    }

    async fn sealing_keys(&self) -> Result<Vec<SealingKey>> {
        let of_destinations = self.deliveries.sealed_by().await?;
        Ok(self.secrets.keys(of_destinations).await)
    }

    async fn reseal_secrets(&self) -> Result<Resealed> {
        let secrets = self.secrets.reseal().await?;
        let of_destinations = self.deliveries.reseal().await?;
        Ok(Resealed { resealed: secrets.resealed + of_destinations, ..secrets })
    }

    async fn classic(&self, request: ClassicRequest) -> Result<ClassicAnswer> {
        self.classic.answer(request).await
    }

    async fn run_ends(&self, ask: RunEndAsk) -> Result<Option<Arc<str>>> {
        self.deliveries.run_ends(ask).await
    }

    async fn hooks(&self, request: HookRequest) -> Result<HookAnswer> {
        match request {
            HookRequest::Schedule { tenant, ask } => self.schedules.answer(&tenant, ask).await,
            HookRequest::Delivery { tenant, ask } => self.deliveries.answer(&tenant, ask).await,
            HookRequest::Trigger { tenant, ask } => self.triggers.answer(&tenant, ask).await,
        }
    }
}
