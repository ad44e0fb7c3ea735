//! The newest changes, in memory: watchers that keep up are shown these, without a look into the file.
//!
//! What must hold: the tail shows a change only once it is committed, and every change from the oldest that it shows on. So changes are
//! *staged* while their transaction is written, and *settled* when it is known what became of it.

use std::collections::VecDeque;

use parking_lot::{Mutex, RwLock};

use super::{Batch, Event, EventKind};

/// Most revisions kept.
const REVISIONS: u64 = 1_024;
/// Most events kept.
const EVENTS: usize = 4_096;
/// Events shown in one batch, unless one transaction alone has more.
const BATCH: usize = 1_000;

/// What one revision has changed; nothing, where it changes nothing.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) revision: u64,
    /// Keys, each with whether it is deleted.
    pub(super) changed: Vec<(String, bool)>,
}

pub(super) struct Tail {
    staged: Mutex<Vec<Recorded>>,
    shown: RwLock<Shown>,
    revisions: usize,
}

struct Shown {
    /// All revisions after `seen` up to the newest, in order.
    recorded: VecDeque<Recorded>,
    seen: u64,
    events: usize,
}

impl Tail {
    /// Of a file whose newest revision is `revision`; keeps `history` revisions at most.
    pub(super) fn new(revision: u64, history: u64) -> Tail {
        let revisions = usize::try_from(history.min(REVISIONS)).unwrap_or(usize::MAX);
        let shown = Shown { recorded: VecDeque::new(), seen: revision, events: 0 };
        Tail { staged: Mutex::default(), shown: RwLock::new(shown), revisions }
    }

    /// Notes what is written, but not committed. To be the last of a request that may fail.
    pub(super) fn stage(&self, mut recorded: Recorded) {
        if !recorded.changed.is_empty() {
            recorded.changed.sort_unstable();
            self.staged.lock().push(recorded);
        }
    }

    /// Shows what was staged, where it is committed, and forgets it where it is not; returns the newest revision that is shown.
    pub(super) fn settle(&self, committed: bool) -> Option<u64> {
        let staged = std::mem::take(&mut *self.staged.lock());
        if !committed || staged.is_empty() {
            return None;
        }
        let mut shown = self.shown.write();
        for recorded in staged {
            shown.push(recorded);
        }
        while shown.recorded.len() > self.revisions || shown.events > EVENTS {
            shown.drop_oldest();
        }
        Some(shown.newest())
    }

    /// The changes under `prefix` after revision `seen`; `None` where that is too far back.
    pub(super) fn since(&self, prefix: &str, seen: u64) -> Option<Batch> {
        let shown = self.shown.read();
        let skip = usize::try_from(seen.checked_sub(shown.seen)?).ok()?;
        let mut batch = Batch { events: Vec::new(), revision: seen };
        for recorded in shown.recorded.iter().skip(skip) {
            let wanted = recorded.changed.iter().filter(|(key, _)| key.starts_with(prefix));
            batch.events.extend(wanted.map(|(key, deleted)| Event {
                revision: recorded.revision,
                key: key.clone(),
                kind: if *deleted { EventKind::Delete } else { EventKind::Put },
            }));
            batch.revision = recorded.revision;
            if batch.events.len() >= BATCH {
                break;
            }
        }
        Some(batch)
    }
}

impl Shown {
    fn newest(&self) -> u64 {
        self.seen + self.recorded.len() as u64
    }

    fn push(&mut self, recorded: Recorded) {
        // A commit that was said to have failed can be on disk all the same: what it changed is only there.
        if recorded.revision != self.newest() + 1 {
            *self = Shown { recorded: VecDeque::new(), seen: recorded.revision - 1, events: 0 };
        }
        self.events += recorded.changed.len();
        self.recorded.push_back(recorded);
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.recorded.pop_front() {
            self.seen = oldest.revision;
            self.events -= oldest.changed.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(tail: &Tail, revision: u64, keys: &[&str]) {
        let changed = keys.iter().map(|key| ((*key).to_owned(), false)).collect();
        tail.stage(Recorded { revision, changed });
    }

    /// The keys of a batch with their revisions, and how far it goes.
    fn since(tail: &Tail, prefix: &str, seen: u64) -> Option<(Vec<(u64, String)>, u64)> {
        let batch = tail.since(prefix, seen)?;
        Some((batch.events.into_iter().map(|event| (event.revision, event.key)).collect(), batch.revision))
    }

    #[test]
    fn it_shows_what_is_committed_in_order() {
        let tail = Tail::new(5, 100);
        stage(&tail, 6, &["b/2", "a/1", "b/1"]);
        assert_eq!(since(&tail, "", 5), Some((Vec::new(), 5)));
        assert_eq!(tail.settle(true), Some(6));
        assert_eq!(since(&tail, "b/", 5), Some((vec![(6, "b/1".into()), (6, "b/2".into())], 6)));
        assert_eq!(since(&tail, "c/", 5), Some((Vec::new(), 6)));
        assert_eq!(since(&tail, "", 6), Some((Vec::new(), 6)));
        assert_eq!(since(&tail, "", 4), None);
        assert_eq!(tail.settle(true), None);
    }

    #[test]
    fn what_failed_is_not_shown_and_its_revision_is_another_ones() {
        let tail = Tail::new(0, 100);
        stage(&tail, 1, &["lost"]);
        assert_eq!(tail.settle(false), None);
        stage(&tail, 1, &["kept"]);
        tail.settle(true);
        assert_eq!(since(&tail, "", 0), Some((vec![(1, "kept".into())], 1)));
        // It was said to have failed, and is on disk: only the file knows.
        stage(&tail, 3, &["next"]);
        assert_eq!(tail.settle(true), Some(3));
        assert_eq!(since(&tail, "", 1), None);
        assert_eq!(since(&tail, "", 2), Some((vec![(3, "next".into())], 3)));
    }

    #[test]
    fn it_is_bounded() {
        let tail = Tail::new(0, 3);
        for revision in 1..=5 {
            stage(&tail, revision, &["k"]);
        }
        assert_eq!(tail.settle(true), Some(5));
        assert_eq!(since(&tail, "", 1), None);
        assert_eq!(since(&tail, "", 2).unwrap().0.len(), 3);
        let tail = Tail::new(0, 100);
        let many: Vec<String> = (0..EVENTS + 1).map(|n| format!("k{n}")).collect();
        stage(&tail, 1, &["first"]);
        stage(&tail, 2, &many.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(tail.settle(true), Some(2));
        assert_eq!((since(&tail, "", 1), since(&tail, "", 2)), (None, Some((Vec::new(), 2))));
    }

    #[test]
    fn a_batch_ends_with_a_transaction() {
        let tail = Tail::new(0, 100);
        let many: Vec<String> = (0..700).map(|n| format!("k{n}")).collect();
        for revision in 1..=3 {
            stage(&tail, revision, &many.iter().map(String::as_str).collect::<Vec<_>>());
        }
        tail.settle(true);
        let (events, revision) = since(&tail, "k", 0).unwrap();
        assert_eq!((events.len(), revision), (1_400, 2));
    }
}
