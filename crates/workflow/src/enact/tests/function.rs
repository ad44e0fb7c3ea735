//! Functions, called and as jobs, against doubles of worker and control.

use std::sync::Arc;
use std::time::Duration;

use lyra_types::error::Thrown;
use lyra_types::job::JobStatus;
use lyra_types::quota::{Quota, QuotaKey};
use lyra_types::{Code, Error, RunId};
use lyra_wire::quotas::{Claim, Limit, Share, Shares};
use serde_json::json;

use super::doubles::Site;
use super::{code, enactment, json};
use crate::enact::Enactment;

#[tokio::test(start_paused = true)]
async fn the_input_is_the_event_and_the_result_is_the_output() {
    let site = Site::new();
    site.deploy("twice", &[1, 2], 1);
    let output = site.functions.enact(&enactment("f", &json!({"n": 4})), "twice", false).await;
    assert_eq!(json(&output.expect("an output")), json!({"n": 4}));
    let calls = site.worker.calls.lock();
    assert_eq!((calls[0].version.version, calls[0].timeout), (1, Some(Duration::from_secs(60))));
}

#[tokio::test(start_paused = true)]
async fn the_version_is_that_of_the_moment_of_the_call() {
    let site = Site::new();
    site.deploy("f", &[1], 1);
    for (live, name, version) in [(1, "f", 1), (2, "f", 2), (2, "f@1", 1), (2, "f@live", 2)] {
        site.deploy("f", &[1, 2], live);
        site.synced().await;
        site.functions.enact(&enactment("f", &json!({})), name, false).await.expect("an output");
        assert_eq!(site.worker.calls.lock().pop().expect("a call").version.version, version, "{name}");
    }
    for name in ["other", "f@3", "f@beta"] {
        let outcome = site.functions.enact(&enactment("f", &json!({})), name, false).await;
        assert_eq!(code(outcome), ("not_found".to_owned(), false), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_try_has_the_same_invocation_and_another_try_another() {
    let site = Site::new();
    site.deploy("f", &[1], 1);
    let first = enactment("f", &json!({}));
    let second = Enactment { key: "run-1/resize[3]/2".to_owned(), attempt: 2, ..first.clone() };
    let named = Enactment { run: RunId::from_parts(1_700_000_000_000, 7), ..first.clone() };
    for enactment in [&first, &first, &second, &named] {
        site.functions.enact(enactment, "f", false).await.expect("an output");
    }
    let ids: Vec<_> = site.worker.calls.lock().iter().map(|call| call.id).collect();
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[0], ids[2]);
    assert_eq!(ids[3].millis(), 1_700_000_000_000);
}

#[tokio::test(start_paused = true)]
async fn an_error_keeps_its_code_and_the_name_of_what_was_thrown() {
    let site = Site::new();
    site.deploy("f", &[1], 1);
    let thrown = Thrown { name: "NoSuchImage".to_owned(), message: "gone".to_owned(), stack: String::new() };
    let busy = Error::new(Code::Overloaded, "full").with_retry_after(Duration::from_secs(3));
    for (error, code, name, retryable, wait) in [
        (Error::thrown(thrown), "function_error", Some("NoSuchImage"), true, None),
        (busy, "overloaded", None, true, Some(3)),
        (Error::new(Code::OutOfMemory, "too much"), "out_of_memory", None, true, None),
        (Error::new(Code::InvalidResult, "no JSON"), "invalid_result", None, false, None),
        (Error::new(Code::TooLarge, "event"), "too_large", None, false, None),
    ] {
        *site.worker.answer.lock() = Err(error);
        let failure = site.functions.enact(&enactment("f", &json!({})), "f", false).await.expect_err(code);
        assert_eq!((failure.cause.code.as_str(), failure.cause.name.as_deref()), (code, name));
        assert_eq!((failure.retryable, failure.retry_after), (retryable, wait.map(Duration::from_secs)));
    }
    *site.worker.answer.lock() = Ok(Some("[1]"));
    let outcome = site.functions.enact(&enactment("f", &json!({})), "f", false).await;
    assert_eq!(code(outcome), ("not_an_object".to_owned(), false));
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_its_deadline_and_is_stopped() {
    let site = Site::new();
    site.deploy("f", &[1], 1);
    *site.worker.answer.lock() = Ok(None);
    let outcome = site.functions.enact(&enactment("f", &json!({})), "f", false).await;
    assert_eq!(code(outcome), ("timeout".to_owned(), true));
    assert_eq!(site.worker.dropped(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_try_finds_its_job() {
    let site = Site::new();
    site.deploy("f", &[1], 1);
    site.control.end_with(JobStatus::Succeeded, Some("{\"ok\":true}"), None);
    for _ in 0..2 {
        let output = site.functions.enact(&enactment("f", &json!({})), "f", true).await;
        assert_eq!(json(&output.expect("an output")), json!({"ok": true}));
    }
    let other = Enactment { key: "other".to_owned(), ..enactment("f", &json!({})) };
    site.functions.enact(&other, "f", true).await.expect("an output");
    let submits = site.control.submits.lock();
    let keys: Vec<_> = submits.iter().map(|submit| submit.idempotency_key.clone().expect("a key")).collect();
    assert!(keys[0] == keys[1] && keys[0] != keys[2] && keys[0].len() <= 255);
    assert_eq!(*site.control.cancelled.lock(), []);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_fails_tells_why() {
    let site = Site::new();
    site.deploy("f", &[1], 1);
    for (status, error, expected) in [
        (JobStatus::Dead, Some(Error::new(Code::InstanceCrashed, "trap")), ("instance_crashed", true)),
        (JobStatus::TimedOut, Some(Error::new(Code::Timeout, "late")), ("timeout", true)),
        (JobStatus::Failed, Some(Error::new(Code::InvalidResult, "no")), ("invalid_result", false)),
        (JobStatus::Cancelled, None, ("cancelled", true)),
    ] {
        site.control.end_with(status, None, error);
        let outcome = site.functions.enact(&enactment("f", &json!({})), "f", true).await;
        assert_eq!(code(outcome), (expected.0.to_owned(), expected.1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_nobody_waits_for_is_cancelled() {
    let site = Arc::new(Site::new());
    site.deploy("f", &[1], 1);
    // At the deadline.
    let outcome = site.functions.enact(&enactment("f", &json!({})), "f", true).await;
    assert_eq!(code(outcome), ("timeout".to_owned(), true));
    site.control.cancelled(1).await;
    // When the try is given up while it runs, and while it is being handed in.
    for holds in [false, true] {
        site.control.hold_submits(holds);
        let before = site.control.submits.lock().len();
        let given_up = Arc::clone(&site);
        let call = lyra_kit::tasks::spawn("call", async move {
            given_up.functions.enact(&enactment("f", &json!({})), "f", true).await
        });
        site.control.submitted(before + 1).await;
        call.abort();
        drop(call.await);
        site.control.hold_submits(false);
        site.control.cancelled(2 + usize::from(holds)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_is_left_alone_when_the_process_stops() {
    let site = Arc::new(Site::new());
    site.deploy("f", &[1], 1);
    let given_up = Arc::clone(&site);
    let call = lyra_kit::tasks::spawn("call", async move {
        given_up.functions.enact(&enactment("f", &json!({})), "f", true).await
    });
    site.control.looked().await;
    site.tasks.stop(Duration::from_secs(1)).await;
    call.abort();
    drop(call.await);
    assert_eq!(*site.control.cancelled.lock(), []);
}

#[tokio::test(start_paused = true)]
async fn control_that_is_away_for_a_while_costs_no_job() {
    let site = Site::new();
    site.deploy("f", &[1], 1);
    site.control.away(5);
    site.control.end_with(JobStatus::Succeeded, Some("{}"), None);
    site.functions.enact(&enactment("f", &json!({})), "f", true).await.expect("an output");
}

#[tokio::test(start_paused = true)]
async fn a_call_is_charged_to_whoever_started_the_run_and_waits_for_room_under_its_quota() {
    let site = Site::new();
    site.deploy("f", &[1], 1);
    site.synced().await;
    let tenant = lyra_types::TenantName::default_tenant();
    assert!(site.functions.admit(&tenant, "f", false).await.expect("there is no quota").is_empty());
    let limit = Limit {
        key: QuotaKey { tenant: tenant.clone(), function: None },
        quota: Quota { concurrency: Some(1), ..Quota::default() },
        share: Share { concurrency: Some(1), ..Share::default() },
        spent_until: None,
        shared: false,
    };
    let limits = vec![limit];
    let shares = Shares { session: 1, number: 1, tell_all: false, whole: true, limits, gone: Vec::new() };
    let share = |_: Claim| std::future::ready(Ok(shares.clone()));
    tokio::select! {
        () = site.meters.follow(share, || std::future::ready(std::collections::HashMap::new())) => {}
        learned = site.meters.refreshed(Duration::from_secs(60)) => assert!(learned),
    }
    let first = site.functions.admit(&tenant, "f", false).await.expect("a place");
    assert!(!first.is_empty());
    // What is handed in as a job takes no place here: its tries do, where they are made.
    assert!(site.functions.admit(&tenant, "f", true).await.expect("let in").is_empty());
    let second = site.functions.admit(&tenant, "f", false);
    tokio::pin!(second);
    assert!(
        tokio::time::timeout(Duration::from_secs(3_600), second.as_mut()).await.is_err(),
        "it waits, and does not fail"
    );
    drop(first);
    assert!(!second.await.expect("a place").is_empty());

    site.functions.enact(&enactment("f", &json!({})), "f", false).await.expect("an output");
    let account = site.worker.calls.lock().pop().expect("a call").account;
    assert_eq!((account.user.as_deref(), account.by_caller), (Some("ada"), false));
    site.control.end_with(JobStatus::Succeeded, Some("{}"), None);
    site.functions.enact(&enactment("f", &json!({})), "f", true).await.expect("an output");
    assert_eq!(site.control.submits.lock().pop().expect("a job").user.as_deref(), Some("ada"));
}
