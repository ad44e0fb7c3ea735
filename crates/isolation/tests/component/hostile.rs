//! What components can't do to the host, to others, or to their caller.

use bytes::Bytes;
use http_body_util::BodyExt;
use lyra_types::{Code, Error};

use super::{Fixture, Function, HELLO, HOSTILE, Settings, all, full, get, request};

async fn fails(function: &Function, path: &str) -> Error {
    match function.get(path).await {
        Ok(served) => panic!("{path} was answered with {}", served.response.status()),
        Err(error) => error,
    }
}

#[tokio::test]
async fn each_misdeed_ends_in_its_own_error() {
    let fixture = Fixture::new();
    let hostile = fixture.deploy(HOSTILE, Settings::default()).await;
    for (path, code, says) in [
        ("/panic", Code::InstanceCrashed, "aborted"),
        ("/recursion", Code::InstanceCrashed, "the instance crashed"),
        ("/memory", Code::OutOfMemory, "more than its 64 MiB"),
        ("/exit", Code::FunctionError, "status"),
        ("/nothing", Code::FunctionError, "without setting a response"),
        ("/drop", Code::FunctionError, "without setting a response"),
        ("/error", Code::FunctionError, "as asked"),
        ("/status/101", Code::InvalidResult, "status 101"),
        ("/length/short", Code::InvalidResult, "content-length"),
        ("/fields", Code::InstanceCrashed, "exceeds limit"),
        ("/bodies", Code::InstanceCrashed, "resource"),
    ] {
        let error = fails(&hostile, path).await;
        assert_eq!(error.code, code, "{path}: {error}");
        assert!(error.detail.contains(says), "{path}: {error}");
        fixture.all_memory_returned().await;
    }
    assert!(hostile.lines.has("as asked"), "what a panic says is logged");
}

#[tokio::test]
async fn loops_and_sleeps_end_at_the_deadline_and_others_do_not_notice() {
    let fixture = Fixture::new();
    let hostile = fixture.deploy(HOSTILE, Settings::short()).await;
    let hello = fixture.deploy(HELLO, Settings::default()).await;
    // One thread runs all of these.
    let loops = futures::future::join_all(["/loop", "/loop", "/sleep", "/loop"].map(|path| fails(&hostile, path)));
    let calls = async {
        for _ in 0..20 {
            assert_eq!(hello.text("/").await, "Hello, world!\n");
        }
    };
    let (errors, ()) = tokio::join!(loops, calls);
    for error in errors {
        assert_eq!(error.code, Code::Timeout, "{error}");
    }
    fixture.all_memory_returned().await;
}

#[tokio::test]
async fn a_sleeping_instance_holds_no_thread() {
    let fixture = Fixture::new();
    let hostile = fixture.deploy(HOSTILE, Settings::default()).await;
    let texts = futures::future::join_all((0..40).map(|_| hostile.text("/sleep/20"))).await;
    assert!(texts.iter().all(|text| text == "awake"));
}

#[tokio::test]
async fn outgoing_requests_are_denied_without_a_trap() {
    let hostile = Fixture::new().deploy(HOSTILE, Settings::default()).await;
    assert_eq!(hostile.text("/outgoing").await, "denied");
}

#[tokio::test]
async fn headers_of_the_connection_and_broken_ones_are_refused() {
    let hostile = Fixture::new().deploy(HOSTILE, Settings::default()).await;
    let text = hostile.text("/headers").await;
    assert_eq!(text.lines().filter(|line| line.ends_with(": refused")).count(), 7, "{text}");
}

#[tokio::test]
async fn a_body_that_is_never_finished_ends_with_the_instance() {
    let fixture = Fixture::new();
    for settings in [Settings::default(), Settings::reuse()] {
        let hostile = fixture.deploy(HOSTILE, settings).await;
        // The slow one goes on after it has answered.
        for path in ["/unfinished", "/unfinished/slow"] {
            let served = hostile.get(path).await.expect("answers");
            assert_eq!(all(served.response).await.expect("ends"), "all there", "{path}");
            assert!(served.end.await.sandbox.is_none(), "an instance that keeps a body open is not kept");

            let served = hostile.serve(request("HEAD", path, full(""))).await.expect("answers");
            assert_eq!(all(served.response).await.expect("ends"), "");
            assert!(served.end.await.sandbox.is_none(), "an instance that keeps a body open is not kept");
        }
        fixture.all_memory_returned().await;
    }
}

#[tokio::test]
async fn an_event_s_answer_that_is_never_finished_ends_with_the_instance() {
    let fixture = Fixture::new();
    let env = [("MISDEED".into(), "/unfinished/slow".into())].into();
    let hostile = fixture.deploy(HOSTILE, Settings { env, ..Settings::reuse() }).await;
    let mut sandbox = hostile.start().await;
    assert_eq!(sandbox.call(hostile.context(), Bytes::from_static(b"{}")).await.expect("ends"), "all there");
    assert!(!sandbox.is_reusable());
}

#[tokio::test]
async fn an_instance_is_free_before_a_slow_reader_has_read() {
    let fixture = Fixture::new();
    let hostile = fixture.deploy(HOSTILE, Settings::default()).await;
    let served = hostile.get("/unfinished/slow").await.expect("answers");
    served.end.await.outcome.expect("ended well");
    fixture.all_memory_returned().await;
    assert_eq!(all(served.response).await.expect("ends"), "all there");
}

#[tokio::test]
async fn a_flood_of_lines_costs_no_memory_and_ends() {
    struct Counter(std::sync::atomic::AtomicUsize);
    impl lyra_isolation::LogSink for Counter {
        fn line(&self, _: lyra_types::log::Level, message: &str) {
            assert!(message.starts_with("line "));
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
    let fixture = Fixture::new();
    let hostile = fixture.deploy(HOSTILE, Settings::default()).await;
    let counter = std::sync::Arc::new(Counter(Default::default()));
    let mut context = hostile.context();
    context.logs = std::sync::Arc::clone(&counter) as _;
    let served = hostile.start().await.serve(context, get("/flood")).await.expect("answers");
    assert_eq!(all(served.response).await.unwrap(), "ok");
    assert_eq!(counter.0.load(std::sync::atomic::Ordering::Relaxed), 1_000_000);
}

#[tokio::test]
async fn a_large_body_is_never_held_by_the_host() {
    let fixture = Fixture::new();
    let hostile = fixture.deploy(HOSTILE, Settings::default()).await;
    let served = hostile.get("/big").await.expect("answers");
    let mut body = served.response.into_body();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let data = frame.expect("is whole").into_data().expect("data");
        assert!(data.len() <= 64 << 10);
        size += data.len();
    }
    assert_eq!(size, 100 << 20);
    served.end.await.outcome.expect("ended well");
}

#[tokio::test]
async fn instances_beyond_the_limit_are_refused_and_places_come_back() {
    let fixture = Fixture::new();
    let hello = fixture.deploy(HELLO, Settings::default()).await;
    let mut all_places = Vec::new();
    for _ in 0..50 {
        all_places.push(hello.start().await);
    }
    let error = hello.try_start().await.err().expect("no place");
    assert_eq!(error.code, Code::Overloaded);
    assert!(error.retry_after.is_some());
    drop(all_places);
    assert_eq!(hello.text("/").await, "Hello, world!\n");
    fixture.all_memory_returned().await;
}
