//! Calls with an HTTP request: which of them go to another worker, and with what body.

use bytes::Bytes;
use futures::StreamExt;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use lyra_fleet::Policy;
use lyra_types::Code;
use lyra_wire::{Body, BoxError, Worker, full_body};

use crate::doubles::{Act, request};
use crate::fleet::world;

/// A body of pieces that come one by one.
fn pieces(pieces: &[&'static [u8]]) -> Body {
    let frames: Vec<_> = pieces.iter().map(|piece| Ok::<_, BoxError>(Frame::data(Bytes::from_static(piece)))).collect();
    Body::new(StreamBody::new(futures::stream::iter(frames).boxed()))
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_have_run_goes_to_another_worker_with_its_body() {
    for act in [
        Act::Refuse(Code::Unavailable),
        Act::Refuse(Code::Overloaded),
        Act::ReadAndRefuse(Code::Unavailable),
        Act::ReadAndRefuse(Code::Overloaded),
    ] {
        let world = world(Policy::RoundRobin, &["a", "b", "c"]).await;
        world.script.set("a:1", act);
        world.script.set("b:1", act);
        let bodies = [(full_body(""), "c:1"), (full_body("all"), "c:1all"), (pieces(&[b"a", b"l", b"l"]), "c:1all")];
        for (body, whole) in bodies {
            let answer = world.fleet.serve(request(body)).await.outcome.unwrap();
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), whole, "{act:?}");
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_may_have_run_is_not_repeated() {
    for act in [Act::Fail(Code::Unavailable), Act::Refuse(Code::WorkerLost), Act::Refuse(Code::LimitReached)] {
        let world = world(Policy::RoundRobin, &["a", "b"]).await;
        world.script.set("a:1", act);
        world.script.set("b:1", act);
        assert!(world.fleet.serve(request(full_body("x"))).await.outcome.is_err());
        assert_eq!(world.script.take_called().len(), 1, "{act:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_long_body_was_read_is_not_repeated() {
    static LONG: [u8; 100_000] = [7; 100_000];
    let world = world(Policy::RoundRobin, &["a", "b"]).await;
    for address in ["a:1", "b:1"] {
        world.script.set(address, Act::ReadAndRefuse(Code::Overloaded));
    }
    let error = world.fleet.serve(request(pieces(&[&LONG, b"x"]))).await.outcome.unwrap_err();
    assert_eq!((error.code, world.script.take_called().len()), (Code::Overloaded, 1));
    for address in ["a:1", "b:1"] {
        world.script.set(address, Act::Refuse(Code::Overloaded));
    }
    assert!(world.fleet.serve(request(pieces(&[&LONG, b"x"]))).await.outcome.is_err());
    assert_eq!(world.script.take_called().len(), 2, "it was not read");
}
