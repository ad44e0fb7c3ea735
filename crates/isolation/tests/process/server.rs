//! The runtime `http`: programs that listen on `$PORT`.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use lyra_isolation::Body;
use lyra_types::{Code, Runtime};

use super::{Fixture, Function, Settings, zip};

const SERVER: &[u8] = br#"#!/usr/bin/env python3
import http.server, os, time, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *args): pass
    def do_GET(self):
        if self.path == "/exit": os._exit(0)
        if self.path == "/stream":
            self.send_response(200); self.send_header("transfer-encoding", "chunked"); self.end_headers()
            for piece in (b"one", b"two"): self.wfile.write(b"3\r\n" + piece + b"\r\n"); self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n"); return
        if self.path == "/endless":
            self.send_response(200); self.send_header("transfer-encoding", "chunked"); self.end_headers()
            while True: self.wfile.write(b"3\r\nabc\r\n"); self.wfile.flush(); time.sleep(0.01)
        if self.path == "/hang":
            while True: time.sleep(1)
        self.answer(200, f"{self.command} {self.path} {self.headers.get('x-a')}".encode())
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        print("got", len(body), flush=True)
        self.answer(500 if body == b'"fail"' else 201, body.upper())
    def answer(self, status, body):
        self.send_response(status); self.send_header("content-length", str(len(body))); self.send_header("x-b", "2"); self.end_headers(); self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

async fn deployed(fixture: &Fixture, timeout: Duration) -> Function {
    let archive = zip(&[("server", SERVER, 0o755), ("data.txt", b"x", 0o644)]);
    fixture.deploy(&archive, Settings::of(Runtime::Http).timeout(timeout)).await
}

fn get(path: &str) -> http::Request<Body> {
    let body = Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync();
    http::Request::get(format!("http://guest.example{path}")).header("x-a", "1").body(body).expect("valid")
}

#[tokio::test]
async fn requests_and_responses_pass_through_and_the_instance_serves_again() {
    let fixture = Fixture::new().await;
    let function = deployed(&fixture, Duration::from_secs(60)).await;
    let mut instance = function.start().await;
    for (path, expected) in [("/a?b=c", "GET /a?b=c 1"), ("/stream", "onetwo"), ("/d", "GET /d 1")] {
        let served = instance.serve(function.context(), get(path)).await.expect("answers");
        assert_eq!(served.response.status(), 200);
        let body = served.response.into_body().collect().await.expect("a whole body").to_bytes();
        assert_eq!(body, expected);
        let end = served.end.await;
        end.outcome.expect("ends well");
        instance = end.sandbox.expect("is kept");
        assert!(instance.is_reusable() && instance.probe().await);
    }
}

#[tokio::test]
async fn an_event_is_posted_and_an_error_status_is_an_error() {
    let fixture = Fixture::new().await;
    let function = deployed(&fixture, Duration::from_secs(60)).await;
    let mut instance = function.start().await;
    assert_eq!(function.call_on(&mut *instance, "\"abc\"").await.expect("answers"), "\"ABC\"");
    assert!(function.lines.has("got 5"));
    let error = function.call_on(&mut *instance, "\"fail\"").await.expect_err("fails");
    assert_eq!(error.code, Code::FunctionError);
    assert!(error.detail.contains("500") && instance.is_reusable(), "{error}");
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_the_instance_and_a_deadline_does_not() {
    let fixture = Fixture::new().await;
    let function = deployed(&fixture, Duration::from_secs(5)).await;
    let instance = function.start().await;
    let served = instance.serve(function.context(), get("/endless")).await.expect("answers");
    let mut body = served.response.into_body();
    body.frame().await.expect("a frame").expect("is good");
    drop(body);
    let end = served.end.await;
    assert_eq!(end.outcome.expect_err("cut").code, Code::Cancelled);
    let instance = end.sandbox.expect("is kept");

    let served = instance.serve(function.context(), get("/endless")).await.expect("answers");
    served.response.into_body().collect().await.expect_err("is broken off at the deadline");
    let end = served.end.await;
    assert_eq!(end.outcome.expect_err("late").code, Code::Timeout);
    assert!(end.sandbox.is_none());
    let error = function.start().await.serve(function.context(), get("/hang")).await.err().expect("is late");
    assert_eq!(error.code, Code::Timeout);
}

#[tokio::test]
async fn a_program_that_ends_or_never_listens_is_told() {
    let fixture = Fixture::with(|config| config.settings.init_timeout = Duration::from_secs(2)).await;
    let function = deployed(&fixture, Duration::from_secs(60)).await;
    let error = function.start().await.serve(function.context(), get("/exit")).await.err().expect("fails");
    assert_eq!(error.code, Code::InstanceCrashed, "{error}");
    let deaf = fixture.deploy(b"#!/bin/sh\necho here\nexec sleep 1000\n", Settings::of(Runtime::Http)).await;
    let error = deaf.call("1").await.expect_err("never gets ready");
    assert!(error.code == Code::Timeout && error.detail.contains("8080") && deaf.lines.has("here"), "{error}");
    let error = fixture.refusal(&zip(&[("a.txt", b"x", 0o644)]), Settings::of(Runtime::Http)).await;
    assert!(error.detail.contains("no executable file"), "{error}");
}
