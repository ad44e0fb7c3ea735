//! The gate before each route: holds the caller to what the route needs, and has changes written down.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Uri};
use lyra_types::{Code, Error, Result, TenantName};

use super::audit::{AuditAs, AuditLog, Done};
use super::{By, Identity, Needs};
use crate::extract::tenant_text;
use crate::metrics::Metrics;
use crate::problem;
use crate::query::Params;

/// Where a request came from, beside who sent it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub SocketAddr);

impl Peer {
    /// The address that a request came from.
    ///
    /// # Errors
    /// [`Code::Internal`] where nobody has noted it: a fault of Lyra.
    pub(crate) fn address(parts: &Parts) -> Result<IpAddr> {
        let peer = parts.extensions.get::<Peer>().ok_or_else(|| Error::internal("the address is not known"))?;
        Ok(peer.0.ip())
    }
}

/// The gate of one route.
#[derive(Clone)]
pub(crate) struct Gate {
    pub needs: Needs,
    pub route: &'static str,
    /// Whether what goes through is written down.
    pub audited: bool,
    pub log: Arc<AuditLog>,
    pub metrics: Metrics,
}

impl<S> tower::Layer<S> for Gate {
    type Service = Gated<S>;
    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, gate: self.clone() }
    }
}

/// A route behind its gate.
#[derive(Clone)]
pub(crate) struct Gated<S> {
    inner: S,
    gate: Gate,
}

/// Who sends a request.
///
/// # Errors
/// [`Code::Unauthenticated`] where nobody has found out: a fault of Lyra, on which nobody gets in.
pub(crate) fn identity_of(extensions: &http::Extensions) -> Result<Arc<Identity>> {
    extensions.get::<Arc<Identity>>().cloned().ok_or_else(|| Error::new(Code::Unauthenticated, "who asks is not known"))
}

/// The tenant that a change belongs to: the caller's, or of those who are bound to none, the one that the request names.
pub(crate) fn tenant_of(identity: &Identity, headers: &HeaderMap, uri: &Uri) -> Option<TenantName> {
    if identity.tenant.is_some() || identity.by == By::Nothing {
        return identity.tenant.clone();
    }
    let in_path = uri.path().strip_prefix("/v1/tenants/").and_then(|rest| rest.split('/').next());
    let text = match in_path {
        Some(tenant) => tenant.to_owned(),
        // Nodes and tenants belong to nobody.
        None if ["/v1/workers", "/v1/tenants", "/v1/login"].iter().any(|root| uri.path().starts_with(root)) => {
            return None;
        }
        None => tenant_text(identity, headers, &Params::of(uri)).ok()?.to_owned(),
    };
    TenantName::new(&text).ok()
}

impl<S> tower::Service<Request<Body>> for Gated<S>
where
    S: tower::Service<Request<Body>, Response = Response>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let identity = match identity_of(request.extensions()) {
            Ok(identity) => identity,
            Err(error) => return Box::pin(std::future::ready(Ok(self.gate.refuse(&error)))),
        };
        let refused = self.gate.needs.check(&identity).err().map(|error| self.gate.refuse(&error));
        if let Some(refused) = refused {
            // Strangers could fill the log.
            if !self.gate.audited || identity.by == By::Nothing {
                return Box::pin(std::future::ready(Ok(refused)));
            }
            let gate = self.gate.clone();
            let seen = self.gate.see(&identity, &request.into_parts().0);
            return Box::pin(async move { Ok(gate.note(&identity, seen, refused).await) });
        }
        if !self.gate.audited {
            return Box::pin(self.inner.call(request));
        }
        let gate = self.gate.clone();
        let (parts, body) = request.into_parts();
        let seen = gate.see(&identity, &parts);
        let answer = self.inner.call(Request::from_parts(parts, body));
        Box::pin(async move { Ok(gate.note(&identity, seen, answer.await?).await) })
    }
}

/// What is left of a request once it is answered.
struct Seen {
    method: Method,
    path: String,
    tenant: Option<TenantName>,
    address: String,
}

impl Gate {
    fn see(&self, identity: &Identity, parts: &Parts) -> Seen {
        // A path that entitles to what it names is a secret.
        let is_secret = self.needs == Needs::Nothing && self.route.contains('{');
        Seen {
            method: parts.method.clone(),
            path: if is_secret { self.route } else { parts.uri.path() }.to_owned(),
            tenant: tenant_of(identity, &parts.headers, &parts.uri),
            address: parts.extensions.get::<Peer>().map(|peer| peer.0.ip().to_string()).unwrap_or_default(),
        }
    }

    fn refuse(&self, error: &Error) -> Response {
        let reason = if error.code == Code::Unauthenticated { "no_token" } else { "scope" };
        self.metrics.denied(reason);
        problem::respond(error)
    }

    /// Has what was done written down, and gives the answer back.
    async fn note(&self, identity: &Identity, seen: Seen, response: Response) -> Response {
        let Seen { method, path, tenant, address } = seen;
        let code = response.extensions().get::<Code>().copied();
        let status = response.status();
        let by = response.extensions().get::<AuditAs>().cloned();
        if by.is_none() && identity.by == By::Nothing {
            // Strangers could fill the log; handlers say which of them matter.
            return response;
        }
        let done = Done {
            method: &method,
            route: self.route,
            path: &path,
            tenant,
            status: status.as_u16(),
            code: code.filter(|_| status.as_u16() >= 400),
            address,
        };
        self.log.write(identity, done, by).await;
        response
    }
}
