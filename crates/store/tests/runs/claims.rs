//! What every implementation of [`Runs`] promises.

use std::collections::BTreeSet;

use bytes::Bytes;
use lyra_store::runs::{Append, CreatedRun, NewRunRecord, RunFilter, RunUpdate};
use lyra_store::{Runs, RunsError};
use lyra_types::workflow::RunStatus;
use lyra_types::{TenantName, WorkflowName};

use super::{Subject, TTL, at, batch, bodies, body, end, everything, id, new, tenant};

pub async fn a_run_is_made_once_by_id_and_its_journal_is_read_back_in_order(mut subject: impl Subject) {
    let runs = subject.runs();
    assert_eq!(runs.create(new("a", 1)).await.unwrap(), CreatedRun::New { fence: 1 });
    assert_eq!(runs.create(new("a", 9)).await.unwrap(), CreatedRun::Known);
    let other = NewRunRecord { fingerprint: [8; 32], ..new("a", 1) };
    assert!(matches!(runs.create(other).await, Err(RunsError::Mismatch(_))));
    runs.append(batch("a", 1, 1)).await.unwrap();
    // The writer does not know that it was written, and repeats it.
    runs.append(batch("a", 1, 1)).await.unwrap();
    assert!(matches!(runs.append(batch("a", 1, 3)).await, Err(RunsError::Gap { number: 3, .. })));
    assert!(matches!(runs.append(batch("b", 1, 0)).await, Err(RunsError::NotFound(_))));
    assert!(matches!(runs.journal(tenant(), id("b")).await, Err(RunsError::NotFound(_))));
    assert!(matches!(runs.get(tenant(), id("b"), true).await, Err(RunsError::NotFound(_))));
    runs.append(end("a", 1, 2)).await.unwrap();
    runs.append(end("a", 1, 2)).await.unwrap();
    subject.reopen().await;
    let runs = subject.runs();
    let (head, batches) = runs.journal(tenant(), id("a")).await.unwrap();
    assert_eq!((head.as_ref(), batches), (&b"head"[..], bodies(3)));
    let (record, output) = runs.get(tenant(), id("a"), true).await.unwrap();
    assert_eq!((record.status, record.ended_at, record.created_at), (RunStatus::Succeeded, Some(at(2)), at(1)));
    assert_eq!((record.summary.as_ref(), output), (&b"done"[..], Some(Bytes::from_static(b"out"))));
    assert_eq!(runs.get(tenant(), id("a"), false).await.unwrap(), (record, None));
}

pub async fn what_was_acknowledged_survives_a_kill(mut subject: impl Subject) {
    subject.runs().create(new("a", 1)).await.unwrap();
    subject.crash().await;
    for number in 1..6 {
        subject.runs().append(batch("a", 1, number)).await.unwrap();
        if number == 3 {
            subject.crash().await;
        }
    }
    subject.crash().await;
    assert_eq!(subject.runs().journal(tenant(), id("a")).await.unwrap().1, bodies(6));
    assert_eq!(subject.runs().create(new("a", 1)).await.unwrap(), CreatedRun::Known);
}

pub async fn only_the_newest_owner_appends(subject: impl Subject) {
    let runs = subject.runs();
    runs.create(new("a", 1)).await.unwrap();
    runs.renew(1, at(1), TTL).await.unwrap();
    assert!(runs.take(2, at(5), false, 10).await.unwrap().is_empty(), "its owner lives");
    let taken = runs.take(2, at(12), false, 10).await.unwrap();
    assert_eq!((taken.len(), taken[0].fence, taken[0].batches.len()), (1, 2, 1));
    assert_eq!((taken[0].head.as_ref(), taken[0].record.status), (&b"head"[..], RunStatus::Running));
    assert!(matches!(runs.append(end("a", 1, 1)).await, Err(RunsError::Fenced(_))));
    runs.append(end("a", 2, 1)).await.unwrap();
    assert!(runs.take(3, at(99), true, 10).await.unwrap().is_empty(), "it has ended");
}

pub async fn a_fenced_batch_leaves_no_trace(subject: impl Subject) {
    let runs = subject.runs();
    runs.create(new("a", 1)).await.unwrap();
    assert_eq!(runs.take(2, at(2), false, 1).await.unwrap().len(), 1);
    let large = Bytes::from(vec![b'x'; 100_000]);
    for append in [batch("a", 1, 1), end("a", 1, 1), Append { batch: large, ..end("a", 1, 1) }] {
        assert!(matches!(runs.append(append).await, Err(RunsError::Fenced(_))));
    }
    // Nor does one that holds nothing but an end, or nothing at all.
    for append in [end("a", 1, 1), batch("a", 1, 1)] {
        let append = Append { batch: Bytes::new(), ..append };
        assert!(matches!(runs.append(append).await, Err(RunsError::Fenced(_))));
    }
    let (record, output) = runs.get(tenant(), id("a"), true).await.unwrap();
    assert_eq!((record.status, record.summary.as_ref(), output), (RunStatus::Running, &b"{}"[..], None));
    assert_eq!(runs.journal(tenant(), id("a")).await.unwrap().1, bodies(1));
    runs.append(batch("a", 2, 1)).await.unwrap();
    assert_eq!(runs.journal(tenant(), id("a")).await.unwrap().1, bodies(2));
}

pub async fn runs_of_an_owner_that_lives_are_not_taken_unless_one_is_alone(subject: impl Subject) {
    let runs = subject.runs();
    for (name, owner) in [("a", 1), ("b", u64::MAX), ("c", 3)] {
        runs.create(new(name, owner)).await.unwrap();
        runs.renew(owner, at(1), TTL).await.unwrap();
    }
    runs.append(Append { update: Some(paused()), ..batch("b", 1, 1) }).await.unwrap();
    assert!(runs.take(3, at(2), false, 10).await.unwrap().is_empty());
    let taken = runs.take(3, at(2), true, 10).await.unwrap();
    let names: BTreeSet<_> = taken.iter().map(|run| (run.record.id.as_str(), run.record.status)).map(named).collect();
    assert_eq!(names, BTreeSet::from(["a running".to_owned(), "b paused".to_owned()]), "and not its own");
    assert!(runs.take(3, at(2), true, 10).await.unwrap().is_empty());
}

fn named((name, status): (&str, RunStatus)) -> String {
    format!("{name} {status}")
}

fn paused() -> RunUpdate {
    let summary = Bytes::from_static(b"waits");
    RunUpdate { status: RunStatus::Paused, ended_at: None, summary, output: None }
}

pub async fn no_more_runs_are_taken_than_were_asked_for(subject: impl Subject) {
    let runs = subject.runs();
    for number in 0..5 {
        runs.create(new(&format!("r{number}"), number)).await.unwrap();
    }
    let mut names = BTreeSet::new();
    for expected in [2, 2, 1, 0] {
        let taken = runs.take(9, at(5), false, 2).await.unwrap();
        assert_eq!(taken.len(), expected);
        assert!(taken.into_iter().all(|run| names.insert(run.record.id.to_string())), "taken twice");
    }
}

pub async fn of_owners_that_take_at_once_each_run_goes_to_one(subject: impl Subject) {
    let runs = subject.runs();
    for number in 0..20 {
        runs.create(new(&format!("r{number}"), 1)).await.unwrap();
    }
    runs.renew(2, at(5), TTL).await.unwrap();
    runs.renew(3, at(5), TTL).await.unwrap();
    let (two, three) = tokio::join!(runs.take(2, at(5), false, 20), runs.take(3, at(5), false, 20));
    let (two, three) = (two.unwrap(), three.unwrap());
    let names: BTreeSet<_> = two.iter().chain(&three).map(|run| run.record.id.clone()).collect();
    assert_eq!((two.len() + three.len(), names.len()), (20, 20));
    for run in two.iter().chain(&three) {
        runs.append(end(run.record.id.as_str(), run.fence, 1)).await.unwrap();
    }
}

pub async fn of_creators_at_once_one_makes_the_run(subject: impl Subject) {
    let runs = subject.runs();
    let made = futures::future::try_join_all((0..12).map(|owner| runs.create(new("a", owner)))).await.unwrap();
    assert_eq!(made.iter().filter(|made| matches!(made, CreatedRun::New { .. })).count(), 1);
    assert_eq!(runs.journal(tenant(), id("a")).await.unwrap().1, bodies(1));
}

pub async fn what_has_ended_is_opened_again_and_goes_on(subject: impl Subject) {
    let runs = subject.runs();
    runs.create(new("a", 1)).await.unwrap();
    runs.append(end("a", 1, 1)).await.unwrap();
    assert!(matches!(runs.reopen(tenant(), id("b"), 2).await, Err(RunsError::NotFound(_))));
    let again = runs.reopen(tenant(), id("a"), 2).await.unwrap();
    assert_eq!((again.fence, again.batches), (2, bodies(2)));
    let record = runs.get(tenant(), id("a"), false).await.unwrap().0;
    assert_eq!((record.status, record.ended_at), (RunStatus::Running, None));
    assert!(matches!(runs.append(batch("a", 1, 2)).await, Err(RunsError::Fenced(_))));
    runs.append(end("a", 2, 2)).await.unwrap();
    assert_eq!(runs.journal(tenant(), id("a")).await.unwrap().1, bodies(3));
}

pub async fn what_has_ended_is_forgotten_after_its_time_and_nothing_else(subject: impl Subject) {
    let runs = subject.runs();
    runs.create(new("a", 1)).await.unwrap();
    runs.create(new("b", 1)).await.unwrap();
    runs.append(end("a", 1, 1)).await.unwrap();
    assert_eq!(runs.sweep(at(1), 10).await.unwrap(), 0);
    assert_eq!(runs.sweep(at(3), 10).await.unwrap(), 1);
    assert_eq!(runs.sweep(at(3), 10).await.unwrap(), 0);
    let left = runs.list(tenant(), everything()).await.unwrap();
    assert_eq!(left.iter().map(|run| run.id.as_str()).collect::<Vec<_>>(), ["b"]);
    assert!(matches!(runs.get(tenant(), id("a"), true).await, Err(RunsError::NotFound(_))));
    assert!(matches!(runs.journal(tenant(), id("a")).await, Err(RunsError::NotFound(_))));
    assert!(matches!(runs.append(end("a", 1, 2)).await, Err(RunsError::NotFound(_))));
}

pub async fn an_id_can_be_used_again_once_its_run_is_forgotten(mut subject: impl Subject) {
    let runs = subject.runs();
    runs.create(new("a", 1)).await.unwrap();
    for number in 1..4 {
        runs.append(batch("a", 1, number)).await.unwrap();
    }
    runs.append(end("a", 1, 4)).await.unwrap();
    assert_eq!(runs.sweep(at(3), 10).await.unwrap(), 1);
    subject.reopen().await;
    let runs = subject.runs();
    let again = NewRunRecord { fingerprint: [9; 32], head: Bytes::from_static(b"other"), ..new("a", 1) };
    assert_eq!(runs.create(again).await.unwrap(), CreatedRun::New { fence: 1 });
    runs.append(batch("a", 1, 1)).await.unwrap();
    let (head, batches) = runs.journal(tenant(), id("a")).await.unwrap();
    assert_eq!((head.as_ref(), batches), (&b"other"[..], bodies(2)));
    assert_eq!(runs.get(tenant(), id("a"), true).await.unwrap().1, None, "the output was the other's");
    assert_eq!(runs.list(tenant(), everything()).await.unwrap().len(), 1);
}

pub async fn lists_are_newest_first_and_by_workflow_status_and_tenant(subject: impl Subject) {
    let runs = subject.runs();
    let (v, other) = (WorkflowName::new("v").unwrap(), TenantName::new("other").unwrap());
    for name in ["a", "b", "c"] {
        runs.create(new(name, 1)).await.unwrap();
    }
    runs.create(NewRunRecord { workflow: v.clone(), ..new("d", 1) }).await.unwrap();
    runs.create(NewRunRecord { tenant: other.clone(), ..new("a", 1) }).await.unwrap();
    runs.append(end("b", 1, 1)).await.unwrap();
    let list = async |filter| {
        let runs = runs.list(tenant(), filter).await.unwrap();
        runs.iter().map(|run| run.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(list(everything()).await, ["d", "c", "b", "a"]);
    assert_eq!(list(RunFilter { workflow: Some(v), ..everything() }).await, ["d"]);
    assert_eq!(list(RunFilter { status: Some(RunStatus::Succeeded), ..everything() }).await, ["b"]);
    assert_eq!(list(RunFilter { limit: 2, ..everything() }).await, ["d", "c"]);
    let before = runs.get(tenant(), id("c"), false).await.unwrap().0.order;
    assert_eq!(list(RunFilter { before: Some(before), ..everything() }).await, ["b", "a"]);
    let listed = runs.list(tenant(), everything()).await.unwrap();
    for run in &listed {
        assert_eq!(runs.get(tenant(), run.id.clone(), false).await.unwrap().0, *run);
    }
    assert_eq!(runs.list(other, everything()).await.unwrap().len(), 1);
}

pub async fn counts_follow_every_change(mut subject: impl Subject) {
    let runs = subject.runs();
    for name in ["a", "b", "c"] {
        runs.create(new(name, 1)).await.unwrap();
    }
    assert_eq!(runs.counts().await.unwrap(), [3, 0, 0, 0, 0]);
    // A new place without a batch.
    let append = Append { batch: Bytes::new(), update: Some(paused()), ..batch("a", 1, 1) };
    runs.append(append).await.unwrap();
    runs.append(end("b", 1, 1)).await.unwrap();
    assert_eq!(runs.counts().await.unwrap(), [1, 1, 1, 0, 0]);
    subject.reopen().await;
    let runs = subject.runs();
    assert_eq!(runs.counts().await.unwrap(), [1, 1, 1, 0, 0]);
    runs.reopen(tenant(), id("b"), 1).await.unwrap();
    assert_eq!(runs.counts().await.unwrap(), [2, 1, 0, 0, 0]);
    runs.append(end("b", 2, 2)).await.unwrap();
    runs.sweep(at(3), 10).await.unwrap();
    assert_eq!(runs.counts().await.unwrap(), [1, 1, 0, 0, 0]);
}

pub async fn large_heads_batches_and_outputs_are_read_back_whole(mut subject: impl Subject) {
    let large = |byte: u8| Bytes::from((0..6 << 20).map(|n: u32| byte ^ n.to_le_bytes()[1]).collect::<Vec<u8>>());
    let runs = subject.runs();
    runs.create(NewRunRecord { head: large(1), batch: large(2), ..new("a", 1) }).await.unwrap();
    runs.append(Append { batch: large(3), ..batch("a", 1, 1) }).await.unwrap();
    runs.append(Append { batch: large(3), ..batch("a", 1, 1) }).await.unwrap();
    let mut last = end("a", 1, 2);
    last.update.as_mut().unwrap().output = Some(large(4));
    runs.append(last).await.unwrap();
    subject.reopen().await;
    let runs = subject.runs();
    let (head, batches) = runs.journal(tenant(), id("a")).await.unwrap();
    assert!(head == large(1) && batches == [large(2), large(3), body(2)]);
    assert!(runs.get(tenant(), id("a"), true).await.unwrap().1 == Some(large(4)));
    let taken = runs.reopen(tenant(), id("a"), 2).await.unwrap();
    assert!(taken.head == large(1) && taken.batches.len() == 3);
}

pub async fn any_id_that_is_allowed_names_a_run(subject: impl Subject) {
    let runs = subject.runs();
    let longest = "x".repeat(lyra_types::RunId::MAX_LEN);
    let ids = ["a.b", "a_b", ".", "..", "-", "A", "a", "a.", ".a", &longest];
    for one in ids {
        assert_eq!(runs.create(new(one, 1)).await.unwrap(), CreatedRun::New { fence: 1 }, "{one}");
    }
    for one in ids {
        runs.append(batch(one, 1, 1)).await.unwrap();
        assert_eq!(runs.journal(tenant(), id(one)).await.unwrap().1, bodies(2));
    }
    let listed = runs.list(tenant(), everything()).await.unwrap();
    assert_eq!(listed.iter().rev().map(|run| run.id.as_str()).collect::<Vec<_>>(), ids);
}

pub async fn kept_results_are_found_until_their_time(mut subject: impl Subject) {
    let large = Bytes::from(vec![b'x'; 2 << 20]);
    let runs = subject.runs();
    assert_eq!(runs.memo(tenant(), [1; 32], at(1)).await.unwrap(), None);
    runs.keep_memo(tenant(), [1; 32], large.clone(), at(10)).await.unwrap();
    runs.keep_memo(tenant(), [2; 32], Bytes::from_static(b"two"), at(20)).await.unwrap();
    runs.keep_memo(tenant(), [3; 32], Bytes::new(), at(20)).await.unwrap();
    subject.reopen().await;
    let runs = subject.runs();
    assert!(runs.memo(tenant(), [1; 32], at(9)).await.unwrap() == Some(large.clone()));
    assert_eq!(runs.memo(tenant(), [1; 32], at(10)).await.unwrap(), None);
    assert_eq!(runs.memo(tenant(), [2; 32], at(10)).await.unwrap(), Some(Bytes::from_static(b"two")));
    assert_eq!(runs.memo(tenant(), [3; 32], at(10)).await.unwrap(), Some(Bytes::new()));
    let other = TenantName::new("other").unwrap();
    assert_eq!(runs.memo(other, [2; 32], at(10)).await.unwrap(), None);
    runs.keep_memo(tenant(), [1; 32], Bytes::from_static(b"new"), at(30)).await.unwrap();
    runs.sweep(at(25), 100).await.unwrap();
    assert_eq!(runs.memo(tenant(), [1; 32], at(10)).await.unwrap(), Some(Bytes::from_static(b"new")));
    assert_eq!(runs.memo(tenant(), [2; 32], at(10)).await.unwrap(), None, "forgotten");
}

pub async fn one_run_is_forgotten_only_once_it_has_ended_long_enough_ago(subject: impl Subject) {
    let runs = subject.runs();
    for name in ["a", "b", "c"] {
        runs.create(new(name, 1)).await.unwrap();
    }
    runs.append(end("a", 1, 1)).await.unwrap();
    runs.append(end("b", 1, 1)).await.unwrap();
    assert_eq!(runs.ended(at(2), 10).await.unwrap(), []);
    assert_eq!(runs.ended(at(3), 1).await.unwrap().len(), 1);
    let mut ended = runs.ended(at(3), 10).await.unwrap();
    ended.sort();
    assert_eq!(ended, [(tenant(), id("a")), (tenant(), id("b"))]);
    assert!(!runs.forget(tenant(), id("a"), at(2)).await.unwrap(), "not yet");
    assert!(!runs.forget(tenant(), id("c"), at(9)).await.unwrap(), "it has not ended");
    assert!(!runs.forget(tenant(), id("d"), at(9)).await.unwrap(), "there is none");
    assert!(runs.forget(tenant(), id("a"), at(3)).await.unwrap());
    assert!(!runs.forget(tenant(), id("a"), at(3)).await.unwrap());
    assert!(matches!(runs.get(tenant(), id("a"), true).await, Err(RunsError::NotFound(_))));
    assert_eq!(runs.journal(tenant(), id("b")).await.unwrap().1, bodies(2));
}

pub async fn all_runs_are_listed_page_by_page_whoever_owns_them(subject: impl Subject) {
    let runs = subject.runs();
    let other = TenantName::new("other").unwrap();
    runs.create(new("a", 1)).await.unwrap();
    runs.create(NewRunRecord { tenant: other.clone(), ..new("a", 2) }).await.unwrap();
    runs.create(new("b", 1)).await.unwrap();
    runs.append(end("b", 1, 1)).await.unwrap();
    let mut after = 0;
    for (of, name) in [(tenant(), "a"), (other, "a"), (tenant(), "b")] {
        let page = runs.all(after, 1).await.unwrap();
        assert_eq!(page.iter().map(|run| (run.tenant.clone(), run.id.as_str())).collect::<Vec<_>>(), [(of, name)]);
        after = page[0].order;
    }
    assert_eq!(runs.all(after, 1).await.unwrap(), []);
}

pub async fn kept_results_of_one_tenant_are_forgotten_and_those_of_others_are_not(subject: impl Subject) {
    let runs = subject.runs();
    let other = TenantName::new("other").unwrap();
    let large = Bytes::from(vec![b'x'; 2 << 20]);
    runs.keep_memo(tenant(), [1; 32], large, at(10)).await.unwrap();
    runs.keep_memo(other.clone(), [1; 32], Bytes::from_static(b"theirs"), at(10)).await.unwrap();
    runs.forget_memos(tenant()).await.unwrap();
    assert_eq!(runs.memo(tenant(), [1; 32], at(1)).await.unwrap(), None);
    assert_eq!(runs.memo(other, [1; 32], at(1)).await.unwrap(), Some(Bytes::from_static(b"theirs")));
}

pub async fn a_run_with_a_notice_is_owed_from_its_end_until_that_was_passed_on(mut subject: impl Subject) {
    let noticed = |name: &str| NewRunRecord { notice: Some(format!("notice {name}").into()), ..new(name, 1) };
    let owed = async |runs: &dyn Runs| -> Vec<(String, String)> {
        let mut owed: Vec<_> =
            runs.owed(10).await.unwrap().into_iter().map(|one| (one.record.id.to_string(), one.notice)).collect();
        owed.sort_unstable();
        owed
    };
    let both = ["a", "d"].map(|name| (name.to_owned(), format!("notice {name}")));
    let runs = subject.runs();
    for run in [noticed("a"), noticed("b"), new("c", 1), noticed("d")] {
        runs.create(run).await.unwrap();
    }
    assert_eq!(owed(runs).await, []);
    let paused = RunUpdate { status: RunStatus::Paused, ended_at: None, ..end("b", 1, 1).update.unwrap() };
    runs.append(Append { update: Some(paused), ..batch("b", 1, 1) }).await.unwrap();
    assert_eq!(owed(runs).await, [], "a pause is no end");
    for name in ["a", "c", "d"] {
        runs.append(end(name, 1, 1)).await.unwrap();
    }
    assert_eq!(owed(runs).await, both);
    subject.crash().await;
    let runs = subject.runs();
    assert_eq!(owed(runs).await, both, "what is owed survives a kill");
    assert_eq!(runs.ended(at(99), 10).await.unwrap(), [(tenant(), id("c"))]);
    assert_eq!(runs.sweep(at(99), 10).await.unwrap(), 1, "only the one that nobody wants to hear of is forgotten");
    runs.passed_on(tenant(), id("a"), at(1)).await.unwrap();
    runs.passed_on(tenant(), id("z"), at(2)).await.unwrap();
    assert_eq!(owed(runs).await, both, "there is no such end");
    runs.passed_on(tenant(), id("a"), at(2)).await.unwrap();
    runs.passed_on(tenant(), id("a"), at(2)).await.unwrap();
    assert_eq!(owed(runs).await, both[1..]);
    // A run that is taken up again is owed nothing until it has another end.
    let fence = runs.reopen(tenant(), id("a"), 1).await.unwrap().fence;
    assert_eq!(owed(runs).await, both[1..]);
    let again = RunUpdate { ended_at: Some(at(5)), ..end("a", fence, 2).update.unwrap() };
    runs.append(Append { update: Some(again), ..batch("a", fence, 2) }).await.unwrap();
    assert_eq!(owed(runs).await, both);
    runs.passed_on(tenant(), id("a"), at(2)).await.unwrap();
    assert_eq!(owed(runs).await, both, "that end was another");
    subject.reopen().await;
    assert_eq!(owed(subject.runs()).await, both);
    assert!(subject.runs().forget(tenant(), id("d"), at(99)).await.unwrap(), "its owner may have it go");
    assert_eq!(owed(subject.runs()).await, both[..1]);
}

pub async fn no_more_runs_are_made_than_may_not_have_ended(subject: impl Subject) {
    let runs = subject.runs();
    let limited = |name: &str| NewRunRecord { most_live: Some(2), ..new(name, 1) };
    for name in ["a", "b"] {
        runs.create(limited(name)).await.unwrap();
    }
    assert!(matches!(runs.create(limited("c")).await, Err(RunsError::Full(2))));
    assert_eq!(runs.create(limited("b")).await.unwrap(), CreatedRun::Known, "one that is there is no new one");
    assert_eq!((runs.live(tenant(), 10).await.unwrap(), runs.live(tenant(), 1).await.unwrap()), (2, 1));
    let other = NewRunRecord { tenant: TenantName::new("other").unwrap(), ..limited("c") };
    runs.create(other).await.unwrap();
    let paused = RunUpdate { status: RunStatus::Paused, ended_at: None, summary: Bytes::new(), output: None };
    runs.append(Append { update: Some(paused), ..batch("b", 1, 1) }).await.unwrap();
    assert!(matches!(runs.create(limited("c")).await, Err(RunsError::Full(2))), "one that is paused has not ended");
    runs.append(end("a", 1, 1)).await.unwrap();
    runs.create(limited("c")).await.unwrap();
    runs.create(new("d", 1)).await.unwrap();
    assert_eq!(runs.live(tenant(), 10).await.unwrap(), 3);
}
