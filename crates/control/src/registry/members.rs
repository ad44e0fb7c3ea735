//! Who is a member, what it holds, and of whom nothing was heard for too long. No I/O and no clock: the time is handed in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lyra_types::{Code, Error, Result};
use lyra_wire::registry::{
    Change, Member, MemberEvent, MemberState, NodeState, Reception, Registration, Workload, receive,
};
use tokio::time::Instant;

use super::holdings::Holdings;

/// One conversation with a worker. What comes over an older one does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token(u64);

#[cfg(test)]
impl Token {
    pub(super) fn new(number: u64) -> Token {
        Token(number)
    }
}

/// What is to be done about a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: it was taken in, or known before.
    Fine,
    /// Something is missing: the worker is to tell all.
    Ask,
    /// The conversation is not the worker's newest, and ends.
    Stranger,
}

/// A member with what it holds.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) member: Member,
    pub(crate) holdings: Arc<Holdings>,
}

#[derive(Debug)]
struct Entry {
    member: Member,
    /// Copied when it changes while somebody looks at it, and only then.
    holdings: Arc<Holdings>,
    /// All was asked for, and has not come yet.
    asked: bool,
    heard: Instant,
    conversation: Token,
    /// Whether the conversation goes on.
    talking: bool,
}

/// All members by name.
#[derive(Debug)]
pub(super) struct Members {
    lease: Duration,
    forget: Duration,
    entries: BTreeMap<String, Entry>,
    conversations: u64,
    /// Counts changes of who is a member, who may be given something, and what they were told to hold.
    shape: u64,
}

/// The state that a living worker's last message means.
fn alive(state: &NodeState) -> MemberState {
    if state.cordoned { MemberState::Cordoned } else { MemberState::Ready }
}

fn put(member: &Member) -> Vec<MemberEvent> {
    vec![MemberEvent::Put(Box::new(member.clone()))]
}

impl Members {
    pub(super) fn new(lease: Duration, forget: Duration) -> Members {
        Members { lease, forget, entries: BTreeMap::new(), conversations: 0, shape: 0 }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Member> {
        self.entries.values().map(|entry| entry.member.clone())
    }

    /// All, with what they hold.
    pub(super) fn seen(&self) -> Vec<Seen> {
        let seen = |entry: &Entry| Seen { member: entry.member.clone(), holdings: Arc::clone(&entry.holdings) };
        self.entries.values().map(seen).collect()
    }

    /// One of them.
    pub(super) fn seen_of(&self, name: &str) -> Option<Seen> {
        let entry = self.entries.get(name)?;
        Some(Seen { member: entry.member.clone(), holdings: Arc::clone(&entry.holdings) })
    }

    /// See the field.
    pub(super) fn shape(&self) -> u64 {
        self.shape
    }

    /// A worker joins, for the first time or again.
    ///
    /// # Errors
    /// [`Code::Conflict`] where another process of that name is alive: two workers would take turns being one.
    pub(super) fn register(
        &mut self,
        now: Instant,
        registration: Registration,
        workload: Workload,
    ) -> Result<(Token, Vec<MemberEvent>)> {
        let name = registration.name.clone();
        if let Some(entry) = self.entries.get(&name)
            && entry.member.registration.incarnation != registration.incarnation
            && entry.talking
            && now.saturating_duration_since(entry.heard) < self.lease
        {
            let at = &entry.member.registration.address;
            return Err(Error::new(Code::Conflict, format!("a worker named {name} is alive at {at}")));
        }
        self.conversations += 1;
        let conversation = Token(self.conversations);
        let member = Member { state: alive(&registration.state), registration };
        let events = put(&member);
        let holdings = Arc::new(Holdings::of(workload));
        let entry = Entry { member, holdings, asked: false, heard: now, conversation, talking: true };
        self.entries.insert(name, entry);
        self.shape += 1;
        Ok((conversation, events))
    }

    fn entry(&mut self, name: &str, conversation: Token) -> Option<&mut Entry> {
        self.entries.get_mut(name).filter(|entry| entry.conversation == conversation)
    }

    /// A worker gave a sign of life, with its load and its revision.
    pub(super) fn heard(
        &mut self,
        now: Instant,
        name: &str,
        conversation: Token,
        state: NodeState,
        revision: u64,
    ) -> (Verdict, Vec<MemberEvent>) {
        let Some(entry) = self.entry(name, conversation) else { return (Verdict::Stranger, Vec::new()) };
        entry.heard = now;
        let verdict = if revision > entry.holdings.revision { entry.ask() } else { Verdict::Fine };
        let member =
            Member { state: alive(&state), registration: Registration { state, ..entry.member.registration.clone() } };
        if member == entry.member {
            return (verdict, Vec::new());
        }
        let changes_shape = member.state != entry.member.state;
        entry.member = member;
        let events = put(&entry.member);
        self.shape += u64::from(changes_shape);
        (verdict, events)
    }

    /// A worker's workload has changed. Says also whether the change was taken in.
    pub(super) fn changed(
        &mut self,
        name: &str,
        conversation: Token,
        revision: u64,
        change: &Change,
    ) -> (Verdict, bool) {
        let Some(entry) = self.entry(name, conversation) else { return (Verdict::Stranger, false) };
        match receive(entry.holdings.revision, revision) {
            Reception::Apply => {
                let changes_shape = matches!(change, Change::Hold(_));
                Arc::make_mut(&mut entry.holdings).apply(change.clone());
                self.shape += u64::from(changes_shape);
                (Verdict::Fine, true)
            }
            Reception::Duplicate | Reception::Stale => (Verdict::Fine, false),
            Reception::Gap => (entry.ask(), false),
        }
    }

    /// A worker told all that it holds.
    pub(super) fn told_all(&mut self, name: &str, conversation: Token, workload: Workload) -> Verdict {
        let Some(entry) = self.entry(name, conversation) else { return Verdict::Stranger };
        entry.asked = false;
        // Changes that came after it was asked may have been told before.
        if workload.node != entry.holdings.node || workload.revision >= entry.holdings.revision {
            entry.holdings = Arc::new(Holdings::of(workload));
            self.shape += 1;
        }
        Verdict::Fine
    }

    /// A worker ended in good order.
    pub(super) fn leave(&mut self, name: &str, conversation: Token) -> Vec<MemberEvent> {
        match self.entries.get(name) {
            Some(entry) if entry.conversation == conversation => {
                self.entries.remove(name);
                self.shape += 1;
                vec![MemberEvent::Remove(name.to_owned())]
            }
            _ => Vec::new(),
        }
    }

    /// The conversation ended without a word. The worker may only be cut off, so its lease runs on.
    pub(super) fn hung_up(&mut self, name: &str, conversation: Token) -> Vec<MemberEvent> {
        if let Some(entry) = self.entries.get_mut(name).filter(|entry| entry.conversation == conversation) {
            entry.talking = false;
        }
        Vec::new()
    }

    /// Ends leases that are over, and forgets those that were lost long ago.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<MemberEvent> {
        let mut events = Vec::new();
        let (lease, forget) = (self.lease, self.forget);
        self.entries.retain(|name, entry| {
            let silent = now.saturating_duration_since(entry.heard);
            if silent >= lease && entry.member.state != MemberState::Lost {
                tracing::warn!(worker = name, silent_ms = silent.as_millis(), "a worker is lost");
                entry.member.state = MemberState::Lost;
                events.extend(put(&entry.member));
            }
            let stays = silent < lease + forget;
            if !stays {
                events.push(MemberEvent::Remove(name.clone()));
            }
            stays
        });
        self.shape += events.len() as u64;
        events
    }
}

impl Entry {
    /// Asks for all, once.
    fn ask(&mut self) -> Verdict {
        if std::mem::replace(&mut self.asked, true) { Verdict::Fine } else { Verdict::Ask }
    }
}

#[cfg(test)]
mod tests {
    use lyra_types::function::VersionKey;
    use lyra_wire::registry::Hold;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn registration(name: &str, incarnation: u64) -> Registration {
        Registration {
            name: name.to_owned(),
            address: format!("{name}:1"),
            incarnation,
            backends: Vec::new(),
            state: NodeState::default(),
        }
    }

    fn members() -> (Members, Instant) {
        (Members::new(10 * SECOND, 60 * SECOND), lyra_kit::Clock::system().instant())
    }

    fn state(members: &Members, name: &str) -> Option<MemberState> {
        members.all().find(|member| member.registration.name == name).map(|member| member.state)
    }

    #[test]
    fn a_silent_worker_is_lost_after_its_lease_and_forgotten_later() {
        let (mut members, t) = members();
        let (token, events) = members.register(t, registration("a", 1), Workload::default()).unwrap();
        assert!(matches!(&events[..], [MemberEvent::Put(member)] if member.state == MemberState::Ready));
        assert!(members.expire(t + 9 * SECOND).is_empty());
        let (known, events) = members.heard(t + 9 * SECOND, "a", token, NodeState::default(), 0);
        assert!(known == Verdict::Fine && events.is_empty(), "nothing new");
        assert!(members.expire(t + 18 * SECOND).is_empty());
        assert!(matches!(&members.expire(t + 19 * SECOND)[..], [MemberEvent::Put(m)] if m.state == MemberState::Lost));
        assert!(members.expire(t + 20 * SECOND).is_empty(), "told once");
        assert_eq!(members.expire(t + 79 * SECOND), [MemberEvent::Remove("a".to_owned())]);
        assert_eq!(state(&members, "a"), None);
    }

    #[test]
    fn a_lost_worker_that_is_heard_again_is_back() {
        let (mut members, t) = members();
        let (token, _) = members.register(t, registration("a", 1), Workload::default()).unwrap();
        members.expire(t + 10 * SECOND);
        let (known, events) =
            members.heard(t + 11 * SECOND, "a", token, NodeState { running: 1, ..NodeState::default() }, 0);
        assert!(
            known == Verdict::Fine && matches!(&events[..], [MemberEvent::Put(m)] if m.state == MemberState::Ready)
        );
    }

    #[test]
    fn a_restarted_worker_rejoins_and_its_former_conversation_counts_no_more() {
        let (mut members, t) = members();
        let (old, _) = members.register(t, registration("a", 1), Workload::default()).unwrap();
        let error = members.register(t + SECOND, registration("a", 2), Workload::default()).unwrap_err();
        assert_eq!(error.code, Code::Conflict, "while the other one talks");
        members.hung_up("a", old);
        assert_eq!(state(&members, "a"), Some(MemberState::Ready), "cut off is not lost");
        let (new, _) = members.register(t + SECOND, registration("a", 2), Workload::default()).unwrap();
        assert_eq!(members.heard(t + SECOND, "a", old, NodeState::default(), 0).0, Verdict::Stranger);
        assert!(members.leave("a", old).is_empty());
        assert_eq!(members.heard(t + SECOND, "a", new, NodeState::default(), 0).0, Verdict::Fine);
        assert_eq!(members.leave("a", new), [MemberEvent::Remove("a".to_owned())]);
    }

    #[test]
    fn the_same_process_may_talk_anew_at_once() {
        let (mut members, t) = members();
        members.register(t, registration("a", 1), Workload::default()).unwrap();
        assert!(members.register(t, registration("a", 1), Workload::default()).is_ok());
        members.register(t, registration("b", 1), Workload::default()).unwrap();
        assert!(
            members.register(t + 10 * SECOND, registration("b", 2), Workload::default()).is_ok(),
            "the lease of the other one is over"
        );
    }

    #[test]
    fn a_cordoned_worker_says_so() {
        let (mut members, t) = members();
        let (token, _) = members.register(t, registration("a", 1), Workload::default()).unwrap();
        let cordoned = NodeState { cordoned: true, ..NodeState::default() };
        members.heard(t, "a", token, cordoned, 0);
        assert_eq!(state(&members, "a"), Some(MemberState::Cordoned));
    }

    fn held(revision: u64) -> Workload {
        Workload { node: 1, revision, ..Workload::default() }
    }

    fn hold(instances: u32) -> Change {
        let name = lyra_types::FunctionName::new("f").unwrap();
        let version =
            VersionKey { tenant: lyra_types::TenantName::default_tenant(), function: name, generation: 1, version: 1 };
        Change::Hold(Hold { version, instances, schedule: false })
    }

    #[test]
    fn a_gap_is_asked_for_once_and_closed_by_all() {
        let (mut members, t) = members();
        let (token, _) = members.register(t, registration("a", 1), held(5)).unwrap();
        assert_eq!(members.changed("a", token, 6, &hold(1)).0, Verdict::Fine);
        assert_eq!(members.changed("a", token, 6, &hold(9)).0, Verdict::Fine, "a duplicate");
        assert_eq!(members.changed("a", token, 3, &hold(9)).0, Verdict::Fine, "stale");
        assert_eq!(members.changed("a", token, 8, &hold(9)).0, Verdict::Ask);
        assert_eq!(members.changed("a", token, 9, &hold(9)).0, Verdict::Fine, "it was asked already");
        assert_eq!(members.seen()[0].holdings.holds.values().map(|held| held.instances).collect::<Vec<_>>(), [1]);
        assert_eq!(members.told_all("a", token, held(9)), Verdict::Fine);
        assert_eq!(members.seen()[0].holdings.revision, 9);
        assert!(members.seen()[0].holdings.holds.is_empty());
        assert_eq!(members.heard(t, "a", token, NodeState::default(), 10).0, Verdict::Ask, "the last one was lost");
    }

    proptest::proptest! {
        /// Whatever is lost, doubled or late: once the worker is heard, control knows what it holds.
        #[test]
        fn whatever_happens_to_messages_control_ends_up_with_what_the_worker_holds(
            fates in proptest::collection::vec(0u8..4, 1..60),
        ) {
            let (mut members, t) = members();
            let (token, _) = members.register(t, registration("a", 1), held(0)).unwrap();
            let mut truth = Holdings::of(held(0));
            let mut late = Vec::new();
            for (number, fate) in fates.iter().enumerate() {
                let change = hold(number as u32);
                truth.apply(change.clone());
                let message = (truth.revision, change);
                match fate {
                    0 => {}
                    1 => late.push(message),
                    2 => {
                        members.changed("a", token, message.0, &message.1);
                        members.changed("a", token, message.0, &message.1);
                    }
                    _ => drop(members.changed("a", token, message.0, &message.1)),
                }
            }
            for (revision, change) in late {
                members.changed("a", token, revision, &change);
            }
            members.heard(t, "a", token, NodeState::default(), truth.revision);
            if members.seen()[0].holdings.revision != truth.revision {
                let all = Workload { holds: truth.holds.values().cloned().collect(), ..held(truth.revision) };
                members.told_all("a", token, all);
            }
            proptest::prop_assert_eq!(&*members.seen()[0].holdings, &truth);
        }
    }
}
