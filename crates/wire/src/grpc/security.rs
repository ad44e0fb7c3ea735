//! How connections between roles are made: in plain text on one host, by mutual TLS anywhere.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use lyra_types::{Code, Error};
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::endpoint;
use super::link::Link;
use super::seldom::is_time_to_say;
use crate::Role;
use crate::tls::{Directory, failed_to_connect, name_of};

/// Longest wait for TLS to be agreed on: less than for the whole connection, so that its own error is seen.
const AGREE: Duration = Duration::from_secs(2);

/// How roles speak with each other.
#[derive(Debug, Clone, Default)]
pub enum Security {
    /// In plain text, and whoever speaks is believed. For loopback addresses only.
    #[default]
    Plain,
    /// By mutual TLS: each end shows a certificate, which says what it may ask for.
    Mutual(Directory),
}

/// Whom a connection is to reach.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer<'a> {
    pub(super) role: Role,
    /// Its name, where there is but one that is right.
    pub(super) name: Option<&'a str>,
}

impl Peer<'_> {
    /// Any process of the control role.
    pub(super) const CONTROL: Peer<'static> = Peer { role: Role::Control, name: None };
}

/// Where connections go.
#[derive(Debug, Clone)]
pub(super) struct Target {
    endpoint: Endpoint,
    dial: Option<Dial>,
}

impl Target {
    /// The node at `address` (`HOST:PORT`), which has to be `peer`.
    pub(super) fn new(address: &str, peer: Peer<'_>, security: &Security) -> Result<Target, Error> {
        let endpoint = endpoint(address)?;
        let Security::Mutual(directory) = security else { return Ok(Target { endpoint, dial: None }) };
        let expected = name_of(peer.role, peer.name);
        let server = ServerName::try_from(expected.clone())
            .map_err(|_| Error::new(Code::BadRequest, format!("{expected:?} can't be the name of a node")))?;
        let dial =
            Dial { directory: directory.clone(), server, address: Arc::from(address), expected: Arc::from(expected) };
        Ok(Target { endpoint, dial: Some(dial) })
    }

    /// Connects now.
    pub(super) async fn connect(&self) -> Result<Channel, tonic::transport::Error> {
        match &self.dial {
            Some(dial) => self.endpoint.connect_with_connector(dial.clone()).await,
            None => self.endpoint.connect().await,
        }
    }

    /// Connects when there is something to ask.
    pub(super) fn connect_lazy(&self) -> Channel {
        match &self.dial {
            Some(dial) => self.endpoint.connect_with_connector_lazy(dial.clone()),
            None => self.endpoint.connect_lazy(),
        }
    }
}

/// A connection by TLS.
type Connection = Link<TlsStream<TcpStream>>;

/// Makes connections by TLS.
#[derive(Debug, Clone)]
struct Dial {
    directory: Directory,
    server: ServerName<'static>,
    address: Arc<str>,
    expected: Arc<str>,
}

impl tower::Service<Uri> for Dial {
    type Response = TokioIo<Connection>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Connection>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dial = self.clone();
        Box::pin(async move { dial.connect(&uri).await.map(TokioIo::new) })
    }
}

impl Dial {
    async fn connect(&self, uri: &Uri) -> io::Result<Connection> {
        let no_address = || io::Error::new(io::ErrorKind::InvalidInput, "not HOST:PORT");
        let (host, port) = (uri.host().ok_or_else(no_address)?, uri.port_u16().ok_or_else(no_address)?);
        let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
        stream.set_nodelay(true)?;
        let config = Arc::clone(&self.directory.current().await.client);
        let agreed = async {
            let mut stream = TlsConnector::from(config).connect(self.server.clone(), stream).await?;
            // With TLS 1.3 this end is done before the other has looked at its certificate. A server of HTTP/2 speaks first,
            // so what comes first says whether it was taken.
            let mut first = vec![0; 64];
            match stream.read(&mut first).await? {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                read => {
                    first.truncate(read);
                    Ok(Link { first, stream, known: () })
                }
            }
        };
        let agreed = tokio::time::timeout(AGREE, agreed).await;
        let error = match agreed {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error)) => failed_to_connect(&error, &self.expected),
            Err(_) => "it did not answer while TLS was agreed; does it speak TLS?".to_owned(),
        };
        self.tell(&error);
        Err(io::Error::other(error))
    }

    fn tell(&self, error: &str) {
        if is_time_to_say(&format!("{} {error}", self.address)) {
            tracing::warn!(address = &*self.address, expected = &*self.expected, error, "no connection by TLS");
        }
    }
}
