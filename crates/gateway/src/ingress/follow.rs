//! Follows control's sessions: keeps table and ports exactly as control tells them.
//!
//! While control is away, what was known last holds. Once the new watch has told everything, a session that was not told is
//! closed. What is told again as it was changes nothing, so that no connection is cut by a new watch.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use lyra_kit::retry::Backoff;
use lyra_types::{Result, TenantName};
use lyra_wire::Control;
use lyra_wire::sessions::{SessionEvent, SessionRoute};

use super::Ingress;
use super::ports::Ports;
use super::table::Session;

/// Waits between tries to watch.
const RECONNECT: Backoff = Backoff { first: Duration::from_millis(50), max: Duration::from_secs(1) };

/// A session, whatever its name.
type Identity = (TenantName, String);

/// The one that changes the table.
pub(super) struct Follower {
    ingress: Arc<Ingress>,
    ports: Ports,
    known: HashMap<Identity, Arc<Session>>,
    /// What was told since the watch began; `None` once all has been told.
    told: Option<HashSet<Identity>>,
}

impl Follower {
    pub(super) fn new(ingress: Arc<Ingress>, ports: Ports) -> Follower {
        Follower { ingress, ports, known: HashMap::new(), told: None }
    }

    /// Follows for ever.
    pub(super) async fn follow(mut self, control: &dyn Control) {
        let clock = self.ingress.clock.clone();
        let mut tries = 0;
        loop {
            let begun = clock.instant();
            match self.follow_once(control).await {
                Ok(()) => tracing::debug!("the watch of sessions ended"),
                Err(error) => tracing::warn!(%error, "the watch of sessions broke"),
            }
            // One that lived for a while was a good one: begin with short waits again.
            tries = if clock.instant().duration_since(begun) > RECONNECT.max { 1 } else { tries + 1 };
            clock.sleep(RECONNECT.delay(tries, &self.ingress.random)).await;
        }
    }

    async fn follow_once(&mut self, control: &dyn Control) -> Result<()> {
        let mut events = control.watch_sessions().await?;
        self.told = Some(HashSet::new());
        while let Some(event) = events.next().await {
            self.apply(event?);
            // A long list must not keep this thread from everything else.
            tokio::task::coop::consume_budget().await;
        }
        Ok(())
    }

    fn apply(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Put(route) => self.put(route),
            SessionEvent::Remove(tenant, uid) => {
                let identity = (tenant, uid);
                if let Some(told) = &mut self.told {
                    told.remove(&identity);
                }
                self.close(&identity);
            }
            SessionEvent::Synced => {
                if let Some(told) = self.told.take() {
                    let gone: Vec<Identity> =
                        self.known.keys().filter(|identity| !told.contains(*identity)).cloned().collect();
                    gone.iter().for_each(|identity| self.close(identity));
                }
                self.ingress.table.set_synced();
            }
        }
        let sessions = self.known.len();
        self.ingress.metrics.sessions.set(i64::try_from(sessions).unwrap_or(i64::MAX));
    }

    fn put(&mut self, route: Arc<SessionRoute>) {
        let identity = (route.key.tenant.clone(), route.key.uid.clone());
        if let Some(told) = &mut self.told {
            told.insert(identity.clone());
        }
        if self.known.get(&identity).is_some_and(|known| known.route == route) {
            return;
        }
        let places = self.ingress.config.max_session_connections;
        let session = Arc::new(Session::new(route, places, self.ingress.cut.child_token()));
        let former = self.known.insert(identity, Arc::clone(&session));
        let namesake = self.ingress.table.insert(&session);
        match &former {
            Some(former) => self.cut(former),
            None => self.ingress.metrics.opened.inc(),
        }
        // A name belongs to one session: another that had it is over, whether that was told or not.
        if let Some(namesake) = namesake
            && namesake.route.key.uid != session.route.key.uid
        {
            self.close(&(namesake.route.key.tenant.clone(), namesake.route.key.uid.clone()));
        }
        self.ports.open(&session);
    }

    fn close(&mut self, identity: &Identity) {
        if let Some(session) = self.known.remove(identity) {
            self.ingress.table.remove(&session);
            self.cut(&session);
            self.ingress.metrics.closed.inc();
        }
    }

    fn cut(&mut self, session: &Session) {
        session.life.cancel();
        self.ports.close(session);
    }
}
