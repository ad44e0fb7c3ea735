//! Control processes whose clocks show other times, or jump: what is to hold holds, and takes as long as it takes.

use lyra_resources::{Caller, WriteOptions};
use lyra_types::job::{Job, JobStatus};
use lyra_types::resources::{Application, ApplicationSession, Container, ScalingPolicyType, SessionStatus, Threshold};
use lyra_types::schedule::ScheduleRequest;
use lyra_wire::control::JobQuery;
use lyra_wire::hooks::{HookRequest, ScheduleAsk};
use lyra_wire::scaler::ScalerTurn;

use super::sessions::{Nature, Node};
use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// By how many minutes the clock of the second process is ahead.
const APART: [i64; 3] = [-5, 0, 5];

/// Two control processes over the same stores; the first one leads.
struct Two {
    _dir: tempfile::TempDir,
    one: Site,
    two: Site,
    _leases: lyra_kit::Tasks,
}

impl Two {
    async fn start(minutes: i64) -> Two {
        let (dir, leases) = (tempfile::tempdir().unwrap(), lyra_kit::Tasks::new());
        let (stores, now) = (Stores::open(dir.path()), start_of_time());
        let other = Timestamp::from_millis(now.millis() + minutes * 60_000);
        let same = |jobs| jobs;
        let one = Site::start_on(stores.clone(), Config::default(), now, 1, same, &leases, ("c1", "c1:1")).await;
        lead(&one).await;
        let two = Site::start_on(stores, Config::default(), other, 2, same, &leases, ("c2", "c2:1")).await;
        Two { _dir: dir, one, two, _leases: leases }
    }

    /// The first one ends; the second leads.
    async fn hand_over(&self) {
        self.one.service.stop().await;
        lead(&self.two).await;
    }
}

async fn lead(site: &Site) {
    while site.service.epoch().is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn apply(site: &Site) {
    site.deploy("code", |request| {
        let nothing = "UEsFBgAAAAAAAAAAAAAAAAAAAAAAAA==".to_owned();
        (request.runtime, request.code) = ("http".to_owned(), CodeInput { zip: Some(nothing), ..CodeInput::default() });
    })
    .await;
    let mut object = Application::default();
    (object.metadata.name, object.metadata.namespace) = ("game".to_owned(), "default".to_owned());
    object.spec.containers =
        vec![Container { name: "main".to_owned(), function: "code".to_owned(), ..Container::default() }];
    let policy = &mut object.spec.scaling_policy;
    (policy.maximum_instance, policy.burst) = (100, 100);
    policy.scaling_policy_type = ScalingPolicyType::IdleSessionNumber;
    policy.idle_session_num_threshold = Some(Threshold { low: 0, high: 0 });
    let caller = Caller::operator("test");
    let api = site.service.resources().unwrap();
    api.applications().create(object, WriteOptions { caller: &caller, dry_run: false }).await.unwrap();
}

async fn open(site: &Site, name: &str) {
    let mut object = ApplicationSession::default();
    (object.metadata.name, object.metadata.namespace) = (name.to_owned(), "default".to_owned());
    object.spec.application_name = "game".to_owned();
    let (caller, api) = (Caller::operator("test"), site.service.resources().unwrap());
    api.sessions().create(object, WriteOptions { caller: &caller, dry_run: false }).await.unwrap();
}

fn status(site: &Site, name: &str) -> Option<SessionStatus> {
    let found = site.service.resources().unwrap().sessions().get(&tenant(), name);
    found.map(|of| of.object().status.session_status)
}

async fn until(site: &Site, name: &str, wanted: SessionStatus) {
    for _ in 0..3_000 {
        if status(site, name) == Some(wanted) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{name} is {:?} and not {wanted:?}", status(site, name));
}

#[tokio::test(start_paused = true)]
async fn a_session_has_its_time_whatever_the_clocks_of_control_processes_show() {
    for minutes in APART {
        let site = Two::start(minutes).await;
        apply(&site.one).await;
        tokio::time::sleep(SECOND).await;
        // The other process makes them, the leader looks after them.
        open(&site.two, "late").await;
        tokio::time::sleep(8 * SECOND).await;
        assert_ne!(status(&site.one, "late"), Some(SessionStatus::Timeout), "{minutes} min apart: it has 10 s");
        tokio::time::sleep(3 * SECOND).await;
        assert_eq!(status(&site.one, "late"), Some(SessionStatus::Timeout), "{minutes} min apart");
        let node = Node::new(1, Nature::default());
        let _talk = node.join(&[site.one.registry.clone(), site.two.registry.clone()]);
        open(&site.two, "open").await;
        until(&site.one, "open", SessionStatus::Available).await;
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_that_wait_are_opened_by_a_leader_whose_clock_shows_another_time() {
    for minutes in APART {
        let site = Two::start(minutes).await;
        apply(&site.one).await;
        let node = Node::new(1, Nature { room: 1, ..Nature::default() });
        let _talk = node.join(&[site.one.registry.clone(), site.two.registry.clone()]);
        open(&site.one, "before").await;
        until(&site.one, "before", SessionStatus::Available).await;
        open(&site.one, "waits").await;
        tokio::time::sleep(2 * SECOND).await;
        site.hand_over().await;
        let other = Node::new(2, Nature::default());
        let _talk = other.join(std::slice::from_ref(&site.two.registry));
        until(&site.two, "waits", SessionStatus::Available).await;
        tokio::time::sleep(10 * MINUTE).await;
        assert_eq!(status(&site.two, "before"), Some(SessionStatus::Available), "{minutes} min apart");
    }
}

#[tokio::test(start_paused = true)]
async fn a_scaler_leads_for_its_lease_whatever_the_clocks_of_control_processes_show() {
    let turn = |process: u64| {
        let (name, lease) = (format!("s{process}"), 15 * SECOND);
        ScalerTurn { name, process, lease, leaves: false, report: None, decided: Vec::new() }
    };
    for minutes in APART {
        let site = Two::start(minutes).await;
        for _ in 0..5 {
            assert!(site.one.service.scaler_turn(turn(1)).await.unwrap().leads);
            assert!(!site.two.service.scaler_turn(turn(2)).await.unwrap().leads, "{minutes} min apart");
            tokio::time::sleep(10 * SECOND).await;
        }
        assert!(!site.two.service.scaler_turn(turn(2)).await.unwrap().leads, "{minutes} min apart: 10 s of 15");
        tokio::time::sleep(6 * SECOND).await;
        assert!(site.two.service.scaler_turn(turn(2)).await.unwrap().leads, "{minutes} min apart: it is over");
    }
}

async fn jobs(site: &Site) -> Vec<Job> {
    let query = JobQuery { limit: 1_000, ..JobQuery::default() };
    site.service.jobs(&tenant(), query).await.unwrap().items
}

#[tokio::test(start_paused = true)]
async fn no_time_of_a_schedule_starts_two_jobs_when_a_leader_with_another_clock_takes_over() {
    for minutes in APART {
        let site = Two::start(minutes).await;
        site.one.deploy("f", |_| ()).await;
        let request: ScheduleRequest =
            serde_json::from_value(serde_json::json!({"cron": "*/10 * * * *", "function": "f", "event": "ok"}))
                .unwrap();
        let name = lyra_types::ScheduleName::new("often").unwrap();
        let put = HookRequest::Schedule { tenant: tenant(), ask: ScheduleAsk::Put(name.clone(), Box::new(request)) };
        site.one.service.hooks(put).await.unwrap();
        tokio::time::sleep(22 * MINUTE).await;
        assert_eq!(jobs(&site.one).await.len(), 2);
        site.hand_over().await;
        tokio::time::sleep(32 * MINUTE).await;
        let get = HookRequest::Schedule { tenant: tenant(), ask: ScheduleAsk::Get(name) };
        let history = site.two.service.hooks(get).await.unwrap().schedule().unwrap().0.history;
        let mut times: Vec<_> = history.iter().map(|firing| firing.scheduled_at).collect();
        times.sort_unstable();
        times.dedup();
        assert_eq!(times.len(), history.len(), "{minutes} min apart: a time was fired twice");
        assert_eq!(jobs(&site.two).await.len(), history.len(), "{minutes} min apart: one job each");
        let span = (times[times.len() - 1].since(times[0]).as_secs() / 600) as usize;
        assert_eq!(span + 1, times.len(), "{minutes} min apart: none was left out");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_ends_no_try_and_holds_up_no_job() {
    for minutes in [-10, 10] {
        let dir = tempfile::tempdir().unwrap();
        let site = Site::start(dir.path(), Config::default()).await;
        site.deploy("f", |request| request.max_attempts = Some(1)).await;
        let long = site.submit("f", "sleep:90000").await;
        tokio::time::sleep(5 * SECOND).await;
        site.clock.set_by(minutes * 60_000);
        // Something to look for, with the new time.
        let next = site.submit("f", "ok").await;
        for id in [next, long] {
            let ended = site.service.job(&tenant(), id, 10 * MINUTE).await.unwrap();
            assert_eq!((ended.job.status, ended.job.attempts), (JobStatus::Succeeded, 1), "{minutes} min");
        }
    }
}
