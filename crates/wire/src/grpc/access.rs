//! Who may ask for what: the one table, and the layer that holds every request to it.
//!
//! Where connections are in plain text (loopback only) nobody is known and nothing is checked. A method that is not in the
//! table is refused to everybody, and a test holds the table against the list of methods.

use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::accept::Asker;
use super::seldom::is_time_to_say;
use crate::Role;
use crate::Role::{Control, Gateway, Scaler, Worker, Workflow};

/// In place of a method: each one of the service.
const EACH: &str = "*";

/// Service, method, and the roles that may ask for it.
const TABLE: &[(&str, &str, &[Role])] = &[
    // Only a worker joins, and only under a name of its own (`registry.rs`).
    ("lyra.v1.Registry", "Join", &[Worker]),
    // Whoever calls functions knows the workers; tasks of workflows are calls.
    ("lyra.v1.Registry", EACH, &[Gateway, Control, Workflow]),
    // Workers count what calls use.
    ("lyra.v1.Control", "RecordUsage", &[Worker]),
    // A scaler is told of the load, and empties the workers that it ends.
    ("lyra.v1.Control", "ScalerTurn", &[Scaler]),
    ("lyra.v1.Worker", "Uncordon", &[Gateway, Control, Scaler]),
    ("lyra.v1.Worker", "Drain", &[Gateway, Control, Scaler]),
    // Only they are told values of secrets: for the instances that they start, and for the URLs that tasks call.
    ("lyra.v1.Control", "FetchSecrets", &[Worker, Workflow]),
    ("lyra.v1.Control", "SecretStamps", &[Worker]),
    // Those that share no blobs with control run what it has.
    ("lyra.v1.Control", "FetchCode", &[Worker]),
    // What tasks of workflows call, and those that are jobs.
    ("lyra.v1.Control", "WatchRoutes", &[Gateway, Control, Workflow]),
    ("lyra.v1.Control", "Submit", &[Gateway, Control, Workflow]),
    ("lyra.v1.Control", "Job", &[Gateway, Control, Workflow]),
    ("lyra.v1.Control", "CancelJob", &[Gateway, Control, Workflow]),
    // Somebody may want to hear of the end of a run.
    ("lyra.v1.Control", "RunEnds", &[Control, Workflow]),
    // Tasks count against what their tenants may use.
    ("lyra.v1.Quotas", "Share", &[Gateway, Control, Workflow]),
    // A task that is given up ends a run that may be with another process.
    ("lyra.v1.Control", "WatchWorkflows", &[Gateway, Control, Workflow]),
    ("lyra.v1.Workflows", "Command", &[Gateway, Control, Workflow]),
    ("lyra.v1.Control", EACH, &[Gateway, Control]),
    ("lyra.v1.Accounts", EACH, &[Gateway, Control]),
    ("lyra.v1.Quotas", EACH, &[Gateway, Control]),
    // Functions write where they run, and whoever shows it reads.
    ("lyra.v1.Logs", "Offer", &[Worker]),
    ("lyra.v1.Logs", EACH, &[Gateway, Control]),
    // Control clears away what deleted tenants had; gateways ask for clients, and control passes on what they ask of it.
    ("lyra.v1.Workflows", "Clear", &[Control]),
    ("lyra.v1.Workflows", EACH, &[Gateway, Control]),
    // Gateways call for clients, control for jobs, workflow processes for tasks.
    ("lyra.v1.Worker", EACH, &[Gateway, Control]),
    ("lyra.calls.v1.Calls", EACH, &[Gateway, Control, Workflow]),
];

/// The roles that may ask for the method at `path` (`/SERVICE/METHOD`).
fn allowed(path: &str) -> &'static [Role] {
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else { return &[] };
    let row = TABLE.iter().find(|(of, called, _)| *of == service && (*called == EACH || *called == method));
    row.map_or(&[], |(_, _, roles)| roles)
}

/// Holds requests to the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guard;

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner }
    }
}

/// Services behind a [`Guard`].
#[derive(Debug, Clone)]
pub(super) struct Guarded<S> {
    inner: S,
}

impl<S, B> Service<http::Request<B>> for Guarded<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<http::Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        match check(request.extensions().get(), request.uri().path()) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}

fn check(asker: Option<&Asker>, path: &str) -> Result<(), Status> {
    let Some(asker) = asker else { return Err(Status::unauthenticated("who asks is not known")) };
    let roles = allowed(path);
    if roles.iter().any(|role| asker.identity.may_be(*role)) {
        return Ok(());
    }
    let who = roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(" or ");
    let who = if who.is_empty() { "nobody" } else { &who };
    let reason = format!("{path} is for {who}; the certificate is that of {}", asker.identity);
    Err(refuse(asker, reason))
}

/// Checks that whoever registers as the worker `name` may be called so.
pub(super) fn check_worker(asker: &Asker, name: &str) -> Result<(), Status> {
    if asker.identity.may_be_called(Worker, name) {
        return Ok(());
    }
    let reason = format!("a worker may not be called {name:?} with the certificate of {}", asker.identity);
    Err(refuse(asker, reason))
}

fn refuse(asker: &Asker, reason: String) -> Status {
    if is_time_to_say(&format!("{} {reason}", asker.address.ip())) {
        tracing::warn!(address = %asker.address, reason, "a node is refused");
    }
    Status::permission_denied(reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{Authority, Dates, NodeSpec, look};

    /// Every method but those of calls.
    const METHODS: &[&str] = include!(concat!(env!("OUT_DIR"), "/methods.rs"));

    fn asker(node: &str) -> Asker {
        let dir = tempfile::tempdir().unwrap();
        let year = Dates::from_now(lyra_types::Timestamp::from_millis(1_800_000_000_000), crate::tls::YEAR);
        let authority = Authority::create(dir.path(), year).unwrap();
        authority.issue(dir.path(), &NodeSpec::parse(node).unwrap(), year).unwrap();
        let (identity, _) = look(&dir.path().join(crate::tls::CERTIFICATE)).unwrap();
        Asker { identity: identity.into(), address: ([127, 0, 0, 1], 1).into() }
    }

    #[test]
    fn every_method_is_for_somebody_and_unknown_ones_for_nobody() {
        assert!(METHODS.len() > 20);
        for path in METHODS.iter().chain(&["/lyra.calls.v1.Calls/Exchange", "/lyra.calls.v1.Calls/Serve"]) {
            assert!(!allowed(path).is_empty(), "{path} is not in the table");
        }
        for path in ["", "/", "/lyra.v1.Registr/Join", "/lyra.v1.RegistryX/Join", "lyra.v1.Registry/Join", "/x/y/z"] {
            assert!(allowed(path).is_empty(), "{path}");
        }
    }

    #[test]
    fn each_role_may_ask_for_what_is_its_own() {
        let may = |node: &str, path: &str| check(Some(&asker(node)), path).is_ok();
        for (path, control, worker, gateway) in [
            ("/lyra.v1.Registry/Join", false, true, false),
            ("/lyra.v1.Registry/WatchWorkers", true, false, true),
            ("/lyra.v1.Control/Deploy", true, false, true),
            ("/lyra.v1.Control/PurgeDead", true, false, true),
            ("/lyra.v1.Control/FetchSecrets", false, true, false),
            ("/lyra.v1.Control/SecretStamps", false, true, false),
            ("/lyra.v1.Control/FetchCode", false, true, false),
            ("/lyra.v1.Control/PutSecret", true, false, true),
            ("/lyra.v1.Accounts/WatchGrants", true, false, true),
            ("/lyra.v1.Accounts/CreateToken", true, false, true),
            ("/lyra.v1.Logs/Offer", false, true, false),
            ("/lyra.v1.Logs/Query", true, false, true),
            ("/lyra.v1.Logs/Forget", true, false, true),
            ("/lyra.v1.Worker/Drain", true, false, true),
            ("/lyra.v1.Workflows/Start", true, false, true),
            ("/lyra.v1.Workflows/Clear", true, false, false),
            ("/lyra.calls.v1.Calls/Exchange", true, false, true),
            ("/lyra.calls.v1.Calls/Serve", true, false, true),
            ("/lyra.v1.Nothing/Deploy", false, false, false),
        ] {
            let seen = (may("a:control", path), may("a:worker", path), may("a:gateway", path));
            assert_eq!(seen, (control, worker, gateway), "{path}");
            assert_eq!(may("a:control,worker,gateway", path), control || worker || gateway, "{path}");
            assert!(check(None, path).is_err(), "{path}");
        }
        for (path, scaler) in [
            ("/lyra.v1.Control/ScalerTurn", true),
            ("/lyra.v1.Control/SteerScaler", false),
            ("/lyra.v1.Control/Deploy", false),
            ("/lyra.v1.Worker/Drain", true),
            ("/lyra.v1.Worker/Clean", false),
            ("/lyra.v1.Registry/Join", false),
            ("/lyra.calls.v1.Calls/Exchange", false),
        ] {
            assert_eq!(may("a:scaler", path), scaler, "{path}");
        }
        assert!(!may("a:control,worker,gateway", "/lyra.v1.Control/ScalerTurn"));
        for (path, workflow) in [
            ("/lyra.v1.Registry/WatchWorkers", true),
            ("/lyra.v1.Registry/Join", false),
            ("/lyra.v1.Control/WatchRoutes", true),
            ("/lyra.v1.Control/Submit", true),
            ("/lyra.v1.Control/Job", true),
            ("/lyra.v1.Control/CancelJob", true),
            ("/lyra.v1.Control/Deploy", false),
            ("/lyra.v1.Control/PurgeDead", false),
            ("/lyra.v1.Control/FetchSecrets", true),
            ("/lyra.v1.Control/SecretStamps", false),
            ("/lyra.v1.Control/WatchWorkflows", true),
            ("/lyra.v1.Workflows/Command", true),
            ("/lyra.v1.Workflows/Start", false),
            ("/lyra.v1.Worker/Drain", false),
            ("/lyra.calls.v1.Calls/Exchange", true),
        ] {
            assert_eq!(may("a:workflow", path), workflow, "{path}");
        }
    }

    #[test]
    fn a_worker_has_its_own_name_only() {
        for (node, name, may) in [
            ("w1:worker", "w1", true),
            ("w1:worker", "w2", false),
            ("w1:worker", "*", false),
            ("w1:control,gateway", "w1", false),
            ("*:worker", "w7", true),
            ("*:gateway", "w7", false),
        ] {
            assert_eq!(check_worker(&asker(node), name).is_ok(), may, "{node} as {name}");
        }
    }

    #[test]
    fn a_refusal_says_who_may_and_who_asks() {
        let status = check(Some(&asker("w1:worker")), "/lyra.v1.Control/Deploy").unwrap_err();
        assert_eq!(status.code(), tonic::Code::PermissionDenied);
        assert_eq!(
            status.message(),
            "/lyra.v1.Control/Deploy is for gateway or control; the certificate is that of w1 (worker)"
        );
    }
}
