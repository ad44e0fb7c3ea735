//! The table of routes: every method and path, and what answers it.
//!
//! It is data, so that a test can hold the OpenAPI document against it. Each row says what it [needs](Needs) of its caller: there is no
//! way to write one without.

use std::sync::Arc;

use axum::Router;
use axum::extract::OriginalUri;
use axum::handler::Handler;
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;
use lyra_types::{Code, Error, Scopes};

use crate::access::Needs;
use crate::access::gate::Gate;
use crate::classic;
use crate::ingress::SESSION_PATH;
use crate::metrics::Measure;
use crate::problem;
use crate::rest::{
    aliases, audit, control, dead_letters, deliveries, functions, invoke, job_events, jobs, login, logs, members, meta,
    quotas, runs, scaler, schedules, secrets, tenants, tokens, triggers, usage, users, values, versions, workers,
    workflows,
};
use crate::service::App;

/// Path of HTTP triggers, as the document and the metrics call it.
pub(crate) const TRIGGER_PATH: &str = "/fn/{tenant}/{function}/{path}";

/// Methods of triggers and sessions that the document lists; every other one works as well.
const ANY_METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];

/// One route.
struct Row {
    method: &'static str,
    path: &'static str,
    needs: Needs,
    /// Whether what goes through is written down: changes are, calls are not.
    audited: bool,
    /// `None`: triggers, sessions and classic routes, which are told from the rest before this table is looked at.
    handler: Option<MethodRouter<Arc<App>>>,
}

fn row<H, T>(method: &'static str, path: &'static str, needs: Needs, handler: H) -> Row
where
    H: Handler<T, Arc<App>>,
    T: 'static,
{
    let filter = match method {
        "GET" => MethodFilter::GET,
        "PUT" => MethodFilter::PUT,
        "POST" => MethodFilter::POST,
        "PATCH" => MethodFilter::PATCH,
        _ => MethodFilter::DELETE,
    };
    let calls = [Needs::INVOKE, Needs::DEPLOY_AND_INVOKE].contains(&needs);
    Row { method, path, needs, audited: method != "GET" && !calls, handler: Some(on(filter, handler)) }
}

impl Row {
    /// It needs what a call needs, but changes what others have called.
    fn audited(self) -> Row {
        Row { audited: true, ..self }
    }
}

fn table() -> Vec<Row> {
    let mut rows = vec![
        row("GET", "/v1/functions", Needs::READ, functions::list),
        row("GET", "/v1/functions/{name}", Needs::READ, functions::get),
        row("PUT", "/v1/functions/{name}", Needs::DEPLOY, functions::put),
        row("DELETE", "/v1/functions/{name}", Needs::DEPLOY, functions::delete),
        row("PUT", "/v1/functions/{name}/code", Needs::DEPLOY, functions::put_code),
        row("POST", "/v1/functions/{name}/rollback", Needs::DEPLOY, functions::rollback),
        row("GET", "/v1/functions/{name}/versions", Needs::READ, versions::list),
        row("GET", "/v1/functions/{name}/versions/{version}", Needs::READ, versions::get),
        row("GET", "/v1/functions/{name}/aliases", Needs::READ, aliases::list),
        row("GET", "/v1/functions/{name}/aliases/{alias}", Needs::READ, aliases::get),
        row("PUT", "/v1/functions/{name}/aliases/{alias}", Needs::DEPLOY, aliases::put),
        row("DELETE", "/v1/functions/{name}/aliases/{alias}", Needs::DEPLOY, aliases::delete),
        row("POST", "/v1/functions/{name}/invoke", Needs::INVOKE, invoke::invoke),
        row("GET", "/v1/functions/{name}/logs", Needs::READ, logs::logs),
        row("GET", "/v1/logs", Needs::READ, logs::find),
        row("GET", "/v1/jobs", Needs::READ, jobs::list),
        row("GET", "/v1/jobs/{id}", Needs::READ_OR_INVOKE, jobs::get),
        row("DELETE", "/v1/jobs/{id}", Needs::INVOKE, jobs::cancel).audited(),
        row("GET", "/v1/jobs/{id}/result", Needs::READ_OR_INVOKE, jobs::result),
        row("GET", "/v1/jobs/{id}/events", Needs::READ_OR_INVOKE, job_events::events),
        row("GET", "/v1/dead-letters", Needs::READ, dead_letters::list),
        row("DELETE", "/v1/dead-letters", Needs::DEPLOY, dead_letters::purge),
        row("POST", "/v1/dead-letters/redrive", Needs::INVOKE, dead_letters::redrive_all).audited(),
        row("GET", "/v1/dead-letters/{id}", Needs::READ, dead_letters::get),
        row("DELETE", "/v1/dead-letters/{id}", Needs::DEPLOY, dead_letters::delete),
        row("POST", "/v1/dead-letters/{id}/redrive", Needs::INVOKE, dead_letters::redrive).audited(),
        row("GET", "/v1/control", Needs::OPERATOR, control::list),
        row("GET", "/v1/scaler", Needs::OPERATOR, scaler::get),
        row("PATCH", "/v1/scaler", Needs::OPERATOR, scaler::change),
        row("GET", "/v1/scaler/history", Needs::OPERATOR, scaler::history),
        row("GET", "/v1/workers", Needs::OPERATOR, workers::list),
        row("GET", "/v1/workers/{worker}", Needs::OPERATOR, workers::get),
        row("GET", "/v1/workers/{worker}/characteristics", Needs::OPERATOR, workers::known),
        row("GET", "/v1/workers/{worker}/health", Needs::OPERATOR, workers::health),
        row("POST", "/v1/workers/{worker}/cordon", Needs::OPERATOR, workers::cordon),
        row("POST", "/v1/workers/{worker}/uncordon", Needs::OPERATOR, workers::uncordon),
        row("POST", "/v1/workers/{worker}/drain", Needs::OPERATOR, workers::drain),
        row("POST", "/v1/workers/{worker}/clean", Needs::OPERATOR, workers::clean),
        row("POST", "/v1/workers/{worker}/prewarm", Needs::OPERATOR, workers::prewarm),
        row("DELETE", "/v1/workers/{worker}/instances/{instance}", Needs::OPERATOR, workers::terminate),
        row("POST", "/v1/workers/{worker}/instances/{instance}/hibernate", Needs::OPERATOR, workers::hibernate),
        row("POST", "/v1/workers/{worker}/instances/{instance}/activate", Needs::OPERATOR, workers::activate),
        row("POST", "/v1/workers/{worker}/functions/{name}/invoke", Needs::OPERATOR, workers::invoke_on),
        row("GET", "/v1/instances", Needs::OPERATOR, workers::instances),
        row("GET", "/v1/usage", Needs::READ, usage::get),
        row("GET", "/v1/secrets", Needs::READ, secrets::list),
        row("GET", "/v1/secrets/{name}", Needs::READ, secrets::get),
        row("PUT", "/v1/secrets/{name}", Needs::DEPLOY, secrets::put),
        row("DELETE", "/v1/secrets/{name}", Needs::DEPLOY, secrets::delete),
        row("GET", "/v1/secret-keys", Needs::OPERATOR, secrets::keys),
        row("POST", "/v1/secret-keys/rotate", Needs::OPERATOR, secrets::rotate),
        row("GET", "/healthz", Needs::Nothing, meta::healthz),
        row("GET", "/readyz", Needs::Nothing, meta::readyz),
        row("GET", "/metrics", Needs::OPERATOR, meta::metrics),
        row("GET", "/openapi.json", Needs::Somebody, meta::openapi),
        row("GET", "/version", Needs::Somebody, meta::version),
    ];
    rows.extend(workflows_and_runs());
    rows.extend(accounts());
    rows.extend(hooks());
    rows.extend(classic::table().map(|(method, path, needs)| Row {
        method,
        path,
        needs,
        audited: false,
        handler: None,
    }));
    // A session's clients are not callers of Lyra.
    for (path, needs) in [(TRIGGER_PATH, Needs::INVOKE), (SESSION_PATH, Needs::Nothing)] {
        rows.extend(ANY_METHODS.map(|method| Row { method, path, needs, audited: false, handler: None }));
    }
    rows
}

fn workflows_and_runs() -> Vec<Row> {
    vec![
        row("GET", "/v1/workflows", Needs::READ, workflows::list),
        row("POST", "/v1/workflows", Needs::DEPLOY, workflows::deploy),
        row("GET", "/v1/workflows/{name}", Needs::READ, workflows::get),
        row("DELETE", "/v1/workflows/{name}", Needs::DEPLOY, workflows::delete),
        row("GET", "/v1/workflows/{name}/versions/{version}", Needs::READ, workflows::version),
        row("POST", "/v1/workflows/{name}/runs", Needs::INVOKE, workflows::start),
        row("GET", "/v1/workflow-members", Needs::OPERATOR, members::list),
        row("POST", "/v1/cuts", Needs::DEPLOY_AND_INVOKE, workflows::start_part),
        row("GET", "/v1/runs", Needs::READ, runs::list),
        row("GET", "/v1/runs/{id}", Needs::READ_OR_INVOKE, runs::get),
        row("DELETE", "/v1/runs/{id}", Needs::DEPLOY, runs::delete),
        row("POST", "/v1/runs/{id}/pause", Needs::INVOKE, runs::pause).audited(),
        row("POST", "/v1/runs/{id}/resume", Needs::INVOKE, runs::resume).audited(),
        row("POST", "/v1/runs/{id}/cancel", Needs::INVOKE, runs::cancel).audited(),
        row("POST", "/v1/runs/{id}/redrive", Needs::INVOKE, runs::redrive).audited(),
        row("GET", "/v1/runs/{id}/trace", Needs::READ, runs::trace),
        row("GET", "/v1/runs/{id}/waiting", Needs::READ_OR_INVOKE, runs::waiting),
        row("POST", "/v1/callbacks/{token}", Needs::Nothing, runs::complete),
        row("GET", "/v1/values/{token}", Needs::Nothing, values::get),
    ]
}

/// Who may do what, and how much of it.
fn accounts() -> Vec<Row> {
    vec![
        row("POST", "/v1/login", Needs::Nothing, login::login),
        row("GET", "/v1/whoami", Needs::Somebody, login::whoami),
        row("GET", "/v1/tenants", Needs::Somebody, tenants::list),
        row("POST", "/v1/tenants", Needs::OPERATOR, tenants::create),
        row("GET", "/v1/tenants/{tenant}", Needs::Somebody, tenants::get),
        row("DELETE", "/v1/tenants/{tenant}", Needs::OPERATOR, tenants::delete),
        row("GET", "/v1/tenants/{tenant}/users", Needs::ADMIN, users::list),
        row("POST", "/v1/tenants/{tenant}/users", Needs::ADMIN, users::create),
        row("GET", "/v1/tenants/{tenant}/users/{user}", Needs::Somebody, users::get),
        row("PATCH", "/v1/tenants/{tenant}/users/{user}", Needs::ADMIN, users::change),
        row("DELETE", "/v1/tenants/{tenant}/users/{user}", Needs::ADMIN, users::delete),
        row("PUT", "/v1/tenants/{tenant}/users/{user}/password", Needs::Somebody, users::set_password),
        row("GET", "/v1/quotas", Needs::OPERATOR, quotas::list),
        row("GET", "/v1/tenants/{tenant}/quota", Needs::READ, quotas::get),
        row("PUT", "/v1/tenants/{tenant}/quota", Needs::OPERATOR, quotas::put),
        row("DELETE", "/v1/tenants/{tenant}/quota", Needs::OPERATOR, quotas::delete),
        row("GET", "/v1/tenants/{tenant}/quota/functions/{name}", Needs::READ, quotas::get_of_function),
        row("PUT", "/v1/tenants/{tenant}/quota/functions/{name}", Needs::ADMIN, quotas::put_of_function),
        row("DELETE", "/v1/tenants/{tenant}/quota/functions/{name}", Needs::ADMIN, quotas::delete_of_function),
        row("GET", "/v1/tokens", Needs::Somebody, tokens::list),
        row("POST", "/v1/tokens", Needs::Somebody, tokens::create),
        row("GET", "/v1/tokens/{id}", Needs::Somebody, tokens::get),
        row("DELETE", "/v1/tokens/{id}", Needs::Somebody, tokens::delete),
        row("GET", "/v1/audit", Needs::ADMIN, audit::list),
    ]
}

/// What happens by itself: schedules, triggers, and word of the ends of jobs.
fn hooks() -> Vec<Row> {
    vec![
        row("GET", "/v1/functions/{name}/destinations", Needs::READ, deliveries::destinations),
        row("PUT", "/v1/functions/{name}/destinations", Needs::DEPLOY, deliveries::put_destinations),
        row("DELETE", "/v1/functions/{name}/destinations", Needs::DEPLOY, deliveries::delete_destinations),
        row("POST", "/v1/functions/{name}/destinations/test", Needs::DEPLOY, deliveries::test),
        row("GET", "/v1/workflows/{name}/destinations", Needs::READ, deliveries::of_workflow),
        row("PUT", "/v1/workflows/{name}/destinations", Needs::DEPLOY, deliveries::put_of_workflow),
        row("DELETE", "/v1/workflows/{name}/destinations", Needs::DEPLOY, deliveries::delete_of_workflow),
        row("POST", "/v1/workflows/{name}/destinations/test", Needs::DEPLOY, deliveries::test_of_workflow),
        row("GET", "/v1/deliveries", Needs::READ, deliveries::list),
        row("GET", "/v1/deliveries/{id}", Needs::READ, deliveries::get),
        row("POST", "/v1/deliveries/{id}/redeliver", Needs::DEPLOY, deliveries::redeliver),
        row("GET", "/v1/schedules", Needs::READ, schedules::list),
        row("GET", "/v1/schedules/{name}", Needs::READ, schedules::get),
        row("PUT", "/v1/schedules/{name}", Needs::DEPLOY, schedules::put),
        row("DELETE", "/v1/schedules/{name}", Needs::DEPLOY, schedules::delete),
        row("POST", "/v1/schedules/{name}/pause", Needs::DEPLOY, schedules::pause),
        row("POST", "/v1/schedules/{name}/resume", Needs::DEPLOY, schedules::resume),
        row("POST", "/v1/schedules/{name}/run", Needs::INVOKE, schedules::run),
        row("GET", "/v1/triggers", Needs::READ, triggers::list),
        row("GET", "/v1/triggers/{name}", Needs::READ, triggers::get),
        row("PUT", "/v1/triggers/{name}", Needs::DEPLOY, triggers::put),
        row("DELETE", "/v1/triggers/{name}", Needs::DEPLOY, triggers::delete),
        row("POST", "/v1/triggers/{name}/pause", Needs::DEPLOY, triggers::pause),
        row("POST", "/v1/triggers/{name}/resume", Needs::DEPLOY, triggers::resume),
        row("POST", "/v1/triggers/{name}/events", Needs::INVOKE, triggers::post),
    ]
}

/// Every method and path that is served, in the order of the table.
pub fn listed() -> Vec<(&'static str, &'static str)> {
    table().into_iter().map(|row| (row.method, row.path)).collect()
}

/// Sets of scopes, any of which a route needs of its caller; `None`: none. For routes that [`listed`] has.
pub fn needed(method: &str, path: &str) -> Option<Vec<Scopes>> {
    table().into_iter().find(|row| row.method == method && row.path == path)?.needs.scopes()
}

/// The router of everything but triggers and sessions.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let mut router = Router::new();
    for row in table() {
        let Some(handler) = row.handler else { continue };
        let metrics = Arc::new(app.metrics.route(row.path, row.method));
        let measure = Measure { metrics, clock: app.clock.clone() };
        let gate = Gate {
            needs: row.needs,
            route: row.path,
            audited: row.audited,
            log: Arc::clone(&app.audit),
            metrics: app.metrics.clone(),
        };
        router = router.route(row.path, handler.route_layer(gate).route_layer(measure));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_nothing_is_what_the_guard_leaves_open() {
        for row in table().iter().filter(|row| row.path != SESSION_PATH) {
            assert_eq!(crate::auth::is_open(row.path), row.needs == Needs::Nothing, "{} {}", row.method, row.path);
        }
    }
}
