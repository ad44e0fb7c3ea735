//! The Kubernetes-style API on the gateway's listener: `/api`, `/apis`, `/openapi/v2` and `/openapi/v3`.
//!
//! The gateway finds out who asks and passes the request on; what is served, and what the caller may do, is the business of
//! the server that it was handed ([`crate::Service::mount_resources`], [`crate::Status::mount_resources`]). Clients of Kubernetes read errors of another form than the
//! rest of the gateway has, so refusals are worded for them here.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use lyra_kit::Clock;
use lyra_types::{Error, Scopes, TenantName};

use crate::access::Identity;
use crate::access::audit::{AuditLog, Done};
use crate::access::gate::Peer;
use crate::auth::Guard;
use crate::metrics::{Metrics, RouteMetrics};
use crate::problem;

/// Who sends a request to the Kubernetes-style API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceCaller {
    /// Name, as messages have it.
    pub name: String,
    /// The tenants that it may act in; `None`: all of them.
    pub tenants: Option<BTreeSet<TenantName>>,
    /// What it may do there.
    pub scopes: Scopes,
}

/// Serves the Kubernetes-style API, in this process or by asking another one.
#[async_trait]
pub trait ResourceServer: Send + Sync + 'static {
    /// Answers a request. What is wrong with it is said in the answer; the body of a watch goes on until the watch ends.
    async fn handle(&self, caller: ResourceCaller, request: Request<Body>) -> Response<Body>;
}

/// Paths of the Kubernetes-style API, as the metrics call them.
const PATHS: &str = "/apis/{path}";

/// The Kubernetes-style API of one listener, once there is one.
pub(crate) struct Mounted {
    server: OnceLock<Arc<dyn ResourceServer>>,
    metrics: RouteMetrics,
}

impl Mounted {
    pub(crate) fn new(metrics: &Metrics) -> Mounted {
        Mounted { server: OnceLock::new(), metrics: metrics.route(PATHS, "ANY") }
    }

    /// Has it served from now on. The first one counts.
    pub(crate) fn mount(&self, server: Arc<dyn ResourceServer>) {
        let _ = self.server.set(server);
    }

    /// Answers a request, or gives it back where it is for somebody else. Changes of applications are written down in `log`; sessions
    /// are opened and closed like calls, too often for that.
    pub(crate) async fn answer(
        &self,
        clock: &Clock,
        identity: &Arc<Identity>,
        log: Option<&AuditLog>,
        request: Request<Body>,
    ) -> Result<Response<Body>, Request<Body>> {
        let Some(server) = self.server.get().filter(|_| is_resource_path(request.uri().path())) else {
            return Err(request);
        };
        let begun = clock.instant();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let peer = request.extensions().get::<Peer>().copied();
        let response = server.handle(Guard::resource_caller(identity), request).await;
        // Of a watch this is the time to its first byte.
        self.metrics.observe(response.status(), clock.instant().duration_since(begun));
        if let Some(log) = log.filter(|_| changes_application(&method, &path)) {
            let done = Done {
                method: &method,
                route: APPLICATIONS,
                path: &path,
                tenant: namespace(&path)
                    .or_else(|| identity.tenant.clone())
                    .filter(|of| identity.check_tenant(of.as_str()).is_ok()),
                status: response.status().as_u16(),
                code: None,
                address: peer.map(|peer| peer.0.ip().to_string()).unwrap_or_default(),
            };
            log.write(identity, done, None).await;
        }
        Ok(response)
    }
}

/// Applications, as the audit log calls their paths.
const APPLICATIONS: &str = "/apis/lyra.dev/v1/namespaces/{tenant}/applications";

/// Whether a request changes an application, and not only its status.
fn changes_application(method: &Method, path: &str) -> bool {
    let writes = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let mut segments = path.split('/').skip_while(|segment| *segment != "applications");
    writes && segments.next().is_some() && segments.nth(1) != Some("status")
}

/// The namespace in a path.
fn namespace(path: &str) -> Option<TenantName> {
    let mut segments = path.split('/').skip_while(|segment| *segment != "namespaces").skip(1);
    TenantName::new(segments.next()?).ok()
}

/// Whether a path is one of the Kubernetes-style API.
fn is_resource_path(path: &str) -> bool {
    ["/api", "/apis", "/openapi/v2", "/openapi/v3"]
        .iter()
        .any(|root| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// A refusal of somebody who is not let in, in the form that the client reads.
pub(crate) fn refusal(parts: &Parts, error: &Error) -> Response<Body> {
    if !is_resource_path(parts.uri.path()) {
        return problem::respond(error);
    }
    let status = StatusCode::from_u16(error.code.row().http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let reason = match status {
        StatusCode::UNAUTHORIZED => "Unauthorized",
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::BAD_REQUEST => "BadRequest",
        _ => "ServiceUnavailable",
    };
    let body = serde_json::json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": error.detail,
        "reason": reason,
        "code": status.as_u16(),
    });
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_applications_are_told_from_the_rest() {
        let root = "/apis/lyra.dev/v1/namespaces/acme";
        let changes = |method: Method, path: &str| changes_application(&method, &format!("{root}{path}"));
        assert!(changes(Method::POST, "/applications") && changes(Method::PATCH, "/applications/echo"));
        assert!(!changes(Method::PATCH, "/applications/echo/status") && !changes(Method::GET, "/applications"));
        assert!(!changes(Method::POST, "/applicationsessions"));
        assert_eq!(namespace(&format!("{root}/applications")).unwrap().as_str(), "acme");
    }

    #[test]
    fn paths_of_the_resource_api_are_told_from_the_rest() {
        for ours in ["/api", "/api/v1/namespaces", "/apis", "/apis/lyra.dev/v1", "/openapi/v2", "/openapi/v3/apis/x"] {
            assert!(is_resource_path(ours), "{ours}");
        }
        for other in ["/", "/apix", "/openapi.json", "/openapi", "/v1/functions", "/fn/a/b/apis", "/version"] {
            assert!(!is_resource_path(other), "{other}");
        }
    }
}
