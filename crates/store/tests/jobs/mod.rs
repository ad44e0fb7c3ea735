//! The promises of [`Jobs`], held against each implementation: each operation, and a model against which random
//! interleavings are held.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_store::jobs::{Jobs, LeaseRequest, MostQueued, NewJob};
use lyra_types::{FunctionName, InvocationId, JobId, TenantName, Timestamp};

/// Makes a test of each claim for one subject.
macro_rules! keeps_the_promises {
    ($subject:ty, $cases:literal) => {
        keeps_the_promises!(@ $subject,
            what_was_acknowledged_survives_a_kill
            a_job_goes_from_accepted_to_succeeded_with_its_result
            a_key_gives_the_same_job_for_the_same_request_until_it_expires
            a_job_that_is_handed_in_twice_is_made_once
            concurrent_uses_of_a_key_make_one_job
            a_failed_try_is_due_again_at_its_time
            a_try_that_was_given_back_does_not_count_and_its_lease_is_worth_nothing
            a_lease_holds_as_long_as_it_is_prolonged_and_counts_as_a_try_when_lost
            a_former_owners_leases_end_at_recovery
            a_queued_job_is_cancelled_at_once_and_a_running_one_is_asked_to_stop
            functions_that_run_enough_do_not_hold_up_the_others
            large_events_are_not_all_leased_at_once
            lists_are_newest_first_and_by_function_and_status
            of_some_jobs_those_that_have_ended_are_deleted
            dead_jobs_are_redriven_with_their_event_or_purged
            ended_jobs_are_forgotten_after_their_time_and_the_dead_later
            jobs_that_never_began_go_with_their_function
            no_more_jobs_wait_than_may
            who_has_no_room_does_not_hold_up_the_others
            a_job_with_a_notice_is_owed_from_its_end_until_that_was_passed_on
        );
        keeps_the_promises!(% fair, $subject,
            tenants_share_the_places_whoever_came_first
            tenants_take_turns_for_a_single_place
            who_is_alone_has_every_place_and_each_function_a_share
            ten_thousand_jobs_that_may_not_run_hold_up_nobody
            the_next_look_is_when_something_can_be_given
            of_a_function_who_is_due_first_comes_first
        );
        keeps_the_promises!(% usage, $subject,
            a_try_is_counted_with_its_end_or_not_at_all
            a_batch_is_counted_once_however_often_it_is_told
            counts_stay_when_their_jobs_are_gone
            usage_is_added_up_as_asked
            a_job_is_removed_unless_it_runs
        );

        #[test]
        fn whatever_happens_a_job_ends_once_and_none_is_lost() {
            crate::jobs::model::check::<$subject>($cases);
        }
    };
    (% $claims:ident, $subject:ty, $($claim:ident)*) => {
        $(
            #[tokio::test]
            async fn $claim() {
                let subject = <$subject as crate::jobs::Subject>::start().await;
                crate::jobs::$claims::$claim(subject).await;
            }
        )*
    };
    (@ $subject:ty, $($claim:ident)*) => {
        $(
            #[tokio::test]
            async fn $claim() {
                let subject = <$subject as crate::jobs::Subject>::start().await;
                crate::jobs::claims::$claim(subject).await;
            }
        )*
    };
}

mod claims;
mod fair;
mod model;
mod nats;
mod sqlite;
mod usage;

/// An implementation under test, with an empty store.
#[async_trait]
pub trait Subject: Send + Sync + Sized {
    /// Starts what it needs.
    async fn start() -> Self;

    /// The store.
    fn jobs(&self) -> &dyn Jobs;

    /// The process that uses the store dies, and another one opens it.
    async fn reopen(&mut self);

    /// Kills the process that keeps the data, and starts it again.
    async fn crash(&mut self);

    /// Begins with an empty store, on the same servers.
    async fn renew(&mut self);

    /// How many events and results are kept.
    async fn payloads(&self) -> usize;
}

const TTL: Duration = Duration::from_secs(30);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

fn tenant() -> TenantName {
    TenantName::default_tenant()
}

/// A job whose id says its number; accepted at second `number`.
fn new(function: &str, number: u32) -> NewJob {
    let now = at(i64::from(number));
    NewJob {
        id: JobId::from_parts(now.millis().unsigned_abs(), u128::from(number)),
        tenant: tenant(),
        function: FunctionName::new(function).unwrap(),
        version: 1,
        generation: 7,
        max_attempts: 3,
        event: Bytes::from(format!("{{\"n\":{number}}}")),
        idempotency: None,
        user: None,
        most_queued: MostQueued::default(),
        notice: None,
        now,
    }
}

fn request(owner: u64, now: Timestamp, limit: u32) -> LeaseRequest {
    LeaseRequest {
        owner,
        now,
        ttl: TTL,
        invocations: (0..limit).map(|n| InvocationId::from_parts(now.millis().unsigned_abs(), n.into())).collect(),
        max_bytes: 1 << 20,
        per_function: 1_000,
        running: HashMap::new(),
        rooms: Vec::new(),
        after: None,
    }
}
