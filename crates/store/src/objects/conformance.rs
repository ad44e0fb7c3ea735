//! What every implementation of [`Objects`](super::Objects) must do. Each test makes stores with the function that it is
//! handed, empty ones; the sqlite tests run all of them, and so will those of other implementations.

use std::future::Future;

use bytes::Bytes;
use futures::StreamExt;

use super::{Change, Check, EventKind, Objects, Txn, TxnError};

/// Runs every test of the suite; panics on the first that fails.
///
/// # Panics
/// When the implementation does not conform.
pub async fn check_all<O, F, Fut>(fresh: F)
where
    O: Objects,
    F: Fn() -> Fut,
    Fut: Future<Output = O>,
{
    reads_back_what_was_written(&fresh().await).await;
    refuses_bad_keys(&fresh().await).await;
    lists_in_pages_by_key(&fresh().await).await;
    does_all_of_a_transaction_or_nothing(&fresh().await).await;
    lets_one_of_many_concurrent_writers_win(&fresh().await).await;
    shows_every_change_from_a_list_on(&fresh().await).await;
    deletes_by_prefix(&fresh().await).await;
}

fn put(key: &str, value: &str) -> Change {
    Change::Put(key.to_owned(), Bytes::copy_from_slice(value.as_bytes()))
}

async fn write(store: &impl Objects, changes: Vec<Change>) -> u64 {
    store.txn(Txn { checks: Vec::new(), changes }).await.expect("an unconditional transaction happens")
}

async fn keys(store: &impl Objects, prefix: &str) -> Vec<String> {
    let listing = store.list(prefix, 1_000, None).await.expect("the list can be read");
    listing.entries.into_iter().map(|entry| entry.key).collect()
}

async fn reads_back_what_was_written(store: &impl Objects) {
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

async fn refuses_bad_keys(store: &impl Objects) {
    let long = "x".repeat(super::MAX_KEY + 1);
    for bad in ["", "a b", "é", "a\0", long.as_str()] {
        assert!(store.get(bad).await.is_err(), "{bad:?}");
        let txn = Txn { checks: Vec::new(), changes: vec![put(bad, "")] };
        assert!(store.txn(txn).await.is_err(), "{bad:?}");
    }
}

async fn lists_in_pages_by_key(store: &impl Objects) {
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

async fn does_all_of_a_transaction_or_nothing(store: &impl Objects) {
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

async fn lets_one_of_many_concurrent_writers_win(store: &impl Objects) {
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

async fn shows_every_change_from_a_list_on(store: &impl Objects) {
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
    assert_eq!(batch.events.first().map(|event| event.revision), Some(start + 1), "a second watch sees the same");
}

async fn deletes_by_prefix(store: &impl Objects) {
    write(store, vec![put("d/1", ""), put("d/2", ""), put("d0", ""), put("c/1", "")]).await;
    let start = store.list("", 10, None).await.expect("read").revision;
    let revision = write(store, vec![Change::DeletePrefix("d/".into()), put("e", "")]).await;
    assert_eq!(keys(store, "").await, ["c/1", "d0", "e"]);
    let mut watch = store.watch("d/", start + 1).await.expect("the revision is there");
    let batch = watch.next().await.expect("a watch has no end").expect("nothing was compacted");
    let deleted: Vec<_> = batch.events.iter().map(|event| (event.revision, event.key.as_str(), event.kind)).collect();
    assert_eq!(deleted, [(revision, "d/1", EventKind::Delete), (revision, "d/2", EventKind::Delete)]);
}
