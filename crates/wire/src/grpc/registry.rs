//! The registry of workers in another process: the client that is one, and the server over one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{BoxStream, Stream};
use lyra_types::{Code, Error, Result};
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status, Streaming};

use super::accept::Asker;
use super::access::check_worker;
use super::asking::{Items, Peers, Repeat, SHORT, answers};
use super::messages::Nothing;
use super::security::{Peer, Security};
use super::services::registry_client::RegistryClient;
use super::services::registry_server::{Registry as RegistryService, RegistryServer};
use super::{MAX_MESSAGE, failure};
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
        let ask = |channel| async move {
            let client = RegistryClient::new(channel).max_encoding_message_size(MAX_MESSAGE);
            client.max_decoding_message_size(MAX_MESSAGE).join(messages).await
        };
        Ok(self.peers.items(self.peers.ask_once(SHORT, ask).await?))
    }

    async fn watch_workers(&self) -> Result<BoxStream<'static, Result<MemberEvent>>> {
        let ask = |channel| async move { RegistryClient::new(channel).watch_workers(Nothing).await };
        Ok(self.peers.items(self.peers.ask(Repeat::Always, SHORT, ask).await?))
    }
}

/// Adds the service by which others reach `registry`. A worker tells all that it holds in one message, which has a few hundred
/// bytes for each instance and each session.
pub fn add_registry(routes: &mut RoutesBuilder, registry: Arc<dyn Registry>) {
    let server = RegistryServer::new(Served(registry));
    routes.add_service(server.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE));
}

struct Served(Arc<dyn Registry>);

/// Checks that whoever gives a name may have it, where certificates are asked for. A name that is not its own is refused
/// before the registry hears of it.
fn own_name(asker: Option<&Asker>, message: &FromNode) -> Result<()> {
    match (asker, message) {
        (Some(asker), FromNode::Register(registration, _)) => check_worker(asker, &registration.name)
            .map_err(|status| Error::new(Code::PermissionDenied, status.message())),
        _ => Ok(()),
    }
}

#[async_trait]
impl RegistryService for Served {
    type JoinStream = Items<ToNode>;
    type WatchWorkersStream = Items<MemberEvent>;

    async fn join(&self, request: Request<Streaming<FromNode>>) -> Result<Response<Items<ToNode>>, Status> {
        let asker = request.extensions().get::<Asker>().cloned();
        let messages = request.into_inner().map(move |message| {
            let message = message.map_err(|status| failure::from_status(&status, "the worker"))?;
            own_name(asker.as_ref(), &message)?;
            Ok(message)
        });
        answers(self.0.join(messages.boxed()).await)
    }

    async fn watch_workers(&self, _: Request<Nothing>) -> Result<Response<Items<MemberEvent>>, Status> {
        answers(self.0.watch_workers().await)
    }
}
