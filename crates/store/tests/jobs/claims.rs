//! What every implementation of [`Jobs`] must do: one claim for each thing that the record promises.

use lyra_types::job::JobStatus;
use lyra_types::quota::QuotaKey;
use lyra_types::{Code, Error, FieldError};

use super::*;
use lyra_store::jobs::{Filter, Held, Idempotency, Jobs, JobsError, Outcome, Retention};

fn failure() -> Error {
    Error::new(Code::FunctionError, "it threw")
}

async fn lease_one(jobs: &dyn Jobs, owner: u64, now: Timestamp) -> lyra_store::jobs::LeasedJob {
    let mut leased = jobs.lease(request(owner, now, 1)).await.unwrap();
    leased.jobs.pop().expect("a job is due")
}

/// Accepts `count` jobs of one function and makes all of them dead.
async fn make_dead(jobs: &dyn Jobs, count: u32) {
    for number in 0..count {
        jobs.accept(new("f", number)).await.unwrap();
    }
    for leased in jobs.lease(request(1, at(1_000), count)).await.unwrap().jobs {
        jobs.finish(leased.lease(), at(1_000), Outcome::Ended(JobStatus::Dead, failure())).await.unwrap();
    }
}

pub async fn a_job_goes_from_accepted_to_succeeded_with_its_result(subject: impl Subject) {
    let jobs = subject.jobs();
    let job = new("f", 1);
    let accepted = jobs.accept(job.clone()).await.unwrap();
    assert_eq!((accepted.id, accepted.status, accepted.created), (job.id, JobStatus::Queued, true));
    let leased = lease_one(jobs, 1, at(5)).await;
    assert_eq!(leased.event, job.event);
    assert_eq!((leased.job.attempts, leased.job.started_at, leased.fence), (1, Some(at(5)), 1));
    assert!(leased.job.invocation.is_some());
    assert!(jobs.lease(request(2, at(5), 9)).await.unwrap().jobs.is_empty(), "it is leased to one owner");
    let result = Bytes::from_static(b"{\"ok\":true}");
    jobs.finish(leased.lease(), at(6), Outcome::Succeeded(result.clone())).await.unwrap();
    let (job, stored) = jobs.get(tenant(), job.id, true).await.unwrap();
    assert_eq!((job.status, job.finished_at, stored), (JobStatus::Succeeded, Some(at(6)), Some(result)));
    let again = jobs.finish(leased.lease(), at(7), Outcome::Ended(JobStatus::Failed, failure())).await;
    assert!(matches!(again, Err(JobsError::Stale { .. })), "an end is written once");
}

pub async fn what_was_acknowledged_survives_a_kill(mut subject: impl Subject) {
    let large = Bytes::from(vec![b'x'; 100 << 10]);
    subject.jobs().accept(new("f", 1)).await.unwrap();
    subject.jobs().accept(NewJob { event: large.clone(), ..new("f", 2) }).await.unwrap();
    let first = lease_one(subject.jobs(), 1, at(5)).await;
    subject.jobs().finish(first.lease(), at(6), Outcome::Succeeded(large.clone())).await.unwrap();
    subject.crash().await;
    let (job, result) = subject.jobs().get(tenant(), first.job.id, true).await.unwrap();
    assert_eq!((job.status, result), (JobStatus::Succeeded, Some(large.clone())));
    assert_eq!(lease_one(subject.jobs(), 1, at(7)).await.event, large);
}

pub async fn a_key_gives_the_same_job_for_the_same_request_until_it_expires(subject: impl Subject) {
    let jobs = subject.jobs();
    let keyed = |number: u32, function: &str, request: u8, now: i64| {
        let idempotency = Idempotency { key: "k".into(), request: [request; 32], expires_at: at(now + 100) };
        NewJob { idempotency: Some(idempotency), now: at(now), ..new(function, number) }
    };
    let first = jobs.accept(keyed(1, "f", 1, 1)).await.unwrap();
    let again = jobs.accept(keyed(2, "f", 1, 2)).await.unwrap();
    assert_eq!((again.id, again.created), (first.id, false));
    assert!(matches!(jobs.accept(keyed(3, "f", 2, 3)).await, Err(JobsError::IdempotencyMismatch)));
    assert!(jobs.accept(keyed(4, "g", 2, 4)).await.unwrap().created, "another function has keys of its own");
    assert!(jobs.accept(NewJob { generation: 8, ..keyed(5, "f", 2, 5) }).await.unwrap().created);
    assert!(jobs.accept(keyed(6, "f", 2, 101)).await.unwrap().created, "the key has expired");
    assert_eq!(jobs.list(tenant(), Filter { limit: 10, ..Filter::default() }).await.unwrap().len(), 4);
}

pub async fn a_job_that_is_handed_in_twice_is_made_once(mut subject: impl Subject) {
    let keyed = |number: u32| {
        let idempotency = Idempotency { key: format!("k{number}"), request: [1; 32], expires_at: at(1_000) };
        NewJob { idempotency: Some(idempotency), ..new("f", number) }
    };
    let large = NewJob { event: Bytes::from(vec![b'x'; 100 << 10]), ..keyed(3) };
    for job in [new("f", 1), keyed(2), large.clone()] {
        subject.jobs().accept(job).await.unwrap();
    }
    // Whoever handed them in did not hear the answer, and asks the next process.
    subject.crash().await;
    let jobs = subject.jobs();
    for job in [new("f", 1), keyed(2), large.clone()] {
        assert_eq!(jobs.accept(job.clone()).await.unwrap().id, job.id);
    }
    let first = lease_one(jobs, 1, at(5)).await;
    jobs.finish(first.lease(), at(6), Outcome::Succeeded(Bytes::from_static(b"1"))).await.unwrap();
    let again = NewJob { event: first.event.clone(), ..new("f", 1) };
    assert_eq!(jobs.accept(again).await.unwrap().id, new("f", 1).id);
    let (job, result) = jobs.get(tenant(), first.job.id, true).await.unwrap();
    assert_eq!((job.status, result), (JobStatus::Succeeded, Some(Bytes::from_static(b"1"))));
    assert_eq!(lease_one(jobs, 1, at(7)).await.event, keyed(2).event);
    assert_eq!(lease_one(jobs, 1, at(7)).await.event, large.event);
    assert!(jobs.lease(request(1, at(7), 9)).await.unwrap().jobs.is_empty());
    assert_eq!(jobs.list(tenant(), Filter { limit: 10, ..Filter::default() }).await.unwrap().len(), 3);
}

pub async fn concurrent_uses_of_a_key_make_one_job(subject: impl Subject) {
    let jobs = subject.jobs();
    let accepts = (0..32).map(|number| {
        let idempotency = Idempotency { key: "k".into(), request: [1; 32], expires_at: at(1_000) };
        jobs.accept(NewJob { idempotency: Some(idempotency), ..new("f", number) })
    });
    let accepted = futures::future::try_join_all(accepts).await.unwrap();
    assert_eq!(accepted.iter().filter(|accepted| accepted.created).count(), 1);
    assert!(accepted.iter().all(|other| other.id == accepted[0].id));
}

pub async fn a_failed_try_is_due_again_at_its_time(subject: impl Subject) {
    let jobs = subject.jobs();
    jobs.accept(new("f", 1)).await.unwrap();
    let first = lease_one(jobs, 1, at(5)).await;
    let left = FieldError::new("records[3]", "failed");
    let retry = Outcome::Retry { run_at: at(10), error: failure().with_field(left.clone()) };
    let job = jobs.finish(first.lease(), at(6), retry).await.unwrap();
    assert_eq!((job.status, job.attempts, job.next_attempt_at), (JobStatus::Queued, 1, Some(at(10))));
    let none = jobs.lease(request(1, at(9), 9)).await.unwrap();
    assert_eq!((none.jobs.len(), none.next), (0, Some(at(10))));
    let second = lease_one(jobs, 1, at(10)).await;
    let error = second.job.error.unwrap();
    assert_eq!((second.job.attempts, second.fence, error.detail), (2, 2, "it threw".to_owned()));
    assert_eq!(error.errors, std::slice::from_ref(&left));
    // Nobody hears how the second one ends: what the first left to do is known still.
    let lost = jobs.recover(1, at(11), 9).await.unwrap();
    assert_eq!(lost[0].error.as_ref().unwrap().errors, [left]);
}

pub async fn a_try_that_was_given_back_does_not_count_and_its_lease_is_worth_nothing(subject: impl Subject) {
    let jobs = subject.jobs();
    jobs.accept(new("f", 1)).await.unwrap();
    let first = lease_one(jobs, 1, at(5)).await;
    let released = Outcome::Released { run_at: at(5), error: None };
    assert_eq!(jobs.finish(first.lease(), at(5), released).await.unwrap().attempts, 0);
    let second = lease_one(jobs, 1, at(5)).await;
    assert_eq!((second.job.attempts, second.fence), (1, 2));
    let stale = jobs.finish(first.lease(), at(6), Outcome::Succeeded(Bytes::new())).await;
    assert!(matches!(stale, Err(JobsError::Stale { .. })), "the attempt is the same, the fence is not");
}

pub async fn a_lease_holds_as_long_as_it_is_prolonged_and_counts_as_a_try_when_lost(subject: impl Subject) {
    let jobs = subject.jobs();
    jobs.accept(NewJob { max_attempts: 2, ..new("f", 1) }).await.unwrap();
    let first = lease_one(jobs, 1, at(5)).await;
    assert_eq!(jobs.heartbeat(1, vec![first.lease()], at(30), TTL).await.unwrap(), [Held::Yes]);
    assert_eq!(jobs.heartbeat(2, vec![first.lease()], at(30), TTL).await.unwrap(), [Held::No], "not theirs");
    let none = jobs.lease(request(2, at(59), 9)).await.unwrap();
    assert_eq!((none.jobs.len(), none.next), (0, Some(at(60))));
    let second = lease_one(jobs, 2, at(60)).await;
    assert_eq!(second.job.attempts, 2);
    assert_eq!(jobs.heartbeat(1, vec![first.lease()], at(61), TTL).await.unwrap(), [Held::No]);
    let stale = jobs.finish(first.lease(), at(61), Outcome::Succeeded(Bytes::new())).await;
    assert!(matches!(stale, Err(JobsError::Stale { .. })));
    let ended = jobs.lease(request(3, at(90), 9)).await.unwrap().ended;
    assert_eq!(ended.len(), 1);
    assert_eq!((ended[0].status, ended[0].error.as_ref().unwrap().code), (JobStatus::Dead, Code::Unavailable));
    assert!(ended[0].error.as_ref().unwrap().detail.contains("try 2 of 2 was lost"));
}

pub async fn a_former_owners_leases_end_at_recovery(subject: impl Subject) {
    let jobs = subject.jobs();
    jobs.accept(NewJob { max_attempts: 1, ..new("f", 1) }).await.unwrap();
    jobs.accept(new("f", 2)).await.unwrap();
    jobs.accept(new("f", 3)).await.unwrap();
    let leased = jobs.lease(request(1, at(5), 3)).await.unwrap().jobs;
    jobs.cancel(tenant(), leased[2].job.id, at(6)).await.unwrap();
    assert_eq!(jobs.owners().await.unwrap(), [1]);
    assert!(jobs.recover(2, at(7), 100).await.unwrap().is_empty(), "another's leases stay");
    let mut recovered = jobs.recover(1, at(7), 100).await.unwrap();
    recovered.sort_by_key(|job| job.id);
    let statuses: Vec<_> = recovered.iter().map(|job| job.status).collect();
    assert_eq!(statuses, [JobStatus::Failed, JobStatus::Queued, JobStatus::Cancelled]);
    assert!(jobs.owners().await.unwrap().is_empty());
    assert_eq!(lease_one(jobs, 2, at(7)).await.job.attempts, 2);
}

pub async fn a_queued_job_is_cancelled_at_once_and_a_running_one_is_asked_to_stop(subject: impl Subject) {
    let jobs = subject.jobs();
    for number in 1..=3 {
        jobs.accept(new("f", number)).await.unwrap();
    }
    let running = lease_one(jobs, 1, at(5)).await;
    let queued = new("f", 3).id;
    assert_eq!(jobs.cancel(tenant(), queued, at(6)).await.unwrap().status, JobStatus::Cancelled);
    let job = jobs.cancel(tenant(), running.job.id, at(6)).await.unwrap();
    assert_eq!((job.status, job.cancel_requested), (JobStatus::Running, true));
    assert_eq!(jobs.heartbeat(1, vec![running.lease()], at(7), TTL).await.unwrap(), [Held::CancelRequested]);
    let retry = Outcome::Retry { run_at: at(8), error: failure() };
    assert_eq!(jobs.finish(running.lease(), at(8), retry).await.unwrap().status, JobStatus::Cancelled);
    assert_eq!(
        jobs.cancel(tenant(), running.job.id, at(9)).await.unwrap().finished_at,
        Some(at(8)),
        "an end is for ever"
    );
    assert!(matches!(jobs.cancel(tenant(), new("f", 9).id, at(9)).await, Err(JobsError::NotFound(_))));
    let other = TenantName::new("other").unwrap();
    assert!(matches!(jobs.cancel(other, new("f", 2).id, at(9)).await, Err(JobsError::NotFound(_))));
}

pub async fn functions_that_run_enough_do_not_hold_up_the_others(subject: impl Subject) {
    let jobs = subject.jobs();
    for number in 0..50 {
        jobs.accept(new("slow", number)).await.unwrap();
    }
    jobs.accept(new("quick", 60)).await.unwrap();
    let mut asked = request(1, at(100), 10);
    asked.per_function = 4;
    asked.running.insert((tenant(), FunctionName::new("slow").unwrap()), 1);
    let functions: Vec<String> =
        jobs.lease(asked).await.unwrap().jobs.iter().map(|leased| leased.job.function.to_string()).collect();
    assert_eq!(functions, ["quick", "slow", "slow", "slow"]);
}

pub async fn large_events_are_not_all_leased_at_once(subject: impl Subject) {
    let jobs = subject.jobs();
    for number in 0..3 {
        jobs.accept(NewJob { event: Bytes::from(vec![b'x'; 600 << 10]), ..new("f", number) }).await.unwrap();
    }
    assert_eq!(jobs.lease(request(1, at(9), 9)).await.unwrap().jobs.len(), 1);
    let mut small = request(1, at(9), 9);
    small.max_bytes = 10;
    assert_eq!(jobs.lease(small).await.unwrap().jobs.len(), 1, "one job is always given");
}

pub async fn lists_are_newest_first_and_by_function_and_status(subject: impl Subject) {
    let jobs = subject.jobs();
    for number in 0..10 {
        jobs.accept(new(if number % 2 == 0 { "even" } else { "odd" }, number)).await.unwrap();
    }
    for leased in jobs.lease(request(1, at(20), 4)).await.unwrap().jobs {
        jobs.finish(leased.lease(), at(20), Outcome::Succeeded(Bytes::new())).await.unwrap();
    }
    let list = async |function: Option<&str>, status, before, limit| {
        let function = function.map(|name| FunctionName::new(name).unwrap());
        let listed = jobs.list(tenant(), Filter { function, status, before, limit }).await.unwrap();
        listed.iter().map(|job| u32::try_from(job.id.number() & 0xff).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(list(None, None, None, 3).await, [9, 8, 7]);
    assert_eq!(list(None, None, Some(new("odd", 7).id), 3).await, [6, 5, 4]);
    assert_eq!(list(Some("even"), None, None, 9).await, [8, 6, 4, 2, 0]);
    assert_eq!(list(None, Some(JobStatus::Succeeded), None, 9).await, [3, 2, 1, 0]);
    assert_eq!(list(Some("odd"), Some(JobStatus::Queued), None, 9).await, [9, 7, 5]);
    assert!(list(None, Some(JobStatus::Dead), None, 9).await.is_empty());
    let counts = jobs.counts().await.unwrap();
    assert_eq!(
        (counts.of(JobStatus::Queued), counts.of(JobStatus::Succeeded), counts.of(JobStatus::Running)),
        (6, 4, 0)
    );
}

pub async fn dead_jobs_are_redriven_with_their_event_or_purged(subject: impl Subject) {
    let jobs = subject.jobs();
    make_dead(jobs, 5).await;
    let job = jobs.redrive(tenant(), new("f", 0).id, at(2_000)).await.unwrap();
    assert_eq!((job.status, job.attempts, job.finished_at), (JobStatus::Queued, 0, None));
    let again = lease_one(jobs, 1, at(2_000)).await;
    assert_eq!((again.event.as_ref(), again.job.attempts, again.fence), (&b"{\"n\":0}"[..], 1, 2));
    assert!(matches!(jobs.redrive(tenant(), again.job.id, at(2_000)).await, Err(JobsError::NotDead { .. })));
    assert!(matches!(jobs.purge(tenant(), again.job.id).await, Err(JobsError::NotDead { .. })));
    assert_eq!(jobs.redrive_some(tenant(), at(2_000), 2).await.unwrap(), 2);
    jobs.purge(tenant(), new("f", 3).id).await.unwrap();
    assert!(matches!(jobs.get(tenant(), new("f", 3).id, false).await, Err(JobsError::NotFound(_))));
    assert_eq!(jobs.purge_some(tenant(), 100).await.unwrap(), 1);
    assert_eq!(jobs.purge_some(tenant(), 100).await.unwrap(), 0);
}

pub async fn of_some_jobs_those_that_have_ended_are_deleted(subject: impl Subject) {
    let jobs = subject.jobs();
    make_dead(jobs, 2).await;
    jobs.accept(new("f", 10)).await.unwrap();
    let all = [0, 1, 10, 11].map(|number| new("f", number).id);
    let other = TenantName::new("other").unwrap();
    assert_eq!(jobs.delete_ended(other, all.to_vec()).await.unwrap(), 0);
    assert_eq!(jobs.delete_ended(tenant(), all.to_vec()).await.unwrap(), 2);
    assert!(matches!(jobs.get(tenant(), all[0], false).await, Err(JobsError::NotFound(_))));
    assert_eq!(jobs.get(tenant(), all[2], false).await.unwrap().0.status, JobStatus::Queued);
}

pub async fn ended_jobs_are_forgotten_after_their_time_and_the_dead_later(subject: impl Subject) {
    let jobs = subject.jobs();
    make_dead(jobs, 1).await;
    let keyed = Idempotency { key: "k".into(), request: [1; 32], expires_at: at(2_000) };
    jobs.accept(NewJob { idempotency: Some(keyed), ..new("f", 10) }).await.unwrap();
    let leased = lease_one(jobs, 1, at(1_000)).await;
    jobs.finish(leased.lease(), at(1_000), Outcome::Succeeded(Bytes::from_static(b"r"))).await.unwrap();
    jobs.accept(new("f", 11)).await.unwrap();
    let sweep = async |finished: i64, dead: i64, now: i64| {
        let retention = Retention { finished_before: at(finished), dead_before: at(dead), now: at(now), limit: 100 };
        jobs.sweep(retention).await.unwrap()
    };
    assert_eq!(sweep(1_000, 1_000, 1_000).await, 0);
    assert_eq!(sweep(1_001, 1_000, 3_000).await, 1);
    assert_eq!(sweep(9_999, 1_001, 3_000).await, 1);
    assert_eq!(sweep(9_999, 9_999, 3_000).await, 0, "a job that has not ended stays");
    assert_eq!(subject.payloads().await, 1, "events and results go with their jobs");
}

pub async fn jobs_that_never_began_go_with_their_function(subject: impl Subject) {
    let jobs = subject.jobs();
    for number in 0..6 {
        jobs.accept(new("f", number)).await.unwrap();
    }
    jobs.accept(new("g", 10)).await.unwrap();
    jobs.accept(NewJob { generation: 8, version: 3, ..new("f", 11) }).await.unwrap();
    let begun = lease_one(jobs, 1, at(20)).await;
    let retry = Outcome::Retry { run_at: at(21), error: failure() };
    jobs.finish(begun.lease(), at(20), retry).await.unwrap();
    let f = FunctionName::new("f").unwrap();
    assert_eq!(jobs.delete_unbegun(tenant(), f.clone(), 7, 3).await.unwrap(), 3);
    assert_eq!(jobs.delete_unbegun(tenant(), f.clone(), 7, 3).await.unwrap(), 2);
    let left = jobs.list(tenant(), Filter { limit: 10, ..Filter::default() }).await.unwrap();
    assert_eq!(left.len(), 3);
    assert_eq!(jobs.pinned(tenant(), f.clone(), 7).await.unwrap(), [1]);
    assert_eq!(jobs.pinned(tenant(), f, 8).await.unwrap(), [3]);
}

pub async fn no_more_jobs_wait_than_may(subject: impl Subject) {
    let jobs = subject.jobs();
    let limited = |function: &str, number: u32| NewJob {
        most_queued: MostQueued { of_tenant: Some(3), of_function: Some(2) },
        ..new(function, number)
    };
    let together = (1..=8).map(|number| jobs.accept(limited("f", number)));
    let outcomes = futures::future::join_all(together).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 2, "however they come");
    let full = |outcome: Result<_, JobsError>| match outcome {
        Err(JobsError::QueueFull { key, most }) => (key.function.is_some(), most),
        other => panic!("{:?}", other.map(|_: lyra_store::jobs::Accepted| ())),
    };
    assert_eq!(full(jobs.accept(limited("f", 9)).await), (true, 2));
    jobs.accept(limited("g", 10)).await.unwrap();
    assert_eq!(full(jobs.accept(limited("h", 11)).await), (false, 3));
    assert_eq!((jobs.queued(tenant(), None, 9).await.unwrap(), jobs.queued(tenant(), None, 2).await.unwrap()), (3, 2));
    assert_eq!(jobs.queued(tenant(), Some(FunctionName::new("f").unwrap()), 9).await.unwrap(), 2);
    let leased = lease_one(jobs, 1, at(20)).await;
    jobs.accept(limited("h", 12)).await.expect("what runs does not wait");
    // A key that is known is no further job.
    let idempotency = |number| Idempotency { key: "k".into(), request: [number; 32], expires_at: at(9_999) };
    jobs.finish(leased.lease(), at(21), Outcome::Succeeded(Bytes::new())).await.unwrap();
    let leased = lease_one(jobs, 1, at(22)).await;
    let keyed = NewJob { idempotency: Some(idempotency(1)), ..limited("i", 13) };
    assert!(jobs.accept(keyed.clone()).await.unwrap().created);
    assert!(!jobs.accept(keyed).await.unwrap().created);
    jobs.finish(leased.lease(), at(23), Outcome::Succeeded(Bytes::new())).await.unwrap();
}

pub async fn who_has_no_room_does_not_hold_up_the_others(subject: impl Subject) {
    let jobs = subject.jobs();
    let other = TenantName::new("other").unwrap();
    for number in 1..=6 {
        jobs.accept(new("f", number)).await.unwrap();
    }
    jobs.accept(new("g", 7)).await.unwrap();
    jobs.accept(NewJob { tenant: other.clone(), ..new("f", 8) }).await.unwrap();
    let key = |function: Option<&str>| QuotaKey {
        tenant: tenant(),
        function: function.map(|name| FunctionName::new(name).unwrap()),
    };
    let names = |jobs: &[lyra_store::jobs::LeasedJob]| {
        let name = |leased: &lyra_store::jobs::LeasedJob| format!("{}/{}", leased.job.tenant, leased.job.function);
        jobs.iter().map(name).collect::<Vec<_>>()
    };
    let rooms = vec![(key(None), 0)];
    let first = jobs.lease(LeaseRequest { rooms, ..request(1, at(20), 9) }).await.unwrap().jobs;
    assert_eq!(names(&first), ["other/f"]);
    let rooms = vec![(key(None), 3), (key(Some("f")), 1)];
    let second = jobs.lease(LeaseRequest { rooms, ..request(1, at(20), 9) }).await.unwrap().jobs;
    assert_eq!(names(&second), ["default/f", "default/g"]);
    let rooms = vec![(key(Some("f")), 0)];
    assert!(jobs.lease(LeaseRequest { rooms, ..request(1, at(20), 9) }).await.unwrap().jobs.is_empty());
    assert_eq!(jobs.lease(request(1, at(20), 9)).await.unwrap().jobs.len(), 5);
}

pub async fn a_job_with_a_notice_is_owed_from_its_end_until_that_was_passed_on(mut subject: impl Subject) {
    let noticed =
        |number| NewJob { notice: Some(format!("notice {number}").into()), max_attempts: 2, ..new("f", number) };
    let names = async |jobs: &dyn Jobs| -> Vec<(JobId, String)> {
        let mut owed: Vec<_> =
            jobs.owed(10).await.unwrap().into_iter().map(|owed| (owed.job.id, owed.notice)).collect();
        owed.sort_unstable();
        owed
    };
    let jobs = subject.jobs();
    for job in [noticed(1), noticed(2), new("f", 3), noticed(4)] {
        jobs.accept(job).await.unwrap();
    }
    assert_eq!(names(jobs).await, []);
    let first = lease_one(jobs, 1, at(10)).await;
    let again = Outcome::Retry { run_at: at(90), error: failure() };
    jobs.finish(first.lease(), at(11), again).await.unwrap();
    assert_eq!(names(jobs).await, [], "a try that is repeated is no end");
    let second = lease_one(jobs, 1, at(12)).await;
    jobs.finish(second.lease(), at(13), Outcome::Succeeded(Bytes::from_static(b"r"))).await.unwrap();
    let third = lease_one(jobs, 1, at(14)).await;
    jobs.finish(third.lease(), at(15), Outcome::Succeeded(Bytes::from_static(b"r"))).await.unwrap();
    jobs.cancel(tenant(), new("f", 4).id, at(16)).await.unwrap();
    let owed = [2, 4].map(|number| (new("f", number).id, format!("notice {number}")));
    assert_eq!(names(jobs).await, owed);
    subject.crash().await;
    let jobs = subject.jobs();
    assert_eq!(names(jobs).await, owed, "what is owed survives a kill");
    let all = Retention { finished_before: at(9_999), dead_before: at(9_999), now: at(99), limit: 100 };
    assert_eq!(jobs.sweep(all).await.unwrap(), 1, "only the one that nobody wants to hear of is forgotten");
    jobs.passed_on(tenant(), owed[0].0, at(12)).await.unwrap();
    assert_eq!(names(jobs).await, owed, "it has no such end");
    jobs.passed_on(tenant(), owed[0].0, at(13)).await.unwrap();
    assert_eq!(names(jobs).await, owed[1..]);
    // A lease that is lost ends a job, too, and a dead one that is redriven has another end.
    let lost = lease_one(jobs, 1, at(100)).await;
    assert!(jobs.lease(request(2, at(200), 1)).await.unwrap().ended.iter().any(|job| job.id == lost.job.id));
    assert_eq!(names(jobs).await.len(), 2);
    jobs.redrive(tenant(), lost.job.id, at(201)).await.unwrap();
    assert_eq!(names(jobs).await, owed[1..]);
    let lost = lease_one(jobs, 1, at(202)).await;
    jobs.passed_on(tenant(), lost.job.id, at(200)).await.unwrap();
    jobs.finish(lost.lease(), at(203), Outcome::Succeeded(Bytes::from_static(b"r"))).await.unwrap();
    assert_eq!(names(jobs).await.len(), 2);
}
