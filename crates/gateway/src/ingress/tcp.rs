//! Connections to TCP ports of sessions.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::activity::Activity;
use super::metrics::Kind;
use super::pipe::{End, carry};
use super::table::Session;
use super::{Ingress, Place};

/// Wait after a failed accept: it fails for want of file descriptors, and trying at once won't find more.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A silent connection is asked whether it lives after this time, then each [`PROBE`], this many times.
const SILENT: Duration = Duration::from_secs(60);
const PROBE: Duration = Duration::from_secs(15);
const PROBES: u32 = 4;

/// Accepts for one port until it is dropped; `life` ends what was accepted.
pub(super) async fn accept(
    ingress: &Arc<Ingress>,
    session: &Arc<Session>,
    index: usize,
    listener: TcpListener,
    life: &CancellationToken,
) {
    loop {
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) if is_of_the_connection(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "a connection to a session can't be accepted");
                ingress.clock.sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = ingress.enter(session, Kind::Tcp) else {
            refuse(client);
            continue;
        };
        let (ingress, session, life) = (Arc::clone(ingress), Arc::clone(session), life.clone());
        let tasks = ingress.tasks.clone();
        tasks.spawn("session connection", async move {
            tokio::select! {
                biased;
                () = life.cancelled() => {}
                () = serve(&ingress, &session, index, client, place) => {}
            }
        });
    }
}

/// Whether the error says something of the one connection, not of the listener.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
    )
}

/// Closes a connection so that the client can't take it for an orderly end.
fn refuse(client: TcpStream) {
    if let Err(error) = client.set_zero_linger() {
        tracing::debug!(%error, "a refused connection was gone already");
    }
}

async fn serve(ingress: &Ingress, session: &Session, index: usize, client: TcpStream, _place: Place) {
    let endpoint = match connect(ingress, session, index).await {
        Ok(endpoint) => endpoint,
        Err(error) => {
            tracing::debug!(session = %session.route.key.name, %error, "the port of a session does not answer");
            return refuse(client);
        }
    };
    if let Err(error) = prepare(&client) {
        tracing::debug!(%error, "a client was gone before it was served");
        return;
    }
    let limit = ingress.config.tcp_idle_timeout;
    join(ingress, Kind::Tcp, &client.into(), &endpoint.into(), limit).await;
}

/// Carries between two connections until both directions have ended, either breaks, or nothing moves for `limit`.
pub(super) async fn join(ingress: &Ingress, kind: Kind, client: &End, endpoint: &End, limit: Duration) {
    let activity = Activity::new(&ingress.clock);
    tokio::select! {
        carried = carry(client, endpoint, &activity, ingress.metrics.carried(kind)) => {
            if let Err(error) = carried {
                // Whoever is still there shall not take it for an orderly end.
                for end in [client, endpoint] {
                    drop(end.with_tcp(TcpStream::set_zero_linger));
                }
                tracing::debug!(%error, "a connection to a session broke");
            }
        }
        () = activity.until_over(limit, limit) => ingress.metrics.idle.inc(),
    }
}

/// A connection to an endpoint of a session.
///
/// # Errors
/// Whatever keeps it from being made in time; nothing was sent.
pub(super) async fn connect(ingress: &Ingress, session: &Session, index: usize) -> io::Result<TcpStream> {
    let address = session.endpoint(index).address;
    let connected = match tokio::time::timeout(ingress.config.connect_timeout, TcpStream::connect(address)).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    let prepared = connected.and_then(|stream| prepare(&stream).map(|()| stream));
    if prepared.is_err() {
        ingress.metrics.unreachable.inc();
    }
    prepared
}

/// Sends at once what is written, and finds out when the other side is not there any more.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, SILENT)?;
    sockopt::set_tcp_keepintvl(stream, PROBE)?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
    Ok(())
}
