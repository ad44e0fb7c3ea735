//! The workflow role in another process: the client that is one, and the server over one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_kit::{Clock, Random, Tasks};
use lyra_types::api::Page;
use lyra_types::workflow::{Run, TraceToken, Workflow, WorkflowVersion};
use lyra_types::{Code, Error, Result, RunId, TenantName, WorkflowName};
use tonic::service::RoutesBuilder;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::MAX_MESSAGE;
use super::asking::{LONG, Peers, Repeat, SHORT, answer};
use super::failure;
use super::messages::{Nothing, OfTenant, PageOf};
use super::security::Security;
use super::services::workflows_client::WorkflowsClient;
use super::services::workflows_server::{Workflows as WorkflowsService, WorkflowsServer};
use super::workflow_messages::{
    Cleared, CommandRun, CompleteTask, DeployWorkflow, OfRun, OfWorkflow, RunPage, RunsOf, StartPart, StartRun, Tokens,
    TraceOf, ValueOf, ValueText, WaitingTasks, WorkflowMembers, WorkflowPage,
};
use super::workflow_peers::Known;
use crate::control::PageQuery;
use crate::workflows::{
    Completion, Made, NewPart, NewRun, NewWorkflow, RunCommand, RunQuery, Started, Waiting, WorkflowMember, WorkflowUse,
};
use crate::{Control, Workflows};

/// A workflow role that is reached over gRPC, in however many processes.
#[derive(Debug)]
pub struct RemoteWorkflows {
    known: Arc<Known>,
    /// What ids of runs are made from that nobody has named.
    fresh: Option<(Clock, Random)>,
}

impl RemoteWorkflows {
    /// The workflow roles at `addresses` (`HOST:PORT` each); processes of the control role carry them.
    ///
    /// # Errors
    /// When an address is none. Whether somebody is there is seen with the first question.
    pub fn new(addresses: &[String], security: &Security) -> Result<RemoteWorkflows> {
        if addresses.is_empty() {
            return Err(Error::new(Code::BadRequest, "an address is missing"));
        }
        Ok(RemoteWorkflows { known: Arc::new(Known::new(addresses, security)?), fresh: None })
    }

    /// The processes that `control` tells of, as they come and go. While none is known, those at the addresses `control_at` are
    /// asked, which run workflows or know who does.
    ///
    /// # Errors
    /// When an address is none.
    pub fn following(
        control: Arc<dyn Control>,
        control_at: &[String],
        security: &Security,
        (clock, random): (Clock, Random),
        tasks: &Tasks,
    ) -> Result<RemoteWorkflows> {
        let known = Arc::new(Known::new(control_at, security)?);
        let (follows, time) = (Arc::clone(&known), clock.clone());
        tasks.spawn_cancellable("workflow processes", async move { follows.follow(control.as_ref(), &time).await });
        Ok(RemoteWorkflows { known, fresh: Some((clock, random)) })
    }

    /// An id for a run that has none: with one it can be asked for again of another process, and is started once.
    fn fresh_id(&self) -> Option<RunId> {
        let (clock, random) = self.fresh.as_ref()?;
        Some(RunId::from_parts(u64::try_from(clock.now().millis()).unwrap_or(0), random.u128()))
    }

    fn peers(&self) -> Result<Arc<Peers>> {
        self.known.peers()
    }

    async fn ask<M, T, F>(
        &self,
        repeat: Repeat,
        limit: Duration,
        asked: M,
        question: impl Fn(WorkflowsClient<Channel>, M) -> F,
    ) -> Result<T>
    where
        M: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        ask_at(self.peers()?.as_ref(), repeat, limit, asked, question).await
    }

    /// Asks one process after the other until one does not say that it can't: that the run is with another host, or that it
    /// ends. For questions that may be asked twice.
    async fn ask_each<M, T, F>(
        &self,
        limit: Duration,
        asked: M,
        question: impl Fn(WorkflowsClient<Channel>, M) -> F,
    ) -> Result<T>
    where
        M: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let peers = self.peers()?;
        let mut left = peers.all().len();
        loop {
            left -= 1;
            match ask_at(&peers, Repeat::Always, limit, asked.clone(), &question).await {
                Err(error) if error.code == Code::Unavailable && left > 0 => {}
                answer => return answer,
            }
        }
    }
}

async fn ask_at<M, T, F>(
    peers: &Peers,
    repeat: Repeat,
    limit: Duration,
    asked: M,
    question: impl Fn(WorkflowsClient<Channel>, M) -> F,
) -> Result<T>
where
    M: Clone,
    F: Future<Output = Result<Response<T>, Status>>,
{
    let ask = |channel| {
        let client = WorkflowsClient::new(channel);
        let client = client.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
        question(client, asked.clone())
    };
    peers.ask(repeat, limit, ask).await
}

#[async_trait]
impl Workflows for RemoteWorkflows {
    async fn deploy(&self, tenant: &TenantName, workflow: NewWorkflow) -> Result<Made> {
        // What is there already is not made again.
        let message = DeployWorkflow { tenant: tenant.clone(), workflow };
        self.ask(Repeat::Always, LONG, message, |mut client, asked| async move { client.deploy(asked).await }).await
    }

    async fn workflows(&self, tenant: &TenantName, page: PageQuery) -> Result<Page<Workflow>> {
        let message = PageOf { tenant: tenant.clone(), page };
        self.ask(Repeat::Always, SHORT, message, |mut client, asked| async move { client.workflows(asked).await }).await
    }

    async fn workflow(
        &self,
        tenant: &TenantName,
        name: &WorkflowName,
        version: Option<u64>,
    ) -> Result<WorkflowVersion> {
        let message = OfWorkflow { tenant: tenant.clone(), name: name.clone(), version };
        self.ask(Repeat::Always, SHORT, message, |mut client, asked| async move { client.workflow(asked).await }).await
    }

    async fn delete_workflow(&self, tenant: &TenantName, name: &WorkflowName) -> Result<()> {
        let message = OfWorkflow { tenant: tenant.clone(), name: name.clone(), version: None };
        let ask = |mut client: WorkflowsClient<Channel>, asked| async move { client.delete_workflow(asked).await };
        self.ask(Repeat::Unsent, SHORT, message, ask).await.map(drop)
    }

    async fn start(&self, tenant: &TenantName, name: &WorkflowName, mut run: NewRun) -> Result<Started> {
        let named = run.id.is_some();
        run.id = run.id.take().or_else(|| self.fresh_id());
        let has_id = run.id.is_some();
        let message = StartRun { tenant: tenant.clone(), name: name.clone(), run };
        let ask = |mut client: WorkflowsClient<Channel>, asked| async move { client.start(asked).await };
        // Whoever starts a run owns it: each process gets its part of them.
        self.peers()?.go_on();
        match has_id {
            // By its id a run is started once, however often it is asked for.
            true => {
                let started = self.ask_each(SHORT, message, ask).await?;
                // One that nobody else can know was made for this question.
                Ok(Started { created: started.created || !named, ..started })
            }
            false => self.ask(Repeat::Unsent, SHORT, message, ask).await,
        }
    }

    async fn start_part(&self, tenant: &TenantName, part: NewPart) -> Result<Started> {
        let message = StartPart { tenant: tenant.clone(), part };
        self.peers()?.go_on();
        self.ask_each(SHORT, message, |mut client, asked| async move { client.start_part(asked).await }).await
    }

    async fn run(&self, tenant: &TenantName, id: &RunId, wait: Duration) -> Result<Run> {
        let message = OfRun { tenant: tenant.clone(), id: id.clone(), wait };
        self.ask(Repeat::Always, wait + SHORT, message, |mut client, asked| async move { client.run(asked).await })
            .await
    }

    async fn runs(&self, tenant: &TenantName, query: RunQuery) -> Result<Page<Run>> {
        let message = RunsOf { tenant: tenant.clone(), query };
        self.ask(Repeat::Always, SHORT, message, |mut client, asked| async move { client.runs(asked).await }).await
    }

    async fn command(&self, tenant: &TenantName, id: &RunId, command: RunCommand) -> Result<Run> {
        let message = CommandRun { tenant: tenant.clone(), id: id.clone(), command };
        self.ask_each(LONG, message, |mut client, asked| async move { client.command(asked).await }).await
    }

    async fn delete_run(&self, tenant: &TenantName, id: &RunId) -> Result<()> {
        let message = OfRun { tenant: tenant.clone(), id: id.clone(), wait: Duration::ZERO };
        let ask = |mut client: WorkflowsClient<Channel>, asked| async move { client.delete_run(asked).await };
        self.ask(Repeat::Unsent, SHORT, message, ask).await.map(drop)
    }

    async fn usage(&self, tenant: &TenantName) -> Result<WorkflowUse> {
        let message = OfTenant { tenant: tenant.clone() };
        self.ask(Repeat::Always, SHORT, message, |mut client, asked| async move { client.usage(asked).await }).await
    }

    async fn trace(&self, tenant: &TenantName, id: &RunId, from: u64, limit: usize) -> Result<Vec<TraceToken>> {
        let message = TraceOf { tenant: tenant.clone(), id: id.clone(), from, limit };
        let ask = |mut client: WorkflowsClient<Channel>, asked| async move { client.trace(asked).await };
        Ok(self.ask(Repeat::Always, SHORT, message, ask).await?.tokens)
    }

    async fn waiting(&self, tenant: &TenantName, id: &RunId) -> Result<Vec<Waiting>> {
        let message = OfRun { tenant: tenant.clone(), id: id.clone(), wait: Duration::ZERO };
        let ask = |mut client: WorkflowsClient<Channel>, asked| async move { client.waiting(asked).await };
        Ok(self.ask_each(LONG, message, ask).await?.tasks)
    }

    /// Every process clears what it has under way. One that can't be reached has nothing that lasts: others take its runs
    /// over and clear them then.
    async fn clear(&self, tenant: &TenantName) -> Result<bool> {
        let (mut all, mut asked) = (true, false);
        let mut away = None;
        let peers = self.peers()?;
        for channel in peers.all() {
            let mut client = WorkflowsClient::new(channel.clone());
            let answer = tokio::time::timeout(LONG, client.clear(OfTenant { tenant: tenant.clone() })).await;
            match answer {
                Ok(Ok(cleared)) => (all, asked) = (all && cleared.into_inner().all, true),
                Ok(Err(status)) => {
                    let error = failure::from_status(&status, peers.what());
                    if error.code != Code::Unavailable {
                        return Err(error);
                    }
                    away = Some(error);
                }
                Err(_) => away = Some(Error::new(Code::Unavailable, "workflows did not answer in time")),
            }
        }
        match (asked, away) {
            (false, Some(error)) => Err(error),
            _ => Ok(all),
        }
    }

    async fn value(&self, token: &str) -> Result<Bytes> {
        let message = ValueOf { token: token.to_owned() };
        let ask = |mut client: WorkflowsClient<Channel>, asked| async move { client.value(asked).await };
        Ok(self.ask(Repeat::Always, SHORT, message, ask).await?.json)
    }

    async fn complete(&self, token: &str, completion: Completion) -> Result<()> {
        let message = CompleteTask { token: token.to_owned(), completion };
        let ask = |mut client: WorkflowsClient<Channel>, asked| async move { client.complete(asked).await };
        self.ask_each(LONG, message, ask).await.map(drop)
    }

    async fn members(&self) -> Result<Vec<WorkflowMember>> {
        self.known.members().await
    }
}

/// Adds the service by which others reach `workflows`.
pub fn add_workflows(routes: &mut RoutesBuilder, workflows: Arc<dyn Workflows>) {
    let server = WorkflowsServer::new(Served(workflows));
    routes.add_service(server.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE));
}

struct Served(Arc<dyn Workflows>);

#[async_trait]
impl WorkflowsService for Served {
    async fn deploy(&self, request: Request<DeployWorkflow>) -> Result<Response<Made>, Status> {
        let DeployWorkflow { tenant, workflow } = request.into_inner();
        answer(self.0.deploy(&tenant, workflow).await)
    }

    async fn workflows(&self, request: Request<PageOf>) -> Result<Response<WorkflowPage>, Status> {
        let PageOf { tenant, page } = request.into_inner();
        answer(self.0.workflows(&tenant, page).await)
    }

    async fn workflow(&self, request: Request<OfWorkflow>) -> Result<Response<WorkflowVersion>, Status> {
        let OfWorkflow { tenant, name, version } = request.into_inner();
        answer(self.0.workflow(&tenant, &name, version).await)
    }

    async fn delete_workflow(&self, request: Request<OfWorkflow>) -> Result<Response<Nothing>, Status> {
        let OfWorkflow { tenant, name, .. } = request.into_inner();
        answer(self.0.delete_workflow(&tenant, &name).await.map(|()| Nothing))
    }

    async fn start(&self, request: Request<StartRun>) -> Result<Response<Started>, Status> {
        let StartRun { tenant, name, run } = request.into_inner();
        answer(self.0.start(&tenant, &name, run).await)
    }

    async fn start_part(&self, request: Request<StartPart>) -> Result<Response<Started>, Status> {
        let StartPart { tenant, part } = request.into_inner();
        answer(self.0.start_part(&tenant, part).await)
    }

    async fn run(&self, request: Request<OfRun>) -> Result<Response<Run>, Status> {
        let OfRun { tenant, id, wait } = request.into_inner();
        answer(self.0.run(&tenant, &id, wait).await)
    }

    async fn runs(&self, request: Request<RunsOf>) -> Result<Response<RunPage>, Status> {
        let RunsOf { tenant, query } = request.into_inner();
        answer(self.0.runs(&tenant, query).await)
    }

    async fn command(&self, request: Request<CommandRun>) -> Result<Response<Run>, Status> {
        let CommandRun { tenant, id, command } = request.into_inner();
        answer(self.0.command(&tenant, &id, command).await)
    }

    async fn delete_run(&self, request: Request<OfRun>) -> Result<Response<Nothing>, Status> {
        let OfRun { tenant, id, .. } = request.into_inner();
        answer(self.0.delete_run(&tenant, &id).await.map(|()| Nothing))
    }

    async fn usage(&self, request: Request<OfTenant>) -> Result<Response<WorkflowUse>, Status> {
        answer(self.0.usage(&request.into_inner().tenant).await)
    }

    async fn trace(&self, request: Request<TraceOf>) -> Result<Response<Tokens>, Status> {
        let TraceOf { tenant, id, from, limit } = request.into_inner();
        answer(self.0.trace(&tenant, &id, from, limit).await.map(|tokens| Tokens { tokens }))
    }

    async fn waiting(&self, request: Request<OfRun>) -> Result<Response<WaitingTasks>, Status> {
        let OfRun { tenant, id, .. } = request.into_inner();
        answer(self.0.waiting(&tenant, &id).await.map(|tasks| WaitingTasks { tasks }))
    }

    async fn clear(&self, request: Request<OfTenant>) -> Result<Response<Cleared>, Status> {
        answer(self.0.clear(&request.into_inner().tenant).await.map(|all| Cleared { all }))
    }

    async fn value(&self, request: Request<ValueOf>) -> Result<Response<ValueText>, Status> {
        answer(self.0.value(&request.into_inner().token).await.map(|json| ValueText { json }))
    }

    async fn complete(&self, request: Request<CompleteTask>) -> Result<Response<Nothing>, Status> {
        let CompleteTask { token, completion } = request.into_inner();
        answer(self.0.complete(&token, completion).await.map(|()| Nothing))
    }

    async fn members(&self, _: Request<Nothing>) -> Result<Response<WorkflowMembers>, Status> {
        answer(self.0.members().await.map(|members| WorkflowMembers { members }))
    }
}
