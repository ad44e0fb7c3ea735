//! What a gateway relies on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lyra_fleet::{Config, Fleet, Policy};
use lyra_kit::{Clock, Random, Tasks};
use lyra_types::{Code, Runtime};
use lyra_wire::registry::{MemberEvent, MemberState};
use lyra_wire::worker::Prepare;
use lyra_wire::{Worker, Workers};

use crate::doubles::{Act, Script, Teller, Voice, call, member};

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
