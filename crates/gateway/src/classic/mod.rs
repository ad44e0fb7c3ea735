//! The classic routes, `/u/…` and `/j/…`: users, their functions as source texts, and jobs, with the paths, bodies and answers of the
//! system that Lyra takes the place of.
//!
//! A request is told from all others by the first part of its path, whatever its case. Every answer is an [`Envelope`]; what is wrong with
//! the request's matter is said there with status 200, as clients of these routes expect, and only what the classic system had no
//! words for (no such route, too large, not let in, overloaded) has a status of its own.
//!
//! A call of a function is a job like any other. Names and ids are put into Lyra's terms in [`lyra_wire::classic`].

mod body;
pub(crate) mod documented;
mod envelope;
mod functions;
mod jobs;
mod path;
mod users;

use std::net::IpAddr;
use std::sync::Arc;

use axum::response::Response;
use http::Method;
use http::request::Parts;
use lyra_fleet::throttle::{Rate, Throttle};
use lyra_kit::Clock;
use lyra_types::{Error, TenantName};

use crate::access::audit::Done;
use crate::access::gate::Peer;
use crate::access::{By, Identity, Needs};
use crate::body::Lingering;
use crate::config::Config;
use crate::metrics::{Metrics, RouteMetrics};
use crate::service::App;
use envelope::Envelope;
use path::Target;
pub(crate) use path::is_classic;

/// Method and path of each route, in the order of [`Route`].
const ROUTES: [(&str, &str); 11] = [
    ("POST", "/u/{user}"),
    ("DELETE", "/u/{user}"),
    ("GET", "/u/{user}/time"),
    ("GET", "/u/{user}/fn"),
    ("GET", "/u/{user}/fn/{function}"),
    ("POST", "/u/{user}/fn/{function}"),
    ("DELETE", "/u/{user}/fn/{function}"),
    ("POST", "/u/{user}/fn/{function}/run"),
    ("GET", "/j/{job}"),
    ("GET", "/j/{job}/res"),
    ("DELETE", "/j/{job}"),
];

/// A route, by its place in [`ROUTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    PutUser,
    RemoveUser,
    Time,
    Functions,
    Function,
    PutFunction,
    RemoveFunction,
    Run,
    Job,
    JobResult,
    RemoveJob,
}

/// What the classic routes of a gateway keep.
pub(crate) struct Classic {
    metrics: [RouteMetrics; ROUTES.len()],
    owners: jobs::Owners,
    sign_ups: Throttle<IpAddr>,
}

impl Classic {
    pub(crate) fn new(config: &Config, clock: &Clock, metrics: &Metrics) -> Classic {
        let rate = Rate { burst: config.classic_sign_ups, every: config.classic_sign_up_every };
        Classic {
            metrics: ROUTES.map(|(method, path)| metrics.route(path, method)),
            owners: jobs::Owners::default(),
            sign_ups: Throttle::new(rate, clock.clone()),
        }
    }
}

/// A request that was let in, and what it asks for.
struct Asked<'a> {
    app: &'a Arc<App>,
    classic: &'a Classic,
    identity: &'a Identity,
    parts: Parts,
    body: Lingering,
}

impl Asked<'_> {
    /// Whether the caller may do this in the tenant.
    ///
    /// # Errors
    /// [`lyra_types::Code::PermissionDenied`] where it may not.
    fn allowed(&self, tenant: &TenantName) -> lyra_types::Result<()> {
        self.identity.check_tenant(tenant.as_str()).inspect_err(|_| self.app.metrics.denied("tenant"))
    }

    /// Whether this is a stranger who may make a user.
    fn signs_up(&self, route: Route) -> bool {
        route == Route::PutUser && self.identity.by == By::Nothing && self.app.config.classic_sign_up
    }
}

/// Whether a stranger may send this request, to make a user.
pub(crate) fn is_sign_up(config: &Config, parts: &Parts) -> bool {
    let target = || path::target(parts.uri.path()).ok().flatten();
    config.classic_sign_up && parts.method == Method::POST && matches!(target(), Some(Target::User(_)))
}

/// Method and path of each route, and what its caller must be allowed in the user's tenant.
pub(crate) fn table() -> impl Iterator<Item = (&'static str, &'static str, Needs)> {
    ROUTES.into_iter().zip(Route::ALL).map(|((method, path), route)| (method, path, route.needs()))
}

impl Route {
    /// In the order of [`ROUTES`].
    const ALL: [Route; ROUTES.len()] = [
        Route::PutUser,
        Route::RemoveUser,
        Route::Time,
        Route::Functions,
        Route::Function,
        Route::PutFunction,
        Route::RemoveFunction,
        Route::Run,
        Route::Job,
        Route::JobResult,
        Route::RemoveJob,
    ];

    /// Whether what is done here is written down, as for every other change.
    fn is_audited(self) -> bool {
        matches!(self, Route::PutUser | Route::RemoveUser | Route::PutFunction | Route::RemoveFunction)
    }

    /// What the caller must be allowed in the user's tenant. A user is made or removed by its owner or an operator.
    fn needs(self) -> Needs {
        match self {
            Route::PutUser | Route::RemoveUser => Needs::ADMIN,
            Route::Time | Route::Functions | Route::Function => Needs::READ,
            Route::PutFunction | Route::RemoveFunction => Needs::DEPLOY,
            Route::Run | Route::RemoveJob => Needs::INVOKE,
            Route::Job | Route::JobResult => Needs::READ_OR_INVOKE,
        }
    }
}

/// Answers a request to a classic path.
pub(crate) async fn answer(
    app: &Arc<App>,
    classic: &Classic,
    identity: &Identity,
    parts: Parts,
    body: Lingering,
) -> Response {
    let begun = app.clock.instant();
    let target = match path::target(parts.uri.path()) {
        Ok(target) => target,
        Err(error) => return refusal(&error),
    };
    let Some(route) = target.as_ref().and_then(|target| route(target, &parts.method)) else {
        return envelope::nothing_here();
    };
    let (Some(target), get) = (target, parts.method == Method::GET || parts.method == Method::HEAD) else {
        return envelope::nothing_here();
    };
    let tag = if get { parts.headers.get(http::header::IF_NONE_MATCH).cloned() } else { None };
    let seen = route.is_audited().then(|| (parts.clone(), target.tenant()));
    let asked = Asked { app, classic, identity, parts, body };
    // Whose job it is must be looked up; whether the caller may ask for any need not.
    let allowed = match asked.signs_up(route) {
        true => Ok(()),
        false => route.needs().check(identity).inspect_err(|_| app.metrics.denied("scope")),
    };
    let answer = match allowed {
        Ok(()) => serve(asked, route, target).await,
        Err(error) => Err(error),
    };
    let code = answer.as_ref().err().map(|error| error.code);
    let response = answer.unwrap_or_else(|error| Envelope::of(&error)).into_response(get.then_some(tag));
    // Strangers could fill the log: of them, only what they have done stands there.
    if let Some((parts, tenant)) = seen.filter(|_| identity.by != By::Nothing || code.is_none()) {
        let done = Done {
            method: &parts.method,
            route: ROUTES[route as usize].1,
            path: parts.uri.path(),
            tenant,
            status: response.status().as_u16(),
            code,
            address: parts.extensions.get::<Peer>().map(|peer| peer.0.ip().to_string()).unwrap_or_default(),
        };
        app.audit.write(identity, done, None).await;
    }
    classic.metrics[route as usize].observe(response.status(), app.clock.instant().duration_since(begun));
    response
}

fn route(target: &Target, method: &Method) -> Option<Route> {
    Some(match (target, method.as_str()) {
        (Target::User(_), "POST") => Route::PutUser,
        (Target::User(_), "DELETE") => Route::RemoveUser,
        (Target::Time(_), "GET" | "HEAD") => Route::Time,
        (Target::Functions(_), "GET" | "HEAD") => Route::Functions,
        (Target::Function(..), "GET" | "HEAD") => Route::Function,
        (Target::Function(..), "POST") => Route::PutFunction,
        (Target::Function(..), "DELETE") => Route::RemoveFunction,
        (Target::Run(..), "POST") => Route::Run,
        (Target::Job(_), "GET" | "HEAD") => Route::Job,
        (Target::JobResult(_), "GET" | "HEAD") => Route::JobResult,
        (Target::Job(_), "DELETE") => Route::RemoveJob,
        _ => return None,
    })
}

async fn serve(asked: Asked<'_>, route: Route, target: Target) -> lyra_types::Result<Envelope> {
    match target {
        Target::User(user) | Target::Time(user) => match route {
            Route::PutUser => users::put(&asked, &user).await,
            Route::RemoveUser => users::remove(&asked, &user).await,
            _ => users::time(&asked, &user).await,
        },
        Target::Functions(user) => functions::list(&asked, &user).await,
        Target::Function(user, function) => match route {
            Route::PutFunction => functions::put(asked, &user, &function).await,
            Route::RemoveFunction => functions::remove(&asked, &user, &function).await,
            _ => functions::get(&asked, &user, &function).await,
        },
        Target::Run(user, function) => functions::run(asked, &user, &function).await,
        Target::JobResult(id) => jobs::result(&asked, &id).await,
        Target::Job(id) => match route {
            Route::RemoveJob => jobs::remove(&asked, &id).await,
            _ => jobs::status(&asked, &id).await,
        },
    }
}

/// The answer to a request that was not let in.
pub(crate) fn refusal(error: &Error) -> Response {
    Envelope::of(error).into_response(None)
}
