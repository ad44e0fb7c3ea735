//! The promises of [`Runs`], held against each implementation.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_store::Runs;
use lyra_store::runs::{Append, NewRunRecord, RunFilter, RunUpdate};
use lyra_types::workflow::RunStatus;
use lyra_types::{RunId, TenantName, Timestamp, WorkflowName};

/// Makes a test of each claim for one subject.
macro_rules! keeps_the_promises {
    ($subject:ty) => {
        keeps_the_promises!(@ $subject,
            a_run_is_made_once_by_id_and_its_journal_is_read_back_in_order
            what_was_acknowledged_survives_a_kill
            only_the_newest_owner_appends
            a_fenced_batch_leaves_no_trace
            runs_of_an_owner_that_lives_are_not_taken_unless_one_is_alone
            no_more_runs_are_taken_than_were_asked_for
            of_owners_that_take_at_once_each_run_goes_to_one
            of_creators_at_once_one_makes_the_run
            what_has_ended_is_opened_again_and_goes_on
            what_has_ended_is_forgotten_after_its_time_and_nothing_else
            an_id_can_be_used_again_once_its_run_is_forgotten
            lists_are_newest_first_and_by_workflow_status_and_tenant
            counts_follow_every_change
            large_heads_batches_and_outputs_are_read_back_whole
            any_id_that_is_allowed_names_a_run
            kept_results_are_found_until_their_time
            one_run_is_forgotten_only_once_it_has_ended_long_enough_ago
            all_runs_are_listed_page_by_page_whoever_owns_them
            a_run_with_a_notice_is_owed_from_its_end_until_that_was_passed_on
            kept_results_of_one_tenant_are_forgotten_and_those_of_others_are_not
            no_more_runs_are_made_than_may_not_have_ended
        );
    };
    (@ $subject:ty, $($claim:ident)*) => {
        $(
            #[tokio::test]
            async fn $claim() {
                let subject = <$subject as crate::runs::Subject>::start().await;
                crate::runs::claims::$claim(subject).await;
            }
        )*
    };
}

mod claims;
mod nats;
mod sqlite;

/// An implementation under test, with an empty store.
#[async_trait]
pub trait Subject: Send + Sync + Sized {
    /// Starts what it needs.
    async fn start() -> Self;

    /// The store.
    fn runs(&self) -> &dyn Runs;

    /// The process that uses the store dies, and another one opens it.
    async fn reopen(&mut self);

    /// Kills the process that keeps the data, and starts it again.
    async fn crash(&mut self);
}

const TTL: Duration = Duration::from_secs(10);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

fn tenant() -> TenantName {
    TenantName::default_tenant()
}

fn id(text: &str) -> RunId {
    RunId::new(text).unwrap()
}

fn everything() -> RunFilter {
    RunFilter { limit: 1_000, ..RunFilter::default() }
}

/// A run of workflow `w` that is made at second 1.
fn new(name: &str, owner: u64) -> NewRunRecord {
    NewRunRecord {
        tenant: tenant(),
        id: id(name),
        workflow: WorkflowName::new("w").unwrap(),
        version: 1,
        fingerprint: [7; 32],
        now: at(1),
        owner,
        head: Bytes::from_static(b"head"),
        batch: Bytes::from_static(b"0"),
        summary: Bytes::from_static(b"{}"),
        notice: None,
        most_live: None,
    }
}

/// A batch whose body is its number.
fn batch(name: &str, fence: u64, number: u64) -> Append {
    Append { tenant: tenant(), id: id(name), fence, number, batch: body(number), update: None }
}

/// The batch with which a run ends, at second 2.
fn end(name: &str, fence: u64, number: u64) -> Append {
    let update = RunUpdate {
        status: RunStatus::Succeeded,
        ended_at: Some(at(2)),
        summary: Bytes::from_static(b"done"),
        output: Some(Bytes::from_static(b"out")),
    };
    Append { update: Some(update), ..batch(name, fence, number) }
}

fn body(number: u64) -> Bytes {
    Bytes::from(number.to_string())
}

fn bodies(count: u64) -> Vec<Bytes> {
    (0..count).map(body).collect()
}
