//! An HTTP function that misbehaves: the path says how. The host must answer each with an error of its own, or not
//! mind it, and go on.

use std::sync::atomic::{AtomicU32, Ordering};

use wasip2::cli::environment::get_environment;
use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse,
    ResponseOutparam,
};
use wasip2::io::streams::{OutputStream, StreamError};

wasip2::http::proxy::export!(Hostile);

struct Hostile;

static CALLS: AtomicU32 = AtomicU32::new(0);

impl wasip2::exports::http::incoming_handler::Guest for Hostile {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        // An event comes to "/"; what it is to do is then in the environment.
        let asked = get_environment().into_iter().find(|(name, _)| name == "MISDEED");
        let path = asked.map(|(_, path)| path).or(request.path_with_query()).unwrap_or_default();
        match path.as_str() {
            "/calls" => text(out, 200, &(CALLS.fetch_add(1, Ordering::Relaxed) + 1).to_string()),
            "/env" => {
                let all: Vec<String> = get_environment().into_iter().map(|(name, value)| [name, value].join("=")).collect();
                text(out, 200, &all.join("\n"));
            }
            "/lines" => {
                println!("one");
                eprintln!("two");
                eprint!("three, without an end");
                text(out, 200, "ok");
            }
            "/flood" => {
                for i in 0..1_000_000 {
                    println!("line {i}");
                }
                text(out, 200, "ok");
            }
            "/status/500" => text(out, 500, &["what went wrong", &"!".repeat(4096)].concat()),
            "/status/101" => text(out, 101, ""),
            "/status/204" => text(out, 204, "nobody reads this"),
            "/loop" => forever(),
            "/memory" => hoard(),
            "/recursion" => text(out, 200, &deep(1).to_string()),
            "/panic" => panic!("as asked"),
            "/exit" => std::process::exit(3),
            "/nothing" => {}
            "/drop" => {
                drop(out);
                forever()
            }
            "/error" => ResponseOutparam::set(out, Err(ErrorCode::InternalError(Some("as asked".into())))),
            "/sleep" => {
                sleep(60_000);
                text(out, 200, "awake");
            }
            "/sleep/20" => {
                sleep(20);
                text(out, 200, "awake");
            }
            "/headers" => text(out, 200, &forbidden()),
            "/fields" => text(out, 200, &many_fields()),
            "/bodies" => text(out, 200, &many_bodies()),
            "/outgoing" => text(out, 200, &outgoing()),
            "/big" => stream(out, None, |body| write(body, &vec![b'x'; 1 << 20], 100)),
            "/slow" => stream(out, None, |body| {
                for i in 0..1_000 {
                    body.write([i.to_string().as_bytes(), b"\n"].concat().as_slice())?;
                    sleep(50);
                }
                Ok(())
            }),
            "/slow/3" => stream(out, None, |body| {
                for piece in ["a", "b", "c"] {
                    body.write(piece.as_bytes())?;
                    sleep(20);
                }
                Ok(())
            }),
            "/stream/panic" => stream(out, None, |body| {
                body.write(b"begin")?;
                sleep(20);
                panic!("in the middle");
            }),
            "/stream/loop" => stream(out, None, |body| {
                body.write(b"begin")?;
                forever()
            }),
            "/stream/drop" => {
                let body = start(out, 200, None);
                body.write().expect("once").write(b"begin").expect("room");
                sleep(20);
            }
            "/unfinished" => {
                let body = start(out, 200, None);
                body.write().expect("once").write(b"all there").expect("room");
                std::mem::forget(body);
            }
            "/unfinished/slow" => {
                let body = start(out, 200, None);
                let writer = body.write().expect("once");
                writer.write(b"all ").expect("room");
                sleep(20);
                writer.write(b"there").expect("room");
                std::mem::forget((writer, body));
            }
            "/length/short" => stream(out, Some(10), |body| body.write(b"short")),
            "/length/slow" => stream(out, Some(2), |body| {
                for piece in [b"o", b"k"] {
                    sleep(20);
                    body.write(piece)?;
                }
                sleep(20);
                Ok(())
            }),
            "/after" => {
                stream(out, None, |body| {
                    body.write(b"answer")?;
                    sleep(20);
                    Ok(())
                });
                sleep(20);
                println!("done after the response");
            }
            "/count" => {
                let size = count(&request);
                text(out, 200, &size.to_string());
            }
            "/echo" => echo(request, out),
            _ => text(out, 404, "no such misdeed"),
        }
    }
}

fn forever() -> ! {
    let mut n = 0u64;
    loop {
        n = std::hint::black_box(n.wrapping_add(1));
    }
}

/// Takes memory until there is none.
fn hoard() -> ! {
    let mut all = Vec::new();
    loop {
        all.push(std::hint::black_box(vec![1u8; 1 << 20]));
    }
}

fn deep(n: u64) -> u64 {
    let frame = std::hint::black_box([n; 64]);
    if n == 0 { 0 } else { deep(n + 1) + frame[63] }
}

fn sleep(millis: u64) {
    subscribe_duration(millis * 1_000_000).block();
}

/// Tries to set header fields that only the host may set.
fn forbidden() -> String {
    let fields = Fields::new();
    let names = ["connection", "transfer-encoding", "host", "upgrade", "keep-alive", "bad name", "content-length"];
    let mut text = String::new();
    for name in names {
        text.push_str(name);
        text.push_str(match fields.append(name, b"x\r\ny: z") {
            Ok(()) => ": taken\n",
            Err(_) => ": refused\n",
        });
    }
    text
}

/// Makes the host hold header fields without end.
fn many_fields() -> String {
    let mut all = Vec::new();
    loop {
        let fields = Fields::new();
        while fields.append("x", &[b'x'; 4096]).is_ok() {}
        all.push(fields);
    }
}

/// Makes the host hold bodies without end.
fn many_bodies() -> String {
    let mut all = Vec::new();
    loop {
        let response = OutgoingResponse::new(Fields::new());
        let body = response.body().expect("once");
        let stream = body.write().expect("once");
        while let Ok(room @ 1..) = stream.check_write() {
            stream.write(&vec![0; usize::try_from(room).expect("small")]).expect("room");
        }
        all.push((response, body, stream));
    }
}

/// Tries to send a request to somewhere.
fn outgoing() -> String {
    let request = OutgoingRequest::new(Fields::new());
    request.set_authority(Some("example.com")).expect("valid");
    request.set_path_with_query(Some("/")).expect("valid");
    let code = match outgoing_handler::handle(request, None) {
        Err(code) => code,
        Ok(future) => {
            future.subscribe().block();
            match future.get() {
                Some(Ok(Err(code))) => code,
                _ => return "sent".into(),
            }
        }
    };
    match code {
        ErrorCode::HttpRequestDenied => "denied".into(),
        other => other.to_string(),
    }
}

fn count(request: &IncomingRequest) -> u64 {
    let body = request.consume().expect("once");
    let stream = body.stream().expect("once");
    let mut size = 0;
    while let Ok(piece) = stream.blocking_read(1 << 20) {
        size += piece.len() as u64;
    }
    size
}

fn echo(request: IncomingRequest, out: ResponseOutparam) {
    let incoming = request.consume().expect("once");
    let input = incoming.stream().expect("once");
    stream(out, None, |body| {
        loop {
            match input.blocking_read(1 << 16) {
                Ok(piece) => write(body, &piece, 1)?,
                Err(StreamError::Closed) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    });
    drop(input);
    IncomingBody::finish(incoming);
}

fn write(out: &OutputStream, piece: &[u8], times: usize) -> Result<(), StreamError> {
    for _ in 0..times {
        let mut rest = piece;
        while !rest.is_empty() {
            let room = usize::try_from(out.check_write()?).unwrap_or(usize::MAX).min(rest.len());
            if room == 0 {
                out.subscribe().block();
            }
            out.write(&rest[..room])?;
            rest = &rest[room..];
        }
    }
    Ok(())
}

fn start(out: ResponseOutparam, status: u16, length: Option<usize>) -> OutgoingBody {
    let headers = Fields::new();
    if let Some(length) = length {
        headers.append("content-length", length.to_string().as_bytes()).expect("valid");
    }
    let response = OutgoingResponse::new(headers);
    response.set_status_code(status).expect("valid");
    let body = response.body().expect("once");
    ResponseOutparam::set(out, Ok(response));
    body
}

fn stream(out: ResponseOutparam, length: Option<usize>, fill: impl FnOnce(&OutputStream) -> Result<(), StreamError>) {
    let body = start(out, 200, length);
    let stream = body.write().expect("once");
    if fill(&stream).is_err() {
        println!("the reader is gone");
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

fn text(out: ResponseOutparam, status: u16, text: &str) {
    let body = start(out, status, None);
    let stream = body.write().expect("once");
    let _ = write(&stream, text.as_bytes(), 1);
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}
