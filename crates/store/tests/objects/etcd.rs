//! [`EtcdObjects`] keeps the promises, also when members of etcd die, stand still or lose an answer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use lyra_store::objects::{Batch, Change, Check, Election, Txn, TxnError, WatchError};
use lyra_store::{EtcdObjects, EtcdSettings, Objects, StoreError};
use lyra_testkit::engines::Etcd as Member;

use super::Subject;

struct Etcd {
    member: Member,
    store: EtcdObjects,
}

#[async_trait]
impl Subject for Etcd {
    async fn start() -> Etcd {
        let member = Member::start().await.expect("etcd starts");
        let store = connect(std::slice::from_ref(&member)).await;
        Etcd { member, store }
    }

    fn store(&self) -> Arc<dyn Objects> {
        Arc::new(self.store.clone())
    }

    async fn crash(&mut self) {
        self.member.kill().await.expect("it runs");
        self.member.restart().await.expect("it starts again");
    }

    async fn forget_history(&self) {
        self.store.compact().await.expect("compacted");
    }
}

keeps_the_promises!(Etcd);

async fn connect(members: &[Member]) -> EtcdObjects {
    // On a loaded machine a request can take long without anything being wrong.
    let mut settings = EtcdSettings::new(members.iter().map(Member::address).collect());
    settings.deadline = Duration::from_secs(60);
    EtcdObjects::connect(settings).await.expect("etcd answers")
}

fn put(key: &str, value: &str) -> Change {
    Change::Put(key.to_owned(), Bytes::copy_from_slice(value.as_bytes()))
}

async fn write(store: &EtcdObjects, key: &str, value: &str) -> u64 {
    store.txn(Txn { checks: Vec::new(), changes: vec![put(key, value)] }).await.expect("written")
}

#[tokio::test]
async fn two_roots_in_one_etcd_see_nothing_of_each_other() {
    let member = Member::start().await.unwrap();
    let ours = connect(std::slice::from_ref(&member)).await;
    let mut settings = EtcdSettings::new(vec![member.address()]);
    settings.root = "lyra/b".into();
    let theirs = EtcdObjects::connect(settings).await.unwrap();
    let revision = write(&ours, "a", "1").await;
    let mut watch = ours.watch("", revision + 1).await.unwrap();
    write(&theirs, "a", "2").await;
    assert_eq!(ours.get("a").await.unwrap().unwrap().value, "1");
    assert_eq!(
        ours.list("", 10, None).await.unwrap().revision,
        revision,
        "a list's revision can always be watched for"
    );
    let next = write(&ours, "b", "1").await;
    let batch = watch.next().await.unwrap().unwrap();
    assert_eq!((batch.events.len(), batch.revision), (1, next));
}

#[tokio::test]
async fn a_long_list_is_of_one_revision() {
    let member = Member::start().await.unwrap();
    let store = connect(std::slice::from_ref(&member)).await;
    for block in 0..24 {
        let changes = (0..100).map(|i| put(&format!("n/{block:02}/{i:02}"), "")).collect();
        store.txn(Txn { checks: Vec::new(), changes }).await.unwrap();
    }
    let listing = store.list("n/", 10_000, None).await.unwrap();
    assert_eq!((listing.entries.len(), listing.more), (2_400, false));
    let listing = store.list("n/", 1_500, None).await.unwrap();
    assert_eq!((listing.entries.len(), listing.more), (1_500, true));
    assert!(listing.entries.is_sorted_by(|a, b| a.key < b.key));
}

#[tokio::test]
async fn a_transaction_that_is_too_large_is_refused_whole() {
    let member = Member::start().await.unwrap();
    let store = connect(std::slice::from_ref(&member)).await;
    let changes = (0..200).map(|i| put(&format!("n/{i}"), "")).collect();
    let refused = store.txn(Txn { checks: Vec::new(), changes }).await;
    assert!(matches!(refused, Err(TxnError::Store(StoreError::TooLarge { .. }))), "{refused:?}");
    assert!(store.list("n/", 10, None).await.unwrap().entries.is_empty());
}

/// Each transaction counts once, whatever was lost: the counter says how often it happened, the answers how often it
/// was said to have.
#[tokio::test]
async fn a_transaction_whose_answer_is_lost_is_neither_repeated_nor_forgotten() {
    let mut member = Member::start().await.unwrap();
    let store = connect(std::slice::from_ref(&member)).await;
    write(&store, "n", "0").await;
    let counting = async {
        for n in 0..300u32 {
            // Without the check that would make a repetition harmless.
            let changes = vec![put(&format!("done/{n}"), ""), put("n", &n.to_string())];
            let revision =
                store.txn(Txn { checks: Vec::new(), changes }).await.expect("it happens once the server is back");
            let entry = store.get(&format!("done/{n}")).await.expect("read").expect("it was acknowledged");
            assert_eq!((entry.created, entry.modified), (revision, revision), "it happened once");
            tokio::task::yield_now().await;
        }
    };
    let killing = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            member.kill().await.expect("it runs");
            member.restart().await.expect("it starts again");
        }
    };
    tokio::join!(counting, killing);
    assert_eq!(store.get("n").await.unwrap().unwrap().value, "299");
}

#[tokio::test]
async fn a_stopped_server_is_waited_for_and_a_lock_is_taken_once() {
    let member = Member::start().await.unwrap();
    let mut settings = EtcdSettings::new(vec![member.address()]);
    settings.attempt = Duration::from_millis(200);
    settings.deadline = Duration::from_secs(60);
    let store = EtcdObjects::connect(settings).await.unwrap();
    member.signal("STOP").await.unwrap();
    let checks = vec![Check::Absent("lock".into())];
    let take = store.txn(Txn { checks, changes: vec![put("lock", "mine")] });
    let wake = async {
        // The server has the request in its socket and will carry it out when it goes on.
        tokio::time::sleep(Duration::from_millis(700)).await;
        member.signal("CONT").await.unwrap();
    };
    let (taken, ()) = tokio::join!(take, wake);
    let revision = taken.expect("our own first try is not taken for somebody else's");
    let entry = store.get("lock").await.unwrap().unwrap();
    assert_eq!((entry.created, entry.modified), (revision, revision));
}

/// The watch shows this change next; before and after it there may be the marks of fences, which are no events.
async fn reaches(watch: &mut BoxStream<'static, Result<Batch, WatchError>>, revision: u64, key: &str) {
    loop {
        let batch = watch.next().await.unwrap().unwrap();
        if let [event] = &batch.events[..] {
            assert_eq!((event.key.as_str(), event.revision), (key, revision));
            return;
        }
        assert!(batch.events.is_empty() && batch.revision < revision, "{batch:?}");
    }
}

#[tokio::test]
async fn a_cluster_goes_on_without_one_member_and_watches_move() {
    let mut members = Member::cluster(3).await.unwrap();
    let store = connect(&members).await;
    let start = write(&store, "k0", "").await;
    let mut watch = store.watch("", start + 1).await.unwrap();
    let mut last = write(&store, "k1", "").await;
    assert_eq!(watch.next().await.unwrap().unwrap().revision, last);
    // The first is the one that is asked.
    members[0].kill().await.unwrap();
    last = write(&store, "k2", "").await;
    reaches(&mut watch, last, "k2").await;
    members[0].restart().await.unwrap();
    members[1].signal("STOP").await.unwrap();
    last = write(&store, "k3", "").await;
    reaches(&mut watch, last, "k3").await;
    members[1].signal("CONT").await.unwrap();
}

#[tokio::test]
async fn an_etcd_that_does_not_answer_is_an_error_in_time() {
    let mut settings = EtcdSettings::new(vec!["127.0.0.1:1".into()]);
    settings.deadline = Duration::from_millis(200);
    let refused = EtcdObjects::connect(settings).await.map(|_| ());
    assert!(matches!(refused, Err(StoreError::Remote { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_leader_that_is_cut_off_knows_before_another_can_lead() {
    let member = Member::start().await.unwrap();
    let store = connect(std::slice::from_ref(&member)).await;
    let election = Election::new(Arc::new(store), "leader", Duration::from_secs(2));
    let first = election.campaign(Bytes::from_static(b"c1")).await.unwrap();
    member.signal("STOP").await.unwrap();
    first.lost().cancelled().await;
    member.signal("CONT").await.unwrap();
    let second = election.campaign(Bytes::from_static(b"c2")).await.unwrap();
    assert!(second.epoch() > first.epoch());
}
