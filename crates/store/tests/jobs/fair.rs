//! Fair shares: whose due jobs are leased where there are fewer places than jobs.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use lyra_store::jobs::{Jobs, LeaseRequest, LeasedJob, NewJob, Outcome};
use lyra_types::{Code, Error, FunctionName, TenantName};

use super::{Subject, TTL, at, new, request};

fn named(name: &str) -> TenantName {
    TenantName::new(name).unwrap()
}

/// Hands in the jobs of these numbers.
async fn accept(jobs: &dyn Jobs, tenant: &str, function: &str, numbers: impl IntoIterator<Item = u32>) {
    let accepts =
        numbers.into_iter().map(|number| jobs.accept(NewJob { tenant: named(tenant), ..new(function, number) }));
    futures::future::try_join_all(accepts).await.unwrap();
}

/// How many of the jobs are of each tenant's functions.
fn counted(jobs: &[LeasedJob]) -> HashMap<(TenantName, FunctionName), usize> {
    let mut counts = HashMap::new();
    for leased in jobs {
        *counts.entry((leased.job.tenant.clone(), leased.job.function.clone())).or_default() += 1;
    }
    counts
}

fn of(jobs: &[LeasedJob], tenant: &str) -> usize {
    jobs.iter().filter(|leased| leased.job.tenant == named(tenant)).count()
}

pub async fn tenants_share_the_places_whoever_came_first(subject: impl Subject) {
    let jobs = subject.jobs();
    accept(jobs, "greedy", "f", 0..60).await;
    accept(jobs, "greedy", "g", 60..120).await;
    let mut held = jobs.lease(request(1, at(200), 8)).await.unwrap().jobs;
    assert_eq!(of(&held, "greedy"), 8, "nobody else was there");
    accept(jobs, "meek", "f", 130..132).await;
    accept(jobs, "modest", "f", 140..160).await;
    let asked = |held: &[LeasedJob], places| LeaseRequest {
        running: counted(held),
        after: held.last().map(|last| last.job.tenant.clone()),
        ..request(1, at(200), places)
    };
    // A place becomes free, then another: they go to those who hold none.
    for tenant in ["meek", "modest"] {
        let ended = held.remove(0);
        jobs.finish(ended.lease(), at(200), Outcome::Succeeded(Bytes::new())).await.unwrap();
        let next = jobs.lease(asked(&held, 1)).await.unwrap().jobs;
        assert_eq!(of(&next, tenant), 1, "{next:?}");
        held.extend(next);
    }
    // Many at once: until each that has enough jobs holds as many.
    held.extend(jobs.lease(asked(&held, 12)).await.unwrap().jobs);
    let shares = ["greedy", "meek", "modest"].map(|tenant| of(&held, tenant));
    assert_eq!(shares, [9, 2, 9]);
}

pub async fn tenants_take_turns_for_a_single_place(subject: impl Subject) {
    let jobs = subject.jobs();
    for (n, tenant) in (0..).zip(["c", "a", "b"]) {
        accept(jobs, tenant, "f", n * 10..n * 10 + 5).await;
    }
    let (mut last, mut turns) = (None, String::new());
    for _ in 0..15 {
        let leased = jobs.lease(LeaseRequest { after: last, ..request(1, at(100), 1) }).await.unwrap().jobs.remove(0);
        jobs.finish(leased.lease(), at(100), Outcome::Succeeded(Bytes::new())).await.unwrap();
        turns.push_str(leased.job.tenant.as_str());
        last = Some(leased.job.tenant);
    }
    assert_eq!(turns, "abcabcabcabcabc");
}

pub async fn who_is_alone_has_every_place_and_each_function_a_share(subject: impl Subject) {
    let jobs = subject.jobs();
    accept(jobs, "alone", "first", 0..20).await;
    accept(jobs, "alone", "second", 20..40).await;
    accept(jobs, "alone", "third", [41]).await;
    let held = jobs.lease(request(1, at(100), 11)).await.unwrap().jobs;
    assert_eq!(held.len(), 11);
    let mut shares: Vec<usize> = counted(&held).into_values().collect();
    shares.sort_unstable();
    assert_eq!(shares, [1, 5, 5]);
    assert_eq!(held[0].job.id, new("first", 0).id, "who is due first comes first");
    let rest = jobs.lease(LeaseRequest { running: counted(&held), ..request(1, at(100), 99) }).await.unwrap().jobs;
    assert_eq!(rest.len(), 30);
}

pub async fn ten_thousand_jobs_that_may_not_run_hold_up_nobody(subject: impl Subject) {
    let jobs = subject.jobs();
    let now = at(20_000);
    // In parts, since a store takes so many at once only.
    for part in 0..6 {
        accept(jobs, "greedy", "slow", part * 2_000..(part + 1) * 2_000).await;
    }
    accept(jobs, "greedy", "quick", [12_001]).await;
    accept(jobs, "meek", "f", [12_002]).await;
    let most = |places| LeaseRequest { per_function: 4, ..request(1, now, places) };
    let held = jobs.lease(most(5)).await.unwrap().jobs;
    assert_eq!((of(&held, "meek"), counted(&held).len(), held.len()), (1, 3, 5));
    let running = counted(&held);
    let held = jobs.lease(LeaseRequest { running, ..most(8) }).await.unwrap().jobs;
    assert_eq!(held.len(), 1, "of the slow one no more may run");
    accept(jobs, "meek", "f", [12_003]).await;
    let slow = (named("greedy"), FunctionName::new("slow").unwrap());
    let leased = jobs.lease(LeaseRequest { running: [(slow, 4)].into(), ..most(60) }).await.unwrap();
    assert_eq!((of(&leased.jobs, "meek"), leased.jobs.len()), (1, 1));
    assert_eq!(leased.next, Some(now + TTL), "nothing else comes before the end of a lease");
}

pub async fn the_next_look_is_when_something_can_be_given(subject: impl Subject) {
    let jobs = subject.jobs();
    accept(jobs, "t", "slow", 0..9).await;
    accept(jobs, "t", "fails", [10]).await;
    let one = |now| LeaseRequest { per_function: 1, ttl: Duration::from_secs(1_000), ..request(1, now, 9) };
    let held = jobs.lease(one(at(20))).await.unwrap();
    assert_eq!((held.jobs.len(), held.next), (2, Some(at(1_020))));
    let failed = held.jobs.iter().find(|leased| leased.job.function.as_str() == "fails").unwrap();
    let retry = Outcome::Retry { run_at: at(50), error: Error::new(Code::FunctionError, "x") };
    jobs.finish(failed.lease(), at(20), retry).await.unwrap();
    let running: HashMap<_, _> = [((named("t"), FunctionName::new("slow").unwrap()), 1)].into();
    let again = |now| LeaseRequest { running: running.clone(), ..one(now) };
    let held = jobs.lease(again(at(21))).await.unwrap();
    assert_eq!((held.jobs.len(), held.next), (0, Some(at(50))), "what may not run is nothing to wait for");
    accept(jobs, "t", "other", [30]).await;
    let held = jobs.lease(again(at(30))).await.unwrap();
    assert_eq!((held.jobs.len(), held.next), (1, Some(at(50))));
    let held = jobs.lease(again(at(50))).await.unwrap();
    assert_eq!((held.jobs.len(), held.next), (1, Some(at(1_020))));
    // A large event is kept back for another look, which may be at once.
    let large = |number| NewJob { event: Bytes::from(vec![b'x'; 600 << 10]), tenant: named("u"), ..new("f", number) };
    for number in [60, 61] {
        jobs.accept(large(number)).await.unwrap();
    }
    let held = jobs.lease(LeaseRequest { running: running.clone(), ..request(1, at(70), 9) }).await.unwrap();
    let kept_back = held.jobs.iter().filter(|leased| leased.job.tenant == named("u")).count() < 2;
    assert!(kept_back && held.next == Some(at(70)), "{:?}", held.next);
}

pub async fn of_a_function_who_is_due_first_comes_first(subject: impl Subject) {
    let jobs = subject.jobs();
    for number in [5, 3, 9, 1, 7] {
        accept(jobs, "t", "f", [number]).await;
        accept(jobs, "t", "g", [number + 1]).await;
        accept(jobs, "u", "f", [number]).await;
    }
    let leased = jobs.lease(request(1, at(100), 15)).await.unwrap().jobs;
    assert_eq!(leased.len(), 15);
    for (tenant, function) in counted(&leased).into_keys() {
        let theirs = leased.iter().filter(|leased| leased.job.tenant == tenant && leased.job.function == function);
        assert!(theirs.map(|leased| leased.job.created_at).is_sorted(), "{tenant} {function}");
    }
}
