//! Requests to sessions: passed on as they are, streaming both ways.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{AUTHORIZATION, COOKIE, EXPECT, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{StatusCode, Uri, Version};
use http_body::Body as _;
use lyra_types::{Code, Error, Result};

use super::Ingress;
use super::pool::{self, Answer};
use super::table::Session;
use super::target::Target;
use super::upgrade::{self, Wanted};
use crate::auth::authority;
use crate::forwarded::add_forwarded;
use crate::headers::{self, strip_hop_by_hop};
use crate::openapi::{Busy, Missing, NoAnswer};
use crate::trigger::Caller;

/// Passes a request on to the session that it is for. `wait`: longest wait for the table, where it is not complete yet.
///
/// # Errors
/// Everything that keeps the request from the session, or the answer from the client.
pub(crate) async fn serve(
    ingress: &Arc<Ingress>,
    caller: Caller,
    target: Target,
    parts: Parts,
    body: lyra_wire::Body,
    wait: Duration,
) -> Result<Response> {
    let session = ingress.table.find(&target.tenant, &target.session, wait).await?;
    let index = session.http_endpoint(target.port.as_deref())?;
    let seen = Seen { caller, path: target.path, prefix: &target.prefix };
    Reached { ingress: Arc::clone(ingress), session, index }.pass_on(seen, parts, body).await
}

/// The endpoint of a session that requests go to.
pub(crate) struct Reached {
    ingress: Arc<Ingress>,
    session: Arc<Session>,
    index: usize,
}

impl Reached {
    /// The session's first TCP port.
    ///
    /// # Errors
    /// [`Code::NotFound`] where it has none.
    pub(crate) fn new(ingress: &Arc<Ingress>, session: Arc<Session>) -> Result<Reached> {
        Ok(Reached { ingress: Arc::clone(ingress), index: session.http_endpoint(None)?, session })
    }

    /// The session's name.
    pub(crate) fn name(&self) -> &str {
        &self.session.route.key.name
    }

    /// Sends a request as it is.
    ///
    /// # Errors
    /// As [`pool::send`].
    pub(crate) async fn send(&self, request: http::Request<lyra_wire::Body>) -> Result<http::Response<Answer>> {
        let (answer, lease) = pool::send(&self.ingress, &self.session, self.index, request).await?;
        Ok(answer.map(|body| Answer::new(body, lease)))
    }

    /// Passes on what a client sent, and what the session answers.
    ///
    /// # Errors
    /// As [`pool::send`].
    pub(crate) async fn pass_on(&self, seen: Seen<'_>, mut parts: Parts, body: lyra_wire::Body) -> Result<Response> {
        let wanted = Wanted::take(&mut parts);
        let request = http::Request::from_parts(outgoing(seen, parts, wanted.as_ref(), &body)?, body);
        let (mut answer, lease) = pool::send(&self.ingress, &self.session, self.index, request).await?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return upgrade::switch(&self.ingress, &self.session, wanted, answer, lease);
        }
        strip_hop_by_hop(answer.headers_mut());
        *answer.version_mut() = Version::HTTP_11;
        Ok(answer.map(|body| Body::new(Answer::new(body, lease))))
    }
}

/// What the session is told of where a request came from.
pub(crate) struct Seen<'a> {
    /// Who sent it.
    pub caller: Caller,
    /// The path and query that the session sees.
    pub path: PathAndQuery,
    /// What was taken off the path.
    pub prefix: &'a str,
}

fn outgoing(seen: Seen<'_>, mut parts: Parts, wanted: Option<&Wanted>, body: &lyra_wire::Body) -> Result<Parts> {
    let host = match authority(&parts)? {
        Some(host) => host.parse::<Authority>().map_err(|_| Error::new(Code::BadRequest, "the host can't be read"))?,
        None => Authority::from_static("localhost"),
    };
    let headers = &mut parts.headers;
    strip_hop_by_hop(headers);
    // The gateway has told the client to go on by itself, when it began to read.
    headers.remove(EXPECT);
    if seen.caller.strip_authorization {
        headers.remove(AUTHORIZATION);
    }
    add_forwarded(headers, &seen.caller, &host, seen.prefix);
    if !headers.contains_key(HOST) {
        headers.insert(HOST, headers::value(&host));
    }
    join_cookies(headers);
    // Else a body of unknown length would be left out of a GET.
    if !body.is_end_stream() && body.size_hint().exact().is_none() {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if let Some(wanted) = wanted {
        wanted.put(headers);
    }
    parts.uri = Uri::from(seen.path);
    parts.version = Version::HTTP_11;
    parts.extensions = http::Extensions::new();
    Ok(parts)
}

/// HTTP/2 lets a client send cookies in several headers, HTTP/1.1 does not (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(COOKIE).iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return;
    }
    let joined = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(COOKIE, joined);
    }
}

/// Reach an open session with an HTTP request.
///
/// The session's program sees the rest of the path, the query, the headers and the body as they are, at its first TCP port, or at the
/// port whose name or number stands after the session's: `/s/{tenant}/{session}:{port}/…`. Its answer is passed on; both stream, and a
/// connection may be upgraded (WebSocket). The same session is reached at the host `{session}.{tenant}.s.{domain}`. No token is needed:
/// who may speak with a session is the session's own matter. Every method works.
#[utoipa::path(
    method(get, head, post, put, delete, options, patch), path = "/s/{tenant}/{session}/{path}", tag = "sessions",
    params(
        ("tenant" = String, Path, description = "Owner", example = "default"),
        ("session" = String, Path, description = "Session, `:port` after it", example = "chat-1"),
        ("path" = String, Path, description = "Anything, slashes too; may be empty"),
    ),
    request_body(content = Vec<u8>, content_type = "*/*", description = "Anything"),
    responses((status = "default", description = "What the session answers"), NoAnswer, Missing, Busy)
)]
#[expect(dead_code, reason = "the document needs a name for what `serve` does")]
pub(crate) fn documented() {}
