//! The worker through its door, under virtual time, over a back end whose every step the test decides.

mod chances;
mod instances;
mod leader;
mod programs;
mod queue;
mod scripted;
mod secrets;
mod sessions;
mod site;
mod telling;

use std::sync::Arc;
use std::time::Duration;

use lyra_isolation::Isolation;
use lyra_types::invocation::Start;
use lyra_types::{Code, FunctionVersion};
use lyra_wire::Worker;
use lyra_worker::Config;

use scripted::{Backend, Collected, call, http_call, version, worker, worker_with};

async fn outcome(
    worker: &lyra_worker::Service,
    version: &Arc<FunctionVersion>,
) -> (Option<Start>, bool, Result<String, Code>) {
    let reply = worker.invoke(call(version, "null")).await;
    let outcome = reply.outcome.map(|b| String::from_utf8_lossy(&b).into_owned()).map_err(|e| e.code);
    (reply.report.start, reply.report.reused, outcome)
}

#[tokio::test(start_paused = true)]
async fn the_first_call_is_cold_and_the_next_one_is_warm_and_fresh() {
    let backend = Backend::new();
    let worker = worker(&backend);
    let version = version("f", 1, |_| {});
    assert_eq!(outcome(&worker, &version).await, (Some(Start::Cold), false, Ok("1".into())));
    assert_eq!(outcome(&worker, &version).await, (Some(Start::Warm), false, Ok("1".into())));
    // An instance is freed after its answer is out.
    tokio::task::yield_now().await;
    assert_eq!((backend.loads(), backend.starts(), backend.alive()), (1, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn calls_that_come_together_load_the_code_once() {
    let backend = Backend::new();
    let worker = worker(&backend);
    let version = version("f", 1, |_| {});
    let replies = futures::future::join_all((0..20).map(|_| worker.invoke(call(&version, "null")))).await;
    assert!(replies.iter().all(|reply| reply.outcome.is_ok() && reply.report.start == Some(Start::Cold)));
    assert_eq!(backend.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_kept_instance_serves_its_own_version_only() {
    let backend = Backend::new();
    let worker = worker(&backend);
    let one = version("f", 1, |v| v.reuse = true);
    let two = version("f", 2, |v| v.reuse = true);
    assert_eq!(outcome(&worker, &one).await, (Some(Start::Cold), false, Ok("1".into())));
    assert_eq!(outcome(&worker, &one).await, (Some(Start::Warm), true, Ok("2".into())));
    assert_eq!(outcome(&worker, &two).await, (Some(Start::Cold), false, Ok("1".into())));
    worker.forget(one.generation, Some(1)).await.unwrap();
    assert_eq!(outcome(&worker, &one).await, (Some(Start::Cold), false, Ok("1".into())));
    assert_eq!(outcome(&worker, &two).await, (Some(Start::Warm), true, Ok("2".into())));
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_failed_is_not_kept() {
    let backend = Backend::new();
    let worker = worker(&backend);
    let version = version("f", 1, |v| v.reuse = true);
    let reply = worker.invoke(call(&version, "\"crash\"")).await;
    assert_eq!(reply.outcome.map_err(|e| e.code), Err(Code::InstanceCrashed));
    assert_eq!(outcome(&worker, &version).await, (Some(Start::Cold), false, Ok("1".into())));
}

#[tokio::test(start_paused = true)]
async fn prewarmed_instances_are_there_for_the_first_call() {
    let backend = Backend::new();
    let worker = worker(&backend);
    let version = version("f", 1, |v| {
        v.reuse = true;
        v.min_instances = 2;
    });
    worker.prewarm(version.clone(), 2).await.expect("there is room");
    assert_eq!(worker.status().idle_instances, 2);
    assert_eq!(outcome(&worker, &version).await, (Some(Start::Prewarmed), false, Ok("1".into())));
    assert_eq!(outcome(&worker, &version).await, (Some(Start::Warm), true, Ok("2".into())));
}

#[tokio::test(start_paused = true)]
async fn calls_over_the_concurrency_of_a_function_wait_and_succeed() {
    let backend = Backend::new();
    let worker = worker(&backend);
    let narrow = version("narrow", 1, |v| v.concurrency = 2);
    let calls = (0..10).map(|_| worker.invoke(call(&narrow, "{\"sleep_ms\":1000}")));
    assert_eq!(outcome(&worker, &narrow).await.2, Ok("1".into()), "the code is loaded");
    let replies = futures::future::join_all(calls).await;
    assert!(replies.iter().all(|reply| reply.outcome.is_ok()));
    assert_eq!(backend.most_at_once(), 2);
    let longest = replies.iter().map(|reply| reply.report.phases.queue).max().expect("ten replies");
    assert_eq!(longest.as_millis(), 4_000);
}

#[tokio::test(start_paused = true)]
async fn full_queues_are_told_apart_and_a_long_wait_ends_with_overloaded() {
    let backend = Backend::new();
    let config = Config { max_running: 1, max_queued: 3, max_queued_per_function: 2, ..Config::default() };
    let worker = worker_with(&backend, config);
    let narrow = version("narrow", 1, |v| v.concurrency = 1);
    let wide = version("wide", 1, |_| {});
    let mut calls = Vec::new();
    for of in [&narrow, &narrow, &narrow, &narrow, &wide, &wide] {
        let (worker, request) = (worker.clone(), call(of, "{\"sleep_ms\":50000}"));
        calls.push(lyra_kit::tasks::spawn("call", async move { worker.invoke(request).await }));
        tokio::task::yield_now().await;
    }
    let mut codes = Vec::new();
    for call in calls {
        let reply = call.await.expect("no panic");
        let waits = reply.outcome.as_ref().err().and_then(|e| e.retry_after);
        codes.push((reply.outcome.map(|_| ()).map_err(|e| e.code), waits.is_some()));
    }
    let refused = |code| (Err(code), true);
    assert_eq!(
        codes,
        [
            (Ok(()), false),
            refused(Code::Overloaded),
            refused(Code::Overloaded),
            refused(Code::LimitReached),
            refused(Code::Overloaded),
            refused(Code::Overloaded),
        ]
    );
    assert_eq!(worker.status().queued, 0);
}

#[tokio::test(start_paused = true)]
async fn dropping_a_call_frees_its_place_wherever_it_is() {
    let backend = Backend::new();
    let worker = worker_with(&backend, Config { max_running: 1, ..Config::default() });
    let version = version("f", 1, |_| {});
    let second = Duration::from_secs(1);
    let running = tokio::time::timeout(second, worker.invoke(call(&version, "{\"sleep_ms\":5000}")));
    let waiting = tokio::time::timeout(second / 2, worker.invoke(call(&version, "null")));
    let (running, waiting) = tokio::join!(running, waiting);
    assert!(running.is_err() && waiting.is_err());
    assert_eq!((worker.status().running, worker.status().queued, backend.alive()), (0, 0, 0));
    assert_eq!(outcome(&worker, &version).await.2, Ok("1".into()));
}

#[tokio::test(start_paused = true)]
async fn a_streamed_call_holds_its_place_until_the_instance_has_ended() {
    let backend = Backend::new();
    let worker = worker(&backend);
    let version = version("f", 1, |v| v.contract = lyra_types::function::Contract::Http);
    let reply = worker.serve(http_call(&version)).await;
    assert!(reply.outcome.is_ok());
    assert_eq!(worker.status().running, 1);
    backend.end_stream();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(worker.status().running, 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_logs_too_much_keeps_its_first_lines_and_says_so() {
    let backend = Backend::new();
    let logs = Arc::new(Collected::default());
    let config = Config { max_log_lines: 3, ..Config::default() };
    let worker = scripted::worker_of(&backend, config, logs.clone());
    let version = version("f", 1, |_| {});
    assert!(worker.invoke(call(&version, "{\"lines\":1000000}")).await.outcome.is_ok());
    let lines = logs.take();
    assert_eq!(lines.len(), 4);
    assert!(lines[3].contains("log limit"));
    assert!(worker.invoke(call(&version, "\"crash\"")).await.outcome.is_err());
    assert_eq!(logs.take().len(), 1, "the reason of a failure is logged");
}

#[tokio::test(start_paused = true)]
async fn a_drained_worker_finishes_what_runs_and_takes_no_more() {
    let backend = Backend::new();
    let worker = worker(&backend);
    let version = version("f", 1, |_| {});
    let running = {
        let (worker, request) = (worker.clone(), call(&version, "{\"sleep_ms\":5000}"));
        lyra_kit::tasks::spawn("call", async move { worker.invoke(request).await })
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    let drained = lyra_kit::tasks::spawn("drain", {
        let worker = worker.clone();
        async move { worker.shut_down(Duration::from_secs(30)).await }
    });
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(outcome(&worker, &version).await.2, Err(Code::Unavailable));
    assert!(running.await.expect("no panic").outcome.is_ok());
    assert!(drained.await.expect("no panic"));
}

#[tokio::test(start_paused = true)]
async fn code_without_an_image_is_prepared_again() {
    let backend = Backend::new();
    let worker = worker(&backend);
    let version = version("f", 1, |_| {});
    backend.lose_images();
    assert_eq!(outcome(&worker, &version).await.2, Ok("1".into()));
    assert_eq!(backend.name(), "scripted");
}
