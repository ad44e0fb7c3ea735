//! The control role in another process: the client that is one, and the server over one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use lyra_types::api::{AliasRequest, DeployRequest, Page};
use lyra_types::job::Job;
use lyra_types::usage::{UsageBatch, UsageQuery, UsageSum};
use lyra_types::{Alias, AliasName, FunctionName, JobId, Result, TenantName};
use tonic::service::RoutesBuilder;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::MAX_MESSAGE;
use super::asking::{Items, LONG, Peers, Repeat, SHORT, answer, answers};
use super::messages::{
    ChangedAlias, ChangedFunction, Count, Deploy, DeployCode, JobPage, JobsOf, Nothing, OfAlias, OfFunction, OfJob,
    OfTenant, PageOf, Processes, Purge, PutAlias, ReachSession, Removed, RouteChange, RoutePage, TouchSessions,
    UsageSums, WasThere,
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
use crate::hooks::{HookAnswer, HookRequest};
use crate::resources::{ResourceAnswer, ResourceRequest};
use crate::sessions::{SessionEvent, SessionRoute};

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

    async fn submit(&self, submit: Submit) -> Result<Submitted> {
        // By its key a job is made once, however often it is asked for.
        let repeat = if submit.idempotency_key.is_some() { Repeat::Always } else { Repeat::Unsent };
        self.ask(repeat, SHORT, submit, |mut client, asked| async move { client.submit(asked).await }).await
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

    async fn classic(&self, request: ClassicRequest) -> Result<ClassicAnswer> {
        use ClassicRequest::{Function, Functions, Owner, Time, User};
        let reads = matches!(request, User(_) | Time(_) | Functions { .. } | Function { .. } | Owner(_));
        let (repeat, limit) = if reads { (Repeat::Always, SHORT) } else { (Repeat::Unsent, LONG) };
        self.ask(repeat, limit, request, |mut client, asked| async move { client.classic(asked).await }).await
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

    async fn classic(&self, request: Request<ClassicRequest>) -> Result<Response<ClassicAnswer>, Status> {
        answer(self.0.classic(request.into_inner()).await)
    }

    async fn hooks(&self, request: Request<HookRequest>) -> Result<Response<HookAnswer>, Status> {
        answer(self.0.hooks(request.into_inner()).await)
    }

    async fn purge_dead(&self, request: Request<Purge>) -> Result<Response<Count>, Status> {
        let Purge { tenant, id } = request.into_inner();
        answer(self.0.purge_dead(&tenant, id).await.map(|count| Count { count }))
    }
}
