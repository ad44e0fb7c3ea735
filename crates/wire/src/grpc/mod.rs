//! The services over gRPC: for each trait of this crate a client that implements it, and a server over an
//! implementation.
//!
//! Calls go in Protocol Buffers (`proto/lyra/calls.proto`); everything else is rare and goes in MessagePack, by the Rust
//! types of the traits ([design 0005](../../../docs/design/0005-roles-apart.md)).

mod accept;
mod access;
mod accounts;
mod asking;
mod control;
mod exchange;
mod failure;
mod fields;
mod http_call;
mod link;
mod logs;
pub mod messages;
pub mod packed;
mod quotas;
mod registry;
mod security;
mod seldom;
mod worker;
mod workflow_messages;
mod workflow_peers;
mod workflows;

pub use accounts::{RemoteAccounts, add_accounts};
pub use control::{RemoteControl, add_control};
pub use logs::{RemoteLogs, add_logs};
pub use quotas::{RemoteQuotas, add_quotas};
pub use registry::{RemoteRegistry, add_registry};
pub use security::Security;
pub use worker::{RemoteWorker, add_worker};
pub use workflows::{RemoteWorkflows, add_workflows};

use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
pub use tonic::service::RoutesBuilder;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};

/// The calls' protocol, as made from its .proto file.
#[allow(missing_docs, clippy::all, clippy::or_fun_call, unreachable_pub, reason = "made by a program")]
mod calls {
    tonic::include_proto!("lyra.calls.v1");
}

/// The other services, as made from the list in `build.rs`.
#[allow(missing_docs, clippy::all, clippy::or_fun_call, unreachable_pub, reason = "made by a program")]
mod services {
    include!(concat!(env!("OUT_DIR"), "/lyra.v1.Worker.rs"));
    include!(concat!(env!("OUT_DIR"), "/lyra.v1.Control.rs"));
    include!(concat!(env!("OUT_DIR"), "/lyra.v1.Accounts.rs"));
    include!(concat!(env!("OUT_DIR"), "/lyra.v1.Logs.rs"));
    include!(concat!(env!("OUT_DIR"), "/lyra.v1.Registry.rs"));
    include!(concat!(env!("OUT_DIR"), "/lyra.v1.Workflows.rs"));
    include!(concat!(env!("OUT_DIR"), "/lyra.v1.Quotas.rs"));
}

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// A connection over which nothing comes is asked for a sign of life after this time.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// It is given up when that does not come within this time: with it all that is under way. Long enough for a machine that stands
/// still for a moment; in sum less than [`asking::SHORT`], so that the question can be asked elsewhere.
const ALIVE_WITHIN: Duration = Duration::from_secs(5);
/// Flow control: what may be on its way of one stream, and of one connection.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Largest message: code of a function, with room for what is around it.
const MAX_MESSAGE: usize = 96 << 20;

/// How to reach `address`, in the form `HOST:PORT`.
///
/// # Errors
/// When it is not of that form.
fn endpoint(address: &str) -> Result<Endpoint, lyra_types::Error> {
    let wrong = || lyra_types::Error::new(lyra_types::Code::BadRequest, format!("{address:?} is not HOST:PORT"));
    // Without a port that of HTTP would be taken.
    let (_, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    port.parse::<u16>().map_err(|_| wrong())?;
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| wrong())?;
    Ok(endpoint
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(ALIVE_WITHIN)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW))
}

/// Services for [`serve`]: the `add_…` functions of this module put them in.
pub fn routes() -> RoutesBuilder {
    tonic::service::Routes::builder()
}

/// Serves `routes` on `listener` until `shutdown` is cancelled; then takes no more connections, and ends when those that
/// are there have ended. By TLS, each question is held to what the asker's role may ask for.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    routes: RoutesBuilder,
    security: &Security,
    shutdown: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(ALIVE_WITHIN))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    match security {
        Security::Plain => {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let mut server = server;
            server.add_routes(routes.routes()).serve_with_incoming_shutdown(incoming, shutdown.cancelled()).await
        }
        Security::Mutual(directory) => {
            let incoming = accept::incoming(listener, directory.clone());
            let mut server = server.layer(access::Guard);
            server.add_routes(routes.routes()).serve_with_incoming_shutdown(incoming, shutdown.cancelled()).await
        }
    }
}
