//! Who may change the workers when, and that those that go are emptied before.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lyra_kit::{Clock, Random, telemetry};
use lyra_scaler::backends::{Backend, BackendError, Change};
use lyra_scaler::{Config, Deps, Service};
use lyra_types::Timestamp;
use lyra_wire::Operated;
use lyra_wire::scaler::Load;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::doubles::{Emptied, One, Played};
use super::until;

/// A back end that counts.
#[derive(Default)]
struct Counted {
    workers: Mutex<Vec<String>>,
    applied: Mutex<Vec<Change>>,
    fails: Mutex<bool>,
}

impl Counted {
    fn of(names: &[&str]) -> Arc<Counted> {
        let workers = Mutex::new(names.iter().map(|name| (*name).to_owned()).collect());
        Arc::new(Counted { workers, ..Counted::default() })
    }

    fn count(&self) -> usize {
        self.workers.lock().len()
    }
}

#[async_trait]
impl Backend for Counted {
    fn name(&self) -> &'static str {
        "counted"
    }
    async fn current(&self, _: &Load) -> Result<u32, BackendError> {
        Ok(self.count() as u32)
    }
    fn going(&self, _: &Load, from: u32, to: u32) -> Vec<String> {
        let workers = self.workers.lock();
        workers.iter().rev().take((from - to) as usize).cloned().collect()
    }
    async fn apply(&self, change: &Change) -> Result<(), BackendError> {
        if *self.fails.lock() {
            return Err(BackendError::Failed { operation: "a test", reason: "told to".to_owned() });
        }
        let mut workers = self.workers.lock();
        workers.retain(|worker| !change.going.contains(worker));
        while workers.len() < change.to as usize {
            let name = format!("w{}", workers.len() + 1);
            workers.push(name);
        }
        self.applied.lock().push(change.clone());
        Ok(())
    }
}

fn quick() -> Config {
    let second = Duration::from_secs(1);
    Config { every: second, up_cooldown: second, down_cooldown: second, ..Config::default() }
}

async fn scaler(
    dir: &Path,
    name: &str,
    config: Config,
    control: &Arc<Played>,
    backend: &Arc<Counted>,
    emptied: &Arc<Emptied>,
) -> Service {
    let emptied = Arc::clone(emptied);
    let deps = Deps {
        control: control.clone(),
        reach: Arc::new(move |name, _| Ok(Arc::new(One(name.to_owned(), Arc::clone(&emptied))) as Arc<dyn Operated>)),
        clock: Clock::simulated(Timestamp::from_millis(1_800_000_000_000)),
        random: Random::system(),
        metrics: telemetry::Metrics::new(),
        name: name.to_owned(),
        controls: Vec::new(),
        dir: dir.to_owned(),
        program: "/bin/false".into(),
    };
    let service = Service::with_backend(config, deps, backend.clone()).await;
    service.start();
    service
}

#[tokio::test(start_paused = true)]
async fn a_backlog_makes_workers_and_is_told_to_control() {
    let dir = tempfile::tempdir().unwrap();
    let (control, backend) = (Played::with_workers(&["w1"]), Counted::of(&["w1"]));
    control.set(|known| known.load.queued = 100);
    let service = scaler(dir.path(), "s", quick(), &control, &backend, &Arc::default()).await;
    until("there are eight", async || backend.count() == 8).await;
    control.set(|known| known.load.queued = 10);
    until("it was told", async || control.decided().len() >= 3).await;
    let told: Vec<_> = control.decided().iter().take(3).map(|of| (of.from, of.to, of.reason.clone())).collect();
    let queue = || "queue".to_owned();
    assert_eq!(told, [(1, 2, queue()), (2, 4, queue()), (4, 8, queue())]);
    service.stop().await;
    assert_eq!(control.0.lock().leader, None, "who ends gives the lead up");
}

#[tokio::test(start_paused = true)]
async fn of_two_scalers_one_changes_the_workers_and_the_other_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let (control, one, two) = (Played::with_workers(&["w1"]), Counted::of(&["w1"]), Counted::of(&["w1"]));
    control.set(|known| known.load.queued = 100);
    let config = Config { max: 2, ..quick() };
    let first = scaler(dir.path(), "one", config.clone(), &control, &one, &Arc::default()).await;
    until("the first leads", async || control.0.lock().leader.is_some()).await;
    let second = scaler(dir.path(), "two", config, &control, &two, &Arc::default()).await;
    until("the first makes one", async || one.count() == 2).await;
    until("the second was told", async || control.0.lock().turns.iter().filter(|turn| turn.name == "two").count() > 3)
        .await;
    assert_eq!(two.count(), 1);
    first.stop().await;
    until("the second makes one", async || two.count() == 2).await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn workers_that_go_are_emptied_before() {
    let dir = tempfile::tempdir().unwrap();
    let (control, backend) = (Played::with_workers(&["w1", "w2", "w3"]), Counted::of(&["w1", "w2", "w3"]));
    let emptied = Arc::new(Emptied::default());
    let may_end = Arc::new(Notify::new());
    emptied.may_end.lock().insert("w3".to_owned(), Arc::clone(&may_end));
    control.set(|known| known.orders.max = Some(1));
    let service = scaler(dir.path(), "s", quick(), &control, &backend, &emptied).await;
    until("both are told", async || emptied.told.lock().contains(&("w3".to_owned(), "drain"))).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(backend.count(), 3, "none is ended before all that go are empty");
    may_end.notify_one();
    until("they are ended", async || backend.count() == 1).await;
    let change = backend.applied.lock()[0].clone();
    assert_eq!((change.from, change.to, change.reason), (3, 1, "maximum"));
    assert_eq!(change.going, ["w3", "w2"]);
    service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn workers_that_were_to_go_are_taken_back_when_more_are_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let (control, backend) = (Played::with_workers(&["w1", "w2"]), Counted::of(&["w1", "w2"]));
    let emptied = Arc::new(Emptied::default());
    emptied.may_end.lock().insert("w2".to_owned(), Arc::new(Notify::new()));
    let service = scaler(dir.path(), "s", quick(), &control, &backend, &emptied).await;
    until("it is told", async || emptied.told.lock().contains(&("w2".to_owned(), "drain"))).await;
    control.set(|known| known.load.queued = 100);
    until("it is taken back", async || emptied.told.lock().contains(&("w2".to_owned(), "uncordon"))).await;
    until("more are made", async || backend.count() >= 4).await;
    assert!(backend.workers.lock().contains(&"w2".to_owned()));
    service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_can_not_be_emptied_is_not_ended() {
    let dir = tempfile::tempdir().unwrap();
    let (control, backend) = (Played::with_workers(&["w1", "w2"]), Counted::of(&["w1", "w2"]));
    let emptied = Arc::new(Emptied::default());
    *emptied.unreachable.lock() = true;
    let service = scaler(dir.path(), "s", quick(), &control, &backend, &emptied).await;
    let fault =
        async || control.0.lock().turns.iter().any(|turn| turn.report.as_ref().is_some_and(|of| of.fault.is_some()));
    until("the fault is told", fault).await;
    assert_eq!(backend.count(), 2);
    *emptied.unreachable.lock() = false;
    until("it is tried again", async || backend.count() == 1).await;
    service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_and_a_pause_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (control, backend) = (Played::with_workers(&["w1"]), Counted::of(&["w1"]));
    control.set(|known| known.load.queued = 100);
    let config = Config { dry_run: true, ..quick() };
    let service = scaler(dir.path(), "s", config, &control, &backend, &Arc::default()).await;
    until("it is decided", async || control.decided().iter().any(|of| of.dry_run && of.to == 2)).await;
    assert_eq!(backend.count(), 1);
    service.stop().await;
    control.set(|known| known.orders.paused = true);
    let service = scaler(dir.path(), "t", quick(), &control, &backend, &Arc::default()).await;
    let turns = async || control.0.lock().turns.iter().filter(|turn| turn.name == "t").count();
    until("it takes turns", async || turns().await > 5).await;
    assert_eq!(backend.count(), 1);
    control.set(|known| known.orders.paused = false);
    until("it goes on", async || backend.count() > 1).await;
    service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_control_and_with_a_back_end_that_fails_nothing_is_lost_and_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (control, backend) = (Played::with_workers(&["w1"]), Counted::of(&["w1"]));
    *backend.fails.lock() = true;
    control.set(|known| known.load.queued = 100);
    let service = scaler(dir.path(), "s", quick(), &control, &backend, &Arc::default()).await;
    let fault =
        async || control.0.lock().turns.iter().any(|turn| turn.report.as_ref().is_some_and(|of| of.fault.is_some()));
    until("the fault is told", fault).await;
    control.set(|known| known.away = true);
    *backend.fails.lock() = false;
    tokio::time::sleep(Duration::from_secs(120)).await;
    let before = backend.count();
    assert!(before <= 2, "without control nothing new is decided: {before}");
    control.set(|known| known.away = false);
    until("it goes on", async || backend.count() > before).await;
    service.stop().await;
}
