//! What a caller of a worker over gRPC relies on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use lyra_kit::Clock;
use lyra_types::{Code, InvocationId};
use lyra_wire::grpc::{self, RemoteWorker, Security};
use lyra_wire::worker::{Call, Drained, HttpCall, Prepare};
use lyra_wire::{Body, Operated, Worker, full_body};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::scripted::{Scripted, call, failure, report, version};

/// A scripted worker on a port of its own, and a client of it.
struct Pair {
    script: Arc<Scripted>,
    client: Arc<RemoteWorker>,
    /// All that runs for the server, connections too: they end with it as with a process.
    server: Option<Runtime>,
    address: String,
    closing: CancellationToken,
}

fn serve(address: &str, script: &Arc<Scripted>, closing: &CancellationToken) -> (Runtime, String) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = std::net::TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut routes = grpc::routes();
    grpc::add_worker(&mut routes, script.clone(), Duration::from_secs(60), closing.clone());
    let _within = runtime.enter();
    let listener = TcpListener::from_std(listener).unwrap();
    lyra_kit::tasks::spawn("server", serve_plain(listener, routes, closing.clone()));
    (runtime, address)
}

async fn serve_plain(listener: TcpListener, routes: grpc::RoutesBuilder, closing: CancellationToken) {
    grpc::serve(listener, routes, &Security::Plain, closing).await.unwrap();
}

impl Pair {
    async fn start() -> Pair {
        let script = Arc::new(Scripted::default());
        let closing = CancellationToken::new();
        let (server, address) = serve("127.0.0.1:0", &script, &closing);
        let client = Arc::new(RemoteWorker::new("w1", &address, &Security::Plain, Clock::system()).unwrap());
        Pair { script, client, server: Some(server), address, closing }
    }

    async fn stop(&mut self) {
        let server = self.server.take().unwrap();
        lyra_kit::tasks::blocking(move || server.shutdown_timeout(Duration::from_secs(30))).await.unwrap();
    }

    /// Waits until so many more calls have begun.
    async fn begun(&self, calls: u32) {
        self.script.begun.begun.acquire_many(calls).await.unwrap().forget();
    }

    async fn ended(&self, calls: u32) {
        self.script.begun.ended.acquire_many(calls).await.unwrap().forget();
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_background();
        }
    }
}

fn http(path: &str, body: Body) -> HttpCall {
    let request = http::Request::put(format!("http://host.example{path}")).header("x-a", "b").body(body).unwrap();
    HttpCall { id: InvocationId::from_parts(1, 2), version: version("web", 3), request, user: None }
}

#[tokio::test]
async fn a_call_crosses_whole() {
    let pair = Pair::start().await;
    let mut sent = call("echo", "{\"a\":1}");
    sent.timeout = Some(Duration::from_millis(1_500));
    let reply = pair.client.invoke(sent.clone()).await;
    assert_eq!((reply.report, reply.outcome), (report(sent.id, 3), Ok(Bytes::from_static(b"{\"a\":1}"))));
    let seen = pair.script.calls.lock().pop().unwrap();
    assert_eq!((seen.id, seen.version, seen.event, seen.timeout), (sent.id, sent.version, sent.event, sent.timeout));
    let reply = pair.client.invoke(call("throw", "{}")).await;
    assert_eq!((reply.report, reply.outcome), (report(InvocationId::from_parts(1, 2), 3), Err(failure())));
}

#[tokio::test]
async fn many_calls_of_many_versions_find_their_own_answers() {
    let pair = Pair::start().await;
    let calls = (0..2_000_u64).map(|number| {
        let client = Arc::clone(&pair.client);
        async move {
            let (name, event) = (format!("f{}", number % 40), Bytes::from(number.to_string()));
            let version = version(&name, number % 7 + 1);
            let call = Call {
                id: InvocationId::from_parts(number, 1),
                version,
                event: event.clone(),
                timeout: None,
                account: Default::default(),
                trace: None,
            };
            let reply = client.invoke(call).await;
            assert_eq!(reply.report, report(InvocationId::from_parts(number, 1), number % 7 + 1));
            assert_eq!(reply.outcome, Ok(event));
        }
    });
    futures::stream::iter(calls).buffer_unordered(300).collect::<()>().await;
}

#[tokio::test]
async fn large_events_and_results_cross_beside_small_ones() {
    let pair = Pair::start().await;
    let sizes = [0, 1, 65_535, 65_536, 65_537, 200_000, 6 << 20];
    let calls = sizes.into_iter().cycle().take(40).enumerate().map(|(at, size)| {
        let client = Arc::clone(&pair.client);
        async move {
            let event: Bytes = (0..size).map(|n| (n + at) as u8).collect();
            assert!(client.invoke(call("echo", event.clone())).await.outcome == Ok(event));
        }
    });
    futures::stream::iter(calls).buffer_unordered(20).collect::<()>().await;
}

#[tokio::test]
async fn dropping_a_call_cancels_it_at_the_worker() {
    let pair = Pair::start().await;
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let client = Arc::clone(&pair.client);
            lyra_kit::tasks::spawn("call", async move { client.invoke(call("hang", "{}")).await })
        })
        .collect();
    pair.begun(10).await;
    calls.iter().for_each(|call| call.abort());
    pair.ended(10).await;
    assert_eq!(pair.script.running.load(Ordering::SeqCst), 0);
    assert!(pair.client.invoke(call("echo", "1")).await.outcome.is_ok());
}

#[tokio::test]
async fn a_call_to_nobody_says_that_it_has_not_run() {
    let mut pair = Pair::start().await;
    pair.stop().await;
    for _ in 0..3 {
        let reply = pair.client.invoke(call("echo", "1")).await;
        let error = reply.outcome.unwrap_err();
        assert_eq!((error.code, reply.report.start), (Code::Unavailable, None), "{error}");
        assert!(error.detail.contains("w1") && error.retry_after.is_some(), "{error}");
    }
}

#[tokio::test]
async fn a_call_whose_worker_is_lost_says_that_it_may_have_run() {
    let mut pair = Pair::start().await;
    let client = Arc::clone(&pair.client);
    let hanging = lyra_kit::tasks::spawn("call", async move { client.invoke(call("hang", "{}")).await });
    pair.begun(1).await;
    pair.stop().await;
    let error = hanging.await.unwrap().outcome.unwrap_err();
    assert_eq!(error.code, Code::WorkerLost);
    pair.ended(1).await;
}

#[tokio::test]
async fn calls_go_on_when_a_worker_is_back_at_its_address() {
    let mut pair = Pair::start().await;
    assert!(pair.client.invoke(call("echo", "1")).await.outcome.is_ok());
    pair.stop().await;
    let script = Arc::new(Scripted::default());
    let (again, _) = serve(&pair.address, &script, &CancellationToken::new());
    pair.server = Some(again);
    // The first calls may find connections that nobody told yet that they are broken.
    let mut tries = 0;
    while pair.client.invoke(call("echo", "1")).await.outcome.is_err() {
        tries += 1;
        assert!(tries < 1_000);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(script.calls.lock().last().map(|call| call.version.clone()), Some(version("echo", 3)));
}

#[tokio::test]
async fn a_request_crosses_whole_and_streams_both_ways() {
    let pair = Pair::start().await;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let frames = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let reply = pair.client.serve(http("/a?b=c", Body::new(StreamBody::new(frames)))).await;
    assert_eq!(reply.report, report(InvocationId::from_parts(1, 2), 3));
    let (parts, mut body) = reply.outcome.unwrap().into_parts();
    assert_eq!((parts.status.as_u16(), parts.headers["x-a"].as_bytes()), (418, &b"b"[..]));
    assert_eq!(parts.headers["seen"], "PUT http://host.example/a?b=c");
    for piece in ["one", "two"] {
        sender.send(Ok(Frame::data(Bytes::from(piece)))).await.unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), piece, "while the request goes on");
    }
    let trailers = http::HeaderMap::from_iter([("t".parse().unwrap(), "v".parse().unwrap())]);
    sender.send(Ok(Frame::trailers(trailers.clone()))).await.unwrap();
    drop(sender);
    assert_eq!(body.frame().await.unwrap().unwrap().into_trailers().unwrap(), trailers);
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn failures_of_a_request_are_told_apart() {
    let pair = Pair::start().await;
    let outcome = pair.client.serve(http("/fail", full_body(""))).await.outcome;
    assert_eq!(outcome.err(), Some(failure()));

    let response = pair.client.serve(http("/broken", full_body(""))).await.outcome.unwrap();
    let error = response.into_body().collect().await.unwrap_err();
    assert_eq!(*error.downcast::<lyra_types::Error>().unwrap(), failure(), "a body that breaks off is not complete");

    let frames = [Ok(Frame::data(Bytes::from_static(b"half"))), Err("the client went away".into())];
    let body = Body::new(StreamBody::new(futures::stream::iter(frames)));
    let error = pair.client.serve(http("/collect", body)).await.outcome.err().unwrap();
    assert_eq!(error.code, Code::BadRequest, "the handler is not told that half a body is all: {error}");
}

#[tokio::test]
async fn a_request_that_was_not_sent_is_told_from_one_that_may_have_run() {
    let mut pair = Pair::start().await;
    let client = Arc::clone(&pair.client);
    let hanging = lyra_kit::tasks::spawn("call", async move { client.serve(http("/hang", full_body(""))).await });
    pair.begun(1).await;
    pair.stop().await;
    let reply = hanging.await.unwrap();
    assert_eq!((reply.outcome.err().unwrap().code, reply.report.start), (Code::WorkerLost, None));
    // Now nobody is there. The first one may find a connection that nobody told yet that it is broken.
    let mut last = Code::WorkerLost;
    for _ in 0..10 {
        let error = pair.client.serve(http("/a", full_body(""))).await.outcome.err().unwrap();
        assert!(error.detail.contains("w1"), "{error}");
        last = error.code;
    }
    assert_eq!(last, Code::Unavailable);
}

#[tokio::test]
async fn a_request_that_is_given_up_is_cancelled_at_the_worker() {
    let pair = Pair::start().await;
    let client = Arc::clone(&pair.client);
    let hanging = lyra_kit::tasks::spawn("call", async move { drop(client.serve(http("/hang", full_body(""))).await) });
    pair.begun(1).await;
    hanging.abort();
    pair.ended(1).await;
    let response = pair.client.serve(http("/endless", full_body(""))).await.outcome.unwrap();
    let mut body = response.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    drop(body);
    pair.ended(1).await;
}

#[tokio::test]
async fn every_other_question_finds_its_answer() {
    let mut pair = Pair::start().await;
    let worker: Arc<dyn Operated> = pair.client.clone();
    // Twenty MiB: bytes are sent as bytes.
    let code: Bytes = (0..20 << 20).map(|n: usize| n as u8).collect();
    let prepare = Prepare::of(&version("f", 1), code);
    assert_eq!(worker.prepare(prepare.clone()).await.unwrap().contract, lyra_types::function::Contract::Http);
    assert_eq!(worker.prepare(Prepare { code: Bytes::new(), ..prepare }).await, Err(failure()));
    worker.prewarm(version("warm", 1), 7).await.unwrap();
    worker.forget(5, Some(6)).await.unwrap();
    worker.forget(7, None).await.unwrap();
    assert_eq!(*pair.script.forgotten.lock(), [(5, Some(6)), (7, None)]);
    assert_eq!(worker.status().await.unwrap().queue_policy, "fcfs");
    assert_eq!(worker.instances().await, Err(failure()));
    assert!(worker.health().await.unwrap().healthy);
    worker.cordon().await.unwrap();
    worker.uncordon().await.unwrap();
    assert_eq!(*pair.script.cordoned.lock(), [true, false]);
    assert_eq!(worker.drain(Duration::from_secs(4)).await, Ok(Drained { ended: true, left: 4, evacuated: 2 }));
    assert_eq!(worker.clean().await, Ok(9));
    pair.stop().await;
    let error = worker.status().await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.detail.contains("w1"), "{error}");
}

#[tokio::test]
async fn a_worker_that_closes_loses_no_call() {
    let pair = Pair::start().await;
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let client = Arc::clone(&pair.client);
            lyra_kit::tasks::spawn("call", async move { client.invoke(call("gate", "1")).await })
        })
        .collect();
    pair.begun(20).await;
    pair.closing.cancel();
    // Whoever comes now is told so, or is still served; nobody is left in doubt.
    for _ in 0..200 {
        let reply = pair.client.invoke(call("echo", "2")).await;
        let refused = |error: lyra_types::Error| error.code == Code::Unavailable && reply.report.start.is_none();
        assert!(reply.outcome.is_ok() || reply.outcome.is_err_and(refused));
    }
    pair.script.gate.add_permits(20);
    for call in calls {
        assert_eq!(call.await.unwrap().outcome, Ok(Bytes::from_static(b"1")));
    }
}
