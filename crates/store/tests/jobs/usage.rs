//! What every implementation of [`Jobs`] must do with usage: count each try and each batch once, and keep the counts when the
//! jobs are gone.

use lyra_store::jobs::{JobsError, Outcome, Retention};
use lyra_types::job::JobStatus;
use lyra_types::usage::{Hour, Usage, UsageBatch, UsageGroup, UsageKey, UsageQuery, UsageRow, UsageSum};
use lyra_types::{Code, Error};

use super::*;

fn used(exec_us: u64) -> Usage {
    Usage { invocations: 1, exec_us, cpu_us: exec_us / 2, mb_ms: exec_us, egress_bytes: 3, ..Usage::default() }
}

fn row(function: &str, user: &str, hour: i64, exec_us: u64) -> UsageRow {
    let function = FunctionName::new(function).unwrap();
    let key = UsageKey { tenant: tenant(), function, version: 1, user: user.to_owned(), hour: Hour(hour) };
    UsageRow { key, usage: used(exec_us) }
}

async fn sums(jobs: &dyn Jobs, by: &[UsageGroup]) -> Vec<UsageSum> {
    let query = UsageQuery { tenant: Some(tenant()), by: by.to_vec(), limit: 100, ..UsageQuery::default() };
    jobs.usage(query).await.unwrap()
}

/// Attempts and time in all.
async fn total(jobs: &dyn Jobs) -> (u64, u64) {
    let usage = sums(jobs, &[]).await.remove(0).usage;
    (usage.invocations, usage.exec_us)
}

async fn lease_one(jobs: &dyn Jobs, now: Timestamp) -> lyra_store::jobs::LeasedJob {
    jobs.lease(request(1, now, 1)).await.unwrap().jobs.pop().expect("a job is due")
}

pub async fn a_try_is_counted_with_its_end_or_not_at_all(mut subject: impl Subject) {
    let jobs = subject.jobs();
    assert_eq!(total(jobs).await, (0, 0));
    jobs.accept(NewJob { user: Some("ada".into()), ..new("f", 1) }).await.unwrap();
    let first = lease_one(jobs, at(5)).await;
    let retry = Outcome::Retry { run_at: at(6), error: Error::new(Code::FunctionError, "it threw") };
    jobs.finish_with(first.lease(), at(5), retry, used(10)).await.unwrap();
    let second = lease_one(jobs, at(7_300)).await;
    let stale = jobs.finish_with(first.lease(), at(7_300), Outcome::Succeeded(Bytes::new()), used(100)).await;
    assert!(matches!(stale, Err(JobsError::Stale { .. })));
    jobs.finish_with(second.lease(), at(7_300), Outcome::Succeeded(Bytes::new()), used(1)).await.unwrap();
    let again = jobs.finish_with(second.lease(), at(7_300), Outcome::Succeeded(Bytes::new()), used(1_000)).await;
    assert!(matches!(again, Err(JobsError::Stale { .. })));
    subject.crash().await;
    subject.reopen().await;
    assert_eq!(total(subject.jobs()).await, (2, 11));
    let hours = sums(subject.jobs(), &[UsageGroup::Hour, UsageGroup::User]).await;
    let seen: Vec<_> = hours.iter().map(|sum| (sum.begin, sum.user.as_deref(), sum.usage.exec_us)).collect();
    assert_eq!(seen, [(Some(at(0)), Some("ada"), 10), (Some(at(7_200)), Some("ada"), 1)]);
}

pub async fn a_batch_is_counted_once_however_often_it_is_told(mut subject: impl Subject) {
    let batch = |source: &str, sequence: u64, exec_us: u64| UsageBatch {
        source: source.to_owned(),
        sequence,
        rows: vec![row("f", "", 1, exec_us), row("g", "", 1, exec_us)],
    };
    let jobs = subject.jobs();
    assert!(jobs.add_usage(batch("a", 7, 10)).await.unwrap());
    assert!(!jobs.add_usage(batch("a", 7, 10)).await.unwrap());
    assert!(!jobs.add_usage(batch("a", 6, 10)).await.unwrap(), "an older one came before");
    assert!(jobs.add_usage(batch("b", 7, 100)).await.unwrap(), "another worker counts for itself");
    subject.reopen().await;
    assert!(!subject.jobs().add_usage(batch("a", 7, 10)).await.unwrap());
    assert!(subject.jobs().add_usage(batch("a", 9, 1_000)).await.unwrap());
    assert_eq!(total(subject.jobs()).await, (6, 2_220));
}

pub async fn counts_stay_when_their_jobs_are_gone(mut subject: impl Subject) {
    let jobs = subject.jobs();
    for number in 1..=4 {
        jobs.accept(new("f", number)).await.unwrap();
    }
    for leased in jobs.lease(request(1, at(10), 4)).await.unwrap().jobs {
        jobs.finish_with(leased.lease(), at(20), Outcome::Succeeded(Bytes::new()), used(10)).await.unwrap();
    }
    jobs.remove(tenant(), new("f", 1).id).await.unwrap();
    assert_eq!(total(jobs).await, (4, 40));
    let retention = Retention { finished_before: at(21), dead_before: at(21), now: at(21), limit: 2 };
    assert_eq!(jobs.sweep(retention).await.unwrap(), 2);
    assert_eq!(total(jobs).await, (4, 40));
    subject.reopen().await;
    assert_eq!(subject.jobs().sweep(retention).await.unwrap(), 1);
    assert_eq!(total(subject.jobs()).await, (4, 40));
    subject.reopen().await;
    assert_eq!(total(subject.jobs()).await, (4, 40));
}

pub async fn usage_is_added_up_as_asked(subject: impl Subject) {
    let jobs = subject.jobs();
    let rows =
        vec![row("f", "ada", 0, 1), row("f", "bob", 23, 10), row("g", "ada", 24, 100), row("g", "ada", 49, 1_000)];
    jobs.add_usage(UsageBatch { source: "w".to_owned(), sequence: 1, rows }).await.unwrap();
    let by = async |by: &[UsageGroup]| -> Vec<u64> {
        sums(jobs, by).await.into_iter().map(|sum| sum.usage.exec_us).collect()
    };
    assert_eq!(by(&[]).await, [1_111]);
    assert_eq!(by(&[UsageGroup::Function]).await, [11, 1_100]);
    assert_eq!(by(&[UsageGroup::User]).await, [1_101, 10]);
    assert_eq!(by(&[UsageGroup::Day]).await, [11, 100, 1_000]);
    assert_eq!(by(&[UsageGroup::Hour]).await, [1, 10, 100, 1_000]);
    assert_eq!(by(&[UsageGroup::Tenant, UsageGroup::Version]).await, [1_111]);
    let some = async |query: UsageQuery| -> u64 {
        let query = UsageQuery { limit: 1, ..query };
        jobs.usage(query).await.unwrap().iter().map(|sum| sum.usage.exec_us).sum()
    };
    let g = FunctionName::new("g").ok();
    assert_eq!(some(UsageQuery { function: g, ..UsageQuery::default() }).await, 1_100);
    let range = UsageQuery { from: Some(Hour(23)), to: Some(Hour(49)), ..UsageQuery::default() };
    assert_eq!(some(range).await, 110);
    let other = TenantName::new("other").ok();
    assert_eq!(some(UsageQuery { tenant: other, ..UsageQuery::default() }).await, 0);
    let second = UsageQuery { by: vec![UsageGroup::Function], offset: 1, ..UsageQuery::default() };
    assert_eq!(some(second).await, 1_100);
}

pub async fn a_job_is_removed_unless_it_runs(subject: impl Subject) {
    let jobs = subject.jobs();
    jobs.accept(new("f", 1)).await.unwrap();
    jobs.accept(new("f", 2)).await.unwrap();
    let running = lease_one(jobs, at(5)).await;
    assert!(matches!(jobs.remove(tenant(), running.job.id).await, Err(JobsError::Runs(_))));
    jobs.remove(tenant(), new("f", 2).id).await.unwrap();
    assert!(jobs.lease(request(1, at(9), 9)).await.unwrap().jobs.is_empty(), "what waited does not run");
    jobs.finish(running.lease(), at(9), Outcome::Succeeded(Bytes::from_static(b"r"))).await.unwrap();
    jobs.remove(tenant(), running.job.id).await.unwrap();
    assert!(matches!(jobs.remove(tenant(), running.job.id).await, Err(JobsError::NotFound(_))));
    assert_eq!(subject.payloads().await, 0);
    assert_eq!(jobs.counts().await.unwrap().of(JobStatus::Succeeded), 0);
}
