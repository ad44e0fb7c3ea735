//! Quotas: what control refuses, what it holds back, and how it shares limits out.

use lyra_store::Jobs as _;
use lyra_types::job::JobStatus;
use lyra_types::quota::{Period, Quota, QuotaKey};
use lyra_types::usage::{Hour, Usage, UsageBatch, UsageKey, UsageRow};
use lyra_wire::control::PageQuery;
use lyra_wire::quotas::{Claim, Shares};
use lyra_wire::{Accounts, Quotas};

use super::*;

const LONG: Duration = Duration::from_secs(3_600);

async fn site() -> (tempfile::TempDir, Site) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.jobs.max_wait = LONG;
    let site = Site::start(dir.path(), config).await;
    (dir, site)
}

fn key(function: Option<&str>) -> QuotaKey {
    QuotaKey { tenant: tenant(), function: function.map(name) }
}

async fn set(site: &Site, function: Option<&str>, quota: Quota) {
    site.service.set_quota(&key(function), quota).await.unwrap();
}

async fn try_deploy(site: &Site, function: &str, source: &str) -> Result<()> {
    site.service.deploy(&tenant(), &name(function), js(source), Precondition::None).await.map(drop)
}

#[tokio::test(start_paused = true)]
async fn deploys_that_come_together_never_pass_a_limit() {
    let (_dir, site) = site().await;
    set(&site, None, Quota { functions: Some(3), ..Quota::default() }).await;
    let names: Vec<String> = (0..12).map(|number| format!("f{number}")).collect();
    let deploys = names.iter().map(|name| try_deploy(&site, name, "1"));
    let outcomes = futures::future::join_all(deploys).await;
    let refused: Vec<Error> = outcomes.into_iter().filter_map(Result::err).collect();
    assert_eq!(refused.len(), 9);
    for error in &refused {
        assert_eq!((error.code, &*error.errors[0].field), (Code::LimitReached, "quota.functions"), "{error}");
        assert!(error.retry_after.is_some() && error.detail.contains("3 functions; there are 3"), "{error}");
    }
    let all = site.service.functions(&tenant(), PageQuery { limit: 100, cursor: None }).await.unwrap().items;
    assert_eq!(all.len(), 3);
    let (kept, dropped) = (&all[0].function, &all[1].function);
    try_deploy(&site, kept.as_str(), "2").await.expect("a further version is no further function");
    site.service.delete_function(&tenant(), dropped).await.unwrap();
    try_deploy(&site, "another", "1").await.expect("there is room again");
    let other = TenantName::new("other").unwrap();
    site.service.deploy(&other, &name("f"), js("1"), Precondition::None).await.expect("it is nobody else's limit");
}

#[tokio::test(start_paused = true)]
async fn code_counts_once_and_goes_with_its_versions() {
    let (_dir, site) = site().await;
    let ten = "1234567890";
    set(&site, None, Quota { stored_bytes: Some(25), ..Quota::default() }).await;
    set(&site, Some("small"), Quota { stored_bytes: Some(12), ..Quota::default() }).await;
    try_deploy(&site, "a", ten).await.unwrap();
    try_deploy(&site, "b", ten).await.expect("the same code is stored once");
    try_deploy(&site, "small", ten).await.unwrap();
    let error = try_deploy(&site, "small", "abcdefghij").await.unwrap_err();
    assert!(error.detail.contains("function small") && error.errors[0].field == "quota.stored_bytes", "{error}");
    try_deploy(&site, "a", "abcdefghij").await.unwrap();
    let error = try_deploy(&site, "c", "ABCDEFGHIJ").await.unwrap_err();
    assert!(error.detail.contains("tenant default") && error.detail.contains("there would be 30"), "{error}");
    assert!(site.service.function(&tenant(), &name("c")).await.is_err(), "nothing is stored of it");
    site.service.delete_function(&tenant(), &name("a")).await.unwrap();
    try_deploy(&site, "c", "ABCDEFGHIJ").await.unwrap();
    let view = site.service.quota(&key(None)).await.unwrap();
    assert_eq!((view.used.stored_bytes, view.used.functions, view.functions.len()), (20, 3, 1));
}

fn ok(version: Arc<FunctionVersion>) -> Submit {
    let event = Bytes::from_static(b"ok");
    Submit { id: None, version, event, idempotency_key: None, user: None, destinations: None }
}

#[tokio::test(start_paused = true)]
async fn jobs_that_wait_are_limited_and_those_held_back_run_in_the_end() {
    let (_dir, site) = site().await;
    for function in ["f", "g"] {
        try_deploy(&site, function, "1").await.unwrap();
    }
    set(&site, None, Quota { concurrency: Some(2), queued_jobs: Some(3), ..Quota::default() }).await;
    // The dispatcher is told of it like a gateway.
    site.worker.clock.sleep(Duration::from_secs(2)).await;
    let mut ids = Vec::new();
    for number in 0..2 {
        ids.push(site.submit("f", &format!("sleep:60000#{number}")).await);
    }
    while site.worker.running.load(Ordering::SeqCst) < 2 {
        site.worker.clock.sleep(Duration::from_millis(50)).await;
    }
    for number in 2..5 {
        ids.push(site.submit("f", &format!("sleep:60000#{number}")).await);
    }
    let route = site.service.function(&tenant(), &name("g")).await.unwrap();
    let version = Arc::clone(&route.versions[&1]);
    let error = site.service.submit(ok(version)).await.unwrap_err();
    assert_eq!((error.code, &*error.errors[0].field), (Code::LimitReached, "quota.queued_jobs"));
    site.worker.clock.sleep(Duration::from_secs(30)).await;
    assert_eq!(site.worker.running.load(Ordering::SeqCst), 2, "the others are held back");
    assert_eq!(site.service.quota(&key(None)).await.unwrap().used.concurrency, Some(2));
    for id in ids {
        let job = site.service.job(&tenant(), id, LONG).await.unwrap().job;
        assert_eq!((job.status, job.attempts), (JobStatus::Succeeded, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_is_held_back_holds_nobody_up() {
    let (_dir, site) = site().await;
    try_deploy(&site, "f", "1").await.unwrap();
    set(&site, None, Quota { concurrency: Some(0), ..Quota::default() }).await;
    site.worker.clock.sleep(Duration::from_secs(2)).await;
    let mut stuck = Vec::new();
    for number in 0..300 {
        stuck.push(site.submit("f", &format!("ok#{number}")).await);
    }
    let other = TenantName::new("other").unwrap();
    site.service.deploy(&other, &name("f"), js("1"), Precondition::None).await.unwrap();
    let route = site.service.function(&other, &name("f")).await.unwrap();
    let version = Arc::clone(&route.versions[&1]);
    let id = site.service.submit(ok(version)).await.unwrap().id;
    assert_eq!(site.service.job(&other, id, LONG).await.unwrap().job.status, JobStatus::Succeeded);
    let first = site.service.job(&tenant(), stuck[0], Duration::ZERO).await.unwrap().job;
    assert_eq!(first.status, JobStatus::Queued);
    site.service.remove_quota(&key(None)).await.unwrap();
    for id in stuck {
        assert_eq!(site.service.job(&tenant(), id, LONG).await.unwrap().job.status, JobStatus::Succeeded);
    }
}

async fn claim(site: &Site, have: Option<(u64, u64)>) -> Shares {
    let claim = Claim { member: 7, patient: false, have, holds: Some(Vec::new()), wants: Vec::new() };
    site.service.share(claim).await.unwrap()
}

async fn use_cpu(site: &Site, sequence: u64, function: &str, cpu_us: u64) {
    let key = UsageKey {
        tenant: tenant(),
        function: name(function),
        version: 1,
        user: String::new(),
        hour: Hour::of(site.clock.now()),
    };
    let usage = Usage { invocations: 1, cpu_us, ..Usage::default() };
    let batch = UsageBatch { source: "w1".to_owned(), sequence, rows: vec![UsageRow { key, usage }] };
    assert!(site.jobs.add_usage(batch).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn processor_time_is_held_to_its_period() {
    let (_dir, site) = site().await;
    try_deploy(&site, "f", "1").await.unwrap();
    let hourly = Quota { cpu_ms: Some(1_000), cpu_period: Some(Period::Hour), ..Quota::default() };
    set(&site, Some("f"), hourly).await;
    use_cpu(&site, 1, "f", 999_000).await;
    site.worker.clock.sleep(Duration::from_secs(2)).await;
    assert_eq!(claim(&site, None).await.limits[0].spent_until, None);
    use_cpu(&site, 2, "f", 2_000).await;
    site.worker.clock.sleep(Duration::from_secs(2)).await;
    let (_, end) = Period::Hour.around(site.clock.now());
    assert_eq!(claim(&site, None).await.limits[0].spent_until, Some(end));
    assert_eq!(site.service.quota(&key(Some("f"))).await.unwrap().used.cpu_ms, Some(1_001));
    let start = site.worker.clock.instant();
    let held = site.submit("f", "ok").await;
    let job = site.service.job(&tenant(), held, LONG * 2).await.unwrap().job;
    assert_eq!(job.status, JobStatus::Succeeded);
    assert!(start.elapsed() > Duration::from_secs(60), "it waits for the next hour");
    assert_eq!(claim(&site, None).await.limits[0].spent_until, None);
}

#[tokio::test(start_paused = true)]
async fn quotas_are_there_after_a_restart_and_go_with_their_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { quota: Quota { functions: Some(1), ..Quota::default() }, ..Config::default() };
    let acme = QuotaKey { tenant: TenantName::new("acme").unwrap(), function: None };
    let quota = Quota { rate: Some(5.0), ..Quota::default() };
    {
        let site = Site::start(dir.path(), config.clone()).await;
        assert_eq!(site.service.quota(&acme).await.unwrap_err().code, Code::NotFound);
        assert_eq!(site.service.set_quota(&acme, quota.clone()).await.unwrap_err().code, Code::NotFound);
        site.service.create_tenant(&acme.tenant).await.unwrap();
        let of_settings = site.service.quota(&acme).await.unwrap();
        assert!(of_settings.is_default && of_settings.quota.functions == Some(1));
        site.service.set_quota(&acme, quota.clone()).await.unwrap();
        let of_function = QuotaKey { function: Some(name("f")), ..acme.clone() };
        let wide = Quota { rate: Some(6.0), ..Quota::default() };
        assert_eq!(site.service.set_quota(&of_function, wide).await.unwrap_err().code, Code::InvalidField);
        site.service.set_quota(&of_function, Quota { rate: Some(5.0), ..Quota::default() }).await.unwrap();
        try_deploy(&site, "one", "1").await.unwrap();
        let error = try_deploy(&site, "two", "1").await.unwrap_err();
        assert_eq!(error.errors[0].field, "quota.functions", "the settings' quota holds where there is no other");
        site.service.stop().await;
    }
    let site = Site::start(dir.path(), config).await;
    let all = site.service.quotas(PageQuery { limit: 1, cursor: None }).await.unwrap();
    assert_eq!((all.items[0].quota.rate, all.next.as_deref()), (Some(5.0), Some("acme")));
    let rest = site.service.quotas(PageQuery { limit: 5, cursor: all.next }).await.unwrap();
    assert_eq!(rest.items[0].function.as_deref(), Some("f"));
    site.service.delete_tenant(&acme.tenant, true).await.unwrap();
    while site.service.tenant(&acme.tenant).await.is_ok() {
        site.worker.clock.sleep(Duration::from_millis(100)).await;
    }
    site.service.create_tenant(&acme.tenant).await.unwrap();
    assert!(site.service.quota(&acme).await.unwrap().is_default, "another tenant of that name");
}
