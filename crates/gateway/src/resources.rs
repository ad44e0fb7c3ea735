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
use http::{HeaderValue, Request, Response, StatusCode};
use lyra_kit::Clock;
use lyra_types::{Error, TenantName};

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

    /// Answers a request, or gives it back where it is for somebody else.
    pub(crate) async fn answer(
        &self,
        clock: &Clock,
        guard: &Guard,
        request: Request<Body>,
    ) -> Result<Response<Body>, Request<Body>> {
        let Some(server) = self.server.get().filter(|_| is_resource_path(request.uri().path())) else {
            return Err(request);
        };
        let begun = clock.instant();
        let response = server.handle(guard.resource_caller(), request).await;
        // Of a watch this is the time to its first byte.
        self.metrics.observe(response.status(), clock.instant().duration_since(begun));
        Ok(response)
    }
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
    fn paths_of_the_resource_api_are_told_from_the_rest() {
        for ours in ["/api", "/api/v1/namespaces", "/apis", "/apis/lyra.dev/v1", "/openapi/v2", "/openapi/v3/apis/x"] {
            assert!(is_resource_path(ours), "{ours}");
        }
        for other in ["/", "/apix", "/openapi.json", "/openapi", "/v1/functions", "/fn/a/b/apis", "/version"] {
            assert!(!is_resource_path(other), "{other}");
        }
    }
}
