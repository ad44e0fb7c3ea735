//! What the queue promises: order, bounds, fairness, and places that come back.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::*;

type Admit = Pin<Box<dyn Future<Output = Result<Permit, Refused>>>>;

fn arrive(queue: &Queue, function: u64, concurrency: usize) -> Admit {
    let queue = queue.clone();
    Box::pin(async move { queue.admit(function, concurrency).await })
}

fn poll(admit: &mut Admit) -> Poll<Result<Permit, Refused>> {
    admit.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn queue(running: usize, queued: usize, queued_per_function: usize) -> Queue {
    Queue::new(Limits { running, queued, queued_per_function })
}

#[test]
fn a_function_at_its_limit_does_not_hold_up_another() {
    let queue = queue(4, 10, 10);
    let (mut first, mut second, mut other) = (arrive(&queue, 1, 1), arrive(&queue, 1, 1), arrive(&queue, 2, 1));
    let Poll::Ready(Ok(permit)) = poll(&mut first) else { panic!("the first call runs at once") };
    assert!(poll(&mut second).is_pending());
    assert!(matches!(poll(&mut other), Poll::Ready(Ok(_))));
    drop(permit);
    assert!(matches!(poll(&mut second), Poll::Ready(Ok(_))));
}

#[test]
fn refuses_when_full_and_tells_which_queue() {
    let queue = queue(1, 2, 1);
    let mut running = arrive(&queue, 1, 1);
    let Poll::Ready(Ok(_permit)) = poll(&mut running) else { panic!("runs") };
    let mut held = arrive(&queue, 1, 1);
    assert!(poll(&mut held).is_pending());
    assert!(matches!(poll(&mut arrive(&queue, 1, 1)), Poll::Ready(Err(Refused::FunctionFull))));
    let mut eligible = arrive(&queue, 2, 9);
    assert!(poll(&mut eligible).is_pending());
    assert!(matches!(poll(&mut arrive(&queue, 3, 9)), Poll::Ready(Err(Refused::WorkerFull))));
    queue.close();
    assert!(matches!(poll(&mut held), Poll::Ready(Err(Refused::Closed))));
    assert!(matches!(poll(&mut arrive(&queue, 4, 1)), Poll::Ready(Err(Refused::Closed))));
    drop(eligible);
    assert_eq!(queue.len(), (1, 0));
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
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..4u64).prop_map(|function| Step::Arrive { function }),
        1 => any::<prop::sample::Index>().prop_map(Step::GiveUp),
        3 => any::<prop::sample::Index>().prop_map(Step::End),
        3 => any::<prop::sample::Index>().prop_map(Step::Look),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    /// Whatever comes, goes or gives up, in whatever order: limits hold, nobody is forgotten, and the end is empty.
    #[test]
    fn limits_hold_and_nobody_is_forgotten(steps in steps(), running in 1..5usize) {
        const PER_FUNCTION: usize = 2;
        let queue = queue(running, 20, 10);
        let mut waiting: Vec<(u64, Admit)> = Vec::new();
        let mut permits: Vec<(u64, Permit)> = Vec::new();
        for step in steps {
            match step {
                Step::Arrive { function } => {
                    let mut admit = arrive(&queue, function, PER_FUNCTION);
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
                _ => {}
            }
            let (running_now, queued_now) = queue.len();
            prop_assert!(running_now <= running && queued_now <= 20);
            prop_assert!(permits.len() <= running_now);
            for function in 0..4 {
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
        prop_assert_eq!(queue.len(), (0, 0));
        prop_assert!(queue.state.lock().is_empty());
    }

    /// Calls of one function run in the order in which they came.
    #[test]
    fn runs_in_the_order_of_arrival(calls in 1..30usize) {
        let queue = queue(1, 100, 100);
        let mut waiting: Vec<Admit> = (0..calls).map(|_| arrive(&queue, 1, 1)).collect();
        let mut polled: Vec<_> = waiting.iter_mut().map(poll).collect();
        for call in 0..calls {
            let outcome = std::mem::replace(&mut polled[call], Poll::Pending);
            let permit = if outcome.is_ready() { outcome } else { poll(&mut waiting[call]) };
            prop_assert!(matches!(permit, Poll::Ready(Ok(_))));
            for later in waiting.iter_mut().skip(call + 1) {
                prop_assert!(poll(later).is_pending());
            }
        }
    }
}
