//! The log service in another process: the client that is one, and the server over one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use lyra_kit::Tasks;
use lyra_types::log::LogLine;
use lyra_types::{Code, Error, FunctionName, Result, TenantName};
use tokio::sync::{Mutex, mpsc};
use tonic::service::RoutesBuilder;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::asking::{Items, Peers, SHORT, answer, answers};
use super::failure;
use super::messages::{Lines, Nothing, OfFunction};
use super::security::{Peer, Security};
use super::services::logs_client::LogsClient;
use super::services::logs_server::{Logs as LogsService, LogsServer};
use crate::Logs;
use crate::logs::Query;

/// Lines that wait to be sent. What comes beyond is dropped and counted: a function never waits for its log.
const WAITING: usize = 16_384;
/// After a connection broke, the next is tried so much later.
const REST: Duration = Duration::from_millis(500);
/// How often it is looked whether a process is there again.
const RETURN: Duration = Duration::from_secs(1);

/// A log service that is reached over gRPC.
#[derive(Debug)]
pub struct RemoteLogs {
    peers: Arc<Peers>,
    lines: mpsc::Sender<LogLine>,
    dropped: AtomicU64,
}

impl RemoteLogs {
    /// The log services at `addresses` (`HOST:PORT` each). `tasks` own what sends the lines.
    ///
    /// # Errors
    /// When an address is none.
    pub fn new(addresses: &[String], security: &Security, tasks: &Tasks) -> Result<RemoteLogs> {
        let peers = Arc::new(Peers::new("logs", addresses, Peer::CONTROL, security)?);
        let (lines, waiting) = mpsc::channel(WAITING);
        tasks.spawn_cancellable("send-logs", send(Arc::clone(&peers), waiting));
        Ok(RemoteLogs { peers, lines, dropped: AtomicU64::new(0) })
    }
}

/// Sends lines for as long as there are any; over a new connection where one breaks. A line that was on its way then may
/// be lost.
async fn send(peers: Arc<Peers>, mut lines: mpsc::Receiver<LogLine>) {
    // Who has nothing to write does not ask to: a gateway might not, either.
    let Some(first) = lines.recv().await else { return };
    let waiting = Arc::new(Mutex::new((Some(first), lines)));
    loop {
        let lines = futures::stream::unfold(Arc::clone(&waiting), |waiting| async move {
            let mut next = waiting.lock().await;
            let line = match next.0.take() {
                Some(first) => first,
                None => next.1.recv().await?,
            };
            drop(next);
            Some((line, waiting))
        });
        // It takes as long as lines are sent, so there is no limit.
        let asked = peers.current();
        match LogsClient::new(peers.channel()).offer(lines).await {
            Ok(_) => return,
            Err(status) => tracing::debug!(%status, "lines can't be sent"),
        }
        peers.avoid(asked);
        tokio::time::sleep(REST).await;
    }
}

impl RemoteLogs {
    /// Asks every process at once: each has the lines that were sent there. Those that can't be reached are left out, as
    /// long as one answers; they are told, too.
    async fn ask_all<T, F>(&self, question: impl Fn(Channel) -> F) -> Result<(Vec<T>, Vec<Channel>)>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let ask = |channel: &Channel| tokio::time::timeout(SHORT, question(channel.clone()));
        let mut failed = None;
        let (mut answers, mut silent) = (Vec::new(), Vec::new());
        let outcomes = join_all(self.peers.all().iter().map(ask)).await;
        for (outcome, channel) in outcomes.into_iter().zip(self.peers.all()) {
            let error = match outcome {
                Ok(Ok(answer)) => {
                    answers.push(answer);
                    continue;
                }
                Ok(Err(status)) => failure::from_status(&status, self.peers.what()),
                Err(_) => Error::new(Code::Unavailable, "logs did not answer in time"),
            };
            failed = Some(error);
            silent.push(channel.clone());
        }
        match failed {
            Some(error) if answers.is_empty() => Err(error),
            Some(error) => {
                tracing::debug!(%error, "some lines can't be had now");
                Ok((answers, silent))
            }
            None => Ok((answers, silent)),
        }
    }
}

/// Waits until a process answers that did not.
async fn answers_again(channel: Channel, query: Query) {
    let query = Query { limit: 1, ..query };
    loop {
        tokio::time::sleep(RETURN).await;
        let mut client = LogsClient::new(channel.clone());
        let asked = client.query(query.clone());
        if matches!(tokio::time::timeout(SHORT, asked).await, Ok(Ok(_))) {
            return;
        }
    }
}

#[async_trait]
impl Logs for RemoteLogs {
    fn offer(&self, line: LogLine) {
        if self.lines.try_send(line).is_err() && self.dropped.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!("the log service is away or slow: lines of functions are dropped");
        }
    }

    async fn query(&self, query: Query) -> Result<Vec<LogLine>> {
        let ask = |channel| {
            let query = query.clone();
            async move { LogsClient::new(channel).query(query).await.map(|lines| lines.into_inner().lines) }
        };
        let (lines, _) = self.ask_all(ask).await?;
        // One of an older build does not know all that narrows a query.
        let mut lines: Vec<LogLine> = lines.into_iter().flatten().filter(|line| query.wants(line)).collect();
        lines.sort_by_key(|line| line.time);
        // The newest ones are asked for.
        let superfluous = lines.len().saturating_sub(query.limit);
        lines.drain(..superfluous);
        Ok(lines)
    }

    async fn follow(&self, query: Query) -> Result<BoxStream<'static, Result<LogLine>>> {
        let ask = |channel| {
            let query = query.clone();
            async move { LogsClient::new(channel).follow(query).await.map(Response::into_inner) }
        };
        let (streams, silent) = self.ask_all(ask).await?;
        // Where one process ends, or one is there again, all of it ends: whoever follows asks all of them anew, and misses none.
        let over = || futures::stream::once(std::future::ready(None)).boxed();
        let lines = streams.into_iter().map(|lines| self.peers.items(lines).map(Some).chain(over()).boxed());
        let returned = silent.into_iter().map(|channel| {
            let again = answers_again(channel, query.clone());
            futures::stream::once(again.map(|()| None)).boxed()
        });
        let all = futures::stream::select_all(lines.chain(returned));
        let whole = all.take_while(|item| std::future::ready(item.is_some())).filter_map(std::future::ready);
        let wanted =
            move |line: &Result<LogLine>| std::future::ready(line.as_ref().map_or(true, |line| query.wants(line)));
        Ok(whole.filter(wanted).boxed())
    }

    async fn forget(&self, tenant: &TenantName, function: &FunctionName) -> Result<()> {
        let of = OfFunction { tenant: tenant.clone(), function: function.clone() };
        let ask = |channel| {
            let of = of.clone();
            async move { LogsClient::new(channel).forget(of).await }
        };
        self.ask_all(ask).await.map(drop)
    }
}

/// Adds the service by which others reach `logs`.
pub fn add_logs(routes: &mut RoutesBuilder, logs: Arc<dyn Logs>) {
    routes.add_service(LogsServer::new(Served(logs)));
}

struct Served(Arc<dyn Logs>);

#[async_trait]
impl LogsService for Served {
    type FollowStream = Items<LogLine>;

    async fn offer(&self, request: Request<Streaming<LogLine>>) -> Result<Response<Nothing>, Status> {
        let mut lines = request.into_inner();
        while let Some(line) = lines.next().await {
            self.0.offer(line?);
        }
        Ok(Response::new(Nothing))
    }

    async fn query(&self, request: Request<Query>) -> Result<Response<Lines>, Status> {
        answer(self.0.query(request.into_inner()).await.map(|lines| Lines { lines }))
    }

    async fn follow(&self, request: Request<Query>) -> Result<Response<Items<LogLine>>, Status> {
        answers(self.0.follow(request.into_inner()).await)
    }

    async fn forget(&self, request: Request<OfFunction>) -> Result<Response<Nothing>, Status> {
        let OfFunction { tenant, function } = request.into_inner();
        answer(self.0.forget(&tenant, &function).await.map(|()| Nothing))
    }
}
