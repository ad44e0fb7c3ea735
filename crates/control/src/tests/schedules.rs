//! Schedules: one job for each time, whatever leads and dies.

use lyra_types::ScheduleName;
use lyra_types::job::JobStatus;
use lyra_types::schedule::{FiringOutcome, MissedPolicy, OverlapPolicy, ScheduleRequest, ScheduleView};
use lyra_wire::control::{JobQuery, PageQuery};
use lyra_wire::hooks::{HookAnswer, HookRequest, ScheduleAsk};

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

fn nightly() -> ScheduleName {
    ScheduleName::new("nightly").unwrap()
}

fn request(cron: &str, event: &str) -> ScheduleRequest {
    serde_json::from_value(serde_json::json!({"cron": cron, "function": "f", "event": event})).unwrap()
}

async fn ask(site: &Site, ask: ScheduleAsk) -> Result<HookAnswer> {
    site.service.hooks(HookRequest::Schedule { tenant: tenant(), ask }).await
}

async fn put(site: &Site, request: ScheduleRequest) -> ScheduleView {
    ask(site, ScheduleAsk::Put(nightly(), Box::new(request))).await.unwrap().schedule().unwrap().0
}

async fn get(site: &Site) -> ScheduleView {
    ask(site, ScheduleAsk::Get(nightly())).await.unwrap().schedule().unwrap().0
}

/// Events are JSON here, and the worker's script is what stands in the quotes.
async fn site() -> (tempfile::TempDir, Site) {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path(), Config::default()).await;
    site.deploy("f", |_| ()).await;
    (dir, site)
}

async fn jobs(site: &Site) -> Vec<lyra_types::job::Job> {
    let query = JobQuery { limit: 1_000, ..JobQuery::default() };
    site.service.jobs(&tenant(), query).await.unwrap().items
}

async fn pass(site: &Site, time: Duration) {
    site.worker.clock.sleep(time).await;
}

fn outcomes(view: &ScheduleView) -> Vec<FiringOutcome> {
    view.history.iter().map(|firing| firing.outcome).collect()
}

#[tokio::test(start_paused = true)]
async fn each_time_starts_one_job_with_the_event() {
    let (_dir, site) = site().await;
    // Virtual time begins at 08:00:00 UTC.
    let view = put(&site, request("*/10 * * * *", "ok")).await;
    assert_eq!(view.next.len(), 5);
    assert_eq!(view.next[0], start_of_time() + Duration::from_secs(600));
    pass(&site, HOUR + Duration::from_secs(5)).await;
    let found = jobs(&site).await;
    assert_eq!(found.len(), 6);
    assert!(found.iter().all(|job| job.status == JobStatus::Succeeded));
    assert_eq!(site.worker.begun.lock().keys().next().unwrap(), &Bytes::from_static(b"\"ok\""));
    let view = get(&site).await;
    assert_eq!(outcomes(&view), vec![FiringOutcome::Started; 6]);
    assert!(view.history.iter().all(|firing| firing.fired_at.since(firing.scheduled_at) < Duration::from_secs(2)));
    let text = site.metrics.render();
    assert!(text.contains("lyra_schedule_firings_total{outcome=\"started\"} 6"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_time_of_two_leaders_in_turn_starts_one_job() {
    let dir = tempfile::tempdir().unwrap();
    let mut now = start_of_time();
    let mut seed = 1;
    let mut started = 0;
    for round in 0..4_u64 {
        let site = Site::start_at(dir.path(), Config::default(), now, seed, |jobs| jobs).await;
        if round == 0 {
            site.deploy("f", |_| ()).await;
            put(&site, request("*/30 * * * * *", "ok")).await;
        }
        let begun = site.worker.clock.instant();
        // Each leader is killed at another moment around a time: nothing of it is let end.
        pass(&site, Duration::from_millis(60_000 + round * 3)).await;
        started += site.worker.begun.lock().values().sum::<u32>();
        now = now + begun.elapsed();
        seed += 1;
        // The next one begins with the note of the last firing undone, as if the one before had died before it was made.
        site.service.stop().await;
        forget_last_firing(dir.path());
    }
    let site = Site::start_at(dir.path(), Config::default(), now, seed, |jobs| jobs).await;
    pass(&site, Duration::from_secs(5)).await;
    let found = jobs(&site).await;
    assert_eq!(found.len(), 8, "one for each half minute");
    assert!(started <= 8, "no firing that was repeated ran again: {started}");
}

/// Takes the note of the last firing back, in the file.
fn forget_last_firing(dir: &Path) {
    let store = SqliteObjects::open(&dir.join("objects.db"), History::default(), None).unwrap();
    let key = format!("schedules/{}/nightly", tenant());
    futures::executor::block_on(async {
        use lyra_store::Objects as _;
        let entry = store.get(&key).await.unwrap().unwrap();
        let mut value: serde_json::Value = serde_json::from_slice(&entry.value).unwrap();
        let history = value["history"].as_array_mut().unwrap();
        let tick = history.remove(0)["scheduled_at"].as_str().map(|at| Timestamp::parse(at).unwrap()).unwrap();
        value["last"] = serde_json::Value::from((tick - Duration::from_millis(1)).to_string());
        let put = lyra_store::objects::Change::Put(key, serde_json::to_vec(&value).unwrap().into());
        let txn = lyra_store::objects::Txn { checks: Vec::new(), changes: vec![put] };
        store.txn(txn).await.unwrap();
    });
}

#[tokio::test(start_paused = true)]
async fn a_firing_while_the_job_before_runs_is_as_the_policy_says() {
    for (policy, jobs_wanted, last) in [
        (OverlapPolicy::Skip, 1, FiringOutcome::Overlapped),
        (OverlapPolicy::Allow, 4, FiringOutcome::Started),
        (OverlapPolicy::Queue, 1, FiringOutcome::Overlapped),
        (OverlapPolicy::Replace, 4, FiringOutcome::Started),
    ] {
        let (_dir, site) = site().await;
        put(&site, ScheduleRequest { overlap: policy, ..request("* * * * *", "sleep:270000") }).await;
        pass(&site, Duration::from_secs(245)).await;
        let found = jobs(&site).await;
        assert_eq!(found.len(), jobs_wanted, "{policy:?}");
        assert_eq!(get(&site).await.history[0].outcome, last, "{policy:?}");
        let running = found.iter().filter(|job| job.status == JobStatus::Running).count();
        let wanted = if policy == OverlapPolicy::Allow { 4 } else { 1 };
        assert_eq!(running, wanted, "{policy:?}");
        // The first one ends at 330 s: of those that came meanwhile one was kept.
        pass(&site, Duration::from_secs(90)).await;
        let started = jobs(&site).await.len();
        assert!(policy != OverlapPolicy::Queue || started == 2, "{started}");
    }
}

#[tokio::test(start_paused = true)]
async fn missed_times_are_made_up_for_as_the_policy_says() {
    for (policy, wanted) in [(MissedPolicy::Skip, 0), (MissedPolicy::Once, 1), (MissedPolicy::All, 3)] {
        let dir = tempfile::tempdir().unwrap();
        let site = Site::start(dir.path(), Config::default()).await;
        site.deploy("f", |_| ()).await;
        let asked = ScheduleRequest {
            missed: policy,
            overlap: OverlapPolicy::Allow,
            catch_up_seconds: 3 * 3_600 + 1_900,
            ..request("0 * * * *", "ok")
        };
        put(&site, asked).await;
        site.service.stop().await;
        // Eleven hours and a half later.
        let now = start_of_time() + 11 * HOUR + Duration::from_secs(1_800);
        let site = Site::start_at(dir.path(), Config::default(), now, 2, |jobs| jobs).await;
        pass(&site, Duration::from_secs(10)).await;
        assert_eq!(jobs(&site).await.len(), wanted + usize::from(policy == MissedPolicy::All), "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_schedule_fires_by_hand_only_and_misses_nothing() {
    let (_dir, site) = site().await;
    put(&site, ScheduleRequest { paused: true, missed: MissedPolicy::All, ..request("* * * * *", "ok") }).await;
    pass(&site, HOUR).await;
    assert!(jobs(&site).await.is_empty() && get(&site).await.next.is_empty());
    let HookAnswer::Ran(ran) = ask(&site, ScheduleAsk::Run(nightly())).await.unwrap() else { panic!("not run") };
    let job = site.service.job(&tenant(), ran.job, HOUR).await.unwrap().job;
    assert_eq!(job.status, JobStatus::Succeeded);
    let view = get(&site).await;
    assert!(view.history[0].manual && view.history[0].job == Some(ran.job));
    ask(&site, ScheduleAsk::Pause(nightly(), false)).await.unwrap();
    pass(&site, Duration::from_secs(90)).await;
    assert_eq!(jobs(&site).await.len(), 2, "what came while it was paused was not missed");
    ask(&site, ScheduleAsk::Delete(nightly())).await.unwrap();
    pass(&site, HOUR).await;
    assert_eq!(jobs(&site).await.len(), 2);
    assert_eq!(ask(&site, ScheduleAsk::Get(nightly())).await.unwrap_err().code, Code::NotFound);
    assert_eq!(ask(&site, ScheduleAsk::Delete(nightly())).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_stored_of_a_schedule_that_is_refused() {
    let (_dir, site) = site().await;
    for (change, field) in [
        (request("soon", "ok"), "cron"),
        (ScheduleRequest { time_zone: Some("Moon/Sea".to_owned()), ..request("@daily", "ok") }, "time_zone"),
        (ScheduleRequest { function: "none".to_owned(), ..request("@daily", "ok") }, "function"),
        (ScheduleRequest { function: "f@7".to_owned(), ..request("@daily", "ok") }, "function"),
    ] {
        let error = ask(&site, ScheduleAsk::Put(nightly(), Box::new(change))).await.unwrap_err();
        assert_eq!((error.code, error.errors[0].field.as_str()), (Code::InvalidField, field));
    }
    let HookAnswer::Schedules(page) = ask(&site, ScheduleAsk::List(PageQuery::default())).await.unwrap() else {
        panic!("no list")
    };
    assert!(page.items.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_firing_whose_function_is_gone_is_refused_and_says_so() {
    let (_dir, site) = site().await;
    put(&site, request("* * * * *", "ok")).await;
    site.service.delete_function(&tenant(), &name("f")).await.unwrap();
    pass(&site, Duration::from_secs(65)).await;
    let view = get(&site).await;
    assert_eq!(outcomes(&view), [FiringOutcome::Refused]);
    assert!(view.history[0].error.as_ref().unwrap().contains("function"), "{view:?}");
}
