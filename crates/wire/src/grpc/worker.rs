//! A worker in another process: the client that is one, and the server over one.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::Stream;
use lyra_kit::Clock;
use lyra_types::invocation::Report;
use lyra_types::{Code, Error, FunctionVersion, InstanceId, Result};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use tonic::transport::Channel;
use tonic::{Request, Response, Status as GrpcStatus, Streaming};

use super::asking::{LONG, Peers, SHORT, answer};
use super::calls::calls_server::{Calls, CallsServer};
use super::calls::{FromCaller, FromHandler, FromWorker, ToHandler};
use super::exchange::{Caller, LONGEST_WAIT_KEY, Missed, exchange};
use super::fields::to_report;
use super::messages::{Cleaned, Drain, Forget, Instances, Instruct, Nothing, Prewarm};
use super::security::{Peer, Security, Target};
use super::services::worker_client::WorkerClient;
use super::services::worker_server::{Worker as WorkerService, WorkerServer};
use super::{MAX_MESSAGE, http_call};
use crate::worker::{
    Call, Drained, Health, HttpCall, HttpReply, InstanceCommand, InstanceStatus, Prepare, Prepared, Reply, Status,
};
use crate::{Operated, Role, Worker};

/// A worker that is reached over gRPC. Connections are made when they are needed, and again when they break.
///
/// A call that could not be sent ends with [`Code::Unavailable`] and a report without a start: it has not run and may be
/// tried elsewhere. A call that was sent when the connection broke ends with [`Code::WorkerLost`].
#[derive(Debug)]
pub struct RemoteWorker {
    name: String,
    calls: Caller,
    peers: Peers,
}

impl RemoteWorker {
    /// The worker called `name` at `address` (`HOST:PORT`).
    ///
    /// # Errors
    /// When the address is none. Whether somebody is there is seen with the first call.
    pub fn new(name: impl Into<String>, address: &str, security: &Security, clock: Clock) -> Result<RemoteWorker> {
        let name = name.into();
        let peer = Peer { role: Role::Worker, name: Some(&name) };
        let calls = Caller::new(Target::new(address, peer, security)?, clock);
        let peers = Peers::new(format!("worker {name}"), &[address.to_owned()], peer, security)?;
        Ok(RemoteWorker { name, calls, peers })
    }

    async fn ask<T, F>(&self, limit: Duration, question: impl FnOnce(WorkerClient<Channel>) -> F) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, GrpcStatus>>,
    {
        self.peers
            .ask_once(limit, |channel| {
                let client = WorkerClient::new(channel);
                question(client.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
            })
            .await
    }
}

#[async_trait]
impl Worker for RemoteWorker {
    async fn prepare(&self, prepare: Prepare) -> Result<Prepared> {
        self.ask(LONG, |mut client| async move { client.prepare(prepare).await }).await
    }

    async fn prewarm(&self, version: Arc<FunctionVersion>, instances: u32) -> Result<()> {
        let request = Prewarm { version, instances };
        self.ask(LONG, |mut client| async move { client.prewarm(request).await }).await.map(|_| ())
    }

    async fn forget(&self, generation: u64, version: Option<u64>) -> Result<()> {
        let request = Forget { generation, version };
        self.ask(SHORT, |mut client| async move { client.forget(request).await }).await.map(|_| ())
    }

    async fn invoke(&self, call: Call) -> Reply {
        let report = Report::new(call.id, call.version.version);
        match self.calls.call(&call).await {
            Ok(answer) => {
                Reply { report: to_report(call.id, call.version.version, &answer.report), outcome: answer.outcome }
            }
            Err(Missed::NotSent(why)) => {
                let detail = format!("worker {} can't be reached: {why}", self.name);
                let error = Error::new(Code::Unavailable, detail).with_retry_after(Duration::from_secs(1));
                Reply { report, outcome: Err(error) }
            }
            Err(Missed::Overdue(limit)) => {
                let detail = format!(
                    "worker {} did not answer in {} s, which is longer than this call may take there; it may have run",
                    self.name,
                    limit.as_secs()
                );
                Reply { report, outcome: Err(Error::new(Code::WorkerLost, detail)) }
            }
            Err(Missed::Lost) => {
                let detail = format!("worker {} was lost while it had this call; it may have run", self.name);
                Reply { report, outcome: Err(Error::new(Code::WorkerLost, detail)) }
            }
        }
    }

    async fn serve(&self, call: HttpCall) -> HttpReply {
        let limit = self.calls.limit(call.version.timeout());
        http_call::call(self.peers.channel(), &self.name, call, limit).await
    }
}

#[async_trait]
impl Operated for RemoteWorker {
    async fn status(&self) -> Result<Status> {
        self.ask(SHORT, |mut client| async move { client.status(Nothing).await }).await
    }

    async fn instances(&self) -> Result<Vec<InstanceStatus>> {
        let answer = self.ask(SHORT, |mut client| async move { client.instances(Nothing).await }).await?;
        Ok(answer.instances)
    }

    async fn health(&self) -> Result<Health> {
        self.ask(SHORT, |mut client| async move { client.health(Nothing).await }).await
    }

    async fn cordon(&self) -> Result<()> {
        self.ask(SHORT, |mut client| async move { client.cordon(Nothing).await }).await.map(|_| ())
    }

    async fn uncordon(&self) -> Result<()> {
        self.ask(SHORT, |mut client| async move { client.uncordon(Nothing).await }).await.map(|_| ())
    }

    async fn instruct(&self, instance: InstanceId, command: InstanceCommand) -> Result<()> {
        let asked = Instruct { instance, command };
        self.ask(LONG, |mut client| async move { client.instruct(asked).await }).await.map(|_| ())
    }

    async fn drain(&self, limit: Duration) -> Result<Drained> {
        self.ask(limit + LONG, |mut client| async move { client.drain(Drain { limit }).await }).await
    }

    async fn clean(&self) -> Result<usize> {
        let answer = self.ask(LONG, |mut client| async move { client.clean(Nothing).await }).await?;
        Ok(answer.ended)
    }
}

/// Adds the services by which others reach `worker`. Once `closing` is cancelled, callers are told to begin no more calls;
/// those that were begun go on. A call may wait there for `longest_wait` before it runs: callers wait for their answers for so
/// long, its own time, and a little more.
pub fn add_worker(
    routes: &mut RoutesBuilder,
    worker: Arc<dyn Operated>,
    longest_wait: Duration,
    closing: CancellationToken,
) {
    let served = Served { worker, longest_wait, closing };
    let server = WorkerServer::new(served.clone());
    routes.add_service(CallsServer::new(served));
    routes.add_service(server.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE));
}

#[derive(Clone)]
struct Served {
    worker: Arc<dyn Operated>,
    longest_wait: Duration,
    closing: CancellationToken,
}

#[async_trait]
impl Calls for Served {
    type ExchangeStream = ReceiverStream<Result<FromWorker, GrpcStatus>>;
    type ServeStream = Pin<Box<dyn Stream<Item = Result<FromHandler, GrpcStatus>> + Send>>;

    async fn exchange(
        &self,
        request: Request<Streaming<FromCaller>>,
    ) -> Result<Response<Self::ExchangeStream>, GrpcStatus> {
        let answers = exchange(self.worker.clone(), request.into_inner(), self.closing.clone());
        let mut response = Response::new(ReceiverStream::new(answers));
        let millis = u64::try_from(self.longest_wait.as_millis()).unwrap_or(u64::MAX);
        response.metadata_mut().insert(LONGEST_WAIT_KEY, millis.into());
        Ok(response)
    }

    async fn serve(&self, request: Request<Streaming<ToHandler>>) -> Result<Response<Self::ServeStream>, GrpcStatus> {
        let answers = http_call::serve(&*self.worker, request.into_inner()).await?;
        Ok(Response::new(Box::pin(answers)))
    }
}

#[async_trait]
impl WorkerService for Served {
    async fn prepare(&self, request: Request<Prepare>) -> Result<Response<Prepared>, GrpcStatus> {
        answer(self.worker.prepare(request.into_inner()).await)
    }

    async fn prewarm(&self, request: Request<Prewarm>) -> Result<Response<Nothing>, GrpcStatus> {
        let Prewarm { version, instances } = request.into_inner();
        answer(self.worker.prewarm(version, instances).await.map(|()| Nothing))
    }

    async fn forget(&self, request: Request<Forget>) -> Result<Response<Nothing>, GrpcStatus> {
        let Forget { generation, version } = request.into_inner();
        answer(self.worker.forget(generation, version).await.map(|()| Nothing))
    }

    async fn status(&self, _: Request<Nothing>) -> Result<Response<Status>, GrpcStatus> {
        answer(self.worker.status().await)
    }

    async fn instances(&self, _: Request<Nothing>) -> Result<Response<Instances>, GrpcStatus> {
        answer(self.worker.instances().await.map(|instances| Instances { instances }))
    }

    async fn health(&self, _: Request<Nothing>) -> Result<Response<Health>, GrpcStatus> {
        answer(self.worker.health().await)
    }

    async fn cordon(&self, _: Request<Nothing>) -> Result<Response<Nothing>, GrpcStatus> {
        answer(self.worker.cordon().await.map(|()| Nothing))
    }

    async fn uncordon(&self, _: Request<Nothing>) -> Result<Response<Nothing>, GrpcStatus> {
        answer(self.worker.uncordon().await.map(|()| Nothing))
    }

    async fn drain(&self, request: Request<Drain>) -> Result<Response<Drained>, GrpcStatus> {
        answer(self.worker.drain(request.into_inner().limit).await)
    }

    async fn instruct(&self, request: Request<Instruct>) -> Result<Response<Nothing>, GrpcStatus> {
        let Instruct { instance, command } = request.into_inner();
        answer(self.worker.instruct(instance, command).await.map(|()| Nothing))
    }

    async fn clean(&self, _: Request<Nothing>) -> Result<Response<Cleaned>, GrpcStatus> {
        answer(self.worker.clean().await.map(|ended| Cleaned { ended }))
    }
}
