//! Takes connections by TLS: each must show a certificate of the site's authority, in time.
//!
//! One that speaks plain text is told so in its own protocol.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lyra_kit::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;

use super::link::Link;
use super::seldom::is_time_to_say;
use crate::tls::{Directory, Identity, failed_to_accept};

/// Longest wait for a connection to show who it is.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Connections that have not yet shown who they are; more wait.
const MAX_UNKNOWN: usize = 256;
/// Wait after a failed accept: it fails for want of file descriptors, and trying at once won't find more.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// First byte of whatever speaks TLS (RFC 8446, 5.1).
const HANDSHAKE_RECORD: u8 = 22;
/// What plain text is answered: no settings, then GOAWAY of stream 0, with the reason INADEQUATE_SECURITY (RFC 9113, 6.8 and 7).
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const GO_AWAY: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 12];
/// … and in words.
const TLS_ONLY: &str = "this address takes TLS only: start your node with --tls-dir";

/// Who is at the other end of a connection, as its certificate says.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    pub(super) identity: Arc<Identity>,
    pub(super) address: SocketAddr,
}

/// A connection whose other end is known.
type Secured = Link<TlsStream<TcpStream>, Asker>;

/// Connections whose other end is known, until the stream is dropped.
pub(super) fn incoming(listener: TcpListener, directory: Directory) -> ReceiverStream<io::Result<Secured>> {
    let (ready, connections) = mpsc::channel(16);
    lyra_kit::tasks::spawn("accept", accept(listener, directory, ready));
    ReceiverStream::new(connections)
}

async fn accept(listener: TcpListener, directory: Directory, ready: mpsc::Sender<io::Result<Secured>>) {
    let places = Arc::new(Semaphore::new(MAX_UNKNOWN));
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = ready.closed() => return,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                let (directory, ready) = (directory.clone(), ready.clone());
                lyra_kit::tasks::spawn("handshake", async move {
                    let agreed = tokio::time::timeout(HANDSHAKE, agree(stream, address, &directory)).await;
                    drop(place);
                    let reason = match agreed {
                        Ok(Ok(secured)) => return drop(ready.send(Ok(secured)).await),
                        Ok(Err(reason)) => reason,
                        Err(_) => "it did not show in time who it is".to_owned(),
                    };
                    if is_time_to_say(&format!("{} {reason}", address.ip())) {
                        tracing::warn!(%address, reason, "a connection is turned away");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection can't be accepted");
                Clock::system().sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Agrees on TLS with whoever has connected.
///
/// # Errors
/// A sentence that says why not.
async fn agree(mut stream: TcpStream, address: SocketAddr, directory: &Directory) -> Result<Secured, String> {
    let broken = |error: io::Error| format!("it broke: {error}");
    stream.set_nodelay(true).map_err(broken)?;
    let mut first = [0];
    if stream.peek(&mut first).await.map_err(broken)? == 0 {
        return Err("it said nothing".to_owned());
    }
    if first[0] != HANDSHAKE_RECORD {
        // Nobody needs to hear why, but a node of Lyra shows it.
        drop(turn_away(&mut stream).await);
        return Err("it speaks plain text; start that node with --tls-dir as well".to_owned());
    }
    let config = Arc::clone(&directory.current().await.server);
    let stream = TlsAcceptor::from(config).accept(stream).await.map_err(|error| failed_to_accept(&error))?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let identity = Identity::of(certificate.ok_or("it shows no certificate")?)
        .map_err(|error| format!("its certificate can't be understood: {error}"))?;
    Ok(Link { first: Vec::new(), stream, known: Asker { identity: Arc::new(identity), address } })
}

async fn turn_away(stream: &mut TcpStream) -> io::Result<()> {
    let length = u8::try_from(GO_AWAY.len() + TLS_ONLY.len()).unwrap_or(u8::MAX);
    let head = [0, 0, length, 7, 0, 0, 0, 0, 0];
    stream.write_all(&[&SETTINGS[..], &head, &GO_AWAY, TLS_ONLY.as_bytes()].concat()).await?;
    stream.shutdown().await?;
    // What was not read when a connection is closed may cost the other end what it has not read either.
    let mut rest = [0; 1_024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}
