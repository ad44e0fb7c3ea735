//! A program that speaks the JSON form by hand.

use std::path::Path;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::SOON;

/// A stream of lines.
pub(crate) struct Lines {
    pub(crate) status: u16,
    pub(crate) reader: BufReader<UnixStream>,
}

/// Opens a stream, with a hello or without.
pub(crate) async fn attach(path: &Path, hello: Option<Value>) -> Lines {
    let stream = UnixStream::connect(path).await.expect("the server listens");
    let mut reader = BufReader::new(stream);
    let body = hello.as_ref().map(Value::to_string).unwrap_or_default();
    let method = if hello.is_some() { "POST" } else { "GET" };
    let head = format!("{method} /v1/session/stream HTTP/1.1\r\nhost: s\r\ncontent-length: {}\r\n\r\n", body.len());
    reader.get_mut().write_all((head + &body).as_bytes()).await.expect("written");
    let status = read_head(&mut reader).await.0;
    Lines { status, reader }
}

/// Reads the head of a response: its status, and how long its body is.
async fn read_head(reader: &mut BufReader<UnixStream>) -> (u16, usize) {
    let (mut status, mut length) = (0, 0);
    loop {
        let mut line = String::new();
        timeout(SOON, reader.read_line(&mut line)).await.expect("in time").expect("a line");
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(rest) = line.strip_prefix("http/1.1 ") {
            status = rest.split(' ').next().and_then(|code| code.parse().ok()).expect("a status");
        } else if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().expect("a length");
        } else if line.is_empty() {
            return (status, length);
        }
    }
}

impl Lines {
    /// The next message; `None` at the stream's end.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            let mut line = String::new();
            let read = timeout(SOON, self.reader.read_line(&mut line)).await.expect("in time");
            if read.unwrap_or(0) == 0 {
                return None;
            }
            // Not the lengths of chunks, nor the empty lines after them.
            if line.starts_with('{') {
                return Some(serde_json::from_str(&line).expect("JSON"));
            }
            if line.trim_end() == "0" {
                return None;
            }
        }
    }

    /// The next message that has a field of this name; its value.
    pub(crate) async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next().await.unwrap_or_else(|| panic!("the stream ended before {kind}"));
            if let Some(body) = message.get(kind) {
                return body.clone();
            }
        }
    }
}

/// Posts lines; status and answer.
pub(crate) async fn post(path: &Path, body: &str) -> (u16, Value) {
    let mut reader = BufReader::new(UnixStream::connect(path).await.expect("the server listens"));
    let head = format!("POST /v1/session/state HTTP/1.1\r\nhost: s\r\ncontent-length: {}\r\n\r\n", body.len());
    // The server may answer before it has read everything.
    let _ = reader.get_mut().write_all((head + body).as_bytes()).await;
    let (status, length) = read_head(&mut reader).await;
    let mut answer = vec![0; length];
    timeout(SOON, reader.read_exact(&mut answer)).await.expect("in time").expect("the whole body");
    (status, serde_json::from_slice(&answer).expect("JSON"))
}

/// Says a phase of the current session.
pub(crate) async fn say(path: &Path, phase: &str) {
    let (status, answer) = post(path, &json!({ "state": { "phase": phase } }).to_string()).await;
    assert_eq!(status, 200, "{answer}");
}
