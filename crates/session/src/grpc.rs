//! The session protocol over gRPC.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use futures::stream;
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};

use crate::machine::{Refusal, Said};
use crate::protocol::from_program::Body;
use crate::protocol::session_service_server::{SessionService, SessionServiceServer};
use crate::protocol::{FromProgram, ToProgram};
use crate::server::Shared;
use crate::stream::{Attached, Refused, hear};

/// What paths of this service begin with.
pub(crate) const PATH: &str = "/lyra.session.v1.SessionService/";

pub(crate) struct Service {
    shared: Arc<Shared>,
}

/// The service, for one instance.
pub(crate) fn service(shared: &Arc<Shared>) -> SessionServiceServer<Service> {
    let service = SessionServiceServer::new(Service { shared: Arc::clone(shared) });
    service.max_decoding_message_size(shared.settings.max_message)
}

#[tonic::async_trait]
impl SessionService for Service {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<ToProgram, Status>> + Send>>;

    async fn attach(&self, request: Request<Streaming<FromProgram>>) -> Result<Response<Self::AttachStream>, Status> {
        let shared = &self.shared;
        let mut inbound = request.into_inner();
        let permit = shared.attaching.try_acquire().map_err(|_| status(&Refused::BeingSetUp))?;
        let first = timeout(shared.settings.patience, inbound.message());
        let first = first.await.map_err(|_| status(&Refused::Slow))??;
        let sequence = first.as_ref().map_or(0, |message| message.sequence);
        let Some(Said::Hello(view)) = first.and_then(said) else {
            return Err(Status::invalid_argument("the first message must be Hello"));
        };
        let attached = Attached::new(shared, view, sequence).await.map_err(|refused| status(&refused))?;
        drop(permit);
        shared.tasks.spawn_cancellable("session-messages", listen(Arc::clone(shared), attached.number, inbound));
        let outbound = stream::unfold(attached, |mut attached| async {
            let message = attached.messages.recv().await?;
            Some((Ok(message), attached))
        });
        Ok(Response::new(Box::pin(outbound)))
    }
}

/// Takes what the program says, until it ends or is refused.
async fn listen(shared: Arc<Shared>, stream: u64, mut inbound: Streaming<FromProgram>) {
    // Nobody writes any more: the whole stream is over.
    while let Ok(Some(message)) = inbound.message().await {
        let sequence = message.sequence;
        // What this version does not know yet is left out, but counts.
        let said = said(message).unwrap_or(Said::Pong(0));
        match hear(&shared, stream, sequence, said).await {
            // It is told to say everything again.
            Ok(_) | Err(Refusal::Gap) => {}
            Err(refusal) => {
                tracing::debug!(stream, %refusal, "a program's stream is ended");
                break;
            }
        }
    }
    shared.act(|machine, at| machine.detach(stream, at));
}

fn said(message: FromProgram) -> Option<Said> {
    Some(match message.body? {
        Body::Hello(hello) => Said::from(hello),
        Body::State(state) => Said::from(state),
        Body::Clients(clients) => Said::from(clients),
        Body::Pong(pong) => Said::from(pong),
    })
}

fn status(refused: &Refused) -> Status {
    let text = refused.to_string();
    match refused {
        Refused::Busy => Status::already_exists(text),
        Refused::BeingSetUp => Status::unavailable(text),
        Refused::Malformed(_) | Refused::ByMachine(Refusal::BadId) => Status::invalid_argument(text),
        Refused::ByMachine(Refusal::GivenUp) => Status::failed_precondition(text),
        Refused::ByMachine(Refusal::Stale | Refusal::Gap) => Status::aborted(text),
        Refused::TooLarge(_) | Refused::ByMachine(Refusal::TooManyClients) => Status::resource_exhausted(text),
        Refused::Slow => Status::deadline_exceeded(text),
    }
}
