//! Each function's own policy, over what workers tell of themselves and what calls show.

use std::collections::BTreeMap;
use std::sync::Arc;

use lyra_fleet::Policy;
use lyra_types::api::Resource;
use lyra_wire::Worker;
use lyra_wire::registry::NodeState;
use lyra_wire::worker::Call;

use crate::doubles::{Act, call, member_with, version};
use crate::fleet::{World, world};

/// A call of a version with a policy of its own.
fn with(policy: Policy, number: u64, reuse: bool) -> Call {
    let version = lyra_types::FunctionVersion { balancing: Some(policy), reuse, ..version(number) };
    Call { version: Arc::new(version), ..call(number) }
}

/// So many calls, one after the other; how many each worker had.
async fn calls(world: &World, call: &Call, count: usize) -> BTreeMap<String, usize> {
    for _ in 0..count {
        assert!(world.fleet.invoke(call.clone()).await.outcome.is_ok());
    }
    let mut by_worker = BTreeMap::new();
    for address in world.script.take_called() {
        *by_worker.entry(address).or_default() += 1;
    }
    by_worker
}

#[tokio::test(start_paused = true)]
async fn a_function_has_its_own_policy_and_others_the_settings() {
    let world = world(Policy::RoundRobin, &["a", "b", "c"]).await;
    assert_eq!(calls(&world, &call(1), 9).await.into_values().collect::<Vec<_>>(), [3, 3, 3]);
    assert_eq!(calls(&world, &with(Policy::BoundedHash, 1, false), 9).await.into_values().collect::<Vec<_>>(), [9]);
    assert_eq!(calls(&world, &with(Policy::ChRlu, 2, false), 9).await.into_values().collect::<Vec<_>>(), [9]);
}

#[tokio::test(start_paused = true)]
async fn the_least_loaded_worker_is_the_least_by_its_measure() {
    let world = world(Policy::RoundRobin, &[]).await;
    let of = |total, charged| Resource { total: Some(total), charged, waiting: 0 };
    // Each is the best by one measure, and not by any other.
    let best = [
        (Policy::LeastQueued, "a"),
        (Policy::LeastMemory, "b"),
        (Policy::LeastCpu, "c"),
        (Policy::LeastLoadAverage, "d"),
        (Policy::LeastLoaded, "e"),
    ];
    for (_, name) in best {
        let worse = |better: &str, good: u64, bad: u64| if name == better { good } else { bad };
        let state = NodeState {
            running: worse("e", 1, 50) as usize,
            queued: worse("a", 0, 5) as usize,
            concurrency_limit: 100,
            memory: of(1 << 40, worse("b", 1 << 30, 1 << 38)),
            cpu: of(64_000, worse("c", 0, 32_000)),
            load: Some([worse("d", 1, 20) as f64, 0.0, 0.0]),
            ..NodeState::default()
        };
        world.voice.send(Ok(member_with(name, state))).unwrap();
    }
    world.heard().await;
    for (policy, name) in best {
        assert_eq!(calls(&world, &with(policy, 1, false), 10).await, [(format!("{name}:1"), 10)].into(), "{policy}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_since_a_worker_told_its_state_counts() {
    let world = world(Policy::RoundRobin, &[]).await;
    let memory = |charged| Resource { total: Some(100 << 27), charged, waiting: 0 };
    world.voice.send(Ok(member_with("a", NodeState { memory: memory(0), ..NodeState::default() }))).unwrap();
    world.voice.send(Ok(member_with("b", NodeState { memory: memory(4 << 27), ..NodeState::default() }))).unwrap();
    world.heard().await;
    world.script.set("a:1", Act::Hang);
    world.script.set("b:1", Act::Hang);
    // Each call takes 128 MiB: `a` has four before it has as much as `b`.
    let mut running = Vec::new();
    for _ in 0..8 {
        let (fleet, call) = (world.fleet.clone(), with(Policy::LeastMemory, 1, false));
        running.push(lyra_kit::tasks::spawn("call", async move { fleet.invoke(call).await }));
        world.heard().await;
    }
    let called = world.script.take_called();
    assert_eq!(called.iter().filter(|address| *address == "a:1").count(), 6, "{called:?}");
    running.iter().for_each(|call| call.abort());
}

#[tokio::test(start_paused = true)]
async fn calls_go_where_an_instance_is_known_to_wait() {
    let world = world(Policy::RoundRobin, &["a", "b", "c"]).await;
    let call = with(Policy::LocalityFirst, 1, true);
    let first = calls(&world, &call, 1).await.into_keys().next().unwrap();
    // Its own worker is away for a while, so another one comes to hold an instance, and keeps the calls after that.
    world.script.set(&first, Act::Refuse(lyra_types::Code::Unavailable));
    let tried = calls(&world, &call, 1).await;
    let second = tried.keys().find(|address| **address != first).unwrap().clone();
    world.script.set(&first, Act::Answer);
    assert_eq!(calls(&world, &call, 3).await, [(second.clone(), 3)].into(), "the first one is left alone");
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let both = calls(&world, &call, 6).await;
    assert!(both.keys().all(|address| *address == first || *address == second), "{both:?}");
}
