//! What is special about this implementation; `tests/objects` has what all promise.

use futures::StreamExt;

use super::*;

fn open(dir: &tempfile::TempDir, revisions: u64) -> SqliteObjects {
    SqliteObjects::open(&dir.path().join("objects.db"), History { revisions }, None).unwrap()
}

async fn put(store: &SqliteObjects, key: &str) -> u64 {
    let changes = vec![Change::Put(key.to_owned(), Bytes::from_static(b"x"))];
    store.txn(Txn { checks: Vec::new(), changes }).await.unwrap()
}

#[tokio::test]
async fn revisions_and_objects_outlive_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 100);
    let first = put(&store, "a").await;
    store.close().await;
    assert!(matches!(store.txn(Txn::default()).await, Err(TxnError::Store(StoreError::Closed))));
    drop(store);
    let store = open(&dir, 100);
    assert_eq!(store.get("a").await.unwrap().unwrap().modified, first);
    let mut watch = store.watch("", first).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().events[0].revision, first, "history outlives it too");
    assert_eq!(put(&store, "b").await, first + 1);
}

#[tokio::test]
async fn a_watch_that_starts_too_far_back_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 10);
    let start = put(&store, "k").await;
    let mut slow = store.watch("", start).await.unwrap();
    for i in 0..50 {
        put(&store, &format!("k{i}")).await;
    }
    let Err(WatchError::Compacted { oldest }) = store.watch("", start).await.map(|_| ()) else {
        panic!("the first revision is gone")
    };
    assert!(matches!(slow.next().await, Some(Err(WatchError::Compacted { .. }))));
    assert!(slow.next().await.is_none(), "a watch ends with its error");
    let mut watch = store.watch("", oldest + 1).await.unwrap();
    let batch = watch.next().await.unwrap().unwrap();
    assert_eq!(batch.events.first().map(|event| event.revision), Some(oldest + 1));
    assert!(batch.events.len() as u64 >= 10, "at least as much is kept as was asked for");
}

#[tokio::test]
async fn a_large_transaction_is_never_cut_in_a_watch() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 10_000);
    let start = put(&store, "start").await;
    for round in 0..4 {
        let changes = (0..700).map(|i| Change::Put(format!("r{round}/{i}"), Bytes::new())).collect();
        store.txn(Txn { checks: Vec::new(), changes }).await.unwrap();
    }
    let mut watch = store.watch("", start + 1).await.unwrap();
    let mut seen = 0;
    while seen < 2_800 {
        let batch = watch.next().await.unwrap().unwrap();
        assert_eq!(batch.events.len() % 700, 0);
        seen += batch.events.len();
    }
}
