//! Programs that mean harm: what they can cost is bounded, and the session's state stays right.

use std::time::Duration;

use lyra_session::Settings;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::json::{attach, post};
use crate::{SOON, open, serve, socket, until_attached};

#[tokio::test]
async fn what_is_no_message_is_refused_and_changes_nothing() {
    let (_folder, path) = socket();
    let handle = serve(&path, Settings { max_message: 64 << 10, ..Settings::default() });
    let mut lines = attach(&path, None).await;
    lines.next_of("welcome").await;
    let long = "x".repeat(129);
    for (body, status, code) in [
        ("nonsense".to_owned(), 400, "bad_request"),
        ("{}".to_owned(), 400, "bad_request"),
        (r#"{"pong":{"number":1},"state":{}}"#.to_owned(), 400, "bad_request"),
        (r#"{"state":{"phase":"everything"}}"#.to_owned(), 400, "bad_request"),
        ("[".repeat(60_000), 400, "bad_request"),
        (json!({"stream": 7, "pong": {"number": 1}}).to_string(), 409, "stale"),
        (json!({"sequence": 12, "pong": {"number": 1}}).to_string(), 409, "gap"),
        (json!({"hello": {"clients": [long]}}).to_string(), 400, "bad_request"),
        (" ".repeat(65 << 10), 413, "too_large"),
    ] {
        let (got, answer) = post(&path, &body).await;
        assert_eq!((got, &answer["code"]), (status, &json!(code)), "{answer}");
    }
    assert!(handle.attached().borrow().is_some());
    assert_eq!(handle.state().borrow().session, None);
}

#[tokio::test]
async fn a_flood_of_connections_leaves_the_stream_alone() {
    let (_folder, path) = socket();
    let handle = serve(&path, Settings { connections: 4, ..Settings::default() });
    let mut lines = attach(&path, None).await;
    lines.next_of("welcome").await;
    let mut kept = Vec::new();
    for _ in 0..500 {
        // The backlog may be full.
        if let Ok(Ok(stream)) = timeout(Duration::from_millis(20), UnixStream::connect(&path)).await {
            kept.push(stream);
        }
    }
    // All but three of them are closed.
    let mut closed = 0;
    for stream in kept.iter_mut().skip(3) {
        let mut byte = [0];
        closed += usize::from(matches!(timeout(SOON, stream.read(&mut byte)).await, Ok(Ok(0) | Err(_))));
        if closed > 100 {
            break;
        }
    }
    assert!(closed > 100);
    assert!(handle.attached().borrow().is_some());
    drop(kept);
    let (status, _) = loop {
        // Their places are free once they are seen to be closed.
        let Ok(done) = tokio::task::spawn({
            let path = path.clone();
            async move { post(&path, r#"{"pong":{"number":1}}"#).await }
        })
        .await
        else {
            continue;
        };
        break done;
    };
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_program_that_never_reads_is_cut_off() {
    let (_folder, path) = socket();
    let handle = serve(&path, Settings::default());
    let lines = attach(&path, None).await;
    // Far more than a socket's buffers and the queue hold.
    let data = std::collections::BTreeMap::from([("big".to_owned(), "x".repeat(64 << 10))]);
    let data = std::sync::Arc::new(data);
    let mut version = 0;
    while handle.attached().borrow().is_some() {
        version += 1;
        assert!(version < 10_000, "it is never cut off");
        handle.configure(version, std::sync::Arc::clone(&data));
        tokio::task::yield_now().await;
    }
    drop(lines);
}

#[tokio::test]
async fn a_flood_of_bytes_is_read_at_the_rate_that_is_allowed() {
    let (_folder, path) = socket();
    let _handle = serve(&path, Settings { bytes_per_second: 10_000, ..Settings::default() });
    let mut stream = UnixStream::connect(&path).await.expect("the server listens");
    // One HTTP/2 preface, then pings of HTTP/2 without end.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("written");
    let ping = [&b"\0\0\x08\x06\0\0\0\0\0"[..], b"12345678"].concat().repeat(1_000);
    let mut taken = 0;
    // 40 kB at once, then 10 kB in a second; the socket's buffers hold some 200 kB.
    while let Ok(Ok(written)) = timeout(Duration::from_millis(500), stream.write(&ping)).await {
        taken += written;
        assert!(taken < 8 << 20, "nothing holds it up");
    }
}

#[tokio::test]
async fn the_state_survives_a_flood_of_messages() {
    let (_folder, path) = socket();
    let settings = Settings { messages_per_second: 500, max_clients: 100, ..Settings::default() };
    let handle = serve(&path, settings);
    let mut lines = attach(&path, None).await;
    let (opened, ()) = tokio::join!(handle.open(open("a", ""), SOON), async {
        lines.next_of("open").await;
        post(&path, r#"{"state":{"phase":"open"}}"#).await;
    });
    opened.expect("opened");
    let flood: Vec<String> = (0..2_500)
        .map(|n| json!({"clients": {"joined": [format!("c{n}")], "left": [format!("c{}", n - 50)]}}).to_string())
        .collect();
    let (status, answer) = post(&path, &flood.join("\n")).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(handle.state().borrow().clients, 50);
    let many: Vec<String> = (0..200).map(|n| format!("d{n}")).collect();
    let (status, answer) = post(&path, &json!({"clients": {"joined": many}}).to_string()).await;
    assert_eq!((status, &answer["code"]), (429, &json!("too_many_clients")));
    assert_eq!(handle.state().borrow().clients, 50);
    until_attached(&handle, true).await;
}

/// A frame of HTTP/2 (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of a request of the session service, without the end of its stream.
fn request(stream: u32) -> Vec<u8> {
    let path = b"/lyra.session.v1.SessionService/Attach";
    let length = u8::try_from(path.len()).expect("short");
    // POST, http, a path and a content type (RFC 7541, 6.1 and 6.2.2).
    let head = [&[0x83, 0x86, 0x04, length][..], path, b"\x0f\x10\x10application/grpc"].concat();
    frame(1, 4, stream, &head)
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test]
async fn thousands_of_streams_leave_the_session_alone() {
    let (_folder, path) = socket();
    let handle = serve(&path, Settings::default());
    let mut lines = attach(&path, None).await;
    let (opened, ()) = tokio::join!(handle.open(open("a", ""), SOON), async {
        lines.next_of("open").await;
        post(&path, r#"{"state":{"phase":"open"}}"#).await;
    });
    opened.expect("opened");
    for reset in [false, true] {
        let mut stream = UnixStream::connect(&path).await.expect("the server listens");
        stream.write_all(PREFACE).await.expect("written");
        for number in 0..2_000 {
            let id = 2 * number + 1;
            let mut frames = request(id);
            if reset {
                frames.extend(frame(3, 0, id, &[0, 0, 0, 8]));
            }
            // The server may have ended the connection, and that is right.
            if stream.write_all(&frames).await.is_err() {
                break;
            }
        }
        let (status, _) = post(&path, r#"{"pong":{"number":1}}"#).await;
        assert_eq!(status, 200);
        assert_eq!(handle.state().borrow().phase, lyra_session::Phase::Open);
    }
}

#[tokio::test]
async fn a_message_that_says_it_is_huge_is_not_waited_for() {
    let (_folder, path) = socket();
    let handle = serve(&path, Settings::default());
    let mut stream = UnixStream::connect(&path).await.expect("the server listens");
    stream.write_all(&[PREFACE, &request(1)].concat()).await.expect("written");
    let huge = frame(0, 0, 1, &[0, 0x40, 0, 0, 0, 1, 2, 3]);
    stream.write_all(&huge).await.expect("written");
    // It holds the only place for a stream that is being set up, until it is refused.
    let attached = async {
        loop {
            let lines = attach(&path, None).await;
            if lines.status == 200 {
                return lines;
            }
            assert_eq!(lines.status, 503);
        }
    };
    let _lines = timeout(SOON, attached).await.expect("in time");
    assert!(handle.attached().borrow().is_some());
}
