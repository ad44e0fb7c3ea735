//! Calls that hold a processor each wait for one in the policy's order, and hold up none that need no processor.

use std::sync::atomic::AtomicU64;

use super::*;

fn of_tenant(tenant: &str, generation: u64) -> Arc<Record> {
    fixtures::record(tenant, generation, 10 * MS)
}

fn fair() -> Config {
    let fair_share = FairShare { throttle: Duration::ZERO, ..FairShare::default() };
    Config { policy: PolicyKind::FairShare, fair_share, ..Config::default() }
}

#[test]
fn who_waits_for_a_processor_is_let_in_by_the_policy_and_not_by_arrival() {
    under_virtual_time(async |clock| {
        let bed = Bed::on((100, 100, 100), &fair(), Some(1_000));
        let (greedy, modest) = (of_tenant("greedy", 1), of_tenant("modest", 2));
        let running = permit(&mut bed.arrive_with(&greedy, 100, 1_000));
        let mut flood: Vec<_> = (0..10).map(|_| bed.arrive_with(&greedy, 100, 1_000)).collect();
        let mut other = bed.arrive_with(&modest, 100, 1_000);
        let lengths = bed.queue.lengths();
        assert_eq!((lengths.running, lengths.eligible, lengths.cpu_waiting), (1, 11, 11_000));
        clock.sleep(10 * MS).await;
        drop(running);
        let other = permit(&mut other);
        assert!(other.waited().is_some() && flood.iter_mut().all(|call| poll(call).is_pending()));
        clock.sleep(20 * MS).await;
        drop(other);
        drop(permit(&mut flood[0]));
        drop(flood);
        assert!(bed.queue.shared.places.lock().is_empty());
    });
}

#[test]
fn calls_without_a_processor_of_their_own_pass_those_that_wait_for_one() {
    for policy in PolicyKind::ALL {
        let bed = Bed::on((2, 9, 9), &of(policy), Some(1_000));
        let heavy = permit(&mut bed.arrive_with(&function(1), 9, 1_000));
        let mut waits = bed.arrive_with(&function(1), 9, 1_000);
        assert!(poll(&mut waits).is_pending());
        let light = permit(&mut bed.arrive(&function(2), 9));
        // Now the limit of calls is reached, too.
        let mut late = bed.arrive(&function(2), 9);
        assert!(poll(&mut late).is_pending());
        drop(light);
        let late = permit(&mut late);
        assert!(poll(&mut waits).is_pending(), "there is no processor for it");
        drop((heavy, late));
        drop(permit(&mut waits));
        assert_eq!(bed.counts(), (0, 0));
    }
}

#[test]
fn nobody_passes_the_one_whose_turn_it_is_and_its_going_lets_the_next_one_in() {
    for policy in [PolicyKind::Fcfs, PolicyKind::FairShare, PolicyKind::ColdPriority] {
        let bed = Bed::on((9, 9, 9), &of(policy), Some(1_000));
        let half = || permit(&mut bed.arrive_with(&function(1), 9, 500));
        let (first, second) = (half(), half());
        let (mut large, mut small) = (bed.arrive_with(&function(1), 9, 1_000), bed.arrive_with(&function(1), 9, 500));
        drop(first);
        assert!(poll(&mut large).is_pending() && poll(&mut small).is_pending(), "half of what its turn needs is free");
        drop(large);
        drop((permit(&mut small), second));
        assert!(bed.queue.shared.places.lock().is_empty());
    }
}

#[test]
fn a_call_that_asks_for_more_than_there_is_keeps_nobody_waiting() {
    let bed = Bed::on((9, 9, 9), &Config::default(), Some(1_000));
    let _running = permit(&mut bed.arrive_with(&function(1), 9, 1_000));
    // The pool refuses it, after its time.
    let _impossible = permit(&mut bed.arrive_with(&function(2), 9, 1_001));
    assert_eq!(bed.queue.lengths().running, 2);
}

/// Processors that become more and fewer.
struct Changing(AtomicU64);

impl Instances for Changing {
    fn ready(&self, _: &Record) -> Start {
        Start::Warm
    }

    fn processors(&self) -> Option<u64> {
        Some(self.0.load(std::sync::atomic::Ordering::Relaxed))
    }
}

#[test]
fn what_others_give_back_is_given_out_at_the_next_look_and_what_they_take_stops_nobody() {
    let clock = Clock::system();
    let processors = Arc::new(Changing(AtomicU64::new(1_000)));
    let limits = Limits { running: 9, queued: 9, queued_per_function: 9 };
    let bed = Bed { queue: Queue::new(limits, &Config::default(), processors.clone(), clock.clone()), clock };
    let set = |millis| processors.0.store(millis, std::sync::atomic::Ordering::Relaxed);
    let mut calls: Vec<_> = (0..3).map(|_| bed.arrive_with(&function(1), 9, 1_000)).collect();
    let first = permit(&mut calls[0]);
    assert!(poll(&mut calls[1]).is_pending());
    set(2_000);
    bed.queue.look_again();
    let second = permit(&mut calls[1]);
    assert!(poll(&mut calls[2]).is_pending());
    set(500);
    drop(first);
    assert!(poll(&mut calls[2]).is_pending());
    drop(second);
    drop(permit(&mut calls[2]));
    assert!(bed.queue.shared.places.lock().is_empty());
}
