//! What a worker and a program that speaks by hand come to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lyra_session::{End, How, Phase, Resumed, Settings, Why};
use lyra_types::Code;
use serde_json::json;

use crate::json::{attach, post, say};
use crate::{is_open, open, serve, socket, until, until_attached};

const LIMIT: Duration = Duration::from_secs(30);

fn quick() -> Settings {
    Settings {
        ping_interval: Duration::from_millis(50),
        reattach: Duration::from_millis(200),
        takeover: Duration::from_millis(50),
        ..Settings::default()
    }
}

#[tokio::test]
async fn a_session_is_opened_used_and_closed_by_posting_lines() {
    let (_folder, path) = socket();
    let handle = serve(&path, Settings::default());
    let opening = tokio::task::spawn({
        let handle = handle.clone();
        async move { handle.open(open("a", "map=1"), LIMIT).await }
    });
    let mut lines = attach(&path, None).await;
    assert_eq!(lines.next().await.expect("a message")["welcome"]["stream"], 1);
    let told = lines.next_of("open").await;
    assert_eq!((&told["session"]["name"], &told["data"]), (&json!("name-of-a"), &json!("map=1")));
    say(&path, "open").await;
    opening.await.expect("no panic").expect("opened");

    let (status, _) = post(&path, r#"{"clients":{"joined":["x","y"]}}"#).await;
    assert_eq!(status, 200);
    let state = until(&handle, "in use", |state| state.clients == 2).await;
    assert!(is_open(&state));
    assert_eq!(handle.clients().len(), 2);

    handle.configure(7, Arc::new(BTreeMap::from([("mode".to_owned(), "hard".to_owned())])));
    assert_eq!(lines.next_of("configuration").await, json!({"version": 7, "data": {"mode": "hard"}}));

    let closing = tokio::task::spawn({
        let handle = handle.clone();
        async move { handle.close(LIMIT).await }
    });
    assert_eq!(lines.next_of("close").await["session"], "a");
    let (status, _) = post(&path, r#"{"state":{"phase":"closed","reason":"done","exit_code":3}}"#).await;
    assert_eq!(status, 200);
    assert_eq!(closing.await.expect("no panic"), How::Closed);
    let end = End::Closed { reason: "done".to_owned(), exit_code: Some(3) };
    assert_eq!(handle.state().borrow().phase, Phase::Ended(end));
}

#[tokio::test]
async fn a_program_that_refuses_says_why() {
    let (_folder, path) = socket();
    let handle = serve(&path, Settings::default());
    let mut lines = attach(&path, None).await;
    let refuse = async {
        lines.next_of("open").await;
        post(&path, r#"{"state":{"phase":"failed","reason":"no such map"}}"#).await
    };
    let (opened, _) = tokio::join!(handle.open(open("a", ""), LIMIT), refuse);
    let error = opened.expect_err("refused");
    assert_eq!(error.code, Code::FunctionError);
    assert!(error.detail.ends_with("no such map"), "{error}");
}

#[tokio::test]
async fn a_program_that_never_comes_ends_the_open_at_its_limit() {
    let (_folder, path) = socket();
    let handle = serve(&path, Settings::default());
    let error = handle.open(open("a", ""), Duration::from_millis(100)).await.expect_err("nobody is there");
    assert_eq!(error.code, Code::Timeout);
    let error = handle.open(open("", ""), LIMIT).await.expect_err("no id");
    assert_eq!(error.code, Code::InvalidField);
}

#[tokio::test]
async fn a_second_stream_is_refused_while_the_first_lives_and_replaces_it_when_it_is_dead() {
    let (_folder, path) = socket();
    let settings = Settings { ping_interval: LIMIT, ..quick() };
    let handle = serve(&path, settings);
    let mut first = attach(&path, None).await;
    first.next_of("welcome").await;
    let (second, ()) = tokio::join!(attach(&path, None), async {
        let ping = first.next_of("ping").await;
        post(&path, &json!({ "pong": ping }).to_string()).await;
    });
    // The first lives, unless this machine was too slow for it to show that in time; then the second one is taken.
    let mut next = if second.status == 409 { attach(&path, None).await } else { second };
    assert_eq!(next.status, 200);
    assert_eq!(next.next_of("welcome").await["stream"], 2);
    while first.next().await.is_some() {}
    let (status, answer) = post(&path, r#"{"stream":1,"pong":{"number":1}}"#).await;
    assert_eq!((status, &answer["code"]), (409, &json!("stale")));
    assert!(handle.attached().borrow().is_some());
}

#[tokio::test]
async fn a_session_goes_on_with_another_server() {
    let (_folder, path) = socket();
    let handle = serve(&path, Settings::default());
    let mut lines = attach(&path, None).await;
    let (opened, ()) = tokio::join!(handle.open(open("a", ""), LIMIT), async {
        lines.next_of("open").await;
        say(&path, "open").await;
    });
    opened.expect("opened");
    handle.stop().await;
    drop(handle);
    while lines.next().await.is_some() {}

    let handle = serve(&path, Settings::default());
    handle.resume(open("a", ""), Resumed::Open).expect("nothing else is there");
    let hello = json!({"state": {"session": "a", "phase": "open"}, "clients": ["x", "y", "z"]});
    let mut lines = attach(&path, Some(hello)).await;
    lines.next_of("welcome").await;
    until(&handle, "open with three clients", |state| is_open(state) && state.clients == 3).await;
    // The very same session is not opened twice.
    handle.open(open("a", ""), LIMIT).await.expect("it is open");
    assert_eq!(handle.open(open("b", ""), LIMIT).await.expect_err("taken").code, Code::Conflict);
}

#[tokio::test]
async fn a_program_that_is_killed_is_gone_in_bounded_time() {
    let (_folder, path) = socket();
    let handle = serve(&path, quick());
    let mut lines = attach(&path, None).await;
    let (opened, ()) = tokio::join!(handle.open(open("a", ""), LIMIT), async {
        lines.next_of("open").await;
        say(&path, "open").await;
    });
    opened.expect("opened");
    drop(lines);
    let state = until(&handle, "gone", |state| state.gone.is_some()).await;
    assert_eq!(state.phase, Phase::Ended(End::Gone(Why::Detached)));
    assert_eq!(attach(&path, None).await.status, 410);
    assert_eq!(handle.close(LIMIT).await, How::Gone);
}

#[tokio::test]
async fn a_program_that_hangs_is_gone_in_bounded_time() {
    let (_folder, path) = socket();
    let handle = serve(&path, quick());
    let _lines = attach(&path, None).await;
    let error = handle.open(open("a", ""), LIMIT).await.expect_err("it does nothing");
    assert_eq!(error.code, Code::InstanceCrashed);
    assert_eq!(handle.state().borrow().gone, Some(Why::Silent));
}

#[tokio::test]
async fn a_program_answers_when_it_is_asked_for_a_sign_of_life() {
    let (_folder, path) = socket();
    let handle = serve(&path, Settings::default());
    assert_eq!(handle.ping().await.expect_err("nobody is there").code, Code::Unavailable);
    let mut lines = attach(&path, None).await;
    let (asked, ()) = tokio::join!(handle.ping(), async {
        let ping = lines.next_of("ping").await;
        post(&path, &json!({ "pong": ping }).to_string()).await;
    });
    asked.expect("answered");
    until_attached(&handle, true).await;
}
