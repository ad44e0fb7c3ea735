//! The life of jobs, under virtual time.

use lyra_store::Jobs as _;
use lyra_store::jobs::Filter;
use lyra_types::job::{Job, JobStatus};
use lyra_wire::control::JobQuery;

use super::*;

const LONG: Duration = Duration::from_secs(3_600);

async fn site(change: impl FnOnce(&mut Config)) -> (tempfile::TempDir, Site) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.jobs.max_wait = LONG;
    change(&mut config);
    let site = Site::start(dir.path(), config).await;
    site.deploy("f", |_| ()).await;
    site.deploy("once", |request| request.max_attempts = Some(1)).await;
    (dir, site)
}

async fn run(site: &Site, function: &str, event: &str) -> Job {
    let id = site.submit(function, event).await;
    site.service.job(&tenant(), id, LONG).await.unwrap().job
}

#[tokio::test(start_paused = true)]
async fn a_job_runs_at_once_and_its_result_is_kept() {
    let (_dir, site) = site(|_| ()).await;
    let start = site.worker.clock.instant();
    let id = site.submit("f", "ok").await;
    let finished = site.service.job(&tenant(), id, LONG).await.unwrap();
    assert_eq!((finished.job.status, finished.job.attempts), (JobStatus::Succeeded, 1));
    assert_eq!(finished.result.as_deref(), Some(&b"\"done\""[..]));
    assert_eq!(start.elapsed(), Duration::ZERO, "no polling: it took no time");
    let text = site.metrics.render();
    assert!(
        text.contains("lyra_jobs_accepted_total 1")
            && text.contains("lyra_jobs_finished_total{status=\"succeeded\"} 1")
    );
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_with_back_off_until_the_tries_are_used_up() {
    let (_dir, site) = site(|_| ()).await;
    let start = site.worker.clock.instant();
    assert_eq!(run(&site, "f", "throw,crash,ok").await.attempts, 3);
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(1_500) && waited <= Duration::from_millis(3_100), "{waited:?}");
    let dead = run(&site, "f", "throw").await;
    assert_eq!((dead.status, dead.attempts, dead.error.unwrap().code), (JobStatus::Dead, 3, Code::FunctionError));
    assert_eq!(run(&site, "once", "throw#1").await.status, JobStatus::Failed);
    assert_eq!(run(&site, "once", "slow#1").await.status, JobStatus::TimedOut);
    let hopeless = run(&site, "f", "too-large").await;
    assert_eq!((hopeless.status, hopeless.attempts), (JobStatus::Failed, 1));
}

#[tokio::test(start_paused = true)]
async fn a_worker_without_room_costs_no_try() {
    let (_dir, site) = site(|_| ()).await;
    let job = run(&site, "once", "busy,busy,busy,busy,busy,ok").await;
    assert_eq!((job.status, job.attempts), (JobStatus::Succeeded, 1));
}

#[tokio::test(start_paused = true)]
async fn a_long_job_keeps_its_lease_by_heartbeats() {
    let (_dir, site) = site(|_| ()).await;
    let job = run(&site, "once", "sleep:600000").await;
    assert_eq!((job.status, job.attempts), (JobStatus::Succeeded, 1));
}

#[tokio::test(start_paused = true)]
async fn cancel_stops_a_running_job_at_once() {
    let (_dir, site) = site(|_| ()).await;
    let start = site.worker.clock.instant();
    let id = site.submit("f", "sleep:600000").await;
    while site.worker.running.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let job = site.service.cancel_job(&tenant(), id, LONG).await.unwrap();
    assert_eq!(job.status, JobStatus::Cancelled);
    assert_eq!(site.worker.dropped.load(Ordering::SeqCst), 1, "the call was dropped");
    assert!(start.elapsed() < Duration::from_secs(1), "not only at the next heartbeat");
    assert_eq!(site.service.cancel_job(&tenant(), id, LONG).await.unwrap(), job);
}

#[tokio::test(start_paused = true)]
async fn a_queued_job_is_cancelled_and_those_who_wait_are_told() {
    let (_dir, site) = site(|config| config.jobs.max_in_flight = 1).await;
    let first = site.submit("f", "sleep:60000").await;
    while site.worker.running.load(Ordering::SeqCst) < 1 {
        tokio::task::yield_now().await;
    }
    let second = site.submit("f", "ok").await;
    let wait = async { site.service.job(&tenant(), second, LONG).await };
    let cancel = async {
        site.worker.clock.sleep(Duration::from_secs(1)).await;
        site.service.cancel_job(&tenant(), second, Duration::ZERO).await.unwrap()
    };
    let start = site.worker.clock.instant();
    let (waited, _) = futures::join!(wait, cancel);
    assert_eq!(waited.unwrap().job.status, JobStatus::Cancelled);
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(site.service.job(&tenant(), first, Duration::ZERO).await.unwrap().job.status, JobStatus::Running);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_over_answers_with_the_job_as_it_is() {
    let (_dir, site) = site(|_| ()).await;
    let id = site.submit("f", "sleep:60000").await;
    let start = site.worker.clock.instant();
    let job = site.service.job(&tenant(), id, Duration::from_secs(10)).await.unwrap().job;
    assert_eq!((job.status, start.elapsed().as_secs()), (JobStatus::Running, 10));
    let missing = JobId::from_parts(1, 1);
    assert_eq!(site.service.job(&tenant(), missing, LONG).await.unwrap_err().code, Code::NotFound);
    let other = TenantName::new("other").unwrap();
    assert_eq!(site.service.job(&other, id, LONG).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_key_gives_the_same_job_also_after_a_deploy() {
    let (_dir, site) = site(|_| ()).await;
    let submit = async |event: &'static str, key: &str| {
        let route = site.service.function(&tenant(), &name("f")).await.unwrap();
        let version = Arc::clone(route.versions.values().next_back().unwrap());
        let event = Bytes::from_static(event.as_bytes());
        site.service
            .submit(Submit {
                id: None,
                version,
                event,
                idempotency_key: Some(key.to_owned()),
                user: None,
                destinations: None,
            })
            .await
    };
    let first = submit("ok", "k").await.unwrap();
    site.deploy("f", |_| ()).await;
    let again = submit("ok", "k").await.unwrap();
    assert_eq!((again.id, again.created), (first.id, false));
    assert_eq!(submit("throw", "k").await.unwrap_err().code, Code::IdempotencyMismatch);
    assert_eq!(submit("ok", "").await.unwrap_err().code, Code::InvalidField);
    assert_eq!(submit("ok", &"k".repeat(256)).await.unwrap_err().code, Code::InvalidField);
}

#[tokio::test(start_paused = true)]
async fn no_more_run_at_once_than_may_and_slow_functions_do_not_hold_up_others() {
    let (_dir, site) = site(|config| {
        config.jobs.max_in_flight = 8;
        config.jobs.max_in_flight_per_function = 5;
    })
    .await;
    for i in 0..100 {
        site.submit("f", &format!("sleep:60000#{i}")).await;
    }
    let start = site.worker.clock.instant();
    assert_eq!(run(&site, "once", "ok").await.status, JobStatus::Succeeded);
    assert!(start.elapsed() < Duration::from_secs(60), "it did not wait for the slow ones");
    assert_eq!(site.worker.running.load(Ordering::SeqCst), 5);
}

#[tokio::test(start_paused = true)]
async fn dead_jobs_are_redriven_or_purged() {
    let (_dir, site) = site(|_| ()).await;
    let dead = run(&site, "f", "throw,throw,throw,ok").await;
    assert_eq!(dead.status, JobStatus::Dead);
    site.service.redrive(&tenant(), dead.id).await.unwrap();
    let again = site.service.job(&tenant(), dead.id, LONG).await.unwrap().job;
    assert_eq!((again.status, again.attempts), (JobStatus::Succeeded, 1));
    assert_eq!(site.service.redrive(&tenant(), dead.id).await.unwrap_err().code, Code::Conflict);
    for i in 0..3 {
        run(&site, "f", &format!("throw,throw,throw,ok#{i}")).await;
    }
    assert_eq!(site.service.redrive_all(&tenant()).await.unwrap(), 3);
    let one = run(&site, "f", "throw#x").await;
    run(&site, "f", "throw#y").await;
    assert_eq!(site.service.purge_dead(&tenant(), Some(one.id)).await.unwrap(), 1);
    assert_eq!(site.service.purge_dead(&tenant(), Some(one.id)).await.unwrap_err().code, Code::NotFound);
    assert_eq!(site.service.purge_dead(&tenant(), None).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn ended_jobs_are_forgotten_after_their_time() {
    // Shorter than by default: what looks at things each second makes a virtual week long.
    let (_dir, site) = site(|config| {
        (config.jobs.keep_finished, config.jobs.keep_dead) = (Duration::from_secs(600), Duration::from_secs(3_600));
    })
    .await;
    let done = run(&site, "f", "ok").await.id;
    let dead = run(&site, "f", "throw").await.id;
    let known = async |id| site.service.job(&tenant(), id, Duration::ZERO).await.is_ok();
    site.worker.clock.sleep(Duration::from_secs(540)).await;
    assert!(known(done).await);
    site.worker.clock.sleep(Duration::from_secs(120)).await;
    assert!(!known(done).await && known(dead).await);
    site.worker.clock.sleep(Duration::from_secs(3_000)).await;
    assert!(!known(dead).await);
}

#[tokio::test(start_paused = true)]
async fn shutdown_lets_jobs_end_and_gives_back_those_that_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path(), Config::default()).await;
    site.deploy("once", |request| request.max_attempts = Some(1)).await;
    let short = site.submit("once", "sleep:5000").await;
    let long = site.submit("once", "sleep:60000,ok").await;
    while site.worker.running.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    site.service.stop().await;
    let at_rest = async |id| site.jobs.get(tenant(), id, false).await.unwrap().0;
    assert_eq!(at_rest(short).await.status, JobStatus::Succeeded);
    let given_back = at_rest(long).await;
    assert_eq!((given_back.status, given_back.attempts), (JobStatus::Queued, 0));
    let late = site.submit("once", "ok").await;
    assert_eq!(at_rest(late).await.status, JobStatus::Queued, "nothing is leased any more");
    drop(site);
    let site = Site::start(dir.path(), Config::default()).await;
    for id in [long, late] {
        assert_eq!(
            site.service.job(&tenant(), id, Duration::from_secs(300)).await.unwrap().job.status,
            JobStatus::Succeeded
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_of_a_deleted_function_ends_with_a_clear_error_or_goes_with_it() {
    let (_dir, site) = site(|config| config.jobs.max_in_flight = 1).await;
    let begun = site.submit("f", "throw").await;
    site.service.job(&tenant(), begun, Duration::from_millis(100)).await.unwrap();
    let blocking = site.submit("once", "sleep:60000").await;
    while site.worker.running.load(Ordering::SeqCst) < 1 {
        tokio::task::yield_now().await;
    }
    let waiting = site.submit("f", "ok").await;
    site.service.delete_function(&tenant(), &name("f")).await.unwrap();
    assert_eq!(site.service.job(&tenant(), waiting, Duration::ZERO).await.unwrap_err().code, Code::NotFound);
    let job = site.service.job(&tenant(), begun, LONG).await.unwrap().job;
    assert_eq!((job.status, job.error.unwrap().code), (JobStatus::Failed, Code::NotFound));
    site.service.job(&tenant(), blocking, LONG).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn lists_have_pages_newest_first() {
    let (_dir, site) = site(|_| ()).await;
    for i in 0..5 {
        site.submit("f", &format!("ok#{i}")).await;
        site.worker.clock.sleep(Duration::from_millis(10)).await;
    }
    let query = |cursor: Option<String>| JobQuery { function: Some(name("f")), limit: 3, cursor, status: None };
    let first = site.service.jobs(&tenant(), query(None)).await.unwrap();
    let second = site.service.jobs(&tenant(), query(first.next)).await.unwrap();
    assert_eq!((first.items.len(), second.items.len(), second.next), (3, 2, None));
    assert!(first.items.iter().chain(&second.items).is_sorted_by(|a, b| a.id > b.id));
    let bad = site.service.jobs(&tenant(), query(Some("x".into()))).await;
    assert_eq!(bad.unwrap_err().code, Code::BadRequest);
    let succeeded = Filter { status: Some(JobStatus::Succeeded), limit: 9, ..Filter::default() };
    assert_eq!(site.jobs.list(tenant(), succeeded).await.unwrap().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses() {
    let (_dir, site) = site(|config| {
        config.jobs.max_in_flight = 1;
        config.jobs.max_queued = 2;
    })
    .await;
    for i in 0..4 {
        site.submit("f", &format!("sleep:600000#{i}")).await;
    }
    site.worker.clock.sleep(Duration::from_secs(6)).await;
    let version = Arc::clone(&site.service.function(&tenant(), &name("f")).await.unwrap().versions[&1]);
    let submit = Submit {
        id: None,
        version,
        event: Bytes::from_static(b"ok"),
        idempotency_key: None,
        user: None,
        destinations: None,
    };
    let error = site.service.submit(submit).await.unwrap_err();
    assert_eq!((error.code, error.retry_after.is_some()), (Code::Overloaded, true));
}
