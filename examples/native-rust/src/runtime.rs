//! The AWS Lambda Runtime API over one kept connection: ask for an invocation, answer it, again. Nothing but the standard
//! library, so that a start takes as long as a process does.

use std::env;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

const ROOT: &str = "/2018-06-01/runtime/invocation";

/// Calls `handler` with each event, until the platform goes away.
pub fn run(handler: impl Fn(&Value) -> std::result::Result<Value, String>) -> Result<()> {
    let address = env::var("AWS_LAMBDA_RUNTIME_API").map_err(|_| Error::other("AWS_LAMBDA_RUNTIME_API is not set"))?;
    let stream = TcpStream::connect(&address)?;
    stream.set_nodelay(true)?;
    let mut api = BufReader::new(stream);
    let next = format!("GET {ROOT}/next HTTP/1.1\r\nhost: {address}\r\n\r\n");
    loop {
        api.get_mut().write_all(next.as_bytes())?;
        let invocation = answer(&mut api)?;
        let event: Value = serde_json::from_slice(&invocation.body)?;
        let (kind, body) = match handler(&event) {
            Ok(result) => ("response", result),
            Err(message) => ("error", json!({ "errorType": "HandlerError", "errorMessage": message })),
        };
        let (id, body) = (&invocation.request_id, body.to_string());
        let head = format!(
            "POST {ROOT}/{id}/{kind} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        api.get_mut().write_all((head + &body).as_bytes())?;
        answer(&mut api)?;
    }
}

struct Answer {
    request_id: String,
    body: Vec<u8>,
}

/// Reads one answer: its head up to the empty line, then as many bytes as it says.
fn answer(api: &mut BufReader<TcpStream>) -> Result<Answer> {
    let (mut request_id, mut length, mut line) = (String::new(), 0, String::new());
    loop {
        line.clear();
        if api.read_line(&mut line)? == 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "the platform closed the connection"));
        }
        let Some((name, value)) = line.trim_end().split_once(':') else {
            if line.trim_end().is_empty() {
                break;
            }
            continue;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(Error::other)?;
        } else if name.eq_ignore_ascii_case("lambda-runtime-aws-request-id") {
            value.trim().clone_into(&mut request_id);
        }
    }
    let mut body = vec![0; length];
    api.read_exact(&mut body)?;
    Ok(Answer { request_id, body })
}
