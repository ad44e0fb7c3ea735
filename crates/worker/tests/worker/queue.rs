//! The queue's policies and limits as callers see them, under virtual time.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lyra_kit::{Load, tasks, telemetry};
use lyra_types::{FunctionVersion, Runtime, TenantName};
use lyra_wire::Worker;
use lyra_worker::queue::{self, Adaptive, Bypass, PolicyKind};
use lyra_worker::{Config, Service, resources};
use parking_lot::Mutex;

use crate::scripted::{self, Backend, call, version, worker_with};

const MS: Duration = Duration::from_millis(1);

fn of(policy: PolicyKind) -> Config {
    let mut queue = queue::Config { policy, ..queue::Config::default() };
    queue.fair_share.throttle = Duration::ZERO;
    Config { max_running: 1, queue, ..Config::default() }
}

fn worker_of(policy: PolicyKind) -> Service {
    worker_with(&Backend::new(), of(policy))
}

fn owned_by(tenant: &'static str, name: &str) -> Arc<FunctionVersion> {
    version(name, 1, |version| version.tenant = TenantName::new(tenant).expect("a valid name"))
}

/// Lets the worker see what a call takes: the first one is cold.
async fn measure(worker: &Service, version: &Arc<FunctionVersion>, event: &'static str, gap: Duration) {
    for _ in 0..3 {
        assert!(worker.invoke(call(version, event)).await.outcome.is_ok());
        tokio::time::sleep(gap).await;
    }
}

/// Has the calls wait for one place, and says in which order they ended.
async fn order(worker: &Service, calls: &[(&Arc<FunctionVersion>, &'static str)]) -> Vec<usize> {
    let ended = Arc::new(Mutex::new(Vec::new()));
    let blocker = version("blocker", 1, |version| version.tenant = TenantName::new("nobody").expect("a valid name"));
    let mut tasks = Vec::new();
    let requests = std::iter::once(call(&blocker, "{\"sleep_ms\":1000}"));
    let requests = requests.chain(calls.iter().map(|(version, event)| call(version, event)));
    for (n, request) in requests.enumerate() {
        let (worker, ended) = (worker.clone(), ended.clone());
        tasks.push(tasks::spawn("call", async move {
            assert!(worker.invoke(request).await.outcome.is_ok());
            ended.lock().push(n);
        }));
        tokio::time::sleep(MS).await;
    }
    assert_eq!((worker.status().running, worker.status().eligible), (1, calls.len()));
    for task in tasks {
        task.await.expect("no panic");
    }
    let ended = std::mem::take(&mut *ended.lock());
    ended[1..].iter().map(|n| n - 1).collect()
}

const LONG: &str = "{\"sleep_ms\":400}";
const MIDDLE: &str = "{\"sleep_ms\":11}";
const SHORT: &str = "{\"sleep_ms\":2}";

#[tokio::test(start_paused = true)]
async fn calls_run_in_the_order_of_the_policy() {
    let (long, middle, short) = (version("long", 1, |_| {}), version("middle", 1, |_| {}), version("short", 1, |_| {}));
    let calls = [(&long, LONG), (&middle, MIDDLE), (&short, SHORT), (&long, LONG), (&short, SHORT)];
    let table = [
        (PolicyKind::Fcfs, [0, 1, 2, 3, 4]),
        (PolicyKind::ShortestFirst, [2, 4, 1, 0, 3]),
        (PolicyKind::EarliestDeadline, [2, 4, 1, 0, 3]),
        (PolicyKind::ColdPriority, [2, 4, 1, 0, 3]),
        // One tenant: within it, the order of arrival.
        (PolicyKind::FairShare, [0, 1, 2, 3, 4]),
    ];
    for (policy, want) in table {
        let worker = worker_of(policy);
        measure(&worker, &long, LONG, MS).await;
        measure(&worker, &middle, MIDDLE, MS).await;
        measure(&worker, &short, SHORT, MS).await;
        assert_eq!(worker.status().queue_policy, policy.as_str());
        assert_eq!(order(&worker, &calls).await, want, "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_function_that_is_called_most_often_goes_first() {
    let (rare, often) = (version("rare", 1, |_| {}), version("often", 1, |_| {}));
    let calls = [(&rare, SHORT), (&often, MIDDLE)];
    for (policy, want) in [(PolicyKind::InterArrival, [1, 0]), (PolicyKind::ShortestFirst, [0, 1])] {
        let worker = worker_of(policy);
        measure(&worker, &rare, SHORT, 1_000 * MS).await;
        measure(&worker, &often, MIDDLE, MS).await;
        assert_eq!(order(&worker, &calls).await, want, "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn cold_priority_lets_a_warm_call_go_before_a_shorter_cold_one() {
    let (new, warm) = (version("new", 1, |_| {}), version("warm", 1, |_| {}));
    let calls = [(&new, SHORT), (&warm, MIDDLE)];
    for (policy, want) in [(PolicyKind::ColdPriority, [1, 0]), (PolicyKind::ShortestFirst, [0, 1])] {
        let worker = worker_of(policy);
        // The new one is expected to take 10 ms, and 2 ms to start; the other one takes 11 ms.
        measure(&worker, &warm, MIDDLE, MS).await;
        assert_eq!(order(&worker, &calls).await, want, "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn tenants_take_turns_under_fair_share() {
    let (greedy, modest) = (owned_by("greedy", "g"), owned_by("modest", "m"));
    let worker = worker_of(PolicyKind::FairShare);
    measure(&worker, &greedy, MIDDLE, MS).await;
    measure(&worker, &modest, MIDDLE, MS).await;
    let calls: Vec<_> = [&greedy, &greedy, &greedy, &greedy, &modest, &modest].map(|of| (of, MIDDLE)).into();
    assert_eq!(order(&worker, &calls).await, [0, 4, 1, 5, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn tenants_take_turns_for_processors_also_where_any_number_of_calls_may_run() {
    let resources = resources::Config { cpu_millis: Some(1_000), ..resources::Config::default() };
    let kept = |tenant: &'static str, name: &str| {
        version(name, 1, |version| {
            version.tenant = TenantName::new(tenant).expect("a valid name");
            (version.runtime, version.reuse) = (Runtime::Native, true);
        })
    };
    let worker = worker_with(&Backend::new(), Config { max_running: 1_000, resources, ..of(PolicyKind::FairShare) });
    let (greedy, modest) = (kept("greedy", "g"), kept("modest", "m"));
    let flood = futures::future::join_all((0..20).map(|_| worker.invoke(call(&greedy, "{\"sleep_ms\":100}"))));
    let one = async {
        tokio::time::sleep(10 * MS).await;
        let status = worker.status();
        assert_eq!((status.running, status.eligible, status.holdings.cpu.waiting), (1, 19, 19_000));
        worker.invoke(call(&modest, "null")).await
    };
    let (flood, one) = tokio::join!(flood, one);
    assert!(flood.iter().all(|reply| reply.outcome.is_ok()) && one.outcome.is_ok());
    assert!(one.report.phases.queue <= 200 * MS, "it waited for {:?}", one.report.phases.queue);
}

#[tokio::test(start_paused = true)]
async fn a_long_call_is_let_in_at_the_ageing_bound() {
    let (long, short) = (version("long", 1, |_| {}), version("short", 1, |_| {}));
    let metrics = telemetry::Metrics::new();
    let worker =
        scripted::measured_worker(&Backend::new(), of(PolicyKind::ShortestFirst), Arc::default(), metrics.clone());
    measure(&worker, &long, LONG, MS).await;
    measure(&worker, &short, SHORT, MS).await;
    let flood = tasks::spawn("flood", {
        let worker = worker.clone();
        async move {
            // Two come for each one that can be served.
            for _ in 0..6_000 {
                let (worker, request) = (worker.clone(), call(&short, SHORT));
                drop(tasks::spawn("call", async move { worker.invoke(request).await }));
                tokio::time::sleep(MS).await;
            }
        }
    });
    tokio::time::sleep(10 * MS).await;
    let reply = worker.invoke(call(&long, LONG)).await;
    assert!(reply.outcome.is_ok());
    let waited = reply.report.phases.queue;
    assert!(waited >= 5_000 * MS && waited <= 5_010 * MS, "{waited:?}");
    flood.abort();
    assert!(metrics.render().lines().any(|line| line.starts_with("lyra_worker_aged_total ")));
}

#[tokio::test(start_paused = true)]
async fn a_short_call_whose_code_is_loaded_passes_a_full_worker() {
    let mut config = of(PolicyKind::Fcfs);
    config.queue.bypass = Some(Bypass { below: 5 * MS, most: 1 });
    let metrics = telemetry::Metrics::new();
    let worker = scripted::measured_worker(&Backend::new(), config, Arc::default(), metrics.clone());
    let (long, short) = (version("long", 1, |_| {}), version("short", 1, |_| {}));
    measure(&worker, &short, SHORT, MS).await;
    let blocker = tasks::spawn("call", {
        let (worker, request) = (worker.clone(), call(&long, LONG));
        async move { worker.invoke(request).await }
    });
    tokio::time::sleep(MS).await;
    let (first, second) = tokio::join!(worker.invoke(call(&short, SHORT)), worker.invoke(call(&short, SHORT)));
    assert_eq!(first.report.phases.queue, Duration::ZERO);
    assert!(second.report.phases.queue > 300 * MS, "one at a time passes");
    assert!(blocker.await.expect("no panic").outcome.is_ok());
    let text = metrics.render();
    assert!(text.contains("lyra_worker_bypassed_total 1\n"), "{text}");
    assert!(text.contains("lyra_worker_queue_wait_seconds_count{state=\"eligible\"} 1\n"), "{text}");
    assert!(text.contains("lyra_worker_concurrency_limit 1\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn the_limit_follows_the_load() {
    let mut config = Config { max_running: 100, ..Config::default() };
    let two = NonZeroUsize::new(2).expect("not zero");
    config.queue.adaptive = Some(Adaptive { min: two, increase: two, target_percent: 50, ..Adaptive::default() });
    let backend = Backend::new();
    let worker = worker_with(&backend, config);
    let percent = Arc::new(AtomicU32::new(10));
    worker.start_under(Load::given(percent.clone()));
    let version = version("f", 1, |_| {});
    assert!(worker.invoke(call(&version, "null")).await.outcome.is_ok());
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let (worker, request) = (worker.clone(), call(&version, "{\"sleep_ms\":20000}"));
            tasks::spawn("call", async move { worker.invoke(request).await })
        })
        .collect();
    tokio::time::sleep(4_500 * MS).await;
    assert_eq!((worker.status().concurrency_limit, worker.status().running), (10, 10));
    percent.store(90, Ordering::Relaxed);
    tokio::time::sleep(1_000 * MS).await;
    assert_eq!((worker.status().concurrency_limit, worker.status().running), (7, 10));
    percent.store(0, Ordering::Relaxed);
    for call in calls {
        assert!(call.await.expect("no panic").outcome.is_ok());
    }
    assert!(backend.most_at_once() <= 40);
}

#[tokio::test(start_paused = true)]
async fn refusals_are_counted_by_reason() {
    let metrics = telemetry::Metrics::new();
    let config = Config { max_queued_per_function: 0, max_queued: 1, queue_timeout: 50 * MS, ..of(PolicyKind::Fcfs) };
    let worker = scripted::measured_worker(&Backend::new(), config, Arc::default(), metrics.clone());
    let (narrow, wide) = (version("narrow", 1, |v| v.concurrency = 1), version("wide", 1, |_| {}));
    let calls = [(&narrow, LONG), (&narrow, LONG), (&wide, LONG), (&wide, LONG)];
    let replies = futures::future::join_all(calls.map(|(of, event)| worker.invoke(call(of, event)))).await;
    assert_eq!(replies.iter().filter(|reply| reply.outcome.is_ok()).count(), 1);
    worker.shut_down(Duration::from_secs(1)).await;
    assert!(worker.invoke(call(&wide, "null")).await.outcome.is_err());
    let text = metrics.render();
    for reason in ["function_full", "worker_full", "closed", "waited_too_long"] {
        assert!(text.contains(&format!("lyra_worker_refused_total{{reason=\"{reason}\"}} 1\n")), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn estimates_are_saved_and_known_to_the_next_worker() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut config = of(PolicyKind::ShortestFirst);
    config.characteristics.file = Some(folder.path().join("characteristics"));
    let version = version("f", 1, |_| {});
    let known = |worker: &Service| worker.status().characteristics.first().and_then(|of| of.exec.map(|e| e.average));

    let first = worker_with(&Backend::new(), config.clone());
    first.start();
    measure(&first, &version, SHORT, MS).await;
    tokio::time::sleep(Duration::from_secs(31)).await;
    // Killed: no drain. What the period saved is there.
    let second = worker_with(&Backend::new(), config.clone());
    assert_eq!(known(&second), Some(2 * MS));
    second.start();
    measure(&second, &version, LONG, MS).await;
    assert!(second.shut_down(Duration::from_secs(1)).await);

    let third = worker_with(&Backend::new(), config);
    assert_eq!(known(&third), known(&second));
    assert!(known(&third) > Some(2 * MS));
    third.forget(version.generation, None).await.unwrap();
    assert_eq!(known(&third), None);
}

#[tokio::test(start_paused = true)]
async fn the_status_tells_who_runs_and_who_waits_for_what() {
    let worker = worker_with(&Backend::new(), Config { max_running: 2, ..Config::default() });
    let (narrow, wide) = (version("narrow", 1, |v| v.concurrency = 1), version("wide", 1, |_| {}));
    for of in [&narrow, &narrow, &wide, &wide] {
        let (worker, request) = (worker.clone(), call(of, LONG));
        drop(tasks::spawn("call", async move { worker.invoke(request).await }));
        tokio::time::sleep(MS).await;
    }
    let status = worker.status();
    assert_eq!((status.running, status.queued, status.held, status.eligible), (2, 2, 1, 1));
    let mut functions: Vec<_> =
        status.functions.iter().map(|of| (of.function.as_str(), of.running, of.held, of.eligible)).collect();
    functions.sort_unstable();
    assert_eq!(functions, [("narrow", 1, 1, 0), ("wide", 1, 0, 1)]);
    assert_eq!(status.characteristics.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_idle_instances_hold_is_noted() {
    let worker = worker_with(&Backend::new(), Config::default());
    let version = version("f", 1, |v| v.reuse = true);
    assert!(worker.invoke(call(&version, "null")).await.outcome.is_ok());
    assert_eq!(worker.status().characteristics[0].memory, None);
    worker.start();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(worker.status().characteristics[0].memory, Some(16 << 20));
    assert_eq!(worker.characteristics().expected(&version).memory, 16 << 20);
}

#[tokio::test(start_paused = true)]
async fn cold_priority_tells_versions_with_an_idle_instance_from_those_without() {
    let (kept, gone) = (version("kept", 1, |v| v.reuse = true), version("gone", 1, |v| v.reuse = true));
    let worker = worker_of(PolicyKind::ColdPriority);
    measure(&worker, &kept, MIDDLE, MS).await;
    measure(&worker, &gone, MIDDLE, MS).await;
    // Both take 11 ms, and start cold in 10 ms.
    assert_eq!(order(&worker, &[(&gone, MIDDLE), (&kept, MIDDLE)]).await, [0, 1]);
    assert!(worker.invoke(call(&gone, "\"crash\"")).await.outcome.is_err());
    assert_eq!(order(&worker, &[(&gone, MIDDLE), (&kept, MIDDLE)]).await, [1, 0]);
}
