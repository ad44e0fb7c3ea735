//! The cache against a store that changes, forgets its history, and is written by others.

use std::collections::BTreeMap;
use std::sync::Arc;

use lyra_kit::{Clock, Random};
use lyra_store::Objects;
use lyra_store::objects::{Change as StoreChange, History, SqliteObjects, Txn};
use lyra_types::TenantName;
use lyra_types::resources::{ApplicationSession, SessionStatus};
use proptest::prelude::*;

use super::{Cache, Key};
use crate::{AdmitAll, Caller, DeleteOptions, Deps, ResourceApi, Settings, Status, WriteOptions};

struct Site {
    _dir: tempfile::TempDir,
    objects: Arc<dyn Objects>,
}

impl Site {
    fn new(revisions: u64) -> Site {
        let dir = tempfile::tempdir().unwrap();
        let objects = SqliteObjects::open(&dir.path().join("objects.db"), History { revisions }, None).unwrap();
        Site { _dir: dir, objects: Arc::new(objects) }
    }

    async fn api(&self) -> Arc<ResourceApi> {
        let deps = Deps {
            objects: self.objects.clone(),
            clock: Clock::system(),
            random: Random::system(),
            admission: Arc::new(AdmitAll),
        };
        ResourceApi::start(deps, Settings { shared_store: true }).await.unwrap()
    }
}

fn tenant() -> TenantName {
    TenantName::new("game1").unwrap()
}

fn session(name: &str) -> ApplicationSession {
    let mut session = ApplicationSession::default();
    session.metadata.namespace = "game1".into();
    session.metadata.name = name.into();
    session.spec.application_name = "echo".into();
    session
}

async fn create(api: &ResourceApi, session: ApplicationSession) -> Result<u64, Status> {
    let caller = Caller::operator("test");
    let options = WriteOptions { caller: &caller, dry_run: false };
    api.sessions().create(session, options).await.map(|stored| stored.revision())
}

async fn delete(api: &ResourceApi, name: &str) -> Result<(), Status> {
    let caller = Caller::operator("test");
    let options = WriteOptions { caller: &caller, dry_run: false };
    api.sessions().delete(&tenant(), name, &DeleteOptions::default(), options).await.map(drop)
}

/// What a watcher that applies every change knows in the end.
fn replay(
    cache: &Cache<ApplicationSession>,
    place: &mut super::Place,
    known: &mut BTreeMap<String, (u64, String)>,
    shown: &mut u64,
) -> Result<(), super::follow::Lagged> {
    loop {
        let changes = cache.changes(place)?;
        if changes.is_empty() {
            return Ok(());
        }
        for change in changes {
            assert!(change.revision >= *shown, "changes are in order of revision");
            *shown = change.revision;
            let (name, uid) = (change.object.metadata.name.clone(), change.object.metadata.uid.clone());
            if change.deleted {
                let (_, old) = known.remove(&name).expect("what is deleted was there");
                assert_eq!(old, uid, "the deleted one is the one that was there");
            } else {
                let before = known.insert(name, (change.object.revision(), uid.clone()));
                assert_eq!(before.is_some(), change.before.is_some());
                assert!(before.is_none_or(|(_, old)| old == uid), "another object of the name only after a deletion");
            }
        }
    }
}

fn now(cache: &Cache<ApplicationSession>) -> BTreeMap<String, (u64, String)> {
    let (objects, _) = cache.list(None);
    objects
        .iter()
        .map(|object| (object.metadata.name.clone(), (object.revision(), object.metadata.uid.clone())))
        .collect()
}

#[tokio::test]
async fn a_writer_sees_its_write_and_a_change_marks_generation_and_revision() {
    let site = Site::new(1_000);
    let api = site.api().await;
    create(&api, session("a")).await.unwrap();
    let stored = api.sessions().get(&tenant(), "a").expect("a writer sees its write");
    assert_eq!((stored.metadata.generation, stored.metadata.uid.len()), (1, 36));
    let change = |session: &mut ApplicationSession| session.status.session_status = SessionStatus::Pending;
    let changed = api.sessions().update(&tenant(), "a", None, change).await.unwrap().unwrap();
    assert!(changed.revision() > stored.revision());
    assert_eq!(changed.metadata.generation, 1, "a change of status is none of the spec");
    let again = api.sessions().update(&tenant(), "a", None, change).await.unwrap().unwrap();
    assert_eq!(again.revision(), changed.revision(), "what changes nothing is not written");
    let spec = |session: &mut ApplicationSession| session.spec.close_grace_period_seconds = 1;
    let changed = api.sessions().update(&tenant(), "a", None, spec).await.unwrap().unwrap();
    assert_eq!(changed.metadata.generation, 2);
    assert!(api.sessions().update(&tenant(), "a", Some("another"), spec).await.unwrap().is_none());
    assert_eq!(create(&api, session("a")).await.unwrap_err().reason, "AlreadyExists");
    delete(&api, "a").await.unwrap();
    assert!(api.sessions().get(&tenant(), "a").is_none());
    assert_eq!(delete(&api, "a").await.unwrap_err().reason, "NotFound");
}

#[tokio::test]
async fn an_object_with_a_finalizer_goes_when_the_last_one_lets_go() {
    let site = Site::new(1_000);
    let api = site.api().await;
    let mut held = session("a");
    held.metadata.finalizers = vec!["lyra.dev/close".into()];
    create(&api, held).await.unwrap();
    delete(&api, "a").await.unwrap();
    let marked = api.sessions().get(&tenant(), "a").expect("it is held");
    assert!(marked.metadata.deletion_timestamp.is_some());
    delete(&api, "a").await.unwrap();
    assert_eq!(api.sessions().get(&tenant(), "a").unwrap().revision(), marked.revision());
    let unmark = |session: &mut ApplicationSession| session.metadata.deletion_timestamp = None;
    api.sessions().update(&tenant(), "a", None, unmark).await.unwrap();
    assert!(api.sessions().get(&tenant(), "a").unwrap().metadata.deletion_timestamp.is_some(), "nobody unmarks it");
    let let_go = |session: &mut ApplicationSession| session.metadata.finalizers.clear();
    api.sessions().update(&tenant(), "a", None, let_go).await.unwrap();
    assert!(api.sessions().get(&tenant(), "a").is_none());
}

#[tokio::test]
async fn generated_names_are_all_different() {
    let site = Site::new(1_000);
    let api = site.api().await;
    for _ in 0..50 {
        let mut unnamed = session("");
        unnamed.metadata.generate_name = "echo-".into();
        create(&api, unnamed).await.unwrap();
    }
    let names: std::collections::BTreeSet<_> =
        api.sessions().list(None).iter().map(|session| session.metadata.name.clone()).collect();
    assert_eq!(names.len(), 50);
    assert!(names.iter().all(|name| name.len() == 10 && name.starts_with("echo-")));
}

#[tokio::test]
async fn objects_and_revisions_are_the_same_after_a_restart() {
    let site = Site::new(1_000);
    let api = site.api().await;
    for name in ["a", "b", "c"] {
        create(&api, session(name)).await.unwrap();
    }
    delete(&api, "b").await.unwrap();
    let before = now(api.sessions().cache());
    api.stop().await;
    let api = site.api().await;
    assert_eq!(now(api.sessions().cache()), before);
    assert_eq!(api.sessions().list(Some(&TenantName::new("game2").unwrap())).len(), 0);
    // What was changed before this process began is not kept: who asks for it has to list.
    assert!(api.sessions().cache().place_after(1).is_err());
    assert!(api.sessions().cache().place_after(api.sessions().cache().revision()).is_ok());
}

#[tokio::test]
async fn a_watcher_that_falls_behind_is_cut_off_and_writers_go_on() {
    let cache: Cache<ApplicationSession> = Cache::new();
    let (_, mut slow) = cache.snapshot(None);
    let mut state = cache.state.write();
    for revision in 1..=super::RING as u64 + 1 {
        let object = Arc::new(super::Stored::new(session("a"), 1, revision));
        let change = super::Change { revision, object, deleted: false, before: None };
        super::feed::record(&mut state, change);
    }
    drop(state);
    assert!(cache.changes(&mut slow).is_err());
    assert!(cache.place_after(0).is_err());
    assert!(cache.place_after(1).is_ok());
}

#[derive(Debug, Clone)]
enum Act {
    Create(u8),
    Touch(u8),
    Delete(u8),
    /// Writes of others that nobody follows, until the history is forgotten.
    Flood,
    Watch,
    /// As [`Act::Watch`], after a look at the subscription.
    Look,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0..4u8).prop_map(Act::Create),
        4 => (0..4u8).prop_map(Act::Touch),
        3 => (0..4u8).prop_map(Act::Delete),
        1 => Just(Act::Flood),
        2 => Just(Act::Watch),
        1 => Just(Act::Look),
    ];
    prop::collection::vec(act, 1..60)
}

/// Another process writes through an API of its own; this one loads, then catches up either by its watch or, where history
/// was forgotten, by listing anew.
async fn churn(acts: Vec<Act>) {
    let site = Site::new(8);
    let writer = site.api().await;
    let cache: Arc<Cache<ApplicationSession>> = Arc::new(Cache::new());
    cache.load(&*site.objects).await.unwrap();
    let (mut known, mut shown) = (now(&cache), cache.revision());
    let (_, mut place) = cache.snapshot(None);
    let mut subscription = cache.subscribe();
    let mut looked: BTreeMap<String, u64> = BTreeMap::new();
    let mut feeding = None;
    for act in acts.into_iter().chain([Act::Watch, Act::Look]) {
        match act {
            Act::Create(name) => drop(create(&writer, session(&format!("s{name}"))).await),
            Act::Touch(name) => {
                let change = |session: &mut ApplicationSession| session.spec.ttl_seconds_after_finished += 1;
                writer.sessions().update(&tenant(), &format!("s{name}"), None, change).await.unwrap();
            }
            Act::Delete(name) => drop(delete(&writer, &format!("s{name}")).await),
            Act::Flood => {
                // Stops following, so that the changes in between are forgotten.
                feeding = None;
                for _ in 0..20 {
                    let change = StoreChange::Put("other".into(), bytes::Bytes::new());
                    site.objects.txn(Txn { checks: Vec::new(), changes: vec![change] }).await.unwrap();
                }
            }
            Act::Watch | Act::Look => {
                feeding.get_or_insert_with(|| {
                    let task = super::feed(cache.clone(), site.objects.clone());
                    tokio_util::task::AbortOnDropHandle::new(lyra_kit::tasks::spawn("feed", task))
                });
                let newest = site.objects.list("resources/.", 1, None).await.unwrap().revision;
                assert!(cache.wait(newest).await, "the cache follows");
                replay(&cache, &mut place, &mut known, &mut shown).expect("no watcher is behind");
                assert_eq!(known, now(&cache), "a watcher knows what there is");
                assert_eq!(known, now(writer.sessions().cache()), "and so does every process");
                if matches!(act, Act::Look) {
                    for Key { name, .. } in subscription.take_all() {
                        match cache.get(&Key::new(&tenant(), &name)) {
                            Some(object) => looked.insert(name.to_string(), object.revision()),
                            None => looked.remove(&*name),
                        };
                    }
                    let expected: BTreeMap<_, _> =
                        known.iter().map(|(name, (revision, _))| (name.clone(), *revision)).collect();
                    assert_eq!(looked, expected, "who looks at what it is told knows what there is");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_change_is_missed_whatever_happens_and_whatever_is_forgotten(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(churn(acts));
    }
}
