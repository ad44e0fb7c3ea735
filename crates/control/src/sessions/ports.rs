//! Ports of gateways that lead to sessions. Which session has which is in the sessions' objects; here is what is free.
//!
//! What must hold: no two sessions have the same port of a protocol; a port that was given back is the last to be given again,
//! so that a client that comes late finds nobody rather than a stranger.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;

use lyra_types::resources::Protocol;

/// The ports.
#[derive(Debug, Default)]
pub(super) struct Ports {
    range: Option<RangeInclusive<u16>>,
    free: BTreeMap<Protocol, VecDeque<u16>>,
    taken: BTreeMap<(Protocol, u16), String>,
}

impl Ports {
    pub(super) fn new(range: Option<RangeInclusive<u16>>) -> Ports {
        let all: VecDeque<u16> = range.clone().into_iter().flatten().collect();
        Ports { range, free: [(Protocol::Tcp, all.clone()), (Protocol::Udp, all)].into(), taken: BTreeMap::new() }
    }

    /// A free port for the session with this identity.
    pub(super) fn take(&mut self, uid: &str, protocol: Protocol) -> Option<u16> {
        let free = self.free.get_mut(&protocol)?;
        while let Some(port) = free.pop_front() {
            // One that was found taken is still in the queue.
            if let Entry::Vacant(vacant) = self.taken.entry((protocol, port)) {
                vacant.insert(uid.to_owned());
                return Some(port);
            }
        }
        None
    }

    /// The session has this port, as its object says. False: another has, or it is none of these.
    pub(super) fn found(&mut self, uid: &str, protocol: Protocol, port: u16) -> bool {
        self.range.as_ref().is_some_and(|range| range.contains(&port))
            && self.taken.entry((protocol, port)).or_insert_with(|| uid.to_owned()) == uid
    }

    /// The session has none any more.
    pub(super) fn give_back(&mut self, uid: &str, ports: impl IntoIterator<Item = (Protocol, u16)>) {
        for key in ports {
            if self.taken.get(&key).is_some_and(|of| of == uid) {
                self.taken.remove(&key);
                self.free.entry(key.0).or_default().push_back(key.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice_and_one_that_was_free_longest_comes_first() {
        let mut ports = Ports::new(Some(10..=12));
        assert!(ports.found("old", Protocol::Tcp, 10));
        assert!(!ports.found("other", Protocol::Tcp, 10), "it is taken");
        assert!(!ports.found("other", Protocol::Tcp, 13), "it is none of them");
        assert_eq!(ports.take("a", Protocol::Tcp), Some(11));
        assert_eq!(ports.take("a", Protocol::Udp), Some(10), "another protocol");
        ports.give_back("a", [(Protocol::Tcp, 11), (Protocol::Tcp, 10)]);
        assert_eq!(ports.take("b", Protocol::Tcp), Some(12));
        assert_eq!(ports.take("b", Protocol::Tcp), Some(11), "10 is not a's to give back");
        assert_eq!(ports.take("b", Protocol::Tcp), None);
        assert_eq!(Ports::new(None).take("a", Protocol::Tcp), None);
    }
}
