//! Streaming both ways, and what ends a stream early.

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use lyra_isolation::{Body, BoxError};
use lyra_types::Code;
use tokio::sync::mpsc;

use super::{Fixture, HELLO, HOSTILE, Settings, all, get, request};

/// A body that is fed piece by piece.
fn fed() -> (mpsc::Sender<Result<Frame<Bytes>, BoxError>>, Body) {
    let (sender, mut receiver) = mpsc::channel(1);
    let stream = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
    (sender, StreamBody::new(stream).boxed_unsync())
}

fn piece(text: &'static str) -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

async fn next(body: &mut Body) -> String {
    let data = body.frame().await.expect("goes on").expect("is whole").into_data().expect("data");
    String::from_utf8(data.to_vec()).expect("text")
}

#[tokio::test]
async fn each_piece_comes_back_before_the_next_is_sent() {
    let fixture = Fixture::new();
    let hello = fixture.deploy(HELLO, Settings::default()).await;
    let (sender, body) = fed();
    let served = hello.serve(request("POST", "/", body)).await.expect("answers before the request has ended");
    let mut body = served.response.into_body();
    for text in ["one", "two", "three"] {
        sender.send(piece(text)).await.unwrap();
        assert_eq!(next(&mut body).await, text);
    }
    drop(sender);
    assert!(body.frame().await.is_none());
    served.end.await.outcome.expect("ended well");
    fixture.all_memory_returned().await;
}

#[tokio::test]
async fn a_large_body_passes_without_being_held() {
    let hello = Fixture::new().deploy(HELLO, Settings::default()).await;
    let (sender, body) = fed();
    let feeder = lyra_kit::tasks::spawn("feed", async move {
        let data = Bytes::from(vec![b'x'; 1 << 20]);
        for _ in 0..64 {
            sender.send(Ok(Frame::data(data.clone()))).await.unwrap();
        }
    });
    let served = hello.serve(request("POST", "/", body)).await.expect("answers");
    let mut body = served.response.into_body();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        size += frame.unwrap().into_data().unwrap().len();
    }
    // More than the 64 MiB that the instance may have.
    assert_eq!(size, 64 << 20);
    feeder.await.unwrap();
    served.end.await.outcome.expect("ended well");
}

#[tokio::test]
async fn a_response_is_read_while_it_is_made() {
    let hostile = Fixture::new().deploy(HOSTILE, Settings::default()).await;
    let served = hostile.get("/slow/3").await.expect("answers");
    let mut body = served.response.into_body();
    for text in ["a", "b", "c"] {
        assert_eq!(next(&mut body).await, text);
    }
    assert!(body.frame().await.is_none());
    served.end.await.outcome.expect("ended well");
}

#[tokio::test]
async fn a_request_that_breaks_off_is_seen_by_the_guest() {
    let hello = Fixture::new().deploy(HELLO, Settings::default()).await;
    let (sender, body) = fed();
    let served = hello.serve(request("POST", "/", body)).await.expect("answers");
    let mut body = served.response.into_body();
    sender.send(piece("one")).await.unwrap();
    assert_eq!(next(&mut body).await, "one");
    sender.send(Err("the client is gone".into())).await.unwrap();
    let error = body.frame().await.expect("an end").expect_err("not a whole one");
    assert!(error.to_string().contains("dropped its response body"), "{error}");
}

#[tokio::test]
async fn dropping_the_body_stops_the_guest() {
    let fixture = Fixture::new();
    let hostile = fixture.deploy(HOSTILE, Settings::reuse()).await;
    for path in ["/slow", "/stream/loop", "/big"] {
        let served = hostile.get(path).await.expect("answers");
        let mut body = served.response.into_body();
        next(&mut body).await;
        assert!(fixture.wasm.engine().memory_in_use() > 0);
        drop(body);
        let end = served.end.await;
        assert_eq!(end.outcome.expect_err("stopped").code, Code::Cancelled, "{path}");
        assert!(end.sandbox.is_none());
        fixture.all_memory_returned().await;
    }
}

#[tokio::test]
async fn dropping_the_call_before_its_response_stops_the_guest() {
    let fixture = Fixture::new();
    let hostile = fixture.deploy(HOSTILE, Settings::default()).await;
    for path in ["/sleep", "/loop"] {
        let sandbox = hostile.start().await;
        {
            let mut call = std::pin::pin!(sandbox.serve(hostile.context(), get(path)));
            for _ in 0..5 {
                assert!(futures::poll!(&mut call).is_pending());
                tokio::task::yield_now().await;
            }
            assert!(fixture.wasm.engine().memory_in_use() > 0);
        }
        assert_eq!(fixture.wasm.engine().memory_in_use(), 0);
    }
}

#[tokio::test]
async fn a_reader_that_stops_at_the_announced_length_has_not_left_early() {
    let hostile = Fixture::new().deploy(HOSTILE, Settings::reuse()).await;
    let served = hostile.get("/length/slow").await.expect("answers");
    let mut body = served.response.into_body();
    assert_eq!(next(&mut body).await, "o");
    assert_eq!(next(&mut body).await, "k");
    drop(body);
    super::reused(served.end.await);
}

#[tokio::test]
async fn the_deadline_ends_a_stream_with_an_error() {
    let fixture = Fixture::new();
    let hostile = fixture.deploy(HOSTILE, Settings::short()).await;
    for path in ["/slow", "/stream/loop"] {
        let served = hostile.get(path).await.expect("answers");
        let error = all(served.response).await.expect_err("is not whole");
        assert!(error.to_string().contains("deadline"), "{error}");
        let end = served.end.await;
        assert_eq!(end.outcome.expect_err("failed").code, Code::Timeout);
        fixture.all_memory_returned().await;
    }
}

#[tokio::test]
async fn the_deadline_frees_a_guest_whose_reader_does_not_read() {
    let fixture = Fixture::new();
    let hostile = fixture.deploy(HOSTILE, Settings::short()).await;
    let served = hostile.get("/big").await.expect("answers");
    assert_eq!(served.end.await.outcome.expect_err("failed").code, Code::Timeout);
    fixture.all_memory_returned().await;
    all(served.response).await.expect_err("is not whole");
}

#[tokio::test]
async fn a_crash_in_the_middle_cuts_the_body_with_an_error() {
    let fixture = Fixture::new();
    let hostile = fixture.deploy(HOSTILE, Settings::default()).await;
    let served = hostile.get("/stream/panic").await.expect("answers");
    let error = all(served.response).await.expect_err("is not whole");
    assert!(error.to_string().contains("the instance crashed"), "{error}");
    assert_eq!(served.end.await.outcome.expect_err("failed").code, Code::InstanceCrashed);
    assert!(hostile.lines.has("in the middle"), "{:?}", hostile.lines.all());

    let served = hostile.get("/stream/drop").await.expect("answers");
    let error = all(served.response).await.expect_err("is not whole");
    assert!(error.to_string().contains("dropped its response body"), "{error}");
}
