//! Who is a member, and of whom nothing was heard for too long. No I/O and no clock: the time is handed in.

use std::collections::BTreeMap;
use std::time::Duration;

use lyra_types::{Code, Error, Result};
use lyra_wire::registry::{Member, MemberEvent, MemberState, NodeState, Registration};
use tokio::time::Instant;

/// One conversation with a worker. What comes over an older one does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token(u64);

#[derive(Debug)]
struct Entry {
    member: Member,
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
        Members { lease, forget, entries: BTreeMap::new(), conversations: 0 }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Member> {
        self.entries.values().map(|entry| entry.member.clone())
    }

    /// A worker joins, for the first time or again.
    ///
    /// # Errors
    /// [`Code::Conflict`] where another process of that name is alive: two workers would take turns being one.
    pub(super) fn register(&mut self, now: Instant, registration: Registration) -> Result<(Token, Vec<MemberEvent>)> {
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
        self.entries.insert(name, Entry { member, heard: now, conversation, talking: true });
        Ok((conversation, events))
    }

    /// A worker gave a sign of life. Says whether the conversation is the worker's newest.
    pub(super) fn heard(
        &mut self,
        now: Instant,
        name: &str,
        conversation: Token,
        state: NodeState,
    ) -> (bool, Vec<MemberEvent>) {
        let Some(entry) = self.entries.get_mut(name).filter(|entry| entry.conversation == conversation) else {
            return (false, Vec::new());
        };
        entry.heard = now;
        let member =
            Member { state: alive(&state), registration: Registration { state, ..entry.member.registration.clone() } };
        if member == entry.member {
            return (true, Vec::new());
        }
        entry.member = member;
        (true, put(&entry.member))
    }

    /// A worker ended in good order.
    pub(super) fn leave(&mut self, name: &str, conversation: Token) -> Vec<MemberEvent> {
        match self.entries.get(name) {
            Some(entry) if entry.conversation == conversation => {
                self.entries.remove(name);
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
        events
    }
}

#[cfg(test)]
mod tests {
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
        let (token, events) = members.register(t, registration("a", 1)).unwrap();
        assert!(matches!(&events[..], [MemberEvent::Put(member)] if member.state == MemberState::Ready));
        assert!(members.expire(t + 9 * SECOND).is_empty());
        let (known, events) = members.heard(t + 9 * SECOND, "a", token, NodeState::default());
        assert!(known && events.is_empty(), "nothing new");
        assert!(members.expire(t + 18 * SECOND).is_empty());
        assert!(matches!(&members.expire(t + 19 * SECOND)[..], [MemberEvent::Put(m)] if m.state == MemberState::Lost));
        assert!(members.expire(t + 20 * SECOND).is_empty(), "told once");
        assert_eq!(members.expire(t + 79 * SECOND), [MemberEvent::Remove("a".to_owned())]);
        assert_eq!(state(&members, "a"), None);
    }

    #[test]
    fn a_lost_worker_that_is_heard_again_is_back() {
        let (mut members, t) = members();
        let (token, _) = members.register(t, registration("a", 1)).unwrap();
        members.expire(t + 10 * SECOND);
        let (known, events) =
            members.heard(t + 11 * SECOND, "a", token, NodeState { running: 1, ..NodeState::default() });
        assert!(known && matches!(&events[..], [MemberEvent::Put(m)] if m.state == MemberState::Ready));
    }

    #[test]
    fn a_restarted_worker_rejoins_and_its_former_conversation_counts_no_more() {
        let (mut members, t) = members();
        let (old, _) = members.register(t, registration("a", 1)).unwrap();
        let error = members.register(t + SECOND, registration("a", 2)).unwrap_err();
        assert_eq!(error.code, Code::Conflict, "while the other one talks");
        members.hung_up("a", old);
        assert_eq!(state(&members, "a"), Some(MemberState::Ready), "cut off is not lost");
        let (new, _) = members.register(t + SECOND, registration("a", 2)).unwrap();
        assert!(!members.heard(t + SECOND, "a", old, NodeState::default()).0);
        assert!(members.leave("a", old).is_empty());
        assert!(members.heard(t + SECOND, "a", new, NodeState::default()).0);
        assert_eq!(members.leave("a", new), [MemberEvent::Remove("a".to_owned())]);
    }

    #[test]
    fn the_same_process_may_talk_anew_at_once() {
        let (mut members, t) = members();
        members.register(t, registration("a", 1)).unwrap();
        assert!(members.register(t, registration("a", 1)).is_ok());
        members.register(t, registration("b", 1)).unwrap();
        assert!(members.register(t + 10 * SECOND, registration("b", 2)).is_ok(), "the lease of the other one is over");
    }

    #[test]
    fn a_cordoned_worker_says_so() {
        let (mut members, t) = members();
        let (token, _) = members.register(t, registration("a", 1)).unwrap();
        let cordoned = NodeState { cordoned: true, ..NodeState::default() };
        members.heard(t, "a", token, cordoned);
        assert_eq!(state(&members, "a"), Some(MemberState::Cordoned));
    }
}
