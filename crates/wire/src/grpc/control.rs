//! The control role in another process: the client that is one, and the server over one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use lyra_types::api::{AliasRequest, DeployRequest, Page, ScalerChange};
use lyra_types::function::Digest;
use lyra_types::job::Job;
use lyra_types::usage::{UsageBatch, UsageQuery, UsageSum};
use lyra_types::{Alias, AliasName, Code, Error, FunctionName, JobId, Result, SecretName, TenantName};
use tonic::service::RoutesBuilder;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::MAX_MESSAGE;
use super::asking::{Items, LONG, Peers, Repeat, SHORT, answer, answers};
use super::messages::{
    ChangedAlias, ChangedFunction, CodePiece, Count, DeleteSecret, Deploy, DeployCode, FetchSecrets, JobPage, JobsOf,
    Nothing, OfAlias, OfCode, OfFunction, OfJob, OfTenant, PageOf, Processes, Purge, PutAlias, ReachSession, Removed,
    RouteChange, RoutePage, RunNotice, SealingKeys, SecretKeys, SecretPage, SecretValues, Stamps, TouchSessions,
    UsageSums, WasThere, WorkflowProcesses,
};
use super::security::{Peer, Security};
use super::services::control_client::ControlClient;
use super::services::control_server::{Control as ControlService, ControlServer};
use crate::Control;
use crate::classic::{ClassicAnswer, ClassicRequest};
use crate::control::{
    Changed, ControlProcess, Deployed, Finished, JobQuery, PageQuery, Precondition, RawCode, Route, RouteEvent, Submit,
    Submitted,
};
use crate::hooks::{HookAnswer, HookRequest, RunEndAsk};
use crate::resources::{ResourceAnswer, ResourceRequest};
use crate::scaler::{ScalerAnswer, ScalerStatus, ScalerTurn};
use crate::secrets::{PutSecret, Resealed, SealingKey, SecretInfo, SecretKey, SecretPut, SecretValue};
use crate::sessions::{SessionEvent, SessionRoute};
use crate::workflows::WorkflowProcess;

/// Longest time that a job is handed in again and again while no control process takes it.
const HAND_IN: Duration = Duration::from_secs(10);
/// First and longest wait between two tries to hand in a job.
const HAND_IN_AGAIN: Duration = Duration::from_millis(50);
const HAND_IN_AGAIN_MOST: Duration = Duration::from_millis(500);

/// A control role that is reached over gRPC.
#[derive(Debug)]
pub struct RemoteControl {
    peers: Peers,
}

impl RemoteControl {
    /// The control processes at `addresses` (`HOST:PORT` each).
    ///
    /// # Errors
    /// When an address is none. Whether somebody is there is seen with the first question.
    pub fn new(addresses: &[String], security: &Security) -> Result<RemoteControl> {
        Ok(RemoteControl { peers: Peers::new("control", addresses, Peer::CONTROL, security)? })
    }

    async fn ask<M, T, F>(
        &self,
        repeat: Repeat,
        limit: Duration,
        asked: M,
        question: impl Fn(ControlClient<Channel>, M) -> F,
    ) -> Result<T>
    where
        M: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.peers
            .ask(repeat, limit, |channel| {
                let client = ControlClient::new(channel);
                let client = client.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
                question(client, asked.clone())
            })
            .await
    }
}

fn of(tenant: &TenantName, function: &FunctionName) -> OfFunction {
    OfFunction { tenant: tenant.clone(), function: function.clone() }
}

#[async_trait]
impl Control for RemoteControl {
    async fn deploy(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        request: DeployRequest,
        precondition: Precondition,
    ) -> Result<Changed<Deployed>> {
        let message = Deploy { tenant: tenant.clone(), function: function.clone(), request, precondition };
        self.ask(Repeat::Unsent, LONG, message, |mut client, asked| async move { client.deploy(asked).await }).await
    }

    async fn deploy_code(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        code: RawCode,
        precondition: Precondition,
    ) -> Result<Changed<Deployed>> {
        let message = DeployCode { tenant: tenant.clone(), function: function.clone(), code, precondition };
        self.ask(Repeat::Unsent, LONG, message, |mut client, asked| async move { client.deploy_code(asked).await })
            .await
    }

    async fn function(&self, tenant: &TenantName, function: &FunctionName) -> Result<Arc<Route>> {
        let message = of(tenant, function);
        self.ask(Repeat::Always, SHORT, message, |mut client, asked| async move { client.function(asked).await })
            .await
            .map(Arc::new)
    }

    async fn functions(&self, tenant: &TenantName, page: PageQuery) -> Result<Page<Arc<Route>>> {
        let message = PageOf { tenant: tenant.clone(), page };
        self.ask(Repeat::Always, SHORT, message, |mut client, asked| async move { client.functions(asked).await }).await
    }

    async fn delete_function(&self, tenant: &TenantName, function: &FunctionName) -> Result<Changed<()>> {
        let message = of(tenant, function);
        self.ask(Repeat::Unsent, LONG, message, |mut client, asked| async move { client.delete_function(asked).await })
            .await
    }

    async fn put_alias(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        alias: &AliasName,
        request: AliasRequest,
    ) -> Result<Changed<Alias>> {
        let (tenant, function, alias) = (tenant.clone(), function.clone(), alias.clone());
        let message = PutAlias { tenant, function, alias, request };
        self.ask(Repeat::Unsent, SHORT, message, |mut client, asked| async move { client.put_alias(asked).await }).await
    }

    async fn delete_alias(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        alias: &AliasName,
    ) -> Result<Changed<()>> {
        let message = OfAlias { tenant: tenant.clone(), function: function.clone(), alias: alias.clone() };
        self.ask(Repeat::Unsent, SHORT, message, |mut client, asked| async move { client.delete_alias(asked).await })
            .await
    }

    async fn rollback(&self, tenant: &TenantName, function: &FunctionName) -> Result<Changed<Alias>> {
        let message = of(tenant, function);
        self.ask(Repeat::Unsent, SHORT, message, |mut client, asked| async move { client.rollback(asked).await }).await
    }

    async fn watch_routes(&self) -> Result<BoxStream<'static, Result<(u64, RouteEvent)>>> {
        let items = self
            .ask(Repeat::Always, SHORT, Nothing, |mut client, asked| async move { client.watch_routes(asked).await })
            .await?;
        Ok(self.peers.items(items).map(|item| item.map(|change| (change.revision, change.event))).boxed())
    }

    async fn watch_sessions(&self) -> Result<BoxStream<'static, Result<SessionEvent>>> {
        let ask = |mut client: ControlClient<Channel>, asked| async move { client.watch_sessions(asked).await };
        Ok(self.peers.items(self.ask(Repeat::Always, SHORT, Nothing, ask).await?))
    }

    async fn reach_session(
        &self,
        tenant: &TenantName,
        application: &str,
        key: &str,
        wait: Duration,
    ) -> Result<Arc<SessionRoute>> {
        let (tenant, application, key) = (tenant.clone(), application.to_owned(), key.to_owned());
        let message = ReachSession { tenant, application, key, wait };
        let ask = |mut client: ControlClient<Channel>, asked| async move { client.reach_session(asked).await };
        self.ask(Repeat::Always, wait + SHORT, message, ask).await.map(Arc::new)
    }

    async fn touch_sessions(&self, sessions: Vec<(TenantName, String)>) -> Result<()> {
        let ask = |mut client: ControlClient<Channel>, asked| async move { client.touch_sessions(asked).await };
        self.ask(Repeat::Always, SHORT, TouchSessions { sessions }, ask).await.map(drop)
    }

    async fn resources(&self, request: ResourceRequest) -> Result<BoxStream<'static, Result<ResourceAnswer>>> {
        // What reads may be asked again; a write that may have been made is not.
        let repeat = if matches!(request.method.as_str(), "GET" | "HEAD") { Repeat::Always } else { Repeat::Unsent };
        let ask = |mut client: ControlClient<Channel>, asked| async move { client.resources(asked).await };
        Ok(self.peers.items(self.ask(repeat, LONG, request, ask).await?))
    }

    async fn processes(&self) -> Result<Vec<ControlProcess>> {
        let ask = |mut client: ControlClient<Channel>, asked| async move { client.processes(asked).await };
        Ok(self.ask(Repeat::Always, SHORT, Nothing, ask).await?.processes)
    }

    async fn watch_workflows(&self) -> Result<BoxStream<'static, Result<Vec<WorkflowProcess>>>> {
        let ask = |mut client: ControlClient<Channel>, asked| async move { client.watch_workflows(asked).await };
        let lists = self.peers.items(self.ask(Repeat::Always, SHORT, Nothing, ask).await?);
        Ok(lists.map_ok(|list: WorkflowProcesses| list.processes).boxed())
    }

    async fn submit(&self, submit: Submit) -> Result<Submitted> {
        let ask = |mut client: ControlClient<Channel>, asked| async move { client.submit(asked).await };
        if submit.id.is_none() && submit.idempotency_key.is_none() {
            return self.ask(Repeat::Unsent, SHORT, submit, ask).await;
        }
        // Another process takes it, or the same one when it is back; a job that was accepted already is the same job.
        let (mut last, mut wait) = (None, HAND_IN_AGAIN);
        let handed_in = async {
            loop {
                match self.ask(Repeat::Always, SHORT, submit.clone(), ask).await {
                    Err(error) if error.code == Code::Unavailable => last = Some(error),
                    outcome => return outcome,
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(HAND_IN_AGAIN_MOST);
            }
        };
        match tokio::time::timeout(HAND_IN, handed_in).await {
            Ok(outcome) => outcome,
            Err(_) => Err(last.unwrap_or_else(|| Error::new(Code::Unavailable, "control did not answer in time"))),
        }
    }

    async fn job(&self, tenant: &TenantName, id: JobId, wait: Duration) -> Result<Finished> {
        let message = OfJob { tenant: tenant.clone(), id, wait };
        self.ask(Repeat::Always, wait + SHORT, message, |mut client, asked| async move { client.job(asked).await })
            .await
    }

    async fn jobs(&self, tenant: &TenantName, query: JobQuery) -> Result<Page<Job>> {
        let message = JobsOf { tenant: tenant.clone(), query };
        self.ask(Repeat::Always, SHORT, message, |mut client, asked| async move { client.jobs(asked).await }).await
    }

    async fn cancel_job(&self, tenant: &TenantName, id: JobId, wait: Duration) -> Result<Job> {
        let message = OfJob { tenant: tenant.clone(), id, wait };
        self.ask(
            Repeat::Unsent,
            wait + SHORT,
            message,
            |mut client, asked| async move { client.cancel_job(asked).await },
        )
        .await
    }

    async fn redrive(&self, tenant: &TenantName, id: JobId) -> Result<Job> {
        let message = OfJob { tenant: tenant.clone(), id, wait: Duration::ZERO };
        self.ask(Repeat::Unsent, SHORT, message, |mut client, asked| async move { client.redrive(asked).await }).await
    }

    async fn redrive_all(&self, tenant: &TenantName) -> Result<u64> {
        let message = OfTenant { tenant: tenant.clone() };
        Ok(self
            .ask(Repeat::Unsent, LONG, message, |mut client, asked| async move { client.redrive_all(asked).await })
            .await?
            .count)
    }

    async fn purge_dead(&self, tenant: &TenantName, id: Option<JobId>) -> Result<u64> {
        let message = Purge { tenant: tenant.clone(), id };
        Ok(self
            .ask(Repeat::Unsent, LONG, message, |mut client, asked| async move { client.purge_dead(asked).await })
            .await?
            .count)
    }

    async fn remove_job(&self, tenant: &TenantName, id: JobId, wait: Duration) -> Result<bool> {
        let message = OfJob { tenant: tenant.clone(), id, wait };
        let ask = |mut client: ControlClient<Channel>, asked| async move { client.remove_job(asked).await };
        Ok(self.ask(Repeat::Unsent, wait + SHORT, message, ask).await?.was_there)
    }

    async fn record_usage(&self, batch: UsageBatch) -> Result<()> {
        let ask = |mut client: ControlClient<Channel>, asked| async move { client.record_usage(asked).await };
        self.ask(Repeat::Always, SHORT, batch, ask).await.map(drop)
    }

    async fn usage(&self, query: UsageQuery) -> Result<Vec<UsageSum>> {
        let ask = |mut client: ControlClient<Channel>, asked| async move { client.usage(asked).await };
        Ok(self.ask(Repeat::Always, SHORT, query, ask).await?.sums)
    }

    async fn scaler_turn(&self, turn: ScalerTurn) -> Result<ScalerAnswer> {
        // A turn that is taken twice tells the same twice.
        let ask = |mut client: ControlClient<Channel>, asked| async move { client.scaler_turn(asked).await };
        self.ask(Repeat::Always, SHORT, turn, ask).await
    }

    async fn scaler(&self) -> Result<ScalerStatus> {
        self.ask(Repeat::Always, SHORT, Nothing, |mut client, asked| async move { client.scaler(asked).await }).await
    }

    async fn steer_scaler(&self, change: ScalerChange) -> Result<ScalerStatus> {
        let ask = |mut client: ControlClient<Channel>, asked| async move { client.steer_scaler(asked).await };
        self.ask(Repeat::Always, SHORT, change, ask).await
    }

    async fn put_secret(&self, put: PutSecret) -> Result<SecretPut> {
        let ask = |mut client: ControlClient<Channel>, asked| async move { client.put_secret(asked).await };
        self.ask(Repeat::Unsent, SHORT, put, ask).await
    }

    async fn secret(&self, key: &SecretKey) -> Result<SecretInfo> {
        let ask = |mut client: ControlClient<Channel>, asked| async move { client.secret(asked).await };
        self.ask(Repeat::Always, SHORT, key.clone(), ask).await
    }

    async fn secrets(&self, tenant: &TenantName, page: PageQuery) -> Result<Page<SecretInfo>> {
        let ask = |mut client: ControlClient<Channel>, asked| async move { client.secrets(asked).await };
        self.ask(Repeat::Always, SHORT, PageOf { tenant: tenant.clone(), page }, ask).await
    }

    async fn delete_secret(&self, key: &SecretKey, force: bool) -> Result<()> {
        let ask = |mut client: ControlClient<Channel>, asked| async move { client.delete_secret(asked).await };
        self.ask(Repeat::Unsent, SHORT, DeleteSecret { key: key.clone(), force }, ask).await.map(drop)
    }

    async fn fetch_secrets(&self, tenant: &TenantName, names: Vec<SecretName>) -> Result<Vec<SecretValue>> {
        let ask = |mut client: ControlClient<Channel>, asked| async move { client.fetch_secrets(asked).await };
        let asked = FetchSecrets { tenant: tenant.clone(), names };
        Ok(self.ask(Repeat::Always, SHORT, asked, ask).await?.values)
    }

    async fn secret_stamps(&self, keys: Vec<SecretKey>) -> Result<Vec<Option<u64>>> {
        let ask = |mut client: ControlClient<Channel>, asked| async move { client.secret_stamps(asked).await };
        Ok(self.ask(Repeat::Always, SHORT, SecretKeys { keys }, ask).await?.stamps)
    }

    async fn fetch_code(&self, digest: &Digest) -> Result<BoxStream<'static, Result<Bytes>>> {
        let ask = |mut client: ControlClient<Channel>, asked| async move { client.fetch_code(asked).await };
        let pieces = self.ask(Repeat::Always, SHORT, OfCode { digest: digest.clone() }, ask).await?;
        Ok(self.peers.items(pieces).map_ok(|piece: CodePiece| piece.bytes).boxed())
    }

    async fn sealing_keys(&self) -> Result<Vec<SealingKey>> {
        let ask = |mut client: ControlClient<Channel>, asked| async move { client.sealing_keys(asked).await };
        Ok(self.ask(Repeat::Always, SHORT, Nothing, ask).await?.keys)
    }

    async fn reseal_secrets(&self) -> Result<Resealed> {
        let ask = |mut client: ControlClient<Channel>, asked| async move { client.reseal_secrets(asked).await };
        self.ask(Repeat::Always, LONG, Nothing, ask).await
    }

    async fn classic(&self, request: ClassicRequest) -> Result<ClassicAnswer> {
        use ClassicRequest::{Function, Functions, Owner, Time, User};
        let reads = matches!(request, User(_) | Time(_) | Functions { .. } | Function { .. } | Owner(_));
        let (repeat, limit) = if reads { (Repeat::Always, SHORT) } else { (Repeat::Unsent, LONG) };
        self.ask(repeat, limit, request, |mut client, asked| async move { client.classic(asked).await }).await
    }

    async fn run_ends(&self, ask: RunEndAsk) -> Result<Option<Arc<str>>> {
        // Either may be asked twice: the one changes nothing, and an end is taken over once.
        let asked = |mut client: ControlClient<Channel>, asked| async move { client.run_ends(asked).await };
        let answer: RunNotice = self.ask(Repeat::Always, SHORT, ask, asked).await?;
        Ok(answer.notice.map(Arc::from))
    }

    async fn hooks(&self, request: HookRequest) -> Result<HookAnswer> {
        let (repeat, limit) = if request.only_reads() { (Repeat::Always, SHORT) } else { (Repeat::Unsent, LONG) };
        self.ask(repeat, limit, request, |mut client, asked| async move { client.hooks(asked).await }).await
    }
}

/// Adds the service by which others reach `control`.
pub fn add_control(routes: &mut RoutesBuilder, control: Arc<dyn Control>) {
    let server = ControlServer::new(Served(control));
    routes.add_service(server.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE));
}

struct Served(Arc<dyn Control>);

#[async_trait]
impl ControlService for Served {
    type WatchRoutesStream = Items<RouteChange>;
    type WatchSessionsStream = Items<SessionEvent>;
    type ResourcesStream = Items<ResourceAnswer>;
    type WatchWorkflowsStream = Items<WorkflowProcesses>;
    type FetchCodeStream = Items<CodePiece>;

    async fn deploy(&self, request: Request<Deploy>) -> Result<Response<ChangedFunction>, Status> {
        let Deploy { tenant, function, request, precondition } = request.into_inner();
        answer(self.0.deploy(&tenant, &function, request, precondition).await)
    }

    async fn deploy_code(&self, request: Request<DeployCode>) -> Result<Response<ChangedFunction>, Status> {
        let DeployCode { tenant, function, code, precondition } = request.into_inner();
        answer(self.0.deploy_code(&tenant, &function, code, precondition).await)
    }

    async fn function(&self, request: Request<OfFunction>) -> Result<Response<Route>, Status> {
        let OfFunction { tenant, function } = request.into_inner();
        answer(self.0.function(&tenant, &function).await.map(Arc::unwrap_or_clone))
    }

    async fn functions(&self, request: Request<PageOf>) -> Result<Response<RoutePage>, Status> {
        let PageOf { tenant, page } = request.into_inner();
        answer(self.0.functions(&tenant, page).await)
    }

    async fn delete_function(&self, request: Request<OfFunction>) -> Result<Response<Removed>, Status> {
        let OfFunction { tenant, function } = request.into_inner();
        answer(self.0.delete_function(&tenant, &function).await)
    }

    async fn put_alias(&self, request: Request<PutAlias>) -> Result<Response<ChangedAlias>, Status> {
        let PutAlias { tenant, function, alias, request } = request.into_inner();
        answer(self.0.put_alias(&tenant, &function, &alias, request).await)
    }

    async fn delete_alias(&self, request: Request<OfAlias>) -> Result<Response<Removed>, Status> {
        let OfAlias { tenant, function, alias } = request.into_inner();
        answer(self.0.delete_alias(&tenant, &function, &alias).await)
    }

    async fn rollback(&self, request: Request<OfFunction>) -> Result<Response<ChangedAlias>, Status> {
        let OfFunction { tenant, function } = request.into_inner();
        answer(self.0.rollback(&tenant, &function).await)
    }

    async fn watch_routes(&self, _: Request<Nothing>) -> Result<Response<Items<RouteChange>>, Status> {
        let changes = self.0.watch_routes().await;
        let change = |(revision, event)| RouteChange { revision, event };
        answers(changes.map(|changes| changes.map(move |item| item.map(change)).boxed()))
    }

    async fn watch_sessions(&self, _: Request<Nothing>) -> Result<Response<Items<SessionEvent>>, Status> {
        answers(self.0.watch_sessions().await)
    }

    async fn reach_session(&self, request: Request<ReachSession>) -> Result<Response<SessionRoute>, Status> {
        let ReachSession { tenant, application, key, wait } = request.into_inner();
        answer(self.0.reach_session(&tenant, &application, &key, wait).await.map(Arc::unwrap_or_clone))
    }

    async fn touch_sessions(&self, request: Request<TouchSessions>) -> Result<Response<Nothing>, Status> {
        answer(self.0.touch_sessions(request.into_inner().sessions).await.map(|()| Nothing))
    }

    async fn resources(&self, request: Request<ResourceRequest>) -> Result<Response<Items<ResourceAnswer>>, Status> {
        answers(self.0.resources(request.into_inner()).await)
    }

    async fn processes(&self, _: Request<Nothing>) -> Result<Response<Processes>, Status> {
        answer(self.0.processes().await.map(|processes| Processes { processes }))
    }

    async fn watch_workflows(&self, _: Request<Nothing>) -> Result<Response<Items<WorkflowProcesses>>, Status> {
        let lists = self.0.watch_workflows().await;
        answers(lists.map(|lists| lists.map_ok(|processes| WorkflowProcesses { processes }).boxed()))
    }

    async fn submit(&self, request: Request<Submit>) -> Result<Response<Submitted>, Status> {
        answer(self.0.submit(request.into_inner()).await)
    }

    async fn job(&self, request: Request<OfJob>) -> Result<Response<Finished>, Status> {
        let OfJob { tenant, id, wait } = request.into_inner();
        answer(self.0.job(&tenant, id, wait).await)
    }

    async fn jobs(&self, request: Request<JobsOf>) -> Result<Response<JobPage>, Status> {
        let JobsOf { tenant, query } = request.into_inner();
        answer(self.0.jobs(&tenant, query).await)
    }

    async fn cancel_job(&self, request: Request<OfJob>) -> Result<Response<Job>, Status> {
        let OfJob { tenant, id, wait } = request.into_inner();
        answer(self.0.cancel_job(&tenant, id, wait).await)
    }

    async fn redrive(&self, request: Request<OfJob>) -> Result<Response<Job>, Status> {
        let OfJob { tenant, id, .. } = request.into_inner();
        answer(self.0.redrive(&tenant, id).await)
    }

    async fn redrive_all(&self, request: Request<OfTenant>) -> Result<Response<Count>, Status> {
        answer(self.0.redrive_all(&request.into_inner().tenant).await.map(|count| Count { count }))
    }

    async fn remove_job(&self, request: Request<OfJob>) -> Result<Response<WasThere>, Status> {
        let OfJob { tenant, id, wait } = request.into_inner();
        answer(self.0.remove_job(&tenant, id, wait).await.map(|was_there| WasThere { was_there }))
    }

    async fn record_usage(&self, request: Request<UsageBatch>) -> Result<Response<Nothing>, Status> {
        answer(self.0.record_usage(request.into_inner()).await.map(|()| Nothing))
    }

    async fn usage(&self, request: Request<UsageQuery>) -> Result<Response<UsageSums>, Status> {
        answer(self.0.usage(request.into_inner()).await.map(|sums| UsageSums { sums }))
    }

    async fn scaler_turn(&self, request: Request<ScalerTurn>) -> Result<Response<ScalerAnswer>, Status> {
        answer(self.0.scaler_turn(request.into_inner()).await)
    }

    async fn scaler(&self, _: Request<Nothing>) -> Result<Response<ScalerStatus>, Status> {
        answer(self.0.scaler().await)
    }

    async fn steer_scaler(&self, request: Request<ScalerChange>) -> Result<Response<ScalerStatus>, Status> {
        answer(self.0.steer_scaler(request.into_inner()).await)
    }

    async fn put_secret(&self, request: Request<PutSecret>) -> Result<Response<SecretPut>, Status> {
        answer(self.0.put_secret(request.into_inner()).await)
    }

    async fn secret(&self, request: Request<SecretKey>) -> Result<Response<SecretInfo>, Status> {
        answer(self.0.secret(&request.into_inner()).await)
    }

    async fn secrets(&self, request: Request<PageOf>) -> Result<Response<SecretPage>, Status> {
        let asked = request.into_inner();
        answer(self.0.secrets(&asked.tenant, asked.page).await)
    }

    async fn delete_secret(&self, request: Request<DeleteSecret>) -> Result<Response<Nothing>, Status> {
        let asked = request.into_inner();
        answer(self.0.delete_secret(&asked.key, asked.force).await.map(|()| Nothing))
    }

    async fn fetch_secrets(&self, request: Request<FetchSecrets>) -> Result<Response<SecretValues>, Status> {
        let asked = request.into_inner();
        answer(self.0.fetch_secrets(&asked.tenant, asked.names).await.map(|values| SecretValues { values }))
    }

    async fn secret_stamps(&self, request: Request<SecretKeys>) -> Result<Response<Stamps>, Status> {
        answer(self.0.secret_stamps(request.into_inner().keys).await.map(|stamps| Stamps { stamps }))
    }

    async fn fetch_code(&self, request: Request<OfCode>) -> Result<Response<Items<CodePiece>>, Status> {
        let pieces = self.0.fetch_code(&request.into_inner().digest).await;
        answers(pieces.map(|pieces| pieces.map_ok(|bytes| CodePiece { bytes }).boxed()))
    }

    async fn sealing_keys(&self, _: Request<Nothing>) -> Result<Response<SealingKeys>, Status> {
        answer(self.0.sealing_keys().await.map(|keys| SealingKeys { keys }))
    }

    async fn reseal_secrets(&self, _: Request<Nothing>) -> Result<Response<Resealed>, Status> {
        answer(self.0.reseal_secrets().await)
    }

    async fn classic(&self, request: Request<ClassicRequest>) -> Result<Response<ClassicAnswer>, Status> {
        answer(self.0.classic(request.into_inner()).await)
    }

    async fn run_ends(&self, request: Request<RunEndAsk>) -> Result<Response<RunNotice>, Status> {
        let notice = self.0.run_ends(request.into_inner()).await;
        answer(notice.map(|notice| RunNotice { notice: notice.map(|notice| notice.as_ref().to_owned()) }))
    }

    async fn hooks(&self, request: Request<HookRequest>) -> Result<Response<HookAnswer>, Status> {
        answer(self.0.hooks(request.into_inner()).await)
    }

    async fn purge_dead(&self, request: Request<Purge>) -> Result<Response<Count>, Status> {
        let Purge { tenant, id } = request.into_inner();
        answer(self.0.purge_dead(&tenant, id).await.map(|count| Count { count }))
    }
}
