//! Where a node's workflows run: in its own process, in processes of the role `workflow`, or with control.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lyra_fleet::Fleet;
use lyra_kit::Tasks;
use lyra_store::{Access, Shelf};
use lyra_types::{Code, Error as LyraError};
use lyra_wire::grpc::{self, RemoteWorkflows, RoutesBuilder, Security};
use lyra_wire::hooks::{RunEnds, ThroughControl};
use lyra_wire::{Control, Quotas, Role, Workflows};
use lyra_workflow::{Identity, Service};

use crate::apart::{Config, open_blobs};
use crate::embedded::Error;
use crate::ends::ControlElsewhere;
use crate::roles::{self, Kit};

/// Longest wait for the first word of the registry: runs that are taken up call workers at once.
const REGISTRY: Duration = Duration::from_secs(3);

/// Whether a gateway wants to know who calls. Where it does not, all callers are programs of this machine, which reach whatever it
/// reaches.
pub(crate) fn asks_who(gateway: &lyra_gateway::Config) -> bool {
    !gateway.tokens.is_empty() || gateway.oidc.is_on()
}

/// Whether this node runs workflows.
pub(crate) fn run_here(config: &Config) -> bool {
    let with_control = config.roles.contains(&Role::Control) && config.node.workflow.with_control;
    with_control || config.roles.contains(&Role::Workflow)
}

/// What can't work is refused before anything is started: processes that run workflows apart from control need to share with
/// it, and with each other, where things are kept.
pub(crate) fn check(config: &Config) -> Result<(), Error> {
    let refused = |field: &str, reason: &str| Err(Error::Refused(LyraError::field(Code::InvalidField, field, reason)));
    let (control, workflow) = (config.roles.contains(&Role::Control), config.roles.contains(&Role::Workflow));
    if control && !run_here(config) && config.store == "sqlite" {
        return refused(
            "store",
            "is of this process only, so that no process of the role workflow could be found; give --store etcd://…, or let \
             control run workflows",
        );
    }
    if !workflow || control {
        return Ok(());
    }
    if config.store == "sqlite" {
        return refused("store", "is of one process only; the role workflow needs control's: --store etcd://…");
    }
    if config.jobs == "sqlite" {
        return refused("jobs", "is of one process only; the role workflow needs control's: --jobs nats://…");
    }
    if config.blobs.is_empty() {
        return refused(
            "blobs",
            "is missing; the role workflow needs a place that its processes share: --blobs s3://…",
        );
    }
    Ok(())
}

/// Takes up runs that were under way, and starts to take new ones. `reached`: where others reach this process.
pub(crate) async fn start(
    config: &Config,
    access: &Access,
    (control, quotas): (Arc<dyn Control>, Arc<dyn Quotas>),
    fleet: &Fleet,
    reached: &str,
    kit: &Kit,
) -> Result<Service, Error> {
    let role = if config.roles.contains(&Role::Control) { Role::Control } else { Role::Workflow };
    if role == Role::Workflow && !fleet.synced(REGISTRY).await {
        tracing::warn!("the registry can't be reached yet: no worker is known, and tasks wait");
    }
    // One that listens everywhere does not know where that is for others; they have addresses of control.
    let everywhere = reached.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified());
    let address = if everywhere { String::new() } else { reached.to_owned() };
    let objects = lyra_store::open_objects(&config.store, access).await.map_err(Error::Store)?;
    let through = ThroughControl(Arc::clone(&control));
    let ends: Arc<dyn RunEnds> = match role {
        Role::Workflow => Arc::new(ControlElsewhere { objects: Arc::clone(&objects), control: through }),
        _ => Arc::new(through),
    };
    let parts = roles::workflow::Parts {
        objects,
        runs: lyra_store::open_runs(&config.jobs, access).await.map_err(Error::Store)?,
        blobs: open_blobs(config, access, Shelf::Values).await?,
        ends,
        control,
        quotas,
        default_quota: config.node.control.quota.clone(),
        worker: Arc::new(fleet.clone()),
        // Who is let in by gateways of other processes is not known here.
        public_only: !config.roles.contains(&Role::Gateway) || asks_who(&config.node.gateway),
        alone: config.jobs == "sqlite",
        identity: Identity { name: config.name.clone(), address, role },
    };
    let mut settings = config.node.workflow.clone();
    if parts.alone && config.store != "sqlite" {
        // Other processes of the site may keep values of runs in the same place, which are known to none but them.
        settings.unused_every = Duration::ZERO;
    }
    roles::workflow::start(settings, parts, kit).await
}

/// The processes that are asked for workflows: this one where there can be no other, else those that `control` tells of. `grpc`:
/// where control is served here, if it is.
pub(crate) fn asked(
    config: &Config,
    own: Option<&Arc<Service>>,
    control: Arc<dyn Control>,
    grpc: Option<SocketAddr>,
    security: &Security,
    (kit, tasks): (&Kit, &Tasks),
) -> Result<Arc<dyn Workflows>, Error> {
    if let Some(own) = own.filter(|_| config.jobs == "sqlite" && config.control.is_empty()) {
        return Ok(own.clone());
    }
    let control_at = match grpc.filter(|_| config.roles.contains(&Role::Control)) {
        None => config.control.clone(),
        Some(here) if own.is_some() => [&[here.to_string()], config.control.as_slice()].concat(),
        // It passes on what it is asked; two that do would pass it back and forth.
        Some(_) => Vec::new(),
    };
    let remote =
        RemoteWorkflows::following(control, &control_at, security, (kit.clock.clone(), kit.random.clone()), tasks);
    Ok(Arc::new(remote.map_err(Error::Refused)?))
}

/// Tells control, and what runs workflows here, whom they ask for workflows. Where none run with control, it passes on what it is
/// asked itself: there may be gateways that have not heard yet who runs them.
pub(crate) fn introduce(
    config: &Config,
    asked: &Arc<dyn Workflows>,
    control: Option<&Arc<lyra_control::Service>>,
    own: Option<&Arc<Service>>,
    routes: &mut RoutesBuilder,
) {
    if let Some(control) = control {
        control.set_workflows(Arc::clone(asked));
        if own.is_none() {
            grpc::add_workflows(routes, Arc::clone(asked));
        }
    }
    // One that has its runs to itself would only ask itself.
    if let Some(own) = own.filter(|_| config.jobs != "sqlite") {
        own.set_everyone(Arc::clone(asked));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn config(roles: &[Role], store: &str, jobs: &str, blobs: &str, with_control: bool) -> Config {
        let settings = Settings::default();
        let mut node = settings.embedded("data");
        node.workflow.with_control = with_control;
        Config {
            roles: roles.iter().copied().collect(),
            node,
            name: "f1".to_owned(),
            listen_grpc: settings.cluster.listen_grpc,
            advertise: String::new(),
            status: None,
            control: vec!["127.0.0.1:7070".to_owned()],
            store: store.to_owned(),
            jobs: jobs.to_owned(),
            blobs: blobs.to_owned(),
            tls_dir: None,
            access: Access::default(),
            fleet: settings.cluster.fleet,
            isolation: Vec::new(),
            scaler: settings.scaler,
        }
    }

    #[test]
    fn what_processes_can_not_share_is_refused() {
        let (control, workflow) = (&[Role::Control][..], &[Role::Workflow][..]);
        let both = &[Role::Control, Role::Workflow][..];
        for (roles, store, jobs, blobs, with_control, refused) in [
            (control, "sqlite", "sqlite", "", true, None),
            (control, "sqlite", "sqlite", "", false, Some("store")),
            (control, "etcd://e:1", "sqlite", "", false, None),
            (both, "sqlite", "sqlite", "", false, None),
            (workflow, "sqlite", "nats://n:1", "s3://b", true, Some("store")),
            (workflow, "etcd://e:1", "sqlite", "s3://b", true, Some("jobs")),
            (workflow, "etcd://e:1", "nats://n:1", "", true, Some("blobs")),
            (workflow, "etcd://e:1", "nats://n:1", "s3://b", false, None),
        ] {
            let config = config(roles, store, jobs, blobs, with_control);
            let field = match check(&config) {
                Err(Error::Refused(error)) => error.errors.first().map(|of| of.field.clone()),
                Err(error) => panic!("{error}"),
                Ok(()) => None,
            };
            assert_eq!(field.as_deref(), refused, "{roles:?} {store} {jobs} {blobs} {with_control}");
        }
    }
}
