//! What the queue promises whatever its policy: bounds, places that come back, nobody forgotten.

mod fairness;
mod orders;
mod processors;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::*;
use crate::fixtures;

type Admit = Pin<Box<dyn Future<Output = Result<Permit, Refused>>>>;

/// Every second function has an instance; calls may hold so much processor time.
struct EverySecond(Option<u64>);

impl Instances for EverySecond {
    fn ready(&self, version: &Record) -> Start {
        if version.key().0.is_multiple_of(2) { Start::Warm } else { Start::Cold }
    }

    fn processors(&self) -> Option<u64> {
        self.0
    }
}

const MS: Duration = Duration::from_millis(1);

fn under_virtual_time<T>(test: impl AsyncFnOnce(Clock) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(test(Clock::system()))
}

struct Bed {
    queue: Queue,
    clock: Clock,
}

impl Bed {
    fn new(limits: (usize, usize, usize), config: &Config) -> Bed {
        Bed::on(limits, config, None)
    }

    fn on(limits: (usize, usize, usize), config: &Config, processors: Option<u64>) -> Bed {
        let (running, queued, queued_per_function) = limits;
        let clock = Clock::system();
        let limits = Limits { running, queued, queued_per_function };
        Bed { queue: Queue::new(limits, config, Arc::new(EverySecond(processors)), clock.clone()), clock }
    }

    fn arrive(&self, record: &Arc<Record>, concurrency: usize) -> Admit {
        self.arrive_with(record, concurrency, 0)
    }

    fn arrive_with(&self, record: &Arc<Record>, concurrency: usize, cpu: u64) -> Admit {
        let (queue, record, arrived) = (self.queue.clone(), record.clone(), self.clock.instant());
        let mut admit: Admit =
            Box::pin(async move { queue.admit(Ask { record: &record, concurrency, cpu, arrived }).await });
        // What a call is told at once is kept for the next poll.
        match poll(&mut admit) {
            Poll::Ready(outcome) => Box::pin(std::future::ready(outcome)),
            Poll::Pending => admit,
        }
    }

    /// Calls that run, calls that wait.
    fn counts(&self) -> (usize, usize) {
        let lengths = self.queue.lengths();
        (lengths.running, lengths.held + lengths.eligible)
    }
}

fn poll(admit: &mut Admit) -> Poll<Result<Permit, Refused>> {
    admit.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn permit(admit: &mut Admit) -> Permit {
    match poll(admit) {
        Poll::Ready(Ok(permit)) => permit,
        other => panic!("no place: {:?}", other.map(|outcome| outcome.map(|_| ()))),
    }
}

fn function(generation: u64) -> Arc<Record> {
    fixtures::record("default", generation, MS)
}

fn of(policy: PolicyKind) -> Config {
    Config { policy, ..Config::default() }
}

#[test]
fn a_function_at_its_limit_does_not_hold_up_another() {
    for policy in PolicyKind::ALL {
        let bed = Bed::new((4, 10, 10), &of(policy));
        let (one, two) = (function(1), function(2));
        let (mut first, mut second, mut other) = (bed.arrive(&one, 1), bed.arrive(&one, 1), bed.arrive(&two, 1));
        let first = permit(&mut first);
        assert!(poll(&mut second).is_pending());
        drop(permit(&mut other));
        drop(first);
        drop(permit(&mut second));
    }
}

#[test]
fn refuses_when_full_and_tells_which_queue() {
    for policy in PolicyKind::ALL {
        let bed = Bed::new((1, 2, 1), &of(policy));
        let _running = permit(&mut bed.arrive(&function(1), 1));
        let mut held = bed.arrive(&function(1), 1);
        assert!(poll(&mut held).is_pending());
        assert!(matches!(poll(&mut bed.arrive(&function(1), 1)), Poll::Ready(Err(Refused::FunctionFull))));
        let mut eligible = bed.arrive(&function(2), 9);
        assert!(poll(&mut eligible).is_pending());
        assert!(matches!(poll(&mut bed.arrive(&function(3), 9)), Poll::Ready(Err(Refused::WorkerFull))));
        let lengths = bed.queue.lengths();
        assert_eq!((lengths.running, lengths.held, lengths.eligible, lengths.limit), (1, 1, 1, 1));
        bed.queue.close();
        assert!(matches!(poll(&mut held), Poll::Ready(Err(Refused::Closed))));
        assert!(matches!(poll(&mut bed.arrive(&function(4), 1)), Poll::Ready(Err(Refused::Closed))));
        drop(eligible);
        assert_eq!(bed.counts(), (1, 0));
    }
}

#[test]
fn a_call_is_told_how_long_it_waited_behind_which_limit() {
    under_virtual_time(async |clock| {
        let bed = Bed::new((1, 9, 9), &Config::default());
        let (one, two) = (function(1), function(2));
        let first = permit(&mut bed.arrive(&one, 1));
        assert_eq!(first.waited(), None);
        let (mut other, mut held) = (bed.arrive(&two, 1), bed.arrive(&one, 1));
        clock.sleep(30 * MS).await;
        drop(first);
        let other = permit(&mut other);
        assert_eq!(other.waited(), Some(Waited { held: Duration::ZERO, eligible: 30 * MS, aged: false }));
        clock.sleep(12 * MS).await;
        drop(other);
        assert_eq!(permit(&mut held).waited(), Some(Waited { held: 30 * MS, eligible: 12 * MS, aged: false }));
    });
}

#[test]
fn short_calls_with_an_instance_run_outside_of_the_limit_within_a_bound() {
    let config = Config { bypass: Some(Bypass { below: 5 * MS, most: 2 }), ..Config::default() };
    let bed = Bed::new((1, 9, 9), &config);
    let _running = permit(&mut bed.arrive(&function(1), 9));
    let warm = function(2);
    let table = [
        ("it has no instance", function(3), 9, false),
        ("it is long", fixtures::record("default", 4, 6 * MS), 9, false),
        ("it was never measured", Record::new(&fixtures::version("default", 6, 1)), 9, false),
        ("short and warm", warm.clone(), 2, true),
        ("short and warm again", warm.clone(), 2, true),
        ("its function is at its limit", warm, 2, false),
        ("as many run outside as may", function(8), 9, false),
    ];
    let mut kept = Vec::new();
    for (what, record, concurrency, runs) in table {
        let mut admit = bed.arrive(&record, concurrency);
        let outcome = poll(&mut admit);
        assert_eq!(outcome.is_ready(), runs, "{what}");
        if let Poll::Ready(Ok(permit)) = outcome {
            assert!(permit.bypasses());
            kept.push(permit);
        }
    }
    let lengths = bed.queue.lengths();
    assert_eq!((lengths.running, lengths.bypassing), (3, 2));
    kept.clear();
    assert_eq!((bed.queue.lengths().running, bed.queue.lengths().bypassing), (1, 0));
}

#[test]
fn a_limit_that_grows_lets_those_in_that_wait_and_one_that_shrinks_stops_nobody() {
    let adaptive = Adaptive {
        min: std::num::NonZeroUsize::MIN,
        increase: std::num::NonZeroUsize::MIN,
        target_percent: 50,
        keep_percent: 50,
        ..Adaptive::default()
    };
    let bed = Bed::new((3, 9, 9), &Config { adaptive: Some(adaptive), ..Config::default() });
    let mut calls: Vec<_> = (0..5).map(|_| bed.arrive(&function(1), 9)).collect();
    let mut running = vec![permit(&mut calls[0])];
    assert_eq!((bed.counts(), bed.queue.adapt(10)), ((1, 4), 2));
    running.push(permit(&mut calls[1]));
    assert_eq!((bed.queue.adapt(50), bed.queue.adapt(10), bed.queue.adapt(10)), (2, 3, 3));
    running.push(permit(&mut calls[2]));
    assert_eq!((bed.queue.adapt(90), bed.counts()), (1, (3, 2)));
    drop(running.pop());
    drop(running.pop());
    assert!(poll(&mut calls[3]).is_pending());
    drop(running.pop());
    drop((permit(&mut calls[3]), calls));
    assert_eq!(bed.counts(), (0, 0));
}

#[derive(Debug, Clone)]
enum Step {
    Arrive {
        function: u64,
    },
    GiveUp(prop::sample::Index),
    End(prop::sample::Index),
    /// Looks at a waiting call only now, so that it may be dropped between its grant and its next poll.
    Look(prop::sample::Index),
    Adapt(u32),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..6u64).prop_map(|function| Step::Arrive { function }),
        2 => any::<prop::sample::Index>().prop_map(Step::GiveUp),
        6 => any::<prop::sample::Index>().prop_map(Step::End),
        6 => any::<prop::sample::Index>().prop_map(Step::Look),
        1 => (0..100u32).prop_map(Step::Adapt),
        2 => (0..4_000u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..200)
}

fn configs() -> impl Strategy<Value = Config> {
    let policy = prop::sample::select(PolicyKind::ALL.to_vec());
    (policy, any::<bool>(), any::<bool>(), 0..3u64).prop_map(|(policy, bypass, adapts, throttle)| Config {
        policy,
        bypass: bypass.then_some(Bypass { below: 3 * MS, most: 2 }),
        adaptive: adapts.then(|| Adaptive { min: std::num::NonZeroUsize::MIN, ..Adaptive::default() }),
        fair_share: FairShare { throttle: Duration::from_millis(throttle), ..FairShare::default() },
        ..Config::default()
    })
}

/// Whatever comes, goes or gives up, in whatever order: limits hold, nobody is forgotten, and the end is empty.
async fn run(
    steps: Vec<Step>,
    running: usize,
    processors: Option<u64>,
    config: &Config,
    clock: Clock,
) -> Result<(), TestCaseError> {
    const PER_FUNCTION: usize = 2;
    let bed = Bed::on((running, 20, 10), config, processors);
    // Half of the functions have no processor of their own.
    let cpu = |function: u64| [0, 500, 0, 1_000, 0, 700][function as usize];
    let tenants = ["default", "team-a", "team-b"];
    let functions: Vec<_> =
        (0..6u64).map(|id| fixtures::record(tenants[id as usize % 3], id, Duration::from_millis(1 + id % 4))).collect();
    let mut waiting: Vec<(u64, Admit)> = Vec::new();
    let mut permits: Vec<(u64, Permit)> = Vec::new();
    for step in steps {
        match step {
            Step::Arrive { function } => {
                let mut admit = bed.arrive_with(&functions[function as usize], PER_FUNCTION, cpu(function));
                match poll(&mut admit) {
                    Poll::Ready(Ok(permit)) => permits.push((function, permit)),
                    Poll::Ready(Err(_)) => {}
                    Poll::Pending => waiting.push((function, admit)),
                }
            }
            Step::GiveUp(index) if !waiting.is_empty() => drop(waiting.swap_remove(index.index(waiting.len()))),
            Step::End(index) if !permits.is_empty() => drop(permits.swap_remove(index.index(permits.len()))),
            Step::Look(index) if !waiting.is_empty() => {
                let index = index.index(waiting.len());
                if let Poll::Ready(Ok(permit)) = poll(&mut waiting[index].1) {
                    permits.push((waiting.swap_remove(index).0, permit));
                }
            }
            Step::Adapt(load) => drop(bed.queue.adapt(load)),
            Step::Pass(millis) => clock.sleep(Duration::from_millis(millis)).await,
            _ => {}
        }
        let lengths = bed.queue.lengths();
        prop_assert!(lengths.running - lengths.bypassing <= running && lengths.held + lengths.eligible <= 20);
        let most_bypassing = config.bypass.as_ref().map_or(0, |bypass| bypass.most);
        prop_assert!(lengths.bypassing <= most_bypassing);
        prop_assert!(permits.len() <= lengths.running);
        let held: u64 = permits.iter().filter(|(_, permit)| !permit.bypasses()).map(|(of, _)| cpu(*of)).sum();
        prop_assert!(processors.is_none_or(|total| held <= total), "{held} held");
        for function in 0..6 {
            prop_assert!(permits.iter().filter(|(of, _)| *of == function).count() <= PER_FUNCTION);
        }
    }
    // Whoever still waits is let in as the others end.
    while !waiting.is_empty() {
        permits.clear();
        let before = waiting.len();
        let mut still = Vec::new();
        for (function, mut admit) in waiting {
            match poll(&mut admit) {
                Poll::Ready(Ok(permit)) => permits.push((function, permit)),
                Poll::Ready(Err(error)) => prop_assert!(false, "{error}"),
                Poll::Pending => still.push((function, admit)),
            }
        }
        prop_assert!(still.len() < before, "somebody waits for ever");
        waiting = still;
    }
    permits.clear();
    prop_assert_eq!(bed.counts(), (0, 0));
    prop_assert!(bed.queue.shared.places.lock().is_empty());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn limits_hold_and_nobody_is_forgotten_by_any_policy(
        steps in steps(), running in 1..5usize, processors in prop::option::of(1_000..2_500u64), config in configs(),
    ) {
        under_virtual_time(async |clock| run(steps, running, processors, &config, clock).await)?;
    }

    /// Calls of one version run in the order in which they came, whatever the policy.
    #[test]
    fn calls_of_a_version_run_in_the_order_of_arrival(
        calls in 1..30usize, policy in prop::sample::select(PolicyKind::ALL.to_vec()), concurrency in 1..4usize,
    ) {
        let bed = Bed::new((1, 100, 100), &of(policy));
        let one = function(1);
        let mut waiting: Vec<Admit> = (0..calls).map(|_| bed.arrive(&one, concurrency)).collect();
        for call in 0..calls {
            let permit = poll(&mut waiting[call]);
            prop_assert!(matches!(permit, Poll::Ready(Ok(_))));
            for later in waiting.iter_mut().skip(call + 1) {
                prop_assert!(poll(later).is_pending());
            }
        }
    }
}
