//! What the pool promises, whatever happens: never over capacity, busy ones are left alone, all comes back, waiting is
//! in order, giving up is always possible.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bytes::Bytes;
use lyra_isolation::{CallContext, Sandbox, Served};
use lyra_kit::{Random, telemetry};
use lyra_types::function::Digest;
use lyra_types::{Error, FunctionName, Runtime};
use parking_lot::Mutex as Lock;
use proptest::prelude::*;

use super::*;
use crate::keep_alive::Policy;
use crate::resources::gpu::Load;

mod greedy_dual;

/// Counts sandboxes, and panics when a busy one is dropped while its call still has it.
struct Nothing(Arc<Lock<usize>>);

impl Nothing {
    fn boxed(count: &Arc<Lock<usize>>) -> Box<dyn Sandbox> {
        *count.lock() += 1;
        Box::new(Nothing(count.clone()))
    }
}

impl Drop for Nothing {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
    }
}

#[async_trait]
impl Sandbox for Nothing {
    async fn call(&mut self, _: CallContext, event: Bytes) -> Result<Bytes, Error> {
        Ok(event)
    }
    async fn serve(self: Box<Self>, _: CallContext, _: http::Request<lyra_isolation::Body>) -> Result<Served, Error> {
        Err(Error::internal("not an http component"))
    }
    fn is_reusable(&self) -> bool {
        true
    }
}

struct Two;

impl Source for Two {
    fn devices(&self) -> Result<Vec<Gpu>, String> {
        let gpu = |index: u32| Gpu {
            index,
            uuid: format!("GPU-{index}"),
            name: "test".into(),
            memory: 8 << 30,
            nodes: vec![format!("/dev/nvidia{index}").into()],
        };
        Ok(vec![gpu(0), gpu(1)])
    }
    fn load(&self, _: &str) -> Load {
        Load { utilisation: Some(7), memory_used: None }
    }
}

fn version(generation: u64, memory_mb: u32, gpus: u32) -> Arc<FunctionVersion> {
    Arc::new(FunctionVersion {
        generation,
        memory_mb,
        gpus,
        timeout_ms: 1,
        concurrency: 100,
        max_instances: 0,
        max_attempts: 1,
        ..FunctionVersion::new(FunctionName::new("f").expect("a valid name"), Runtime::Native, Digest(String::new()))
    })
}

fn need(version: &FunctionVersion) -> Need {
    Need::of(version).expect("a process is charged")
}

fn pool(memory_mb: u64, cores: u64, policy: Policy) -> Pool {
    let config = Config {
        keep_alive: policy,
        resources: resources::Config {
            memory: Some(memory_mb << 20),
            cpu_millis: Some(cores * 1_000),
            cpu_factor: 1.0,
            ..resources::Config::default()
        },
        ..Config::default()
    };
    let clock = Clock::simulated(Timestamp::from_millis(0));
    let ids = Ids::new(clock.clone(), Random::seeded(1));
    Pool::new(&config, clock, ids, Arc::new(Two), PoolMetrics::new(&telemetry::Metrics::new()))
}

type Claim = Pin<Box<dyn Future<Output = Result<Grant, PoolClosed>>>>;

fn claim(pool: &Pool, version: &Arc<FunctionVersion>) -> Claim {
    let (pool, version) = (pool.clone(), version.clone());
    let now = pool.shared.clock.instant();
    Box::pin(async move { pool.claim(&version, need(&version), now).await })
}

fn poll(claim: &mut Claim) -> Poll<Result<Grant, PoolClosed>> {
    claim.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn granted(claim: &mut Claim) -> Grant {
    match poll(claim) {
        Poll::Ready(Ok(grant)) => grant,
        _ => panic!("must wait"),
    }
}

fn start(grant: Grant, count: &Arc<Lock<usize>>) -> Instance {
    match grant {
        Grant::Start(lease) => Instance::new(Nothing::boxed(count), lease, Duration::from_millis(100)),
        Grant::Idle(instance) => instance,
        Grant::Room(_) => panic!("a call asks for no room"),
    }
}

/// Lets what was handed to the background be dropped.
async fn settle() {
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_needs_memory_makes_an_idle_one_go_and_one_that_finds_all_busy_waits() {
    let (pool, count) = (pool(256, 8, Policy::Ttl), Arc::default());
    let (a, b) = (version(1, 256, 0), version(2, 256, 0));
    let first = start(granted(&mut claim(&pool, &a)), &count);
    let mut second = claim(&pool, &b);
    assert!(poll(&mut second).is_pending(), "all memory is with a busy one");
    assert_eq!(pool.holdings().memory.waiting, 256 << 20);
    pool.put(first, pool.shared.clock.instant());
    assert!(poll(&mut second).is_pending(), "the idle one must be gone first");
    settle().await;
    assert_eq!(*count.lock(), 0);
    let second = start(granted(&mut second), &count);
    assert_eq!((pool.count((1, 1)), pool.holdings().memory.charged), (0, 256 << 20));
    drop(second);
    assert!(pool.is_empty());
}

#[tokio::test(start_paused = true)]
async fn renewed_instances_go_when_they_are_idle_and_what_was_asked_for_stands() {
    let (pool, count) = (pool(4_096, 8, Policy::Ttl), Arc::default());
    let (a, b) = (version(1, 128, 0), version(2, 128, 0));
    pool.tell(&a, need(&a), Told { instances: 2, schedule: false });
    let all = [&a, &a, &b].map(|version| start(granted(&mut claim(&pool, version)), &count));
    let [idle, busy, other] = all;
    pool.put(idle, pool.shared.clock.instant());
    pool.put(other, pool.shared.clock.instant());
    pool.renew((1, 1));
    settle().await;
    assert_eq!((pool.count((1, 1)), pool.count((2, 1)), *count.lock()), (0, 1, 2), "the idle one is gone");
    pool.put(busy, pool.shared.clock.instant());
    settle().await;
    assert_eq!((pool.count((1, 1)), *count.lock()), (0, 1), "the busy one when its call has ended");
    let new = start(granted(&mut claim(&pool, &a)), &count);
    pool.put(new, pool.shared.clock.instant());
    assert_eq!(pool.count((1, 1)), 1);
    let (_, ahead) = pool.tend(0);
    assert_eq!(ahead.iter().map(|ahead| ahead.instances).collect::<Vec<_>>(), [1], "two are held up");
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_served_in_order_and_none_overtakes() {
    let (pool, count) = (pool(300, 8, Policy::Ttl), Arc::default());
    let (large, small) = (version(1, 300, 0), version(2, 100, 0));
    let busy = start(granted(&mut claim(&pool, &large)), &count);
    let mut one = claim(&pool, &large);
    let mut two = claim(&pool, &small);
    let mut three = claim(&pool, &small);
    assert!(poll(&mut one).is_pending() && poll(&mut two).is_pending() && poll(&mut three).is_pending());
    drop(busy);
    let one = start(granted(&mut one), &count);
    assert!(poll(&mut two).is_pending());
    drop(one);
    let (two, three) = (granted(&mut two), granted(&mut three));
    drop((two, three));
    assert!(pool.is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_who_waits_for_a_gpu_does_not_hold_up_those_who_need_none() {
    let (pool, count) = (pool(4_096, 8, Policy::Ttl), Arc::default());
    let (gpu, cpu) = (version(1, 128, 1), version(2, 128, 0));
    let one = start(granted(&mut claim(&pool, &gpu)), &count);
    let two = start(granted(&mut claim(&pool, &gpu)), &count);
    let names = |instance: &Instance| instance.lease.devices().map(|d| d.gpus[0].uuid.clone());
    assert_eq!((names(&one), names(&two)), (Some("GPU-0".into()), Some("GPU-1".into())));
    let mut waits = claim(&pool, &gpu);
    assert!(poll(&mut waits).is_pending());
    let passes = granted(&mut claim(&pool, &cpu));
    drop(one);
    let third = start(granted(&mut waits), &count);
    assert_eq!(names(&third), Some("GPU-0".into()));
    assert_eq!(pool.holdings().gpus[0].utilisation, Some(7));
    drop((two, third, passes));
    assert!(pool.holdings().gpu.charged == 0);
}

#[tokio::test(start_paused = true)]
async fn one_whom_only_the_end_of_a_session_can_help_holds_nobody_up_and_takes_nobodys_place() {
    let (pool, count) = (pool(1_024, 8, Policy::Ttl), Arc::default());
    let (small, large) = (version(1, 128, 0), version(2, 640, 0));
    let kept = start(granted(&mut claim(&pool, &small)), &count);
    pool.put(kept, pool.shared.clock.instant());
    let session = pool.room(&large, need(&large)).await.unwrap();
    let mut waits = Box::pin(pool.room(&large, need(&large)));
    assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(pool.total(), 1, "that would not be enough");
    let warm = granted(&mut claim(&pool, &small));
    assert!(matches!(warm, Grant::Idle(_)));
    let cold = granted(&mut claim(&pool, &version(3, 128, 0)));
    assert!(pool.holds(&need(&large)) && !pool.holds(&Need { memory: 1_025 << 20, ..Need::default() }));
    drop((session, warm, cold));
    settle().await;
    let Poll::Ready(Ok(room)) = waits.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("there is room now")
    };
    drop(room);
    settle().await;
    assert_eq!(pool.holdings().memory.charged, 0);
}

#[tokio::test(start_paused = true)]
async fn processors_are_held_while_an_instance_serves_and_not_while_it_is_idle() {
    let (pool, count) = (pool(4_096, 1, Policy::Ttl), Arc::default());
    let (a, b) = (version(1, 128, 0), version(2, 128, 0));
    let one = start(granted(&mut claim(&pool, &a)), &count);
    let mut two = claim(&pool, &b);
    assert!(poll(&mut two).is_pending());
    pool.put(one, pool.shared.clock.instant());
    let two = start(granted(&mut two), &count);
    assert_eq!(pool.count((1, 1)), 1, "nothing had to go for processors");
    assert!(pool.take((1, 1), pool.shared.clock.instant()).is_none(), "and an idle one needs them to serve again");
    drop(two);
    assert!(pool.take((1, 1), pool.shared.clock.instant()).is_some());
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_a_processor_let_no_idle_instance_go_that_would_not_help_them() {
    let (pool, count) = (pool(1_024, 1, Policy::Ttl), Arc::default());
    let (kept, called) = (version(1, 128, 0), version(2, 128, 0));
    for _ in 0..6 {
        let lease = pool.claim_ahead(&kept, need(&kept)).await.expect("there is room");
        let started = Instance::new(Nothing::boxed(&count), lease, Duration::ZERO);
        pool.put(started, pool.shared.clock.instant());
    }
    let busy = start(granted(&mut claim(&pool, &called)), &count);
    let mut waiting: Vec<_> = (0..8).map(|_| claim(&pool, &called)).collect();
    assert!(waiting.iter_mut().all(|call| poll(call).is_pending()));
    assert_eq!(pool.count((1, 1)), 6, "each of them would need memory, but none has a processor");
    let mut busy = Some(busy);
    for call in &mut waiting {
        pool.put(busy.take().expect("served"), pool.shared.clock.instant());
        busy = Some(start(granted(call), &count));
    }
    assert_eq!(pool.count((1, 1)), 6, "and the one instance was enough for all");
    // One that has a processor, and too little memory, still has others go.
    drop(busy);
    let large = version(3, 512, 0);
    let mut claim = claim(&pool, &large);
    assert!(poll(&mut claim).is_pending());
    settle().await;
    drop(start(granted(&mut claim), &count));
    assert!(pool.count((1, 1)) < 6);
}

#[tokio::test(start_paused = true)]
async fn a_hibernated_instance_costs_what_it_holds_and_is_charged_again_before_it_serves() {
    let (pool, count) = (pool(200, 8, Policy::Ttl), Arc::default());
    let (a, b) = (version(1, 128, 0), version(2, 128, 0));
    let one = start(granted(&mut claim(&pool, &a)), &count);
    pool.put(one, pool.shared.clock.instant());
    let aside = pool.take_aside_to_hibernate(Duration::ZERO);
    assert_eq!(aside.len(), 1);
    for instance in aside {
        pool.rests(instance, Some(8 << 20));
    }
    assert_eq!(pool.holdings().memory.charged, 8 << 20);
    let two = start(granted(&mut claim(&pool, &b)), &count);
    assert_eq!((pool.count((1, 1)), pool.holdings().instances.hibernated), (1, 1));
    let mut again = claim(&pool, &a);
    assert!(poll(&mut again).is_pending(), "there is no memory to wake it into");
    drop(two);
    let Grant::Idle(woken) = granted(&mut again) else { panic!("the hibernated one is there") };
    assert!(woken.lease.hibernated);
    assert_eq!(pool.holdings().memory.charged, 128 << 20);
    drop(woken);
    assert!(pool.is_empty() && pool.check_up().healthy);
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_a_moment_for_an_instance_that_is_being_probed() {
    let (pool, count) = (pool(4_096, 8, Policy::Ttl), Arc::default());
    let a = version(1, 128, 0);
    pool.put(start(granted(&mut claim(&pool, &a)), &count), pool.shared.clock.instant());
    let mut aside = pool.take_aside_to_probe(Duration::ZERO);
    let mut call = claim(&pool, &a);
    assert!(poll(&mut call).is_pending());
    pool.proved(aside.pop().expect("it is idle"));
    assert!(matches!(granted(&mut call), Grant::Idle(_)));
    // One whose probe hangs is not waited for.
    settle().await;
    pool.put(start(granted(&mut claim(&pool, &a)), &count), pool.shared.clock.instant());
    let aside = pool.take_aside_to_probe(Duration::ZERO);
    let grant = claim(&pool, &a).await.expect("the pool is there");
    assert!(matches!(grant, Grant::Start(_)));
    drop((grant, aside));
    assert!(pool.is_empty());
}

#[tokio::test(start_paused = true)]
async fn every_idle_instance_is_probed_within_two_rounds_and_one_always_stays_for_calls() {
    let (pool, count) = (pool(4_096, 8, Policy::Ttl), Arc::default());
    let a = version(1, 128, 0);
    let all: Vec<_> = (0..3).map(|_| start(granted(&mut claim(&pool, &a)), &count)).collect();
    for instance in all {
        pool.put(instance, pool.shared.clock.instant());
    }
    let mut probed = std::collections::BTreeSet::new();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let aside = pool.take_aside_to_probe(Duration::from_secs(1));
        assert_eq!((aside.len(), pool.count((1, 1))), (2, 1));
        for instance in aside {
            probed.insert(instance.lease.id());
            pool.proved(instance);
        }
    }
    assert_eq!(probed.len(), 3);
}

#[derive(Debug, Clone)]
enum Step {
    Arrive(u64),
    GiveUp(prop::sample::Index),
    Return(prop::sample::Index),
    Crash(prop::sample::Index),
    Ahead(u64),
    Forget(u64),
    Tend,
    Probe,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        6 => (0..5u64).prop_map(Step::Arrive),
        1 => index().prop_map(Step::GiveUp),
        4 => index().prop_map(Step::Return),
        1 => index().prop_map(Step::Crash),
        1 => (0..5u64).prop_map(Step::Ahead),
        1 => (0..5u64).prop_map(Step::Forget),
        1 => Just(Step::Tend),
        1 => Just(Step::Probe),
        1 => (1..400u64).prop_map(Step::Pass),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    prop::sample::select(vec!["ttl", "lru", "greedy-dual", "landlord", "hybrid"])
        .prop_map(|name| Policy::parse(name).expect("a policy"))
}

async fn check(pool: &Pool, busy: &[Instance], count: &Arc<Lock<usize>>) -> Result<(), TestCaseError> {
    let holdings = pool.holdings();
    let right = pool.check_up();
    prop_assert!(right.healthy, "{}", right.detail);
    prop_assert!(holdings.memory.charged <= 1_000 << 20 && holdings.cpu.charged <= 4_000);
    prop_assert!(holdings.gpus.iter().all(|gpu| gpu.slots_charged <= gpu.slots));
    // A busy one is alive: whoever has it still has its sandbox, and the pool still charges for it.
    let listed = pool.list();
    for instance in busy {
        let status = listed.iter().find(|status| status.id == instance.lease.id());
        prop_assert_eq!(status.map(|status| status.memory), Some(need(&instance.lease.record.version).memory));
    }
    prop_assert!(*count.lock() <= listed.len());
    Ok(())
}

async fn play(policy: Policy, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (pool, count) = (pool(1_000, 4, policy), Arc::<Lock<usize>>::default());
    let versions =
        [version(0, 100, 0), version(1, 300, 0), version(2, 1_000, 0), version(3, 200, 1), version(4, 128, 2)];
    let mut waiting: Vec<(Arc<FunctionVersion>, Claim)> = Vec::new();
    let mut busy: Vec<Instance> = Vec::new();
    for step in steps {
        match step {
            Step::Arrive(n) => {
                let version = versions[n as usize].clone();
                let claim = claim(&pool, &version);
                waiting.push((version, claim));
            }
            Step::GiveUp(n) if !waiting.is_empty() => drop(waiting.remove(n.index(waiting.len()))),
            Step::Return(n) if !busy.is_empty() => {
                let instance = busy.swap_remove(n.index(busy.len()));
                pool.put(instance, pool.shared.clock.instant());
            }
            Step::Crash(n) if !busy.is_empty() => {
                let mut instance = busy.swap_remove(n.index(busy.len()));
                pool.retire(&mut instance.lease, true);
            }
            Step::Ahead(n) => {
                let now = pool.shared.clock.instant();
                let version = &versions[n as usize];
                pool.shared.state.lock().shelf(version, need(version), now);
                if let Some(lease) = pool.try_claim_ahead(version, usize::MAX) {
                    pool.put(start(Grant::Start(lease), &count), now);
                }
            }
            Step::Forget(n) => pool.forget(n, None),
            Step::Tend => drop(pool.tend(200 << 20)),
            Step::Probe => {
                for (n, instance) in pool.take_aside_to_probe(Duration::from_secs(30)).into_iter().enumerate() {
                    match n % 3 {
                        0 => pool.failed_probe(instance),
                        1 => pool.rests(instance, Some(1 << 20)),
                        _ => pool.proved(instance),
                    }
                }
            }
            Step::Pass(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            Step::GiveUp(_) | Step::Return(_) | Step::Crash(_) => {}
        }
        settle().await;
        let mut still = Vec::new();
        for (version, mut claim) in waiting {
            match poll(&mut claim) {
                Poll::Ready(grant) => {
                    let mut instance = start(grant.expect("the pool is there"), &count);
                    prop_assert_eq!(&instance.lease.record.version, &version);
                    instance.lease.hibernated = false;
                    busy.push(instance);
                }
                Poll::Pending => still.push((version, claim)),
            }
        }
        waiting = still;
        settle().await;
        check(&pool, &busy, &count).await?;
    }
    // No wake-up is lost: as busy ones return, everyone who waits is served.
    for _ in 0..500 {
        if busy.is_empty() && waiting.is_empty() {
            break;
        }
        if let Some(instance) = busy.pop() {
            pool.put(instance, pool.shared.clock.instant());
        }
        settle().await;
        let mut still = Vec::new();
        for (version, mut claim) in waiting {
            match poll(&mut claim) {
                Poll::Ready(grant) => busy.push(start(grant.expect("the pool is there"), &count)),
                Poll::Pending => still.push((version, claim)),
            }
        }
        waiting = still;
    }
    prop_assert!(waiting.is_empty(), "{} still wait", waiting.len());
    drop(busy);
    drop(pool.take_all(Reason::Cleaned));
    settle().await;
    prop_assert!(pool.list().is_empty() && *count.lock() == 0);
    prop_assert_eq!((pool.holdings().memory.charged, pool.holdings().gpu.charged), (0, 0));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn whatever_happens_nothing_is_over_committed_lost_or_left_behind(
        policy in policy(),
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(play(policy, steps))?;
    }
}
