//! Measures what the invocation queue costs: to let a call in and out where nobody waits, and with a thousand calls
//! waiting, by policy. Prints nanoseconds, the median of several rounds; nothing else should run meanwhile.
//!
//! `cargo run --release -p lyra-worker --example queue_bench`
#![expect(clippy::print_stdout, reason = "what it measured goes to stdout")]

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use lyra_kit::Clock;
use lyra_types::function::Digest;
use lyra_types::invocation::Start;
use lyra_types::{FunctionName, FunctionVersion, Runtime};
use lyra_worker::characteristics::{Characteristics, Record};
use lyra_worker::queue::{Ask, Config, Instances, Limits, Permit, PolicyKind, Queue, Refused};

const FUNCTIONS: usize = 8;
const WAITING: usize = 1_000;
const ROUNDS: usize = 7;

struct AllWarm;

impl Instances for AllWarm {
    fn ready(&self, _: &Record) -> Start {
        Start::Warm
    }
}

type Admit = Pin<Box<dyn Future<Output = Result<Permit, Refused>>>>;

struct Bench {
    queue: Queue,
    records: Vec<Arc<Record>>,
    clock: Clock,
}

impl Bench {
    fn new(policy: PolicyKind, running: usize) -> Bench {
        let clock = Clock::system();
        let limits = Limits { running, queued: 10_000, queued_per_function: 10_000 };
        let config = Config { policy, ..Config::default() };
        let queue = Queue::new(limits, &config, Arc::new(AllWarm), clock.clone());
        let store = Characteristics::open(Default::default(), clock.clone());
        let records = (0..FUNCTIONS).map(|n| store.of(&version(n))).collect();
        Bench { queue, records, clock }
    }

    fn uncontended(&self, calls: usize) -> u128 {
        let mut context = Context::from_waker(Waker::noop());
        let arrived = self.clock.instant();
        let began = self.clock.instant();
        for n in 0..calls {
            let ask = Ask { record: &self.records[n % FUNCTIONS], concurrency: 100, cpu: 0, arrived };
            let admit = std::pin::pin!(self.queue.admit(ask));
            assert!(matches!(admit.poll(&mut context), Poll::Ready(Ok(_permit))), "there is a place");
        }
        began.elapsed().as_nanos() / calls as u128
    }

    fn arrive(&self, n: usize) -> Admit {
        let (queue, record, arrived) = (self.queue.clone(), self.records[n % FUNCTIONS].clone(), self.clock.instant());
        let mut admit: Admit =
            Box::pin(async move { queue.admit(Ask { record: &record, concurrency: 20_000, cpu: 0, arrived }).await });
        assert!(admit.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending(), "there is no place");
        admit
    }

    /// One comes, one goes, with so many waiting; the order of the policy decides whose turn it is.
    fn contended(&self, calls: usize) -> u128 {
        let mut context = Context::from_waker(Waker::noop());
        let ask = Ask { record: &self.records[0], concurrency: 20_000, cpu: 0, arrived: self.clock.instant() };
        let Poll::Ready(Ok(first)) = std::pin::pin!(self.queue.admit(ask)).poll(&mut context) else {
            unreachable!("the first call has a place")
        };
        let mut permit = Some(first);
        let mut waiting: VecDeque<Admit> = (0..WAITING).map(|n| self.arrive(n)).collect();
        let began = self.clock.instant();
        for n in 0..calls {
            waiting.push_back(self.arrive(n));
            drop(permit.take());
            // All functions look alike to every policy, so the oldest is next or near: the search is short.
            let next = waiting.iter_mut().enumerate().find_map(|(at, admit)| match admit.as_mut().poll(&mut context) {
                Poll::Ready(Ok(permit)) => Some((at, permit)),
                _ => None,
            });
            let Some((at, granted)) = next else { unreachable!("somebody has the place") };
            drop(waiting.remove(at));
            permit = Some(granted);
        }
        began.elapsed().as_nanos() / calls as u128
    }
}

fn version(n: usize) -> FunctionVersion {
    FunctionVersion {
        generation: n as u64,
        max_instances: 0,
        max_attempts: 1,
        ..FunctionVersion::new(
            FunctionName::new(&format!("f{n}")).expect("a valid name"),
            Runtime::Js,
            Digest(String::new()),
        )
    }
}

fn median(mut measured: Vec<u128>) -> u128 {
    measured.sort_unstable();
    measured[measured.len() / 2]
}

fn main() {
    println!("{:<20} {:>16} {:>20}", "policy", "uncontended, ns", "1,000 waiting, ns");
    for policy in PolicyKind::ALL {
        let free = median((0..ROUNDS).map(|_| Bench::new(policy, 10).uncontended(500_000)).collect());
        let full = median((0..ROUNDS).map(|_| Bench::new(policy, 1).contended(100_000)).collect());
        println!("{:<20} {free:>16} {full:>20}", policy.as_str());
    }
}
