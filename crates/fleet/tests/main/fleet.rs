//! What a gateway relies on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lyra_fleet::{Config, Fleet, Policy};
use lyra_kit::{Clock, Random, Tasks};
use lyra_types::api::{Resource, RuntimeOffer};
use lyra_types::{Code, FunctionVersion, Runtime};
use lyra_wire::registry::{MemberEvent, MemberState, NodeState};
use lyra_wire::worker::{Call, Prepare};
use lyra_wire::{Worker, Workers};

use crate::doubles::{Act, Script, Teller, Voice, call, member, member_by, member_with, version};

pub struct World {
    pub fleet: Fleet,
    pub script: Script,
    registry: Arc<Teller>,
    pub voice: Voice,
    tasks: Tasks,
}

/// A fleet that was told of `names`.
pub async fn world(balance: Policy, names: &[&str]) -> World {
    let (script, registry, tasks) = (Script::default(), Arc::new(Teller::default()), Tasks::new());
    let voice = registry.expect_watch();
    for name in names {
        voice.send(Ok(member(name, MemberState::Ready))).unwrap();
    }
    voice.send(Ok(MemberEvent::Synced)).unwrap();
    let workers = script.clone();
    let connect = Box::new(move |_: &str, address: &str| Ok(workers.worker(address)));
    let (clock, random) = (Clock::system(), Random::seeded(3));
    let fleet = Fleet::new(Config { balance }, registry.clone(), connect, clock, random, &tasks);
    assert!(fleet.synced(Duration::from_secs(5)).await);
    World { fleet, script, registry, voice, tasks }
}

impl World {
    /// Waits, in virtual time, until what was said is heard.
    pub async fn heard(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    fn states(&self) -> Vec<(String, MemberState)> {
        self.fleet.all().into_iter().map(|known| (known.name, known.state)).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_cannot_have_run_goes_to_another_worker() {
    for code in [Code::Unavailable, Code::Overloaded] {
        let world = world(Policy::RoundRobin, &["a", "b", "c"]).await;
        for address in ["a:1", "b:1"] {
            world.script.set(address, Act::Refuse(code));
        }
        for turn in 0..9 {
            let reply = world.fleet.invoke(call(1)).await;
            assert_eq!(reply.outcome, Ok(Bytes::from("c:1")), "{code} at turn {turn}");
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_may_have_run_is_not_repeated() {
    let world = world(Policy::RoundRobin, &["a", "b"]).await;
    for act in [Act::Fail(Code::Unavailable), Act::Refuse(Code::WorkerLost), Act::Refuse(Code::LimitReached)] {
        world.script.set("a:1", act);
        world.script.set("b:1", act);
        assert!(world.fleet.invoke(call(1)).await.outcome.is_err());
        assert_eq!(world.script.take_called().len(), 1, "{act:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_cannot_be_reached_is_left_alone_for_a_while() {
    let world = world(Policy::RoundRobin, &["a", "b"]).await;
    world.script.set("a:1", Act::Refuse(Code::Unavailable));
    for _ in 0..10 {
        assert!(world.fleet.invoke(call(1)).await.outcome.is_ok());
    }
    let tries = world.script.take_called().iter().filter(|address| *address == "a:1").count();
    assert_eq!(tries, 1);
    world.script.set("a:1", Act::Answer);
    tokio::time::sleep(Duration::from_secs(2)).await;
    for _ in 0..10 {
        assert!(world.fleet.invoke(call(1)).await.outcome.is_ok());
    }
    assert_eq!(world.script.take_called().iter().filter(|address| *address == "a:1").count(), 5);
}

#[tokio::test(start_paused = true)]
async fn only_ready_workers_get_calls() {
    let world = world(Policy::RoundRobin, &["a", "b", "c"]).await;
    world.voice.send(Ok(member("a", MemberState::Lost))).unwrap();
    world.voice.send(Ok(member("b", MemberState::Cordoned))).unwrap();
    world.heard().await;
    for _ in 0..6 {
        assert_eq!(world.fleet.invoke(call(1)).await.outcome, Ok(Bytes::from("c:1")));
    }
    world.voice.send(Ok(MemberEvent::Remove("c".to_owned()))).unwrap();
    world.heard().await;
    let reply = world.fleet.invoke(call(1)).await;
    let error = reply.outcome.unwrap_err();
    assert!(error.code == Code::Unavailable && error.retry_after.is_some() && reply.report.start.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_was_known_holds_while_the_registry_is_away() {
    let World { fleet, script, registry, voice, tasks } = world(Policy::RoundRobin, &["a", "b"]).await;
    drop(voice);
    tokio::time::sleep(Duration::from_secs(60)).await;
    for _ in 0..4 {
        assert!(fleet.invoke(call(1)).await.outcome.is_ok());
    }
    // It is back, and one worker has gone meanwhile.
    let voice = registry.expect_watch();
    voice.send(Ok(member("b", MemberState::Ready))).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(fleet.all().len(), 2, "not all is told yet");
    voice.send(Ok(MemberEvent::Synced)).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let world = World { fleet, script, registry, voice, tasks };
    assert_eq!(world.states(), [("b".to_owned(), MemberState::Ready)]);
    world.tasks.stop(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn calls_in_progress_count_as_load() {
    let world = world(Policy::LeastLoaded, &["a", "b"]).await;
    world.script.set("a:1", Act::Hang);
    world.script.set("b:1", Act::Hang);
    let mut calls = Vec::new();
    for _ in 0..10 {
        let fleet = world.fleet.clone();
        calls.push(lyra_kit::tasks::spawn("call", async move { fleet.invoke(call(1)).await }));
        world.heard().await;
    }
    let called = world.script.take_called();
    assert_eq!(called.iter().filter(|address| *address == "a:1").count(), 5, "{called:?}");
    calls.iter().for_each(|call| call.abort());
    world.heard().await;
    world.script.set("a:1", Act::Answer);
    assert!(world.fleet.invoke(call(1)).await.outcome.is_ok() || world.script.take_called() == ["b:1"]);
}

#[tokio::test(start_paused = true)]
async fn code_is_prepared_where_its_runtime_is() {
    let world = world(Policy::BoundedHash, &["a", "b"]).await;
    world.script.set("a:1", Act::Refuse(Code::Unavailable));
    let js = Prepare::of(&call(1).version, Bytes::new());
    assert!(world.fleet.prepare(js.clone()).await.is_ok());
    let error = world.fleet.prepare(Prepare { runtime: Runtime::Python, ..js.clone() }).await.unwrap_err();
    assert!(error.code == Code::Unavailable && error.detail.contains("python"), "{error}");
    world.script.set("b:1", Act::Refuse(Code::InvalidCode));
    world.script.set("a:1", Act::Refuse(Code::InvalidCode));
    world.script.take_called();
    assert_eq!(world.fleet.prepare(js).await.unwrap_err().code, Code::InvalidCode);
    assert_eq!(world.script.take_called().len(), 1, "bad code is bad everywhere");
}

/// A call of a version that differs from the usual one.
fn call_of(change: impl FnOnce(&mut FunctionVersion)) -> Call {
    let mut version = version(1);
    change(&mut version);
    Call { version: Arc::new(version), ..call(1) }
}

#[tokio::test(start_paused = true)]
async fn a_call_goes_only_where_its_version_can_run() {
    for policy in Policy::ALL {
        // More workers than a call is tried on.
        let world = world(policy, &["a", "b", "c", "d", "e"]).await;
        let python = call_of(|version| version.runtime = Runtime::Python);
        let nobody = world.fleet.invoke(python.clone()).await.outcome.unwrap_err();
        assert!(nobody.code == Code::Unavailable && nobody.retry_after.is_some());
        assert!(nobody.detail.contains("python"), "{nobody}");
        world.voice.send(Ok(member_by("f", "process", Runtime::Python))).unwrap();
        world.voice.send(Ok(member_by("g", "other", Runtime::Js))).unwrap();
        // One that takes the runtime, but has no interpreter, and one that can't be used at all.
        let MemberEvent::Put(mut bare) = member_by("h", "process", Runtime::Python) else { unreachable!("it is one") };
        let backend = &mut bare.registration.backends[0];
        backend.offers =
            vec![RuntimeOffer { runtime: Runtime::Python, available: false, detail: String::new(), auto: true }];
        world.voice.send(Ok(MemberEvent::Put(bare))).unwrap();
        let MemberEvent::Put(mut closed) = member_by("i", "process", Runtime::Python) else {
            unreachable!("it is one")
        };
        closed.registration.backends[0].unavailable = Some("it lacks namespaces".to_owned());
        world.voice.send(Ok(MemberEvent::Put(closed))).unwrap();
        world.heard().await;
        let other = call_of(|version| version.isolation = "other".to_owned());
        for _ in 0..20 {
            assert_eq!(world.fleet.invoke(python.clone()).await.outcome, Ok(Bytes::from("f:1")), "{policy:?}");
            assert_eq!(world.fleet.invoke(other.clone()).await.outcome, Ok(Bytes::from("g:1")), "{policy:?}");
        }
        assert!(!world.script.take_called().iter().any(|address| ["a:1", "b:1"].contains(&&**address)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_goes_only_where_there_is_as_much_as_it_needs() {
    let world = world(Policy::BoundedHash, &[]).await;
    let with = |memory: u64, gpus: u64| {
        let of = |total| Resource { total: Some(total), ..Resource::default() };
        NodeState { memory: of(memory << 20), cpu: of(2_000), gpu: of(gpus), ..NodeState::default() }
    };
    for (name, state) in [("a", with(500, 0)), ("b", with(500, 0)), ("c", with(500, 1)), ("d", with(1_000, 0))] {
        world.voice.send(Ok(member_with(name, state))).unwrap();
    }
    world.heard().await;
    let kept = |memory: u32| call_of(|version| (version.reuse, version.memory_mb) = (true, memory));
    assert_eq!(world.fleet.invoke(kept(800)).await.outcome, Ok(Bytes::from("d:1")));
    assert_eq!(world.fleet.invoke(kept(1_000)).await.outcome, Ok(Bytes::from("d:1")), "exactly as much");
    assert_eq!(world.fleet.invoke(call_of(|version| version.gpus = 1)).await.outcome, Ok(Bytes::from("c:1")));
    let error = world.fleet.invoke(kept(1_001)).await.outcome.unwrap_err();
    assert!(error.code == Code::Unavailable && error.detail.contains("1001 MiB"), "{error}");
    // What is made for one call alone is not charged for.
    assert!(world.fleet.invoke(call_of(|version| version.memory_mb = 2_000)).await.outcome.is_ok());
    world.script.take_called();
    let large = Prepare { memory_mb: 800, ..Prepare::of(&version(1), Bytes::new()) };
    assert!(world.fleet.prepare(large.clone()).await.is_ok());
    // Where nobody has as much, somebody is asked, who says so.
    assert!(world.fleet.prepare(Prepare { memory_mb: 8_000, ..large }).await.is_ok());
    assert_eq!(world.script.take_called()[0], "d:1");
}

#[tokio::test(start_paused = true)]
async fn everybody_forgets_a_version_that_is_gone() {
    let world = world(Policy::BoundedHash, &["a", "b", "c"]).await;
    world.voice.send(Ok(member("c", MemberState::Lost))).unwrap();
    world.heard().await;
    world.fleet.forget(1, None).await.unwrap();
    let mut called = world.script.take_called();
    called.sort();
    assert_eq!(called, ["a:1", "b:1"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_a_worker_that_is_restarted() {
    let world = world(Policy::BoundedHash, &["a"]).await;
    world.voice.send(Ok(MemberEvent::Remove("a".to_owned()))).unwrap();
    world.heard().await;
    let fleet = world.fleet.clone();
    let waiting = lyra_kit::tasks::spawn("call", async move { fleet.invoke(call(1)).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished());
    world.voice.send(Ok(member("a", MemberState::Ready))).unwrap();
    assert!(waiting.await.unwrap().outcome.is_ok());
}
