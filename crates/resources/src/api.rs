//! The parts of the resource API, put together.

use std::sync::Arc;
use std::time::Duration;

use lyra_kit::{Clock, Random, Tasks};
use lyra_store::{Objects, StoreError};
use lyra_types::resources::{Application, ApplicationSession};

use crate::admission::Admission;
use crate::cache::feed;
use crate::events::Recorder;
use crate::kind::Kind;
use crate::resources::Resources;

/// What the resource API needs.
#[derive(Clone)]
pub struct Deps {
    /// Where objects are kept.
    pub objects: Arc<dyn Objects>,
    /// Time.
    pub clock: Clock,
    /// Randomness, for identities and generated names.
    pub random: Random,
    /// Who has a say in what is written.
    pub admission: Arc<dyn Admission>,
}

/// How the resource API behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// Whether other processes write to the same store: then reads that ask for the newest state ask the store how far it is.
    pub shared_store: bool,
}

/// The resource API: objects of each kind, and the events about them.
pub struct ResourceApi {
    applications: Resources<Application>,
    sessions: Resources<ApplicationSession>,
    events: Recorder,
    pub(crate) clock: Clock,
    tasks: Tasks,
}

impl ResourceApi {
    /// Reads all objects and begins to follow the store.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn start(deps: Deps, settings: Settings) -> Result<Arc<ResourceApi>, StoreError> {
        let applications = Resources::new(&deps, settings);
        let sessions = Resources::new(&deps, settings);
        applications.cache().load(&*deps.objects).await?;
        sessions.cache().load(&*deps.objects).await?;
        let tasks = Tasks::new();
        tasks.spawn_cancellable("feed applications", feed(applications.cache().clone(), deps.objects.clone()));
        tasks.spawn_cancellable("feed sessions", feed(sessions.cache().clone(), deps.objects.clone()));
        let events = Recorder::new(deps.clock.clone(), deps.random.clone());
        Ok(Arc::new(ResourceApi { applications, sessions, events, clock: deps.clock, tasks }))
    }

    /// The objects of a kind.
    pub fn kind<K: Kind>(&self) -> &Resources<K> {
        K::of(self)
    }

    /// The applications.
    pub fn applications(&self) -> &Resources<Application> {
        &self.applications
    }

    /// The sessions.
    pub fn sessions(&self) -> &Resources<ApplicationSession> {
        &self.sessions
    }

    /// Where events are recorded, for `kubectl describe` and `kubectl get events`.
    pub fn events(&self) -> &Recorder {
        &self.events
    }

    /// Told to stop: watches end.
    pub(crate) fn stopping(&self) -> tokio_util::sync::CancellationToken {
        self.tasks.stopping()
    }

    /// Ends all watches and stops following the store.
    pub async fn stop(&self) {
        self.tasks.stop(Duration::from_secs(5)).await;
    }
}

impl Drop for ResourceApi {
    fn drop(&mut self) {
        // What was started here does not outlive it.
        self.tasks.stopping().cancel();
    }
}
