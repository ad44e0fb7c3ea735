//! An HTTP function in Rust: a component of the standard world `wasi:http/proxy`.
//!
//! | request | response |
//! |---|---|
//! | `GET /` or `GET /hello/{name}` | `Hello, {name}!` |
//! | `GET /request` | the request's path and headers, as the function sees them |
//! | `POST` or `PUT`, any path | the request's body, piece by piece while it arrives |
//!
//! Nothing here is specific to Lyra: the component runs on every host that has `wasi:http/proxy`.

use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::{OutputStream, StreamError};

wasip2::http::proxy::export!(Hello);

struct Hello;

impl wasip2::exports::http::incoming_handler::Guest for Hello {
    fn handle(request: IncomingRequest, response: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let path = path.split('?').next().unwrap_or_default();
        match (request.method(), path) {
            (Method::Post | Method::Put, _) => echo(request, response),
            (Method::Get | Method::Head, "/") => text(response, 200, &greeting("world")),
            (Method::Get | Method::Head, "/request") => text(response, 200, &describe(&request)),
            (Method::Get | Method::Head, _) => match path.strip_prefix("/hello/") {
                Some(name) => text(response, 200, &greeting(name)),
                None => text(response, 404, "try /, /hello/{name} or /request\n"),
            },
            _ => text(response, 405, "this method is not for me\n"),
        }
    }
}

fn greeting(name: &str) -> String {
    ["Hello, ", name, "!\n"].concat()
}

/// The request's path and headers.
fn describe(request: &IncomingRequest) -> String {
    let mut text = request.path_with_query().unwrap_or_default();
    text.push('\n');
    for (name, value) in request.headers().entries() {
        text.push_str(&name);
        text.push_str(": ");
        text.push_str(&String::from_utf8_lossy(&value));
        text.push('\n');
    }
    text
}

/// Answers with a text.
fn text(response: ResponseOutparam, status: u16, text: &str) {
    let body = start(response, status, "text/plain; charset=utf-8", Some(text.len()));
    let out = body.write().expect("the body is written once");
    // The only error is a client that is gone; then there is nobody left to tell.
    let _ = write(&out, text.as_bytes());
    drop(out);
    let _ = OutgoingBody::finish(body, None);
}

/// Answers with the request's body. No more than one piece of it is ever held.
fn echo(request: IncomingRequest, response: ResponseOutparam) {
    let kind = request.headers().get("content-type").into_iter().next();
    let kind = kind.and_then(|kind| String::from_utf8(kind).ok());
    let incoming = request.consume().expect("the body is taken once");
    let input = incoming.stream().expect("the stream is taken once");
    let body = start(response, 200, kind.as_deref().unwrap_or("application/octet-stream"), None);
    let out = body.write().expect("the body is written once");
    loop {
        match input.blocking_read(64 * 1024) {
            Ok(piece) if write(&out, &piece).is_ok() => {}
            Err(StreamError::Closed) => break,
            // The client is gone. Dropping the body unfinished says so to the other side.
            _ => return,
        }
    }
    drop((input, out));
    IncomingBody::finish(incoming);
    let _ = OutgoingBody::finish(body, None);
}

/// Writes all of `bytes`, waiting for the client where it must.
fn write(out: &OutputStream, mut bytes: &[u8]) -> Result<(), StreamError> {
    while !bytes.is_empty() {
        let room = usize::try_from(out.check_write()?).unwrap_or(usize::MAX).min(bytes.len());
        if room == 0 {
            out.subscribe().block();
            continue;
        }
        out.write(&bytes[..room])?;
        bytes = &bytes[room..];
    }
    Ok(())
}

/// Sends status and headers; what is left is to write the body.
fn start(response: ResponseOutparam, status: u16, kind: &str, length: Option<usize>) -> OutgoingBody {
    let headers = Fields::new();
    let _ = headers.append("content-type", kind.as_bytes());
    if let Some(length) = length {
        let _ = headers.append("content-length", length.to_string().as_bytes());
    }
    let answer = OutgoingResponse::new(headers);
    let _ = answer.set_status_code(status);
    let body = answer.body().expect("the body is taken once");
    ResponseOutparam::set(response, Ok(answer));
    body
}
