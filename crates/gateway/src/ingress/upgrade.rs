//! Requests that become something else: WebSockets, or whatever client and session agree on.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use lyra_types::{Code, Error, Result};

use super::Ingress;
use super::metrics::Kind;
use super::pipe::End;
use super::pool::Lease;
use super::table::Session;
use super::tcp;
use super::watched::Watched;
use crate::headers::strip_hop_by_hop;
use crate::socket::Socket;

const WORD: HeaderValue = HeaderValue::from_static("upgrade");

/// What a client wants its connection to become.
pub(super) struct Wanted {
    protocol: HeaderValue,
    client: OnUpgrade,
}

impl Wanted {
    /// Takes the wish out of a request, where it has one.
    pub(super) fn take(parts: &mut Parts) -> Option<Wanted> {
        if parts.version != Version::HTTP_11 || !parts.headers.contains_key(UPGRADE) {
            return None;
        }
        let mut words = parts.headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        let asks = words.any(|value| value.split(',').any(|word| word.trim().eq_ignore_ascii_case("upgrade")));
        let protocol = parts.headers.get(UPGRADE).filter(|_| asks)?.clone();
        Some(Wanted { protocol, client: parts.extensions.remove::<OnUpgrade>()? })
    }

    /// Hands the wish on.
    pub(super) fn put(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, WORD);
        headers.insert(UPGRADE, self.protocol.clone());
    }
}

/// The answer by which the session takes the wish up; from then on bytes are carried both ways.
///
/// # Errors
/// [`Code::SessionError`] where the client had no such wish.
pub(super) fn switch(
    ingress: &Arc<Ingress>,
    session: &Arc<Session>,
    wanted: Option<Wanted>,
    mut answer: http::Response<Incoming>,
    mut lease: Lease,
) -> Result<Response> {
    let Some(wanted) = wanted else {
        return Err(Error::new(Code::SessionError, "the session changed the protocol, which nobody had asked for"));
    };
    let protocol = answer.headers().get(UPGRADE).unwrap_or(&wanted.protocol).clone();
    let endpoint = hyper::upgrade::on(&mut answer);
    lease.upgrade();
    let (ingress, session) = (Arc::clone(ingress), Arc::clone(session));
    let tasks = ingress.tasks.clone();
    tasks.spawn("upgraded connection", async move {
        tokio::select! {
            biased;
            () = session.life.cancelled() => {}
            () = carry(&ingress, wanted.client, endpoint, &lease) => {}
        }
    });
    let mut headers = std::mem::take(answer.headers_mut());
    strip_hop_by_hop(&mut headers);
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONNECTION, WORD);
    headers.insert(UPGRADE, protocol);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    Ok(response)
}

/// `_lease` keeps the connection's place, and the connection until it is handed over.
async fn carry(ingress: &Ingress, client: OnUpgrade, endpoint: OnUpgrade, _lease: &Lease) {
    let limit = ingress.config.connect_timeout;
    let both = match tokio::time::timeout(limit, async { tokio::try_join!(client, endpoint) }).await {
        Ok(Ok(both)) => both,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a connection was not upgraded after all");
            return;
        }
        Err(_) => {
            tracing::debug!("a connection was not upgraded in time");
            return;
        }
    };
    let (Some(client), Some(endpoint)) = (of_client(both.0), of_endpoint(both.1)) else {
        tracing::error!("an upgraded connection is not of the kind that is served here");
        return;
    };
    if let Err(error) = client.with_tcp(tcp::prepare) {
        tracing::debug!(%error, "a client was gone when its connection was upgraded");
        return;
    }
    tcp::join(ingress, Kind::Upgraded, &client, &endpoint, ingress.config.http_idle_timeout).await;
}

fn of_client(upgraded: Upgraded) -> Option<End> {
    let parts = hyper_util::server::conn::auto::upgrade::downcast::<TokioIo<Socket>>(upgraded).ok()?;
    Some(match parts.io.into_inner() {
        Socket::Plain(stream) => End::plain(stream, parts.read_buf),
        Socket::Tls(stream) => End::tls(stream, parts.read_buf),
    })
}

fn of_endpoint(upgraded: Upgraded) -> Option<End> {
    let parts = upgraded.downcast::<TokioIo<Watched>>().ok()?;
    let before: Bytes = parts.read_buf;
    Some(End::plain(parts.io.into_inner().into_inner(), before))
}
