//! Applications and their sessions: the objects that clients write, and what is done about them.
//!
//! Every control process keeps a copy of the objects, judges what clients write ([`admission`]) and tells gateways where open
//! sessions are ([`routes`]). One leads ([`leading`]): it makes versions of applications ([`versions`]), gives sessions
//! instances, says how many stand ready ([`scaling`], [`spread`]) and writes what has become of each ([`status`], [`report`]).
//!
//! What must hold: a session is in one instance at most, and an instance has one session at most; what workers have opened
//! stays open whoever leads, and nothing is ended because it is not known yet; every session that can't be opened ends, with a
//! reason, when its time is over; a session that ended stays ended.

mod admission;
mod ages;
mod app;
mod config;
mod field;
mod leading;
mod look;
mod make;
mod observe;
mod pass;
mod ports;
mod reach;
mod report;
mod routes;
mod scaling;
mod secrets;
mod serve;
mod spread;
mod status;
mod versions;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use lyra_kit::{Clock, Tasks};
use lyra_resources::{Key, ResourceApi};
use lyra_store::Objects;
use lyra_types::{Result, TenantName};
use lyra_wire::registry::Command;
use lyra_wire::sessions::{AppVersion, SessionCommand, SessionEvent, SessionRoute};
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::functions::Table;
use crate::leader::Term;
use crate::metrics::Metrics;
use crate::quotas::Quotas;
use crate::registry::Registry;
use crate::secrets::SecretTable;
pub(crate) use admission::Census;
use admission::Gate;
use ages::Ages;
pub use config::SessionsConfig;
use leading::Leading;
use routes::Routes;
pub(crate) use serve::serve;
pub(crate) use versions::codes;

/// Longest wait for a worker to have a version's code.
const PRELOAD: Duration = Duration::from_secs(120);
/// Changes that a call that waits for a session may be behind; then it looks again.
const CHANGED: usize = 1_024;

/// Applications and sessions in one control process.
pub(crate) struct Sessions {
    shared: Arc<Shared>,
}

/// What all parts use.
struct Shared {
    config: SessionsConfig,
    api: Arc<ResourceApi>,
    objects: Arc<dyn Objects>,
    registry: Registry,
    table: Arc<Table>,
    secrets: Arc<SecretTable>,
    quotas: Arc<Quotas>,
    clock: Clock,
    metrics: Arc<Metrics>,
    census: Arc<Census>,
    routes: Routes,
    ages: Ages,
    /// Tells of sessions whose object or route has changed.
    changed: broadcast::Sender<Key>,
    /// When workers that were there before may have joined.
    settled: Instant,
}

impl Sessions {
    /// Reads all objects and begins to follow them.
    ///
    /// # Errors
    /// When the store can't be read.
    pub(crate) async fn start(
        deps: &crate::Deps,
        config: SessionsConfig,
        (table, secrets): (Arc<Table>, Arc<SecretTable>),
        quotas: &Arc<Quotas>,
        metrics: Arc<Metrics>,
        tasks: &Tasks,
    ) -> Result<Sessions> {
        let census = Arc::new(Census::default());
        let gate = Arc::new(Gate::new(Arc::clone(&census), Arc::clone(quotas)));
        quotas.knows(&census);
        let api = lyra_resources::Deps {
            objects: Arc::clone(&deps.objects),
            clock: deps.clock.clone(),
            random: deps.random.clone(),
            admission: Arc::clone(&gate) as Arc<dyn lyra_resources::Admission>,
        };
        // Several control processes have an address, by which the others know them.
        let settings = lyra_resources::Settings { shared_store: !deps.address.is_empty() };
        let api = ResourceApi::start(api, settings).await?;
        gate.knows(&api);
        let shared = Arc::new(Shared {
            config,
            api,
            objects: Arc::clone(&deps.objects),
            registry: deps.registry.clone(),
            table,
            secrets,
            quotas: Arc::clone(quotas),
            clock: deps.clock.clone(),
            metrics,
            census,
            routes: Routes::default(),
            ages: Ages::new(deps.clock.clone()),
            changed: broadcast::Sender::new(CHANGED),
            settled: deps.clock.instant() + deps.registry.config().settle,
        });
        for object in shared.api.sessions().list(None) {
            if let Ok(tenant) = TenantName::new(&object.metadata.namespace) {
                shared.ages.found(&Key::new(&tenant, &object.metadata.name), object.object());
            }
        }
        let of = Arc::clone(&shared);
        tasks.spawn_cancellable("session-routes", async move { routes::keep(of).await });
        Ok(Sessions { shared })
    }

    /// The objects, for clients.
    pub(crate) fn api(&self) -> &Arc<ResourceApi> {
        &self.shared.api
    }

    /// Leads until the term is over.
    pub(crate) async fn lead(&self, term: &Term) {
        let leading = Leading::new(Arc::clone(&self.shared), term.epoch);
        term.over.run_until_cancelled(leading.run()).await;
    }

    /// Every open session, then each change.
    pub(crate) fn watch(&self) -> BoxStream<'static, Result<SessionEvent>> {
        self.shared.routes.watch()
    }

    /// The open session of an application that `key` means; makes it where there is none.
    pub(crate) async fn reach(
        &self,
        tenant: &TenantName,
        application: &str,
        key: &str,
        wait: Duration,
    ) -> Result<Arc<SessionRoute>> {
        self.shared.reach(tenant, application, key, wait).await
    }

    /// Notes that sessions are in use.
    pub(crate) async fn touch(&self, sessions: Vec<(TenantName, String)>) -> Result<()> {
        self.shared.touch(sessions).await
    }

    /// Ends all watches of clients.
    pub(crate) async fn stop(&self) {
        self.shared.api.stop().await;
    }
}

impl Shared {
    /// Has a worker get a version's code.
    async fn preload(&self, worker: &str, epoch: u64, version: &Arc<AppVersion>) -> Result<()> {
        let command = Command::Session(SessionCommand::Preload(Arc::clone(version)));
        self.registry.command(worker, epoch, command, PRELOAD).await
    }
}
