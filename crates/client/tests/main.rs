//! The client against a server that answers from a script: what it sends, and what it makes of odd answers.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::time::Duration;

use futures::StreamExt;
use lyra_client::{Client, Config, Error, LogFilter};
use lyra_types::api::workflows::{Completion, NewRun};
use lyra_types::name::Qualifier;
use lyra_types::resources::{ApplicationSession, SessionStatus};
use lyra_types::workflow::RunStatus;
use lyra_types::{Code, FunctionName, JobId, RunId, WorkflowName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the scripted server does with one connection.
enum Act {
    /// Answers with this and closes.
    Answer(String),
    /// Closes without an answer.
    HangUp,
    /// Never answers.
    Silence,
}

fn json(status: &str, body: &str) -> Act {
    let length = body.len();
    Act::Answer(format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"))
}

fn events(lines: &[&str]) -> Act {
    let body: String = lines.iter().map(|line| format!("data: {line}\n\n")).collect();
    Act::Answer(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n: hi\n\n{body}"
    ))
}

/// Reads one request to its end: its head, and as much body as it announces.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let lengths = head
                .lines()
                .filter_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= lengths.max().unwrap_or(0) {
                return text;
            }
        }
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return text,
            Ok(more) => read.extend_from_slice(&piece[..more]),
        }
    }
}

/// Plays `script`, one act for each connection, while `work` runs. Gives the requests that came.
async fn play<T>(script: Vec<Act>, work: impl AsyncFnOnce(Client) -> T) -> (T, Vec<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let token = Some("secret-token".to_owned());
    let client = Client::new(Config {
        url,
        token,
        tenant: Some(lyra_types::TenantName::default_tenant()),
        timeout: Duration::from_secs(20),
        ..Config::default()
    })
    .unwrap();
    let mut requests = Vec::new();
    let mut open = Vec::new();
    let server = async {
        for act in script {
            let (mut stream, _) = listener.accept().await.unwrap();
            requests.push(read_request(&mut stream).await);
            match act {
                Act::Answer(text) => stream.write_all(text.as_bytes()).await.unwrap(),
                Act::HangUp => {}
                Act::Silence => open.push(stream),
            }
        }
        std::future::pending::<()>().await;
    };
    let outcome = tokio::select! {
        outcome = work(client) => outcome,
        () = server => unreachable!("it never ends"),
    };
    (outcome, requests)
}

fn name() -> FunctionName {
    "hello".parse().unwrap()
}

fn job() -> JobId {
    "job_00000000000000000000000001".parse().unwrap()
}

fn job_json(status: &str) -> String {
    format!(
        r#"{{"id":"{}","function":"hello","version":1,"status":"{status}","attempts":1,"max_attempts":3,
        "created_at":"2026-01-01T00:00:00.000Z","started_at":null,"finished_at":null,"next_attempt_at":null,
        "invocation":null,"error":null}}"#,
        job()
    )
}

#[tokio::test]
async fn a_call_carries_tenant_token_event_and_qualifier_and_its_headers_are_read() {
    let answer = "HTTP/1.1 200 OK\r\nlyra-version: 2\r\nlyra-start: warm\r\nserver-timing: queue;dur=1, start;dur=0, exec;dur=2\r\ncontent-length: 1\r\n\r\n7";
    let (outcome, requests) = play(vec![Act::Answer(answer.to_owned())], async |client| {
        client.invoke(&name(), &Qualifier::Version(2), "[1]", None).await
    })
    .await;
    let invocation = outcome.unwrap();
    assert_eq!((&*invocation.body, invocation.call.version), (&b"7"[..], Some(2)));
    let request = &requests[0];
    assert!(request.starts_with("POST /v1/functions/hello/invoke?version=2 HTTP/1.1\r\n"), "{request}");
    for part in ["lyra-tenant: default\r\n", "authorization: Bearer secret-token\r\n", "\r\n\r\n[1]"] {
        assert!(request.contains(part), "{part}: {request}");
    }
}

#[tokio::test]
async fn what_is_not_safe_to_repeat_is_sent_once() {
    let (outcome, requests) = play(vec![Act::HangUp, json("200 OK", "1")], async |client| {
        client.invoke(&name(), &Qualifier::Live, "1", None).await
    })
    .await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Broken { .. }), "{error:?}");
    assert_eq!((error.exit_code(), requests.len()), (7, 1));
}

#[tokio::test]
async fn a_limit_that_passes_is_a_deadline() {
    let (outcome, _) = play(vec![Act::Silence], async |client| {
        client.invoke(&name(), &Qualifier::Live, "1", Some(Duration::from_millis(50))).await
    })
    .await;
    let error = outcome.unwrap_err();
    assert_eq!((error.code(), error.exit_code()), (Code::Timeout, 6));
    assert_eq!(error.to_string(), "no answer within 50ms");
}

#[tokio::test]
async fn waiting_for_a_job_asks_until_it_has_ended() {
    let script = vec![
        json("200 OK", &job_json("queued")),
        json("200 OK", &job_json("running")),
        json("200 OK", &job_json("succeeded")),
    ];
    let (outcome, requests) = play(script, async |client| client.wait_job(job(), Duration::from_secs(60)).await).await;
    assert_eq!(outcome.unwrap().status.as_str(), "succeeded");
    assert_eq!(requests.len(), 3);
    assert!(
        requests.iter().all(|request| request.starts_with(&format!("GET /v1/jobs/{}?wait=30 ", job()))),
        "{requests:?}"
    );
}

#[tokio::test]
async fn a_wait_goes_on_when_a_server_was_away_for_a_moment() {
    let problem = r#"{"type":"t","title":"T","status":503,"detail":"away","code":"unavailable"}"#;
    let away = || json("503 Service Unavailable", problem);
    let script =
        vec![away(), json("200 OK", &job_json("running")), Act::HangUp, away(), json("200 OK", &job_json("failed"))];
    let (outcome, requests) = play(script, async |client| client.wait_job(job(), Duration::from_secs(60)).await).await;
    assert_eq!((outcome.unwrap().status.as_str(), requests.len()), ("failed", 5));
    // The same words are what the job failed with, when it has ended.
    let script = vec![away(), json("200 OK", &job_json("running")), away(), json("200 OK", &job_json("failed"))];
    let (outcome, requests) =
        play(script, async |client| client.wait_job_result(job(), Duration::from_secs(60)).await).await;
    assert_eq!((outcome.unwrap_err().code(), requests.len()), (Code::Unavailable, 4));
}

#[tokio::test]
async fn a_job_that_does_not_end_in_time_is_given_back_as_it_stands() {
    let script = vec![Act::Silence, json("200 OK", &job_json("running"))];
    let (outcome, _) = play(script, async |client| client.wait_job(job(), Duration::from_millis(100)).await).await;
    assert_eq!(outcome.unwrap().status.as_str(), "running");
}

#[tokio::test]
async fn lists_are_fetched_page_by_page_up_to_the_limit() {
    let page =
        |status: &str, next: &str| json("200 OK", &format!(r#"{{"items":[{}],"next":{next}}}"#, job_json(status)));
    let script = vec![page("queued", r#""a b""#), page("running", r#""c""#)];
    let (outcome, requests) = play(script, async |client| client.dead_letters(2).await).await;
    let list = outcome.unwrap();
    assert_eq!((list.items.len(), list.next.as_deref()), (2, Some("c")));
    assert!(requests[1].contains("cursor=a+b") || requests[1].contains("cursor=a%20b"), "{}", requests[1]);
}

#[tokio::test]
async fn following_goes_on_after_a_break_with_no_line_twice() {
    let line = |second: u32, message: &str| {
        format!(
            r#"{{"time":"2026-01-01T00:00:{second:02}.000Z","level":"info","message":"{message}","invocation":"inv_1","version":1,"instance":null}}"#
        )
    };
    let (a, b, c) = (line(1, "a"), line(2, "b"), line(3, "c"));
    let script = vec![events(&[&a, &b]), Act::HangUp, events(&[&b, &c]), Act::Silence];
    let (messages, requests) = play(script, async |client| {
        let lines = client.follow_logs(Some(&name()), LogFilter::default()).await.unwrap();
        lines.take(3).map(|line| line.unwrap().message.clone()).collect::<Vec<_>>().await
    })
    .await;
    assert_eq!(messages, ["a", "b", "c"]);
    assert!(requests[0].contains("follow=true") && !requests[0].contains("since"), "{}", requests[0]);
    assert!(requests[2].contains("since=2026-01-01T00%3A00%3A01.000Z"), "{}", requests[2]);
}

#[tokio::test]
async fn an_error_event_ends_the_log_with_what_it_says() {
    let problem = r#"{"type":"t","title":"T","status":429,"detail":"too slow","code":"limit_reached"}"#;
    let body = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nevent: error\ndata: {problem}\n\n");
    let (outcome, _) = play(vec![Act::Answer(body)], async |client| {
        let lines = client.follow_logs(Some(&name()), LogFilter::default()).await.unwrap();
        lines.collect::<Vec<_>>().await
    })
    .await;
    assert_eq!(outcome.len(), 1);
    assert_eq!(outcome[0].as_ref().unwrap_err().code(), Code::LimitReached);
}

#[tokio::test]
async fn following_goes_on_when_control_was_away_for_a_while() {
    let line = |second: u32, message: &str| {
        format!(
            r#"{{"time":"2026-01-01T00:00:{second:02}.000Z","level":"info","message":"{message}","invocation":"inv_1","version":1,"instance":null,"application":"chat","session":"room","session_uid":"u1"}}"#
        )
    };
    let problem = r#"{"type":"t","title":"T","status":503,"detail":"away","code":"unavailable"}"#;
    let (a, b, c) = (line(1, "a"), line(2, "b"), line(3, "c"));
    let told = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\ndata: {a}\n\nevent: error\ndata: {problem}\n\n");
    let away = || json("503 Service Unavailable", problem);
    // Longer than a few tries, and with a stream in between that brings nothing.
    let script = vec![Act::Answer(told), away(), Act::HangUp, away(), events(&[]), away(), events(&[&a, &b, &c])];
    let (messages, requests) = play(script, async |client| {
        let filter = LogFilter { session: Some("room".to_owned()), ..LogFilter::default() };
        let lines = client.follow_logs(None, filter).await.unwrap();
        lines.take(3).map(|line| line.unwrap().message.clone()).collect::<Vec<_>>().await
    })
    .await;
    assert_eq!(messages, ["a", "b", "c"]);
    assert_eq!(requests.len(), 7);
    assert!(requests[0].starts_with("GET /v1/logs?session=room&follow=true "), "{}", requests[0]);
    assert!(requests[6].contains("session=room") && requests[6].contains("since="), "{}", requests[6]);
}

#[tokio::test]
async fn a_function_that_was_deleted_ends_its_log() {
    let (answer, _) = play(vec![events(&[]), not_found()], async |client| {
        let lines = client.follow_logs(Some(&name()), LogFilter::default()).await.unwrap();
        lines.collect::<Vec<_>>().await
    })
    .await;
    assert_eq!(answer.len(), 1);
    assert_eq!(answer[0].as_ref().unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn nothing_at_the_url_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::new(Config { url: url.clone(), ..Config::default() }).unwrap();
    let error = client.functions(1).await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable { url: at, .. } if *at == url), "{error:?}");
}

fn session(status: &str, revision: u64) -> String {
    format!(
        r#"{{"apiVersion":"lyra.dev/v1","kind":"ApplicationSession","metadata":{{"name":"s","resourceVersion":"{revision}"}},"spec":{{"applicationName":"a"}},"status":{{"sessionStatus":"{status}"}}}}"#
    )
}

fn changes(changes: &[(&str, String)]) -> Act {
    let body: String =
        changes.iter().map(|(kind, object)| format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")).collect();
    json("200 OK", &body)
}

fn not_found() -> Act {
    json("404 Not Found", r#"{"kind":"Status","message":"\"s\" not found","reason":"NotFound","code":404}"#)
}

fn is_available(of: Option<&ApplicationSession>) -> bool {
    of.is_none_or(|of| of.status.session_status == SessionStatus::Available)
}

#[tokio::test]
async fn a_session_is_waited_for_over_watches_that_end_and_a_server_that_is_away() {
    let expired = r#"{"kind":"Status","message":"too old","reason":"Expired","code":410}"#.to_owned();
    let script = vec![
        json("200 OK", &session("Pending", 5)),
        changes(&[("MODIFIED", session("Starting", 6)), ("BOOKMARK", session("", 7))]),
        Act::HangUp,
        json("200 OK", &session("Starting", 6)),
        changes(&[("ERROR", expired)]),
        json("200 OK", &session("Starting", 8)),
        changes(&[("MODIFIED", session("Available", 9)), ("MODIFIED", session("InUse", 10))]),
    ];
    let wait = async |client: Client| client.wait_object("s", Duration::from_secs(60), is_available).await;
    let (outcome, requests) = play(script, wait).await;
    assert_eq!(outcome.unwrap().unwrap().metadata.resource_version, "9");
    assert!(requests[0].starts_with("GET /apis/lyra.dev/v1/namespaces/default/applicationsessions/s "), "{requests:?}");
    for (request, revision) in [(1, 5), (4, 6), (6, 8)] {
        let asked = format!("?watch=true&fieldSelector=metadata.name%3Ds&resourceVersion={revision}&");
        assert!(requests[request].contains(&asked), "{}", requests[request]);
    }
}

#[tokio::test]
async fn what_is_gone_or_does_not_come_in_time_ends_the_wait() {
    let gone = |of: Option<&ApplicationSession>| of.is_none();
    let script = vec![json("200 OK", &session("Closing", 5)), changes(&[("DELETED", session("Closed", 6))])];
    let wait = async |client: Client| client.wait_object("s", Duration::from_secs(60), gone).await;
    assert!(play(script, wait).await.0.unwrap().is_none());
    assert!(play(vec![not_found()], wait).await.0.unwrap().is_none());
    let script = vec![json("200 OK", &session("Closing", 5)), Act::Silence];
    let wait = async |client: Client| client.wait_object("s", Duration::from_millis(50), gone).await;
    let error = play(script, wait).await.0.unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
    let refused = json("403 Forbidden", r#"{"kind":"Status","message":"no","reason":"Forbidden","code":403}"#);
    let wait = async |client: Client| client.wait_object("s", Duration::from_secs(60), gone).await;
    assert_eq!(play(vec![refused], wait).await.0.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn objects_are_listed_over_pages_as_they_were_sent() {
    let page = |next: &str, object: &str| {
        json("200 OK", &format!(r#"{{"kind":"List","metadata":{{"continue":"{next}"}},"items":[{object}]}}"#))
    };
    let script = vec![page("n1", &session("Available", 1)), page("", &session("InUse", 2))];
    let list = async |client: Client| client.objects::<ApplicationSession>("spec.applicationName=a", 10).await;
    let (outcome, requests) = play(script, list).await;
    let list = outcome.unwrap();
    assert_eq!((list.items.len(), list.next.is_none()), (2, true));
    assert_eq!(list.items[1].json(), session("InUse", 2));
    assert!(requests[0].contains("?limit=10&fieldSelector=spec.applicationName%3Da "), "{}", requests[0]);
    assert!(requests[1].contains("limit=9&") && requests[1].contains("continue=n1"), "{}", requests[1]);
}

#[tokio::test]
async fn a_busy_application_is_an_error_of_lyras_own() {
    let body =
        r#"{"kind":"Status","message":"busy","reason":"TooManyRequests","details":{"retryAfterSeconds":2},"code":429}"#;
    let create = async |client: Client| client.create_object(&ApplicationSession::default()).await;
    let error = play(vec![json("429 Too Many Requests", body)], create).await.0.unwrap_err();
    assert_eq!((error.code(), error.exit_code()), (Code::LimitReached, 5));
    assert_eq!(error.api().unwrap().retry_after, Some(Duration::from_secs(2)));
    assert!(matches!(error, Error::Api { json, .. } if json.contains(r#""code":"limit_reached""#)));
}

fn a_run(status: &str) -> String {
    format!(
        r#"{{"id":"mine","tenant":"default","workflow":"w","version":1,"status":"{status}","created_at":"2026-01-01T00:00:00Z","output":{{"sum":3}},"tasks":{{"succeeded":1,"active":0,"failed_attempts":0}}}}"#
    )
}

#[tokio::test]
async fn a_run_is_started_and_waited_for() {
    let script = vec![
        json("202 Accepted", r#"{"id":"mine","created":true}"#),
        json("200 OK", &a_run("running")),
        json("200 OK", &a_run("succeeded")),
    ];
    let work = async |client: Client| {
        let input = serde_json::json!({"n": 3}).as_object().unwrap().clone();
        let new = NewRun { input, id: Some(RunId::new("mine").unwrap()), ..NewRun::default() };
        let started = client.start_run(&WorkflowName::new("w").unwrap(), &new).await.unwrap();
        client.wait_run(&started.id, Duration::from_secs(60)).await
    };
    let (outcome, requests) = play(script, work).await;
    let run = outcome.unwrap();
    assert_eq!((run.status, run.json()), (RunStatus::Succeeded, a_run("succeeded").as_str()));
    assert!(
        requests[0].starts_with("POST /v1/workflows/w/runs ")
            && requests[0].ends_with(r#"{"input":{"n":3},"id":"mine"}"#)
    );
    assert!(requests[2].starts_with("GET /v1/runs/mine?wait=30"), "{}", requests[2]);
}

#[tokio::test]
async fn a_task_is_completed_and_a_trace_read_over_pages() {
    let completion = Completion::Error { code: "refused".to_owned(), message: "no".to_owned() };
    let complete = async |client: Client| client.complete_task("cb/1", &completion).await;
    let (outcome, requests) = play(vec![json("204 No Content", "")], complete).await;
    outcome.unwrap();
    assert!(requests[0].starts_with("POST /v1/callbacks/cb%2F1 "), "{}", requests[0]);
    assert!(requests[0].ends_with(r#"{"error":{"code":"refused","message":"no"}}"#), "{}", requests[0]);
    let page = |seq: u64, next: &str| {
        let token = format!(r#"{{"seq":{seq},"step":"S","node":"f","time":"2026-01-01T00:00:00Z"}}"#);
        json("200 OK", &format!(r#"{{"items":[{token}],"next":{next}}}"#))
    };
    let trace = async |client: Client| client.trace(&RunId::new("mine").unwrap(), 2).await;
    let (tokens, requests) = play(vec![page(0, r#""1""#), page(1, "null")], trace).await;
    assert_eq!(tokens.unwrap().items.iter().map(|token| token.seq).collect::<Vec<_>>(), [0, 1]);
    assert!(requests[1].contains("cursor=1"), "{}", requests[1]);
}
