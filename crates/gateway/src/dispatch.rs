//! The first thing that happens to a request: who sends it, and is it for a function or for Lyra?

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http::header::ALLOW;
use http::request::Parts;
use http::{HeaderValue, Method, Request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use lyra_types::{Code, Error};
use lyra_wire::BoxError;
use tower::Service as _;

use crate::access::gate::Peer;
use crate::access::{Identity, Needs, while_good};
use crate::auth::Guard;
use crate::body::Lingering;
use crate::classic;
use crate::ingress::{self, Target};
use crate::listen::Secured;
use crate::problem::{self, Fault};
use crate::resources;
use crate::service::Entry;
use crate::trigger::{self, Caller};

/// Answers a request, whatever happens.
pub(crate) async fn handle(
    entry: &Arc<Entry>,
    guard: &Guard,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Response {
    match AssertUnwindSafe(dispatch(entry, guard, peer, request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => {
            let text =
                panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            tracing::error!(panic = text.unwrap_or("(no text)"), "a request made the gateway panic");
            problem::respond(&Error::internal("the gateway failed; its log says why"))
        }
    }
}

async fn dispatch(entry: &Arc<Entry>, guard: &Guard, peer: SocketAddr, request: Request<Incoming>) -> Response {
    let (mut parts, body) = request.into_parts();
    let body = Lingering::new(body, parts.version, &parts.headers);
    let domain = entry.app.config.domain.as_deref();
    let session = match trigger::is_named(&parts, domain) {
        true => Ok(None),
        false => Target::of(&parts, domain),
    };
    let admitted = match &session {
        Ok(Some(_)) => guard.check_session(&parts).map(|()| None),
        _ if classic::is_sign_up(&entry.app.config, &parts) => guard.check_stranger(&parts).await.map(Some),
        _ => guard.check(&parts).await.map(Some),
    };
    let identity = match admitted {
        Ok(identity) => identity,
        Err(error) => {
            return match classic::is_classic(parts.uri.path()) {
                true => classic::refusal(&error),
                false => resources::refusal(&parts, &error),
            };
        }
    };
    if parts.method == Method::CONNECT {
        let mut response = problem::respond(&Error::new(Code::MethodNotAllowed, "this is not a proxy"));
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET,HEAD,POST,PUT,DELETE,OPTIONS,PATCH"));
        return response;
    }
    match session {
        Ok(Some(target)) => return to_session(entry, guard, peer, target, parts, body).await,
        Ok(None) => {}
        Err(error) => return problem::respond(&error),
    }
    let Some(identity) = identity else { return problem::respond(&Error::internal("who asks was not found out")) };
    parts.extensions.insert(Arc::clone(&identity));
    parts.extensions.insert(Peer(peer));
    let target = match trigger::target(&parts, domain) {
        Ok(target) => target,
        Err(error) => return problem::respond(&error),
    };
    let Some(target) = target else {
        if classic::is_classic(parts.uri.path()) {
            return classic::answer(&entry.app, &entry.classic, &identity, parts, body).await;
        }
        let request = Request::from_parts(parts, Body::new(body));
        let clock = &entry.app.clock;
        let response = match entry.resources.answer(clock, &identity, Some(&entry.app.audit), request).await {
            Ok(response) => response,
            Err(request) => match entry.router.clone().call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
        };
        return while_good(&identity, clock, response);
    };
    let begun = entry.app.clock.instant();
    let (strip_authorization, is_secure) = (guard.uses_authorization(&parts.headers), came_by_tls(&parts));
    let caller = Caller { peer, strip_authorization, is_secure };
    let answer = match admit(entry, &identity, &target) {
        Ok(()) => trigger::serve(&entry.app, caller, target, parts, body).await,
        Err(error) => Err(error),
    };
    let response = answer.unwrap_or_else(|error| Fault::from(error).into_response());
    entry.triggers.observe(response.status(), entry.app.clock.instant().duration_since(begun));
    response
}

fn came_by_tls(parts: &Parts) -> bool {
    parts.extensions.get::<Secured>().is_some()
}

/// Lets a caller to a function or says why not.
fn admit(entry: &Entry, identity: &Identity, target: &trigger::Target) -> lyra_types::Result<()> {
    let metrics = &entry.app.metrics;
    Needs::INVOKE.check(identity).inspect_err(|_| metrics.denied("scope"))?;
    identity.check_tenant(target.tenant()).inspect_err(|_| metrics.denied("tenant"))
}

async fn to_session(
    entry: &Entry,
    guard: &Guard,
    peer: SocketAddr,
    target: Target,
    parts: Parts,
    body: Lingering,
) -> Response {
    let app = &entry.app;
    let begun = app.clock.instant();
    let (strip_authorization, is_secure) = (guard.knows_token(&parts.headers), came_by_tls(&parts));
    let caller = Caller { peer, strip_authorization, is_secure };
    let body = body.map_err(|error| -> BoxError { Box::new(error) }).boxed_unsync();
    let answer = ingress::serve(&app.ingress, caller, target, parts, body, app.config.route_wait).await;
    let response = answer.unwrap_or_else(|error| problem::of_session(&error));
    entry.sessions.observe(response.status(), app.clock.instant().duration_since(begun));
    response
}
