//! Functions that take HTTP requests: the request goes through as it is, streaming both ways.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::header::{AUTHORIZATION, HOST};
use http::uri::{Authority, Scheme};
use http::{Uri, Version};
use http_body_util::BodyExt;
use lyra_types::{Code, Error, FunctionVersion, Result};
use lyra_wire::BoxError;
use lyra_wire::worker::{HttpCall, HttpReply};

use super::Request;
use crate::auth::authority;
use crate::body::Lingering;
use crate::forwarded::add_forwarded;
use crate::headers::{self, strip_hop_by_hop};
use crate::problem;
use crate::service::App;

/// Hands the request on and passes the answer back. Dropping the answer's body cancels the invocation.
pub(super) async fn pass_through(
    app: &App,
    version: Arc<FunctionVersion>,
    request: Request,
    body: Lingering,
) -> Result<Response> {
    let id = app.ids.invocation();
    let request = forwarded(request, body)?;
    let HttpReply { report, outcome } = app.worker.serve(HttpCall { id, version, request, user: None }).await;
    let outcome = outcome.and_then(|response| match response.status().is_informational() {
        // An interim answer can't be the last one.
        true => Err(Error::new(
            Code::InvalidResult,
            format!("the function answered with the interim status {}", response.status().as_u16()),
        )),
        false => Ok(response),
    });
    let mut response = match outcome {
        Ok(response) => {
            let mut response = response.map(Body::new);
            *response.version_mut() = Version::HTTP_11;
            strip_hop_by_hop(response.headers_mut());
            response
        }
        Err(error) => problem::of_call(id, &error),
    };
    headers::stamp(&report, response.headers_mut());
    Ok(response)
}

fn forwarded(request: Request, body: Lingering) -> Result<http::Request<lyra_wire::Body>> {
    let Request { caller, target, mut parts } = request;
    let host = match authority(&parts)? {
        Some(host) => host.parse::<Authority>().map_err(|_| Error::new(Code::BadRequest, "the host can't be read"))?,
        None => Authority::from_static("localhost"),
    };
    let mut uri = http::uri::Parts::default();
    let scheme = if caller.is_secure { Scheme::HTTPS } else { Scheme::HTTP };
    uri.scheme = Some(parts.uri.scheme().cloned().unwrap_or(scheme));
    uri.path_and_query = Some(target.path);
    strip_hop_by_hop(&mut parts.headers);
    if caller.strip_authorization {
        parts.headers.remove(AUTHORIZATION);
    }
    add_forwarded(&mut parts.headers, &caller, &host, &target.prefix);
    if !parts.headers.contains_key(HOST) {
        parts.headers.insert(HOST, headers::value(&host));
    }
    uri.authority = Some(host);
    parts.uri = Uri::from_parts(uri).map_err(|_| Error::new(Code::BadRequest, "the request's target can't be read"))?;
    // What hyper keeps beside a request is of no use to a function.
    parts.extensions = http::Extensions::new();
    let body = body.map_err(|error| -> BoxError { Box::new(error) }).boxed_unsync();
    Ok(http::Request::from_parts(parts, body))
}
