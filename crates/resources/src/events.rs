//! Events: short notes on what happened to an object, for `kubectl describe` and `kubectl get events`.
//!
//! They are kept in the memory of this process, an hour long and a bounded number of them: nothing depends on them, and a
//! write to the store for each would cost more than the change that it tells of. What is told again is counted.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use lyra_kit::{Clock, Random};
use lyra_types::{TenantName, Timestamp};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::kind::Kind;

/// Events that are kept.
const MOST: usize = 10_000;
/// How long an event is kept after it was last told.
const TTL: Duration = Duration::from_secs(3_600);

/// Whether all is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// As it should be.
    Normal,
    /// Somebody should look at it.
    Warning,
}

impl EventType {
    /// The name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) uid: String,
    /// Number of the change of events that last changed this one.
    pub(crate) revision: u64,
    pub(crate) tenant: TenantName,
    pub(crate) about: About,
    pub(crate) r#type: EventType,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) count: u32,
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
}

/// The object that an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct About {
    pub(crate) api_version: String,
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) uid: String,
}

#[derive(Debug, PartialEq, Eq, Hash, Clone)]
struct Sameness {
    tenant: TenantName,
    about: About,
    r#type: EventType,
    reason: String,
    message: String,
}

#[derive(Default)]
struct Kept {
    events: HashMap<Sameness, Event>,
    /// When each was told, the oldest first; a later entry of the same event makes an earlier one void.
    order: VecDeque<(Sameness, u64)>,
    revision: u64,
}

/// Records events. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    kept: Arc<Mutex<Kept>>,
    news: watch::Sender<u64>,
    clock: Clock,
    random: Random,
}

impl Recorder {
    pub(crate) fn new(clock: Clock, random: Random) -> Recorder {
        // Later than that of any earlier process, so that a client that goes on watching is not told lies.
        let revision = u64::try_from(clock.now().millis()).unwrap_or(0) * 1_000;
        let kept = Arc::new(Mutex::new(Kept { revision, ..Kept::default() }));
        Recorder { kept, news: watch::Sender::new(revision), clock, random }
    }

    /// Notes that something happened to an object. `reason` is one CamelCase word, `message` is for people. Cheap, and never fails.
    pub fn record<K: Kind>(&self, object: &K, r#type: EventType, reason: &str, message: &str) {
        let meta = object.meta();
        let Ok(tenant) = TenantName::new(&meta.namespace) else { return };
        let about = About {
            api_version: format!("{}/{}", K::NAMES.group, K::NAMES.version),
            kind: K::NAMES.kind,
            name: meta.name.clone(),
            uid: meta.uid.clone(),
        };
        let message: String = message.chars().take(1_024).collect();
        let same = Sameness { tenant, about, r#type, reason: reason.to_owned(), message };
        let now = self.clock.now();
        let number = self.random.u64();
        let mut kept = self.kept.lock();
        kept.revision += 1;
        let revision = kept.revision;
        let event = kept.events.entry(same.clone()).or_insert_with(|| Event {
            name: format!("{}.{number:016x}", meta.name),
            uid: uuid(u128::from(number) << 64 | u128::from(revision)),
            revision,
            tenant: same.tenant.clone(),
            about: same.about.clone(),
            r#type,
            reason: same.reason.clone(),
            message: same.message.clone(),
            count: 0,
            first: now,
            last: now,
        });
        event.count = event.count.saturating_add(1);
        event.last = now;
        event.revision = revision;
        kept.order.push_back((same, revision));
        forget(&mut kept, now);
        drop(kept);
        self.news.send_replace(revision);
    }

    /// The events of a tenant, or of all, the oldest first; and the revision that they show.
    pub(crate) fn list(&self, tenant: Option<&TenantName>) -> (Vec<Event>, u64) {
        let mut kept = self.kept.lock();
        forget(&mut kept, self.clock.now());
        let mut events: Vec<Event> =
            kept.events.values().filter(|event| tenant.is_none_or(|tenant| event.tenant == *tenant)).cloned().collect();
        events.sort_by_key(|event| event.revision);
        (events, kept.revision)
    }

    /// Tells of new events.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }
}

/// Forgets what is too old or too much.
fn forget(kept: &mut Kept, now: Timestamp) {
    while let Some((same, revision)) = kept.order.front() {
        let void = kept.events.get(same).is_none_or(|event| event.revision != *revision);
        let old = || kept.events.get(same).is_some_and(|event| now.since(event.last) >= TTL);
        if !void && (kept.events.len() > MOST || old()) {
            kept.events.remove(same);
        } else if !void && kept.order.len() <= MOST * 2 {
            return;
        }
        // With many repeats in the list: one that is not void is put behind.
        let entry = kept.order.pop_front();
        if let Some((same, revision)) = entry
            && !void
            && kept.events.contains_key(&same)
        {
            kept.order.push_back((same, revision));
            return;
        }
    }
}

/// A number as UUID (version 4).
pub(crate) fn uuid(number: u128) -> String {
    let number = number & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{number:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use lyra_types::resources::ApplicationSession;

    use super::*;

    fn session(name: &str) -> ApplicationSession {
        let mut session = ApplicationSession::default();
        session.metadata.namespace = "game1".into();
        session.metadata.name = name.into();
        session
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_told_again_is_counted_and_forgotten_after_an_hour() {
        let clock = Clock::simulated(Timestamp::from_millis(1_000_000));
        let recorder = Recorder::new(clock.clone(), Random::seeded(1));
        for _ in 0..5 {
            recorder.record(&session("a"), EventType::Normal, "Scheduled", "to x");
        }
        recorder.record(&session("b"), EventType::Warning, "Busy", "no room");
        let (events, _) = recorder.list(None);
        assert_eq!(events.iter().map(|event| event.count).collect::<Vec<_>>(), [5, 1]);
        clock.sleep(TTL / 2).await;
        recorder.record(&session("b"), EventType::Warning, "Busy", "no room");
        clock.sleep(TTL / 2).await;
        let (events, _) = recorder.list(None);
        assert_eq!(events.iter().map(|event| event.about.name.as_str()).collect::<Vec<_>>(), ["b"]);
        assert_eq!(recorder.list(Some(&TenantName::new("other").unwrap())).0, []);
    }

    #[tokio::test]
    async fn the_number_of_events_is_bounded_also_when_few_repeat_for_ever() {
        let recorder = Recorder::new(Clock::system(), Random::seeded(1));
        for number in 0..MOST * 3 {
            recorder.record(&session("a"), EventType::Normal, "One", &number.to_string());
        }
        assert_eq!(recorder.list(None).0.len(), MOST);
        let recorder = Recorder::new(Clock::system(), Random::seeded(1));
        for number in 0..MOST * 5 {
            recorder.record(&session("a"), EventType::Normal, "One", &(number % 2).to_string());
        }
        assert!(recorder.kept.lock().order.len() <= MOST * 2 + 1);
        assert_eq!(recorder.list(None).0.len(), 2);
    }

    #[test]
    fn identities_are_uuids() {
        let text = uuid(u128::MAX);
        assert_eq!(text, "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
