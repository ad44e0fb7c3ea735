//! Instances through the worker's door, under virtual time: room, keep-alive, health, cordon.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lyra_isolation::Gpu;
use lyra_types::invocation::Start;
use lyra_types::{Code, FunctionVersion, Runtime};
use lyra_wire::worker::{InstanceState, Prepare};
use lyra_wire::{Operated, Worker};
use lyra_worker::keep_alive::Policy;
use lyra_worker::resources::gpu::{Load, Source};
use lyra_worker::{Config, Service, resources};

use crate::scripted::{Backend, call, http_call, measured_worker, version, worker_on, worker_with};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn kept(name: &str, memory_mb: u32, change: impl FnOnce(&mut FunctionVersion)) -> Arc<FunctionVersion> {
    version(name, 1, |v| {
        v.runtime = Runtime::Native;
        v.reuse = true;
        v.memory_mb = memory_mb;
        change(v);
    })
}

fn config(memory_mb: u64) -> Config {
    Config {
        resources: resources::Config { memory: Some(memory_mb << 20), ..resources::Config::default() },
        ..Config::default()
    }
}

async fn start_of(worker: &Service, version: &Arc<FunctionVersion>) -> Result<Option<Start>, Code> {
    let reply = worker.invoke(call(version, "null")).await;
    reply.outcome.map(|_| reply.report.start).map_err(|error| error.code)
}

fn in_background(
    worker: &Service,
    version: &Arc<FunctionVersion>,
    event: &'static str,
) -> tokio::task::JoinHandle<Result<Bytes, Code>> {
    let (worker, request) = (worker.clone(), call(version, event));
    lyra_kit::tasks::spawn("call", async move { worker.invoke(request).await.outcome.map_err(|error| error.code) })
}

#[tokio::test(start_paused = true)]
async fn a_call_that_needs_memory_waits_for_the_eviction_and_succeeds() {
    let backend = Backend::new();
    let worker = worker_with(&backend, config(512));
    let (small, large) = (kept("small", 128, |_| {}), kept("large", 512, |_| {}));
    let calls: Vec<_> = (0..4).map(|_| in_background(&worker, &small, "{\"sleep_ms\":1000}")).collect();
    for call in calls {
        assert!(call.await.expect("no panic").is_ok());
    }
    assert_eq!(worker.status().holdings.memory.charged, 512 << 20);
    assert_eq!(start_of(&worker, &large).await, Ok(Some(Start::Cold)));
    let status = worker.status();
    assert_eq!((status.idle_instances, status.holdings.memory.charged), (1, 512 << 20));
    assert_eq!(backend.alive(), 1);
    assert!(backend.most_at_once() <= 4, "never more than fit");
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_while_all_memory_is_with_busy_ones_and_is_refused_after_the_queue_timeout() {
    let backend = Backend::new();
    let worker = worker_with(&backend, Config { queue_timeout: 10 * SECOND, ..config(128) });
    let (one, two) = (kept("one", 128, |_| {}), kept("two", 128, |_| {}));
    let busy = in_background(&worker, &one, "{\"sleep_ms\":5000}");
    tokio::time::sleep(SECOND).await;
    let reply = worker.invoke(call(&two, "null")).await;
    assert!(reply.outcome.is_ok());
    assert_eq!(reply.report.phases.queue, 4 * SECOND + Duration::from_millis(10), "until the busy one ended");
    assert!(busy.await.expect("no panic").is_ok());
    let _busy = in_background(&worker, &one, "{\"sleep_ms\":50000}");
    tokio::time::sleep(SECOND).await;
    let error = worker.invoke(call(&two, "null")).await.outcome.expect_err("no memory came free");
    assert_eq!(error.code, Code::Overloaded);
    assert!(error.retry_after.is_some() && error.detail.contains("128 MiB"));
    assert_eq!(worker.status().holdings.waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn an_idle_timer_never_ends_a_busy_instance() {
    let backend = Backend::new();
    let worker = worker_with(&backend, Config { idle_timeout: SECOND, ..Config::default() });
    worker.start();
    let f = kept("f", 128, |v| v.timeout_ms = 600_000);
    let busy = in_background(&worker, &f, "{\"sleep_ms\":300000}");
    tokio::time::sleep(4 * MINUTE).await;
    let listed = worker.instances();
    assert_eq!(listed.iter().map(|i| (i.state, i.served)).collect::<Vec<_>>(), [(InstanceState::Active, 1)]);
    assert!(busy.await.expect("no panic").is_ok());
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!((worker.instances().len(), backend.alive()), (0, 0), "idle, it goes");
}

#[tokio::test(start_paused = true)]
async fn instances_that_fail_or_hang_are_replaced_within_two_periods() {
    let backend = Backend::new();
    let period = Config::default().watchdog;
    let worker = worker_with(&backend, Config::default());
    worker.start();
    let f = kept("f", 128, |v| v.min_instances = 3);
    worker.prewarm(f.clone(), 3).await.expect("there is room");
    for how in [Backend::fall_sick, Backend::hang] {
        let before: Vec<_> = worker.instances().iter().map(|instance| instance.id).collect();
        assert_eq!(before.len(), 3);
        how(&backend, true);
        tokio::time::sleep(period).await;
        how(&backend, false);
        tokio::time::sleep(period).await;
        let after: Vec<_> = worker.instances().iter().map(|instance| instance.id).collect();
        assert_eq!((after.len(), worker.status().idle_instances), (3, 3));
        assert!(after.iter().filter(|id| !before.contains(id)).count() >= 2, "{before:?} {after:?}");
    }
    assert_eq!(start_of(&worker, &f).await, Ok(Some(Start::Prewarmed)));
}

#[tokio::test(start_paused = true)]
async fn the_minimum_is_held_up_after_a_crash_and_passes_to_the_newer_version() {
    let backend = Backend::new();
    let worker = worker_with(&backend, Config { idle_timeout: SECOND, ..Config::default() });
    worker.start();
    let one = kept("f", 128, |v| v.min_instances = 1);
    worker.prewarm(one.clone(), 1).await.expect("there is room");
    let crash = worker.invoke(call(&one, "\"crash\"")).await;
    assert_eq!(crash.outcome.map_err(|error| error.code), Err(Code::InstanceCrashed));
    tokio::time::sleep(2 * Config::default().watchdog).await;
    assert_eq!(worker.status().idle_instances, 1);
    let two = version("f", 2, |v| *v = FunctionVersion { version: 2, ..(*one).clone() });
    worker.prewarm(two, 1).await.expect("there is room");
    tokio::time::sleep(11 * MINUTE).await;
    let versions: Vec<_> = worker.instances().iter().map(|instance| instance.version).collect();
    assert_eq!(versions, [2]);
}

#[tokio::test(start_paused = true)]
async fn a_minimum_beyond_what_may_be_idle_is_held_up_and_not_started_over_and_over() {
    let backend = Backend::new();
    let worker = worker_with(&backend, Config { max_idle_instances: 2, ..Config::default() });
    worker.start();
    let f = kept("f", 128, |v| v.min_instances = 4);
    worker.prewarm(f.clone(), 4).await.expect("there is room");
    tokio::time::sleep(4 * Config::default().watchdog).await;
    let starts = backend.starts();
    assert_eq!(worker.status().idle_instances, 4);
    tokio::time::sleep(MINUTE).await;
    assert_eq!((worker.status().idle_instances, backend.starts()), (4, starts));
    // What nobody asked for goes at once.
    assert!(start_of(&worker, &kept("g", 128, |_| {})).await.is_ok());
    tokio::time::sleep(SECOND).await;
    let versions: Vec<_> = worker.instances().iter().map(|instance| instance.function.to_string()).collect();
    assert_eq!(versions, ["f"; 4]);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_is_probed_stands_by_since_its_last_call() {
    let backend = Backend::new();
    let worker = worker_with(&backend, Config::default());
    worker.start();
    assert!(start_of(&worker, &kept("f", 128, |_| {})).await.is_ok());
    let before = worker.instances()[0].since;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(worker.instances()[0].since, before);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_ends_in_the_middle_of_a_stream_is_counted_as_failed() {
    let (backend, metrics) = (Backend::new(), lyra_kit::telemetry::Metrics::new());
    let worker = measured_worker(&backend, Config::default(), Arc::default(), metrics.clone());
    let f = kept("f", 128, |v| v.contract = lyra_types::function::Contract::Http);
    backend.cut();
    assert!(worker.serve(http_call(&f)).await.outcome.is_ok());
    backend.end_stream();
    tokio::time::sleep(SECOND).await;
    let failed = "lyra_worker_instances_ended_total{policy=\"ttl\",reason=\"failed\"} 1\n";
    assert!(metrics.render().contains(failed), "{}", metrics.render());
    let status = worker.status();
    assert_eq!((status.running, status.holdings.memory.charged, worker.instances().len()), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_start_ahead_that_fails_is_tried_again_after_two_seconds_four_and_so_on() {
    let backend = Backend::new();
    let config = Config { watchdog: SECOND / 5, ..Config::default() };
    let worker = worker_with(&backend, config);
    worker.start();
    backend.refuse(true);
    assert!(worker.prewarm(kept("f", 128, |v| v.min_instances = 1), 1).await.is_err());
    let before = backend.refused();
    let mut tries = Vec::new();
    for tenths in 1..400 {
        tokio::time::sleep(SECOND / 10).await;
        if backend.refused() - before > tries.len() {
            tries.push(tenths / 10);
        }
    }
    // Counted from the request's own try.
    assert_eq!(tries, [2, 6, 14, 30]);
    backend.refuse(false);
    tokio::time::sleep(MINUTE).await;
    assert_eq!(worker.status().idle_instances, 1);
}

#[tokio::test(start_paused = true)]
async fn a_cron_window_has_its_instances_there_and_lets_them_go() {
    let backend = Backend::new();
    let worker = worker_with(&backend, Config { idle_timeout: MINUTE, ..Config::default() });
    worker.start();
    // The test's wall clock begins at midnight.
    let f = kept("f", 128, |v| {
        for (label, value) in [("cron", "30 0 * * *"), ("instances", "2"), ("minutes", "20")] {
            v.labels.insert(format!("lyra.dev/prewarm-{label}"), value.to_owned());
        }
    });
    worker.prewarm(f.clone(), 0).await.expect("nothing is to be started");
    tokio::time::sleep(29 * MINUTE).await;
    assert_eq!(worker.instances().len(), 0);
    tokio::time::sleep(MINUTE + 5 * SECOND).await;
    assert_eq!(worker.status().idle_instances, 2);
    assert_eq!(start_of(&worker, &f).await, Ok(Some(Start::Prewarmed)));
    tokio::time::sleep(18 * MINUTE).await;
    assert_eq!(worker.status().idle_instances, 2);
    tokio::time::sleep(4 * MINUTE).await;
    assert_eq!(worker.instances().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_hybrid_policy_unloads_and_starts_again_before_the_predicted_call() {
    let backend = Backend::new();
    let worker = worker_with(&backend, Config { keep_alive: Policy::Hybrid, ..Config::default() });
    worker.start();
    let f = kept("f", 128, |_| {});
    assert_eq!(start_of(&worker, &f).await, Ok(Some(Start::Cold)));
    // Called every 30 minutes. One idle time is known after the second call; from then on it is predicted.
    tokio::time::sleep(30 * MINUTE).await;
    assert_eq!(start_of(&worker, &f).await, Ok(Some(Start::Warm)));
    for _ in 0..5 {
        tokio::time::sleep(20 * MINUTE).await;
        assert_eq!(worker.instances().len(), 0, "unloaded while no call is due");
        tokio::time::sleep(9 * MINUTE).await;
        assert_eq!(worker.status().idle_instances, 1, "there before the call");
        tokio::time::sleep(MINUTE).await;
        assert_eq!(start_of(&worker, &f).await, Ok(Some(Start::Prewarmed)));
    }
    tokio::time::sleep(40 * MINUTE).await;
    assert_eq!(worker.instances().len(), 0, "the window is over");
}

#[tokio::test(start_paused = true)]
async fn idle_instances_hibernate_cost_less_and_wake_for_a_call() {
    let backend = Backend::new();
    let worker = worker_with(&backend, Config { hibernate_after: Some(30 * SECOND), ..config(1_024) });
    worker.start();
    let f = kept("f", 128, |_| {});
    assert_eq!(start_of(&worker, &f).await, Ok(Some(Start::Cold)));
    tokio::time::sleep(MINUTE).await;
    let holdings = worker.status().holdings;
    assert_eq!((holdings.instances.hibernated, holdings.memory.charged, backend.hibernated()), (1, 16 << 20, 1));
    assert_eq!(start_of(&worker, &f).await, Ok(Some(Start::Warm)));
    assert_eq!((worker.status().holdings.memory.charged, backend.hibernated()), (128 << 20, 0));
}

#[tokio::test(start_paused = true)]
async fn the_memory_buffer_is_kept_free_but_not_at_the_cost_of_a_minimum() {
    let backend = Backend::new();
    let mut config = config(512);
    config.resources.memory_buffer = 300 << 20;
    let worker = worker_with(&backend, config);
    worker.start();
    let (held, spare) = (kept("held", 128, |v| v.min_instances = 2), kept("spare", 128, |_| {}));
    worker.prewarm(held, 2).await.expect("there is room");
    assert_eq!(start_of(&worker, &spare).await, Ok(Some(Start::Cold)));
    tokio::time::sleep(10 * SECOND).await;
    let functions: Vec<_> = worker.instances().iter().map(|instance| instance.function.to_string()).collect();
    assert_eq!(functions, ["held", "held"]);
}

#[tokio::test(start_paused = true)]
async fn a_cordoned_worker_refuses_calls_and_a_drained_one_is_empty() {
    let backend = Backend::new();
    let worker = worker_with(&backend, Config::default());
    worker.start();
    let f = kept("f", 128, |v| v.min_instances = 1);
    worker.prewarm(f.clone(), 1).await.expect("there is room");
    let busy = in_background(&worker, &f, "{\"sleep_ms\":5000}");
    tokio::time::sleep(SECOND).await;
    worker.cordon().await.unwrap();
    let error = worker.invoke(call(&f, "null")).await.outcome.expect_err("cordoned");
    assert!(error.code == Code::Unavailable && error.retry_after.is_some() && error.detail.contains("cordoned"));
    assert_eq!(worker.prewarm(f.clone(), 2).await.map_err(|error| error.code), Err(Code::Unavailable));
    let short = worker.drain(SECOND).await.unwrap();
    assert_eq!((short.ended, short.left), (false, 1));
    let drained = worker.drain(10 * SECOND).await.unwrap();
    assert_eq!((drained.ended, drained.left, drained.evacuated), (true, 0, 1));
    assert!(busy.await.expect("no panic").is_ok(), "what ran went on");
    tokio::time::sleep(MINUTE).await;
    assert_eq!((backend.alive(), worker.status().machine.cordoned), (0, true), "nothing is started for the minimum");
    worker.uncordon().await.unwrap();
    tokio::time::sleep(MINUTE).await;
    assert_eq!(worker.status().idle_instances, 1);
    assert_eq!(worker.clean().await.unwrap(), 1);
    assert_eq!(backend.alive(), 0);
    assert_eq!(start_of(&worker, &f).await, Ok(Some(Start::Cold)));
}

#[tokio::test(start_paused = true)]
async fn health_sees_whether_the_loops_come_round() {
    let backend = Backend::new();
    let worker = worker_with(&backend, Config::default());
    let health = worker.health().await.unwrap();
    assert!(!health.healthy, "nothing watches yet");
    worker.start();
    tokio::time::sleep(MINUTE).await;
    let health = worker.health().await.unwrap();
    assert!(health.healthy, "{health:?}");
    assert!(worker.status().machine.uptime >= MINUTE);
    assert_eq!(worker.status().machine.backends[0].runtimes, [Runtime::Js, Runtime::Native]);
}

fn prepare(change: impl FnOnce(&mut Prepare)) -> Prepare {
    let mut prepare = Prepare {
        runtime: Runtime::Native,
        code: Bytes::from_static(b"code"),
        handler: None,
        isolation: "auto".into(),
        reuse: true,
        memory_mb: 128,
        cpu_millis: 1_000,
        gpus: 0,
        labels: Default::default(),
    };
    change(&mut prepare);
    prepare
}

#[tokio::test(start_paused = true)]
async fn what_could_never_fit_is_refused_at_deploy_with_the_reason() {
    let backend = Backend::new();
    let mut config = config(512);
    config.resources.cpu_millis = Some(2_000);
    let worker = worker_with(&backend, config);
    type Change = fn(&mut Prepare);
    let cases: [(Change, &str, &str); 5] = [
        (|p| p.memory_mb = 513, "memory_mb", "512 MiB"),
        (|p| p.cpu_millis = 2_001, "cpu_millis", "2000"),
        (|p| p.gpus = 1, "gpus", "this worker has no GPU"),
        (|p| (p.gpus, p.runtime) = (1, Runtime::Js), "gpus", "js can't use GPUs"),
        (
            |p| drop(p.labels.insert("lyra.dev/prewarm-cron".into(), "never".into())),
            "labels.lyra.dev/prewarm-cron",
            "cron",
        ),
    ];
    for (change, field, reason) in cases {
        let error = worker.prepare(prepare(change)).await.expect_err("could never run");
        assert_eq!((error.code, error.errors[0].field.as_str()), (Code::InvalidField, field));
        assert!(error.errors[0].reason.contains(reason), "{}", error.errors[0].reason);
    }
    assert!(worker.prepare(prepare(|p| (p.memory_mb, p.cpu_millis) = (512, 2_000))).await.is_ok(), "an exact fit");
}

struct OneGpu;

impl Source for OneGpu {
    fn devices(&self) -> Result<Vec<Gpu>, String> {
        let nodes = vec!["/dev/nvidia0".into()];
        Ok(vec![Gpu { index: 0, uuid: "GPU-0".into(), name: "test".into(), memory: 16 << 30, nodes }])
    }
    fn load(&self, _: &str) -> Load {
        Load { utilisation: Some(42), memory_used: Some(1 << 30) }
    }
}

#[tokio::test(start_paused = true)]
async fn a_gpu_is_given_to_one_instance_at_a_time_and_shown_in_status() {
    let backend = Backend::new();
    let worker = worker_on(&backend, Config::default(), Arc::default(), Arc::new(OneGpu));
    assert!(worker.prepare(prepare(|p| p.gpus = 1)).await.is_ok());
    assert!(worker.prepare(prepare(|p| p.gpus = 2)).await.is_err());
    // This back end can't hand devices on: it says so, and nothing stays charged.
    let f = kept("f", 128, |v| v.gpus = 1);
    assert_eq!(start_of(&worker, &f).await, Err(Code::InvalidField));
    let gpus = worker.status().holdings.gpus;
    assert_eq!((gpus[0].slots, gpus[0].slots_charged, gpus[0].utilisation), (1, 0, Some(42)));
}
