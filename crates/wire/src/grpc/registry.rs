//! The registry of workers in another process: the client that is one, and the server over one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{BoxStream, Stream};
use lyra_types::Result;
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status, Streaming};

use super::accept::Asker;
use super::access::check_worker;
use super::asking::{Items, Peers, Repeat, SHORT, answers};
use super::failure;
use super::messages::Nothing;
use super::security::{Peer, Security};
use super::services::registry_client::RegistryClient;
use super::services::registry_server::{Registry as RegistryService, RegistryServer};
use crate::Registry;
use crate::registry::{FromNode, MemberEvent, ToNode};

/// A registry that is reached over gRPC.
#[derive(Debug)]
pub struct RemoteRegistry {
    peers: Peers,
}

impl RemoteRegistry {
    /// The registry of the control processes at `addresses` (`HOST:PORT` each).
    ///
    /// # Errors
    /// When an address is none.
    pub fn new(addresses: &[String], security: &Security) -> Result<RemoteRegistry> {
        Ok(RemoteRegistry { peers: Peers::new("control", addresses, Peer::CONTROL, security)? })
    }
}

/// What a worker says, until it can say no more. (A type of its own: with a boxed stream the compiler can't see that
/// the question may move between threads.)
struct Sayings(BoxStream<'static, Result<FromNode>>);

impl Stream for Sayings {
    type Item = FromNode;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<FromNode>> {
        self.0.poll_next_unpin(context).map(|message| message?.ok())
    }
}

#[async_trait]
impl Registry for RemoteRegistry {
    async fn join(&self, messages: BoxStream<'static, Result<FromNode>>) -> Result<BoxStream<'static, Result<ToNode>>> {
        let messages = Sayings(messages);
        let ask = |channel| async move { RegistryClient::new(channel).join(messages).await };
        Ok(self.peers.items(self.peers.ask_once(SHORT, ask).await?))
    }

    async fn watch_workers(&self) -> Result<BoxStream<'static, Result<MemberEvent>>> {
        let ask = |channel| async move { RegistryClient::new(channel).watch_workers(Nothing).await };
        Ok(self.peers.items(self.peers.ask(Repeat::Always, SHORT, ask).await?))
    }
}

/// Adds the service by which others reach `registry`.
pub fn add_registry(routes: &mut RoutesBuilder, registry: Arc<dyn Registry>) {
    routes.add_service(RegistryServer::new(Served(registry)));
}

struct Served(Arc<dyn Registry>);

/// The first message of a worker whose certificate is known. A name that is not its own is refused before the registry hears
/// of it.
async fn first_of(asker: &Asker, messages: &mut Streaming<FromNode>) -> Result<FromNode, Status> {
    let first = tokio::time::timeout(SHORT, messages.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("a worker registers first"))??;
    let first = first.ok_or_else(|| Status::invalid_argument("a worker registers first"))?;
    own_name(Some(asker), &first)?;
    Ok(first)
}

/// Checks that whoever gives a name may have it, where certificates are asked for.
fn own_name(asker: Option<&Asker>, message: &FromNode) -> Result<(), Status> {
    match (asker, message) {
        (Some(asker), FromNode::Register(registration, _)) => check_worker(asker, &registration.name),
        _ => Ok(()),
    }
}

#[async_trait]
impl RegistryService for Served {
    type JoinStream = Items<ToNode>;
    type WatchWorkersStream = Items<MemberEvent>;

    async fn join(&self, request: Request<Streaming<FromNode>>) -> Result<Response<Items<ToNode>>, Status> {
        let asker = request.extensions().get::<Asker>().cloned();
        let mut messages = request.into_inner();
        let first = match &asker {
            Some(asker) => Some(first_of(asker, &mut messages).await?),
            None => None,
        };
        let rest = messages.map(move |message| {
            let message = message?;
            own_name(asker.as_ref(), &message)?;
            Ok(message)
        });
        let messages = futures::stream::iter(first.map(Ok)).chain(rest);
        let messages = messages.map(|message| message.map_err(|status| failure::from_status(&status, "the worker")));
        answers(self.0.join(messages.boxed()).await)
    }

    async fn watch_workers(&self, _: Request<Nothing>) -> Result<Response<Items<MemberEvent>>, Status> {
        answers(self.0.watch_workers().await)
    }
}
