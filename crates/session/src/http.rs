//! The session protocol as lines of JSON over HTTP/1.1, for programs without a gRPC library.
//!
//! `POST /v1/session/stream` with a hello answers with the stream, a line for each message; `GET` is the same with the
//! hello of a program that has no session. `POST /v1/session/state` takes messages, one a line.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::time::timeout;
use tonic::body::Body;
use tower::Service;

use crate::grpc;
use crate::json::{self, Up};
use crate::machine::{Refusal, Said, View};
use crate::protocol::Hello;
use crate::server::Shared;
use crate::stream::{Attached, Refused, hear};

const STREAM: &str = "/v1/session/stream";
const STATE: &str = "/v1/session/state";

/// Answers one request, of either form.
pub(crate) async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    shared.messages.one().await;
    if request.uri().path().starts_with(grpc::PATH) {
        return grpc::service(&shared).call(request).await;
    }
    let result = match (request.method(), request.uri().path()) {
        (&Method::GET, STREAM) => stream(&shared, None).await,
        (&Method::POST, STREAM) => stream(&shared, Some(request.into_body())).await,
        (&Method::POST, STATE) => state(&shared, request.into_body()).await,
        (_, STREAM | STATE) => return Ok(error(StatusCode::METHOD_NOT_ALLOWED, "bad_request", "not with this method")),
        _ => return Ok(error(StatusCode::NOT_FOUND, "not_found", "no such path")),
    };
    Ok(result.unwrap_or_else(|refused| refusal(&refused)))
}

async fn stream(shared: &Arc<Shared>, hello: Option<Incoming>) -> Result<Response<Body>, Refused> {
    let permit = shared.attaching.try_acquire().map_err(|_| Refused::BeingSetUp)?;
    let view = match hello {
        None => View::default(),
        Some(body) => {
            let body = read(shared, body).await?;
            let hello: Hello = serde_json::from_slice(&body).map_err(|error| Refused::Malformed(error.to_string()))?;
            hello.into()
        }
    };
    let attached = Attached::new(shared, view, 0).await?;
    drop(permit);
    let lines = stream::unfold(attached, |mut attached| async {
        let message = attached.messages.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(json::line(&message)))), attached))
    });
    let response = Response::builder().header(CONTENT_TYPE, "application/x-ndjson").header(CACHE_CONTROL, "no-store");
    Ok(response.body(Body::new(StreamBody::new(lines))).expect("these headers are valid"))
}

async fn state(shared: &Arc<Shared>, body: Incoming) -> Result<Response<Body>, Refused> {
    let permit = timeout(shared.settings.patience, shared.posting.acquire()).await.map_err(|_| Refused::Slow)?;
    let body = read(shared, body).await?;
    let mut taken = 0;
    for line in body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        let up: Up = serde_json::from_slice(line).map_err(|error| Refused::Malformed(error.to_string()))?;
        let current = || shared.look(|machine| machine.stream().map(|stream| stream.number));
        let stream = up.stream.or_else(current).ok_or(Refusal::Stale)?;
        let sequence = up.sequence;
        taken += u32::from(hear(shared, stream, sequence, up.said()?).await?);
    }
    drop(permit);
    Ok(reply(StatusCode::OK, &serde_json::json!({ "taken": taken })))
}

async fn read(shared: &Shared, body: Incoming) -> Result<Bytes, Refused> {
    let limit = shared.settings.max_message;
    let collected = timeout(shared.settings.patience, Limited::new(body, limit).collect());
    match collected.await.map_err(|_| Refused::Slow)? {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(Refused::TooLarge(limit)),
        Err(error) => Err(Refused::Malformed(format!("the request broke off: {error}"))),
    }
}

impl Up {
    fn said(self) -> Result<Said, Refused> {
        let all = [
            self.hello.map(Said::from),
            self.state.map(Said::from),
            self.clients.map(Said::from),
            self.pong.map(Said::from),
        ];
        let mut all = all.into_iter().flatten();
        match (all.next(), all.next()) {
            (Some(said), None) => Ok(said),
            _ => Err(Refused::Malformed("a message has one of hello, state, clients and pong".to_owned())),
        }
    }
}

fn refusal(refused: &Refused) -> Response<Body> {
    let (status, code) = match refused {
        Refused::Busy => (StatusCode::CONFLICT, "busy"),
        Refused::BeingSetUp => (StatusCode::SERVICE_UNAVAILABLE, "being_set_up"),
        Refused::Malformed(_) | Refused::ByMachine(Refusal::BadId) => (StatusCode::BAD_REQUEST, "bad_request"),
        Refused::ByMachine(Refusal::GivenUp) => (StatusCode::GONE, "given_up"),
        Refused::ByMachine(Refusal::Stale) => (StatusCode::CONFLICT, "stale"),
        Refused::ByMachine(Refusal::Gap) => (StatusCode::CONFLICT, "gap"),
        Refused::ByMachine(Refusal::TooManyClients) => (StatusCode::TOO_MANY_REQUESTS, "too_many_clients"),
        Refused::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        Refused::Slow => (StatusCode::REQUEST_TIMEOUT, "slow"),
    };
    error(status, code, &refused.to_string())
}

fn error(status: StatusCode, code: &str, text: &str) -> Response<Body> {
    reply(status, &serde_json::json!({ "code": code, "error": text }))
}

fn reply(status: StatusCode, body: &serde_json::Value) -> Response<Body> {
    let body = Body::new(Full::new(Bytes::from(body.to_string())));
    let response = Response::builder().status(status).header(CONTENT_TYPE, "application/json");
    response.body(body).expect("these headers are valid")
}
