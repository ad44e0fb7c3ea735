//! What members let in, with a leader that says what it is told to.

use std::sync::Arc;

use lyra_kit::telemetry::Metrics;
use lyra_types::quota::Quota;
use lyra_wire::quotas::{Claim, Limit, Share, Shares};

use super::*;

fn tenant() -> TenantName {
    TenantName::default_tenant()
}

fn function(name: &str) -> FunctionName {
    FunctionName::new(name).unwrap()
}

fn meters() -> Meters {
    let refused = Metrics::new().counter("refused_total", "Refused", &["limit"]);
    Meters::new(Clock::system(), 1, false, refused)
}

fn limit(of: Option<&str>, quota: &Quota, share: Share) -> Limit {
    let key = QuotaKey { tenant: tenant(), function: of.map(function) };
    Limit { key, quota: quota.clone(), share, spent_until: None, shared: true }
}

fn answer(number: u64, limits: Vec<Limit>) -> Shares {
    Shares { session: 1, number, tell_all: false, whole: true, limits, gone: Vec::new() }
}

async fn told(meters: &Meters, shares: Shares) {
    let share = |_: Claim| std::future::ready(Ok(shares.clone()));
    let one = async { meters.follow(share, || std::future::ready(std::collections::HashMap::new())).await };
    let mut answered = meters.answered.subscribe();
    tokio::select! {
        () = one => {}
        _ = answered.changed() => {}
    }
}

async fn call(meters: &Meters, name: &str) -> Result<Pass> {
    let (tenant, function) = (tenant(), function(name));
    meters.enter(Called { tenant: &tenant, function: Some(&function), memory_mb: 100 }, Entry::Call).await
}

fn places(most: u32) -> (Quota, Share) {
    let quota = Quota { concurrency: Some(most), ..Quota::default() };
    (quota, Share { concurrency: Some(most.into()), ..Share::default() })
}

#[tokio::test(start_paused = true)]
async fn without_quotas_everything_is_let_in_and_nothing_held() {
    let meters = meters();
    assert!(meters.is_empty());
    assert!(call(&meters, "f").await.unwrap().is_empty());
    told(&meters, answer(1, Vec::new())).await;
    assert!(call(&meters, "f").await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn both_the_functions_and_the_tenants_limits_hold_and_a_refusal_takes_no_place() {
    let meters = meters();
    let ((most, all), (few, some)) = (places(3), places(1));
    told(&meters, answer(1, vec![limit(None, &most, all), limit(Some("f"), &few, some)])).await;
    let first = call(&meters, "f").await.unwrap();
    assert!(call(&meters, "f").await.unwrap_err().detail.contains("function f"));
    let others = [call(&meters, "g").await.unwrap(), call(&meters, "g").await.unwrap()];
    assert!(call(&meters, "h").await.unwrap_err().detail.contains("the quota of tenant default"));
    drop((first, others));
    assert!(call(&meters, "f").await.is_ok(), "what was refused left nothing behind");
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_the_part_of_its_limit_that_others_hold() {
    let meters = Arc::new(meters());
    let (quota, all) = places(2);
    let part = Share { concurrency: Some(1), ..Share::default() };
    told(&meters, answer(1, vec![limit(None, &quota, part)])).await;
    let _first = call(&meters, "f").await.unwrap();
    let second = call(&meters, "f");
    tokio::pin!(second);
    assert!(futures::poll!(&mut second).is_pending());
    told(&meters, answer(2, vec![limit(None, &quota, all)])).await;
    let _second = second.await.unwrap();
    let begun = Clock::system().instant();
    assert!(call(&meters, "f").await.is_err(), "there is no more to come");
    assert_eq!(begun.elapsed(), Duration::ZERO, "so nobody waits for it");
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_larger_share_has_an_end() {
    let meters = meters();
    let (quota, _) = places(2);
    let none = Share { concurrency: Some(0), ..Share::default() };
    told(&meters, answer(1, vec![limit(None, &quota, none)])).await;
    let begun = Clock::system().instant();
    assert_eq!(call(&meters, "f").await.unwrap_err().code, lyra_types::Code::LimitReached);
    assert!(begun.elapsed() <= WAIT + Duration::from_millis(1));
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_for_is_claimed() {
    let meters = meters();
    let quota = Quota { rate: Some(1.0), burst: Some(1), concurrency: Some(9), ..Quota::default() };
    let share = Share { rate: Some(1_000_000), burst: Some(1_000), concurrency: Some(9), memory_mb: None };
    told(&meters, answer(1, vec![limit(None, &quota, share)])).await;
    let pass = call(&meters, "f").await.unwrap();
    for _ in 0..4 {
        assert!(call(&meters, "f").await.is_err(), "one at once");
    }
    let meter = meters.find(&tenant(), None).unwrap();
    let want = meter.want(Duration::from_secs(1), 0).unwrap();
    assert_eq!((want.rate, want.running, want.running_mb, want.largest_mb), (5_000_000, 1, 100, 100));
    assert_eq!(want.concurrency, 2);
    drop(pass);
    let want = meter.want(Duration::from_secs(1), 0).unwrap();
    assert_eq!((want.rate, want.running), (2_500_000, 0), "it goes by halves");
}

#[tokio::test(start_paused = true)]
async fn jobs_are_held_back_and_not_charged_twice() {
    let meters = meters();
    let quota = Quota { rate: Some(0.001), burst: Some(1), concurrency: Some(1), ..Quota::default() };
    let share = Share { rate: Some(1_000), burst: Some(1_000), concurrency: Some(1), memory_mb: None };
    told(&meters, answer(1, vec![limit(None, &quota, share)])).await;
    let (tenant, function) = (tenant(), function("f"));
    let called = Called { tenant: &tenant, function: Some(&function), memory_mb: 1 };
    assert!(meters.enter(called, Entry::Submit).await.unwrap().is_empty(), "it waits in no place");
    assert!(meters.enter(called, Entry::Submit).await.is_err());
    let pass = meters.try_now(called).unwrap();
    assert!(meters.try_now(called).is_err());
    assert_eq!(meters.rooms()[0].1, 0);
    drop(pass);
    assert!(meters.try_now(called).is_ok(), "tries cost nothing of the rate");
    assert_eq!(meters.rooms()[0].1, 1);
}

#[tokio::test(start_paused = true)]
async fn without_processor_time_nothing_is_let_in_until_the_period_ends() {
    let meters = meters();
    let quota = Quota { cpu_ms: Some(5), ..Quota::default() };
    let until = Clock::system().now() + Duration::from_secs(90);
    let spent = Limit { spent_until: Some(until), ..limit(None, &quota, Share::default()) };
    told(&meters, answer(1, vec![spent])).await;
    let error = call(&meters, "f").await.unwrap_err();
    assert_eq!(error.errors[0].field, "quota.cpu_ms");
    assert!(error.retry_after.is_some_and(|after| after > Duration::from_secs(80)));
    assert_eq!(meters.rooms()[0].1, 0);
    told(&meters, answer(2, vec![limit(None, &quota, Share::default())])).await;
    assert!(call(&meters, "f").await.is_ok());
}

async fn waits(meters: &Meters, name: &str) -> Pass {
    let (tenant, function) = (tenant(), function(name));
    meters.wait(Called { tenant: &tenant, function: Some(&function), memory_mb: 100 }, Entry::Call).await
}

#[tokio::test(start_paused = true)]
async fn those_that_wait_are_let_in_one_after_the_other_and_hold_up_no_other_function() {
    let meters = Arc::new(meters());
    assert!(waits(&meters, "f").await.is_empty());
    let ((four, share_of_four), (one, share_of_one)) = (places(4), places(1));
    told(&meters, answer(1, vec![limit(None, &four, share_of_four), limit(Some("f"), &one, share_of_one)])).await;
    let first = waits(&meters, "f").await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for number in 0..5 {
        let (of, order) = (Arc::clone(&meters), Arc::clone(&order));
        tasks.push(lyra_kit::tasks::spawn("waits", async move {
            let pass = waits(&of, "f").await;
            order.lock().push(number);
            drop(pass);
        }));
        // Each stands in line before the next comes.
        let stands = meters.find(&tenant(), Some(&function("f"))).unwrap();
        while stands.waits.load(Ordering::Relaxed) <= number {
            tokio::task::yield_now().await;
        }
    }
    // Others of the tenant are let in meanwhile, and one that is given up leaves nothing behind.
    let others = [waits(&meters, "g").await, waits(&meters, "g").await, waits(&meters, "g").await];
    assert!(tokio::time::timeout(Duration::from_secs(9), waits(&meters, "h")).await.is_err(), "the tenant is full");
    drop(others);
    assert!(!waits(&meters, "h").await.is_empty());
    assert!(order.lock().is_empty(), "the function is full");
    drop(first);
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(60), task).await.expect("all are let in").unwrap();
    }
    assert_eq!(*order.lock(), [0, 1, 2, 3, 4]);
    let of_f = meters.find(&tenant(), Some(&function("f"))).unwrap();
    assert_eq!(of_f.waits.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_goes_on_when_its_quota_is_taken_back() {
    let meters = meters();
    let (none, share) = places(0);
    told(&meters, answer(1, vec![limit(None, &none, share)])).await;
    let taken_back = async {
        tokio::time::sleep(Duration::from_secs(30)).await;
        told(&meters, answer(2, Vec::new())).await;
    };
    let (pass, ()) = tokio::join!(waits(&meters, "f"), taken_back);
    assert!(pass.is_empty());
}
