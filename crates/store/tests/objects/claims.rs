//! What every implementation of [`Objects`] must do. Each claim gets an empty store.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use lyra_store::StoreError;
use lyra_store::objects::{
    Batch, Change, Check, Election, Entry, EventKind, Granted, LeaseId, Listing, MAX_KEY, Objects, Txn, TxnError,
    WatchError,
};
use tokio::sync::Notify;

use super::Subject;

/// The shortest lease that every implementation grants.
const LEASE: Duration = Duration::from_secs(2);

fn put(key: &str, value: &str) -> Change {
    Change::Put(key.to_owned(), Bytes::copy_from_slice(value.as_bytes()))
}

async fn write(store: &dyn Objects, changes: Vec<Change>) -> u64 {
    store.txn(Txn { checks: Vec::new(), changes }).await.expect("an unconditional transaction happens")
}

async fn keys(store: &dyn Objects, prefix: &str) -> Vec<String> {
    let listing = store.list(prefix, 1_000, None).await.expect("the list can be read");
    listing.entries.into_iter().map(|entry| entry.key).collect()
}

pub async fn reads_back_what_was_written(subject: impl Subject) {
    let store = subject.store();
    let store = &*store;
    assert_eq!(store.get("a").await.expect("read"), None);
    let first = write(store, vec![put("a", "1")]).await;
    let second = write(store, vec![put("a", "2")]).await;
    assert!(second > first);
    let entry = store.get("a").await.expect("read").expect("it was written");
    assert_eq!((entry.value.as_ref(), entry.created, entry.modified), (&b"2"[..], first, second));
    assert_eq!(write(store, vec![Change::Delete("nothing".into())]).await, second, "no change, no revision");
    write(store, vec![Change::Delete("a".into())]).await;
    assert_eq!(store.get("a").await.expect("read"), None);
    let third = write(store, vec![put("a", "3")]).await;
    assert_eq!(store.get("a").await.expect("read").expect("it is back").created, third);
}

pub async fn refuses_bad_keys(subject: impl Subject) {
    let store = subject.store();
    let store = &*store;
    let long = "x".repeat(MAX_KEY + 1);
    for bad in ["", "a b", "é", "a\0", long.as_str()] {
        assert!(store.get(bad).await.is_err(), "{bad:?}");
        let txn = Txn { checks: Vec::new(), changes: vec![put(bad, "")] };
        assert!(store.txn(txn).await.is_err(), "{bad:?}");
    }
}

pub async fn lists_in_pages_by_key(subject: impl Subject) {
    let store = subject.store();
    let store = &*store;
    let all: Vec<String> = (0..25).map(|i| format!("p/{i:02}")).collect();
    write(store, all.iter().rev().map(|key| put(key, key)).collect()).await;
    write(store, vec![put("o", ""), put("p", ""), put("p0", ""), put("q/1", "")]).await;
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = store.list("p/", 10, after.as_deref()).await.expect("read");
        seen.extend(page.entries.iter().map(|entry| entry.key.clone()));
        after = page.entries.last().map(|entry| entry.key.clone());
        if !page.more {
            break;
        }
        assert_eq!(page.entries.len(), 10);
    }
    assert_eq!(seen, all);
    assert_eq!(keys(store, "").await.len(), 29);
    assert!(keys(store, "nothing/").await.is_empty());
}

pub async fn does_all_of_a_transaction_or_nothing(subject: impl Subject) {
    let store = subject.store();
    let store = &*store;
    let revision = write(store, vec![put("a", "1"), put("b", "1")]).await;
    let attempt = |checks: Vec<Check>| store.txn(Txn { checks, changes: vec![put("a", "2"), put("c", "2")] });
    let failed = [
        (vec![Check::Exists("a".into()), Check::Absent("b".into())], 1),
        (vec![Check::Modified("a".into(), revision + 1)], 0),
        (vec![Check::Modified("z".into(), revision)], 0),
        (vec![Check::Exists("z".into())], 0),
    ];
    for (checks, place) in failed {
        match attempt(checks.clone()).await {
            Err(TxnError::Failed { index, key }) => {
                assert_eq!((index, key.as_str()), (place, checks[place].key()));
            }
            other => panic!("{checks:?}: {other:?}"),
        }
        assert_eq!(store.list("", 10, None).await.expect("read").revision, revision);
        assert_eq!(keys(store, "").await, ["a", "b"]);
    }
    let holds = vec![Check::Modified("a".into(), revision), Check::Exists("b".into()), Check::Absent("c".into())];
    let next = attempt(holds).await.expect("all checks hold");
    for key in ["a", "c"] {
        assert_eq!(store.get(key).await.expect("read").expect("written").modified, next);
    }
    assert_eq!(store.get("b").await.expect("read").expect("left alone").modified, revision);
}

pub async fn lets_one_of_many_concurrent_writers_win(subject: impl Subject) {
    let store = subject.store();
    let store = &*store;
    let attempts = (0..32).map(|i| {
        let checks = vec![Check::Absent("lock".into())];
        store.txn(Txn { checks, changes: vec![put("lock", &i.to_string()), put(&format!("won/{i}"), "")] })
    });
    let outcomes = futures::future::join_all(attempts).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert_eq!(keys(store, "won/").await.len(), 1);
    let increments = (0..16).map(|_| async {
        loop {
            let now = store.get("lock").await.expect("read").expect("there");
            let checks = vec![Check::Modified("lock".into(), now.modified)];
            let next = format!("{}x", String::from_utf8_lossy(&now.value));
            if store.txn(Txn { checks, changes: vec![put("lock", &next)] }).await.is_ok() {
                break;
            }
        }
    });
    futures::future::join_all(increments).await;
    let value = store.get("lock").await.expect("read").expect("there").value;
    assert_eq!(value.iter().filter(|byte| **byte == b'x').count(), 16, "no increment was lost");
}

pub async fn shows_every_change_from_a_list_on(subject: impl Subject) {
    let store = subject.store();
    let store = &*store;
    write(store, vec![put("w/old", "")]).await;
    let start = store.list("w/", 10, None).await.expect("read").revision;
    let mut watch = store.watch("w/", start + 1).await.expect("the revision is there");
    let mut expected = Vec::new();
    for i in 0..10u32 {
        let revision = write(store, vec![put(&format!("w/{i}"), ""), put("other", ""), put("w/all", "")]).await;
        expected.extend([(revision, format!("w/{i}"), EventKind::Put), (revision, "w/all".into(), EventKind::Put)]);
    }
    let last = write(store, vec![Change::Delete("w/old".into())]).await;
    expected.push((last, "w/old".into(), EventKind::Delete));
    let (mut seen, mut upto) = (Vec::new(), start);
    while upto < last {
        let batch = watch.next().await.expect("a watch has no end").expect("nothing was compacted");
        assert!(batch.revision > upto);
        assert!(batch.events.iter().all(|event| event.revision > upto && event.revision <= batch.revision));
        upto = batch.revision;
        seen.extend(batch.events.into_iter().map(|event| (event.revision, event.key, event.kind)));
    }
    assert_eq!(seen, expected);
    let mut again = store.watch("w/", start + 1).await.expect("the revision is there");
    let batch = again.next().await.expect("a watch has no end").expect("nothing was compacted");
    assert_eq!(batch.events.first().map(|event| event.revision), Some(seen[0].0), "a second watch sees the same");
}

pub async fn deletes_by_prefix(subject: impl Subject) {
    let store = subject.store();
    let store = &*store;
    write(store, vec![put("d/1", ""), put("d/2", ""), put("d0", ""), put("c/1", "")]).await;
    let start = store.list("", 10, None).await.expect("read").revision;
    let revision = write(store, vec![Change::DeletePrefix("d/".into()), put("e", "")]).await;
    assert_eq!(keys(store, "").await, ["c/1", "d0", "e"]);
    let mut watch = store.watch("d/", start + 1).await.expect("the revision is there");
    let batch = watch.next().await.expect("a watch has no end").expect("nothing was compacted");
    let deleted: Vec<_> = batch.events.iter().map(|event| (event.revision, event.key.as_str(), event.kind)).collect();
    assert_eq!(deleted, [(revision, "d/1", EventKind::Delete), (revision, "d/2", EventKind::Delete)]);
}

pub async fn a_list_never_shows_half_of_a_transaction(subject: impl Subject) {
    let store = subject.store();
    // A token moves between places; extra objects come and go around it.
    write(&*store, vec![put("t/0", ""), put("t/fixed", "")]).await;
    let mover = async {
        for i in 0..60 {
            write(&*store, vec![Change::Delete(format!("t/{i}")), put(&format!("t/{}", i + 1), "")]).await;
        }
    };
    let reader = async {
        for _ in 0..60 {
            let found = keys(&*store, "t/").await;
            assert_eq!(found.len(), 2, "the token is in one place: {found:?}");
        }
    };
    tokio::join!(mover, reader);
}

pub async fn pages_and_the_watch_from_the_first_one_miss_nothing(subject: impl Subject) {
    let store = subject.store();
    for i in 0..40 {
        write(&*store, vec![put(&format!("p/{i:02}"), "0")]).await;
    }
    let writer = async {
        for i in 0..40 {
            write(&*store, vec![put(&format!("p/{:02}", (i * 7) % 40), "1")]).await;
        }
        write(&*store, vec![put("p/end", "")]).await
    };
    let reader = async {
        let (mut known, mut after, mut start) = (std::collections::BTreeMap::new(), None, None);
        loop {
            let page = store.list("p/", 7, after.as_deref()).await.expect("read");
            start.get_or_insert(page.revision);
            after = page.entries.last().map(|entry| entry.key.clone());
            known.extend(page.entries.into_iter().map(|entry| (entry.key, entry.value)));
            if !page.more {
                break;
            }
        }
        let mut watch = store.watch("p/", start.expect("there was a page") + 1).await.expect("it is kept");
        loop {
            let batch = watch.next().await.expect("no end").expect("it is kept");
            for event in batch.events {
                let entry = store.get(&event.key).await.expect("read").expect("nothing is deleted");
                let end = event.key == "p/end";
                known.insert(event.key, entry.value);
                if end {
                    return known;
                }
            }
        }
    };
    let (_, known) = tokio::join!(writer, reader);
    let stale: Vec<_> = known.iter().filter(|(key, value)| *value == "0" && *key != "p/end").collect();
    assert!(stale.is_empty(), "{stale:?}");
}

pub async fn a_watch_that_starts_too_far_back_is_told_so_and_a_list_helps(subject: impl Subject) {
    let store = subject.store();
    let start = write(&*store, vec![put("k", "")]).await;
    write(&*store, vec![Change::Delete("k".into())]).await;
    subject.forget_history().await;
    let watched = store.watch("", start).await;
    assert!(matches!(watched, Err(WatchError::Compacted { .. })), "history is gone");
    let revision = store.list("", 10, None).await.expect("read").revision;
    let mut watch = store.watch("", revision + 1).await.expect("what is to come is kept");
    let next = write(&*store, vec![put("l", "")]).await;
    let batch = watch.next().await.expect("no end").expect("it is kept");
    assert_eq!((batch.revision, batch.events[0].key.as_str()), (next, "l"));
}

pub async fn what_was_acknowledged_survives_a_kill(mut subject: impl Subject) {
    let store = subject.store();
    let revision = write(&*store, vec![put("a", "1"), put("b", "1")]).await;
    drop(store);
    subject.crash().await;
    let store = subject.store();
    assert_eq!(store.get("a").await.expect("read").expect("it was acknowledged").modified, revision);
    let next = write(&*store, vec![put("b", "2")]).await;
    assert!(next > revision, "revisions go on");
}

pub async fn a_watch_has_no_gap_over_a_kill(mut subject: impl Subject) {
    let store = subject.store();
    let mut upto = write(&*store, vec![put("w/start", "")]).await;
    let mut watch = store.watch("w/", upto + 1).await.expect("it is kept");
    let mut expected = Vec::new();
    for i in 0..5 {
        expected.push((write(&*store, vec![put(&format!("w/a{i}"), "")]).await, format!("w/a{i}")));
    }
    let first = watch.next().await.expect("no end").expect("it is kept");
    let mut seen: Vec<_> = first.events.into_iter().map(|event| (event.revision, event.key)).collect();
    upto = first.revision;
    drop(store);
    subject.crash().await;
    let store = subject.store();
    for i in 0..5 {
        expected.push((write(&*store, vec![put(&format!("w/b{i}"), "")]).await, format!("w/b{i}")));
    }
    while seen.len() < expected.len() {
        match watch.next().await {
            Some(Ok(batch)) => {
                assert!(batch.revision > upto);
                upto = batch.revision;
                seen.extend(batch.events.into_iter().map(|event| (event.revision, event.key)));
            }
            // The store was in the process that was killed.
            None => watch = store.watch("w/", upto + 1).await.expect("it is kept"),
            Some(Err(error)) => panic!("{error}"),
        }
    }
    assert_eq!(seen, expected);
}

pub async fn objects_go_with_their_lease_and_not_before(subject: impl Subject) {
    let store = subject.store();
    let granted = store.grant(LEASE).await.expect("granted");
    assert!(granted.ttl >= LEASE);
    let leased = |key: &str| Change::PutLeased(key.to_owned(), Bytes::new(), granted.id);
    let start = write(&*store, vec![leased("l/1"), leased("l/2"), leased("l/kept"), put("l/other", "")]).await;
    write(&*store, vec![put("l/kept", "without a lease")]).await;
    let mut watch = store.watch("l/", start + 2).await.expect("it is kept");
    // Twice the lease's time, renewed.
    for _ in 0..8 {
        tokio::time::sleep(LEASE / 4).await;
        assert!(store.renew(granted.id).await.expect("renewed"));
    }
    assert_eq!(keys(&*store, "l/").await, ["l/1", "l/2", "l/kept", "l/other"]);
    let mut gone: Vec<_> = Vec::new();
    while gone.len() < 2 {
        let batch = watch.next().await.expect("no end").expect("it is kept");
        gone.extend(batch.events);
    }
    assert!(gone.iter().all(|event| event.kind == EventKind::Delete), "{gone:?}");
    assert_eq!(gone[0].revision, gone[1].revision, "they go together");
    assert_eq!(keys(&*store, "l/").await, ["l/kept", "l/other"]);
    assert!(!store.renew(granted.id).await.expect("asked"), "an ended lease stays ended");
    let late = store.txn(Txn { checks: Vec::new(), changes: vec![leased("l/late")] }).await;
    assert!(matches!(late, Err(TxnError::Store(StoreError::LeaseEnded))), "{late:?}");
    assert!(store.get("l/late").await.expect("read").is_none());
}

pub async fn a_lease_ends_at_once_when_it_is_revoked(subject: impl Subject) {
    let store = subject.store();
    let granted = store.grant(Duration::from_secs(3_600)).await.expect("granted");
    write(&*store, vec![Change::PutLeased("l/1".into(), Bytes::new(), granted.id), put("l/2", "")]).await;
    store.revoke(granted.id).await.expect("revoked");
    assert_eq!(keys(&*store, "l/").await, ["l/2"]);
    store.revoke(granted.id).await.expect("a second time is nothing");
    assert!(!store.renew(granted.id).await.expect("asked"));
}

pub async fn one_leads_and_the_next_has_a_higher_epoch(subject: impl Subject) {
    let store = subject.store();
    let election = Election::new(Arc::clone(&store), "leader", LEASE);
    assert_eq!(election.leader().await.expect("read"), None);
    let first = election.campaign(Bytes::from_static(b"c1")).await.expect("nobody else wants to");
    let leader = election.leader().await.expect("read").expect("there is one");
    assert_eq!((leader.name.as_ref(), leader.epoch), (&b"c1"[..], first.epoch()));
    let fenced = |leadership: &lyra_store::objects::Leadership| {
        store.txn(Txn { checks: vec![leadership.check()], changes: vec![put("plan", "x")] })
    };
    fenced(&first).await.expect("it leads");
    let check = first.check();
    let second = election.campaign(Bytes::from_static(b"c2"));
    let (second, resigned) = tokio::join!(second, first.resign());
    resigned.expect("resigned");
    let second = second.expect("the office is free");
    assert!(second.epoch() > leader.epoch);
    fenced(&second).await.expect("it leads");
    let late = store.txn(Txn { checks: vec![check], changes: vec![put("plan", "y")] }).await;
    assert!(matches!(late, Err(TxnError::Failed { .. })), "the former leader changes nothing: {late:?}");
}

pub async fn a_leader_that_is_gone_is_followed(subject: impl Subject) {
    let store = subject.store();
    let election = Election::new(Arc::clone(&store), "leader", LEASE);
    let gone = election.campaign(Bytes::from_static(b"c1")).await.expect("nobody else wants to");
    let (epoch, lost) = (gone.epoch(), gone.lost());
    // As a killed process: the lease is not renewed, and not ended either.
    drop(gone);
    assert!(lost.is_cancelled());
    let next = election.campaign(Bytes::from_static(b"c2")).await.expect("the lease has ended");
    assert!(next.epoch() > epoch);
}

/// A store that refuses to be asked for watches again and again.
struct Patient {
    store: Arc<dyn Objects>,
    watches: AtomicUsize,
    watched: Notify,
}

#[async_trait]
impl Objects for Patient {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.store.get(key).await
    }
    async fn list(&self, prefix: &str, limit: usize, after: Option<&str>) -> Result<Listing, StoreError> {
        self.store.list(prefix, limit, after).await
    }
    async fn txn(&self, txn: Txn) -> Result<u64, TxnError> {
        self.store.txn(txn).await
    }
    async fn watch(
        &self,
        prefix: &str,
        from: u64,
    ) -> Result<BoxStream<'static, Result<Batch, WatchError>>, WatchError> {
        // The first may start too far back; a list helps.
        assert!(self.watches.fetch_add(1, Ordering::Relaxed) < 2, "it asks again and again");
        let watch = self.store.watch(prefix, from).await?;
        self.watched.notify_one();
        Ok(watch)
    }
    async fn grant(&self, ttl: Duration) -> Result<Granted, StoreError> {
        self.store.grant(ttl).await
    }
    async fn renew(&self, lease: LeaseId) -> Result<bool, StoreError> {
        self.store.renew(lease).await
    }
    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.store.revoke(lease).await
    }
}

pub async fn who_stands_after_the_leader_s_beginning_was_forgotten_waits_in_peace(subject: impl Subject) {
    let store = subject.store();
    let term = Duration::from_secs(3_600);
    let first = Election::new(Arc::clone(&store), "leader", term).campaign(Bytes::from_static(b"c1")).await;
    let first = first.expect("nobody else wants to");
    write(&*store, vec![put("a", "1")]).await;
    subject.forget_history().await;
    let patient = Arc::new(Patient { store, watches: AtomicUsize::new(0), watched: Notify::new() });
    let election = Election::new(patient.clone(), "leader", term);
    let epoch = first.epoch();
    let resigns = async {
        patient.watched.notified().await;
        first.resign().await.expect("resigned");
    };
    let (second, ()) = tokio::join!(election.campaign(Bytes::from_static(b"c2")), resigns);
    assert!(second.expect("the office is free").epoch() > epoch);
}
