//! The claims. Each takes a subject and fails when its back end does not hold what all of them promise.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use lyra_isolation::Sandbox;
use lyra_types::{Code, Error};

use super::harness::{Deployed, Program, Subject, code_of, deploy, deploy_with, held, returned_to};

/// A deadline short enough to wait for.
const SHORT: Duration = Duration::from_millis(250);

async fn echo(subject: &dyn Subject) -> Deployed {
    deploy(subject, Program::Echo).await.expect("every runtime can answer")
}

async fn works(function: &Deployed) {
    assert_eq!(&function.call_new().await.expect("answers")[..], b"\"ping\"");
}

/// A call that fails: with this code, on an instance that is not used again, and without harm to the next one.
async fn fails_alone(subject: &dyn Subject, function: &Deployed, code: Code) -> Error {
    let mut sandbox = function.start().await;
    let error = function.call(sandbox.as_mut()).await.expect_err("fails");
    assert_eq!(error.code, code, "{error:?}");
    assert!(!sandbox.is_reusable(), "it is in no state to be used again");
    assert!(!sandbox.probe().await, "a probe says the same");
    drop(sandbox);
    works(&echo(subject).await).await;
    error
}

pub async fn an_instance_answers(subject: &dyn Subject) {
    works(&echo(subject).await).await;
}

pub async fn a_call_that_waits_is_answered_when_it_is_done(subject: &dyn Subject) {
    let Some(function) = deploy(subject, Program::Wait).await else { return };
    function.call_new().await.expect("answers");
}

pub async fn instances_of_one_function_run_at_once(subject: &dyn Subject) {
    let function = echo(subject).await;
    let mut sandboxes = join_all((0..8).map(|_| function.start())).await;
    let calls = sandboxes.iter_mut().map(|sandbox| function.call(sandbox.as_mut()));
    for answer in join_all(calls).await {
        assert_eq!(&answer.expect("answers")[..], b"\"ping\"");
    }
}

pub async fn a_call_ends_at_its_deadline(subject: &dyn Subject) {
    let Some(function) = deploy_with(subject, Program::Forever, SHORT).await else { return };
    fails_alone(subject, &function, Code::Timeout).await;
}

pub async fn memory_ends_at_the_limit(subject: &dyn Subject) {
    let Some(function) = deploy(subject, Program::Hoard).await else { return };
    let error = fails_alone(subject, &function, Code::OutOfMemory).await;
    let limit = format!("{} MiB", subject.memory_mb());
    assert!(error.detail.contains(&limit), "the error names the limit: {}", error.detail);
}

pub async fn a_crash_is_told_and_the_next_instance_works(subject: &dyn Subject) {
    let Some(function) = deploy(subject, Program::Crash).await else { return };
    fails_alone(subject, &function, Code::InstanceCrashed).await;
}

pub async fn an_error_of_the_function_is_told(subject: &dyn Subject) {
    let Some(function) = deploy(subject, Program::Fail).await else { return };
    let error = function.call_new().await.expect_err("fails");
    assert_eq!(error.code, Code::FunctionError, "{error:?}");
    assert!(!error.detail.is_empty());
}

pub async fn a_result_that_is_too_large_is_refused(subject: &dyn Subject) {
    let Some(function) = deploy(subject, Program::Large).await else { return };
    let error = function.call_new().await.expect_err("is refused");
    assert_eq!(error.code, Code::ResultTooLarge, "{error:?}");
    works(&echo(subject).await).await;
}

pub async fn lines_that_a_call_writes_arrive(subject: &dyn Subject) {
    let Some(function) = deploy(subject, Program::Lines).await else { return };
    function.call_new().await.expect("answers");
    assert!(function.lines.are_there());
}

async fn count(function: &Deployed, sandbox: &mut dyn Sandbox) -> Bytes {
    function.call(sandbox).await.expect("answers")
}

pub async fn a_kept_instance_keeps_its_state(subject: &dyn Subject) {
    let Some(function) = deploy(subject, Program::Count).await else { return };
    let mut sandbox = function.start().await;
    assert_eq!(&count(&function, sandbox.as_mut()).await[..], b"1");
    if let Some(why) = subject.serves_once() {
        assert!(!sandbox.is_reusable(), "{why}");
        return;
    }
    assert!(sandbox.is_reusable());
    assert_eq!(&count(&function, sandbox.as_mut()).await[..], b"2");
}

pub async fn a_new_instance_begins_anew(subject: &dyn Subject) {
    let Some(function) = deploy(subject, Program::Count).await else { return };
    for _ in 0..3 {
        assert_eq!(&function.call_new().await.expect("answers")[..], b"1");
    }
}

pub async fn a_stopped_instance_is_gone(subject: &dyn Subject) {
    let function = echo(subject).await;
    works(&function).await;
    let before = held(subject).await;
    for _ in 0..8 {
        let mut sandbox = function.start().await;
        function.call(sandbox.as_mut()).await.expect("answers");
        sandbox.stop(SHORT).await;
    }
    returned_to(subject, before).await;
}

pub async fn a_call_that_is_given_up_frees_everything(subject: &dyn Subject) {
    let Some(function) = deploy(subject, Program::Forever).await else { return };
    // The first ones make what is kept for good: threads, places in pools.
    for _ in 0..4 {
        give_up(&function).await;
    }
    let before = held(subject).await;
    for _ in 0..8 {
        give_up(&function).await;
    }
    returned_to(subject, before).await;
    works(&echo(subject).await).await;
}

/// Leaves a call in the middle.
async fn give_up(function: &Deployed) {
    let mut sandbox = function.start().await;
    let given_up = tokio::time::timeout(SHORT / 5, function.call(sandbox.as_mut())).await;
    assert!(given_up.is_err(), "it runs without end");
    assert!(!sandbox.is_reusable(), "it was left in the middle of something");
}

pub async fn a_hibernated_instance_wakes_and_serves(subject: &dyn Subject) {
    if subject.serves_once().is_some() {
        return;
    }
    let Some(function) = deploy(subject, Program::Count).await else { return };
    let mut sandbox = function.start().await;
    count(&function, sandbox.as_mut()).await;
    let before = sandbox.usage().memory;
    if sandbox.hibernate().await {
        assert!(sandbox.usage().memory <= before, "it gives memory back");
        assert!(sandbox.wake().await);
    }
    assert_eq!(&count(&function, sandbox.as_mut()).await[..], b"2", "it is as it was");
}

pub async fn a_well_instance_passes_its_probe(subject: &dyn Subject) {
    let function = echo(subject).await;
    let mut sandbox = function.start().await;
    function.call(sandbox.as_mut()).await.expect("answers");
    // One that has served its only call is done.
    assert_eq!(sandbox.probe().await, subject.serves_once().is_none());
}

pub async fn what_is_no_code_is_refused(subject: &dyn Subject) {
    let code = code_of(subject, Bytes::from_static(b"\0\x01 (this is nothing {"));
    let error = subject.isolation().prepare(&code).await.expect_err("is refused");
    assert_eq!(error.code, Code::InvalidCode, "{error:?}");
    assert!(subject.isolation().load(&code.key).await.expect("looks").is_none(), "nothing is kept of it");
}

pub async fn nothing_is_left_behind(subject: &dyn Subject) {
    let mut functions = Vec::new();
    for program in Program::ALL {
        functions.extend(deploy_with(subject, program, SHORT).await);
    }
    // The first round makes what is kept for good: threads, caches, pools.
    for function in &functions {
        drop(function.call_new().await);
    }
    let before = held(subject).await;
    for _ in 0..3 {
        drop(join_all(functions.iter().map(Deployed::call_new)).await);
    }
    returned_to(subject, before).await;
}
