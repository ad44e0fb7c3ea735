//! How old sessions are, and since when those that calls open are not in use: by what this process has seen itself.
//!
//! The times in the objects are by the clock of whichever control process wrote them, and clocks of two processes may lie minutes
//! apart. So they are read once only: of objects that were there before this process was.

use std::collections::HashMap;
use std::time::Duration;

use lyra_kit::Clock;
use lyra_resources::Key;
use lyra_types::Timestamp;
use lyra_types::resources::ApplicationSession;
use parking_lot::Mutex;
use tokio::time::Instant;

/// What an object says of its age is known to the second only.
const GRAIN: Duration = Duration::from_secs(2);

/// Ages of sessions.
pub(super) struct Ages {
    clock: Clock,
    of: Mutex<HashMap<Key, Seen>>,
}

/// What was seen of a session.
struct Seen {
    uid: String,
    made: Since,
    /// What its object says of its last use, and when that was seen.
    used: Option<(Timestamp, Since)>,
}

/// A time before now.
#[derive(Clone, Copy)]
struct Since {
    seen: Instant,
    /// How long ago it was when it was seen.
    before: Duration,
}

impl Since {
    fn ago(self, now: Instant) -> Duration {
        now.saturating_duration_since(self.seen) + self.before
    }
}

impl Ages {
    /// Nothing was seen yet.
    pub(super) fn new(clock: Clock) -> Ages {
        Ages { clock, of: Mutex::default() }
    }

    /// Takes in a session that was there before this process was.
    pub(super) fn found(&self, key: &Key, object: &ApplicationSession) {
        let wall = self.clock.now();
        let made = object.metadata.creation_timestamp.map_or(Duration::ZERO, |at| wall.since(at.timestamp()));
        let made = if made < GRAIN { Duration::ZERO } else { made };
        let used = super::reach::last_used(object).map_or(Duration::ZERO, |at| wall.since(at));
        self.see(key, object, made, used);
    }

    /// Takes in how a session is now; `None` when it is gone.
    pub(super) fn changed(&self, key: &Key, object: Option<&ApplicationSession>) {
        match object {
            Some(object) => self.see(key, object, Duration::ZERO, Duration::ZERO),
            None => drop(self.of.lock().remove(key)),
        }
    }

    fn see(&self, key: &Key, object: &ApplicationSession, made: Duration, used: Duration) {
        let now = self.clock.instant();
        let since = |before| Since { seen: now, before };
        let said = super::reach::last_used(object);
        let mut of = self.of.lock();
        match of.get_mut(key) {
            Some(seen) if seen.uid == object.metadata.uid => {
                if seen.used.map(|(at, _)| at) != said {
                    seen.used = said.map(|at| (at, since(used)));
                }
            }
            _ => {
                let (uid, used) = (object.metadata.uid.clone(), said.map(|at| (at, since(used))));
                drop(of.insert(key.clone(), Seen { uid, made: since(made), used }));
            }
        }
    }

    /// How old the session is.
    pub(super) fn age(&self, key: &Key, object: &ApplicationSession) -> Duration {
        self.changed(key, Some(object));
        self.of.lock().get(key).map_or(Duration::ZERO, |seen| seen.made.ago(self.clock.instant()))
    }

    /// For how long no call has used the session; `None` for one that calls did not open.
    pub(super) fn unused(&self, key: &Key, object: &ApplicationSession) -> Option<Duration> {
        let said = super::reach::last_used(object)?;
        let now = self.clock.instant();
        let mut of = self.of.lock();
        let Some(seen) = of.get_mut(key).filter(|seen| seen.uid == object.metadata.uid) else {
            return Some(Duration::ZERO);
        };
        match seen.used {
            Some((at, since)) if at == said => Some(since.ago(now)),
            // This has not been taken in yet.
            _ => Some(Duration::ZERO),
        }
    }
}

#[cfg(test)]
mod tests {
    use lyra_types::TenantName;

    use super::super::reach::open_by_calls;
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn session(clock: &Clock) -> (Key, ApplicationSession) {
        let mut object = ApplicationSession::default();
        let meta = &mut object.metadata;
        (meta.name, meta.uid) = ("s".to_owned(), "u1".to_owned());
        meta.creation_timestamp = Some(clock.now().into());
        open_by_calls(&mut object, clock.now());
        (Key::new(&TenantName::default_tenant(), "s"), object)
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_seen_is_as_old_as_it_was_seen_whatever_clocks_say() {
        let base = Timestamp::from_millis(1_800_000_000_000);
        for other in [base - 5 * MINUTE, base, base + 5 * MINUTE] {
            let (here, there) = (Clock::simulated(base), Clock::simulated(other));
            let ages = Ages::new(here);
            let (key, mut object) = session(&there);
            assert_eq!(ages.age(&key, &object), Duration::ZERO);
            tokio::time::sleep(MINUTE).await;
            assert_eq!((ages.age(&key, &object), ages.unused(&key, &object)), (MINUTE, Some(MINUTE)));
            open_by_calls(&mut object, there.now());
            ages.changed(&key, Some(&object));
            tokio::time::sleep(MINUTE).await;
            assert_eq!((ages.age(&key, &object), ages.unused(&key, &object)), (2 * MINUTE, Some(MINUTE)));
            // Another one of its name.
            object.metadata.uid = "u2".to_owned();
            assert_eq!(ages.age(&key, &object), Duration::ZERO);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_there_before_is_as_old_as_it_says() {
        let clock = Clock::simulated(Timestamp::from_millis(1_800_000_000_000));
        let (key, object) = session(&clock);
        tokio::time::sleep(MINUTE).await;
        let ages = Ages::new(clock);
        ages.found(&key, &object);
        tokio::time::sleep(MINUTE).await;
        assert_eq!((ages.age(&key, &object), ages.unused(&key, &object)), (2 * MINUTE, Some(2 * MINUTE)));
        ages.changed(&key, None);
        assert_eq!(ages.age(&key, &object), Duration::ZERO, "made anew");
    }
}
