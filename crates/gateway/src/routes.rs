//! The table of routes: every method and path, and what answers it.
//!
//! It is data, so that a test can hold the OpenAPI document against it.

use std::sync::Arc;

use axum::Router;
use axum::extract::OriginalUri;
use axum::handler::Handler;
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;
use lyra_types::{Code, Error};

use crate::classic;
use crate::ingress::SESSION_PATH;
use crate::metrics::Measure;
use crate::problem;
use crate::rest::{aliases, control, dead_letters, functions, invoke, jobs, logs, meta, usage, versions, workers};
use crate::service::App;

/// Path of HTTP triggers, as the document and the metrics call it.
pub(crate) const TRIGGER_PATH: &str = "/fn/{tenant}/{function}/{path}";

/// Methods of triggers and sessions that the document lists; every other one works as well.
const ANY_METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];

/// One route.
struct Row {
    method: &'static str,
    path: &'static str,
    /// `None`: triggers, sessions and classic routes, which are told from the rest before this table is looked at.
    handler: Option<MethodRouter<Arc<App>>>,
}

fn row<H, T>(method: &'static str, path: &'static str, handler: H) -> Row
where
    H: Handler<T, Arc<App>>,
    T: 'static,
{
    let filter = match method {
        "GET" => MethodFilter::GET,
        "PUT" => MethodFilter::PUT,
        "POST" => MethodFilter::POST,
        _ => MethodFilter::DELETE,
    };
    Row { method, path, handler: Some(on(filter, handler)) }
}

fn table() -> Vec<Row> {
    let mut rows = vec![
        row("GET", "/v1/functions", functions::list),
        row("GET", "/v1/functions/{name}", functions::get),
        row("PUT", "/v1/functions/{name}", functions::put),
        row("DELETE", "/v1/functions/{name}", functions::delete),
        row("PUT", "/v1/functions/{name}/code", functions::put_code),
        row("POST", "/v1/functions/{name}/rollback", functions::rollback),
        row("GET", "/v1/functions/{name}/versions", versions::list),
        row("GET", "/v1/functions/{name}/versions/{version}", versions::get),
        row("GET", "/v1/functions/{name}/aliases", aliases::list),
        row("GET", "/v1/functions/{name}/aliases/{alias}", aliases::get),
        row("PUT", "/v1/functions/{name}/aliases/{alias}", aliases::put),
        row("DELETE", "/v1/functions/{name}/aliases/{alias}", aliases::delete),
        row("POST", "/v1/functions/{name}/invoke", invoke::invoke),
        row("GET", "/v1/functions/{name}/logs", logs::logs),
        row("GET", "/v1/jobs", jobs::list),
        row("GET", "/v1/jobs/{id}", jobs::get),
        row("DELETE", "/v1/jobs/{id}", jobs::cancel),
        row("GET", "/v1/jobs/{id}/result", jobs::result),
        row("GET", "/v1/dead-letters", dead_letters::list),
        row("DELETE", "/v1/dead-letters", dead_letters::purge),
        row("POST", "/v1/dead-letters/redrive", dead_letters::redrive_all),
        row("GET", "/v1/dead-letters/{id}", dead_letters::get),
        row("DELETE", "/v1/dead-letters/{id}", dead_letters::delete),
        row("POST", "/v1/dead-letters/{id}/redrive", dead_letters::redrive),
        row("GET", "/v1/usage", usage::get),
        row("GET", "/v1/control", control::list),
        row("GET", "/v1/workers", workers::list),
        row("GET", "/v1/workers/{worker}", workers::get),
        row("GET", "/v1/workers/{worker}/characteristics", workers::known),
        row("GET", "/v1/workers/{worker}/health", workers::health),
        row("POST", "/v1/workers/{worker}/cordon", workers::cordon),
        row("POST", "/v1/workers/{worker}/uncordon", workers::uncordon),
        row("POST", "/v1/workers/{worker}/drain", workers::drain),
        row("POST", "/v1/workers/{worker}/clean", workers::clean),
        row("POST", "/v1/workers/{worker}/prewarm", workers::prewarm),
        row("DELETE", "/v1/workers/{worker}/instances/{instance}", workers::terminate),
        row("POST", "/v1/workers/{worker}/instances/{instance}/hibernate", workers::hibernate),
        row("POST", "/v1/workers/{worker}/instances/{instance}/activate", workers::activate),
        row("POST", "/v1/workers/{worker}/functions/{name}/invoke", workers::invoke_on),
        row("GET", "/v1/instances", workers::instances),
        row("GET", "/healthz", meta::healthz),
        row("GET", "/readyz", meta::readyz),
        row("GET", "/metrics", meta::metrics),
        row("GET", "/openapi.json", meta::openapi),
        row("GET", "/version", meta::version),
    ];
    rows.extend(classic::ROUTES.map(|(method, path)| Row { method, path, handler: None }));
    for path in [TRIGGER_PATH, SESSION_PATH] {
        rows.extend(ANY_METHODS.map(|method| Row { method, path, handler: None }));
    }
    rows
}

/// Every method and path that is served, in the order of the table.
pub fn listed() -> Vec<(&'static str, &'static str)> {
    table().into_iter().map(|row| (row.method, row.path)).collect()
}

/// The router of everything but triggers and sessions.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let mut router = Router::new();
    for row in table() {
        let Some(handler) = row.handler else { continue };
        let metrics = Arc::new(app.metrics.route(row.path, row.method));
        let measure = Measure { metrics, clock: app.clock.clone() };
        router = router.route(row.path, handler.route_layer(measure));
    }
    router.method_not_allowed_fallback(method_not_allowed).fallback(not_found).with_state(Arc::clone(app))
}

async fn not_found(OriginalUri(uri): OriginalUri) -> Response {
    let path: String = uri.path().chars().take(200).collect();
    problem::respond(&Error::new(
        Code::NotFound,
        format!("there is no route \"{}\"; GET /openapi.json lists them", path.escape_debug()),
    ))
}

async fn method_not_allowed(method: Method, OriginalUri(uri): OriginalUri) -> Response {
    let method: String = method.as_str().chars().take(40).collect();
    let path: String = uri.path().chars().take(200).collect();
    problem::respond(&Error::new(
        Code::MethodNotAllowed,
        format!("{} is not a method of \"{}\"; the Allow header lists those that are", method, path.escape_debug()),
    ))
}
