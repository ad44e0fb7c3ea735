//! The promises of [`Objects`], held against each implementation, and what is special about etcd.

use std::sync::Arc;

use async_trait::async_trait;
use lyra_store::Objects;

/// Makes a test of each claim for one subject.
macro_rules! keeps_the_promises {
    ($subject:ty) => {
        keeps_the_promises!(@ $subject,
            reads_back_what_was_written
            refuses_bad_keys
            lists_in_pages_by_key
            does_all_of_a_transaction_or_nothing
            lets_one_of_many_concurrent_writers_win
            shows_every_change_from_a_list_on
            deletes_by_prefix
            a_list_never_shows_half_of_a_transaction
            pages_and_the_watch_from_the_first_one_miss_nothing
            a_watch_that_starts_too_far_back_is_told_so_and_a_list_helps
            what_was_acknowledged_survives_a_kill
            a_watch_has_no_gap_over_a_kill
            objects_go_with_their_lease_and_not_before
            a_lease_ends_at_once_when_it_is_revoked
            one_leads_and_the_next_has_a_higher_epoch
            a_leader_that_is_gone_is_followed
            who_stands_after_the_leader_s_beginning_was_forgotten_waits_in_peace
        );
    };
    (@ $subject:ty, $($claim:ident)*) => {
        $(
            #[tokio::test]
            async fn $claim() {
                let subject = <$subject as crate::objects::Subject>::start().await;
                crate::objects::claims::$claim(subject).await;
            }
        )*
    };
}

mod claims;
mod etcd;
mod sqlite;

/// An implementation under test, with an empty store.
#[async_trait]
pub trait Subject: Send + Sync + Sized {
    /// Starts what it needs.
    async fn start() -> Self;

    /// The store.
    fn store(&self) -> Arc<dyn Objects>;

    /// Kills the process that keeps the data, and starts it again. Nobody else holds the store.
    async fn crash(&mut self);

    /// Makes the store forget its history.
    async fn forget_history(&self);
}
