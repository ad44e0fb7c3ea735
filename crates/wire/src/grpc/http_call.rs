//! Calls with an HTTP request, streaming both ways: one stream of gRPC each.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, Stream};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use lyra_types::invocation::Report;
use lyra_types::{Code, Error, FunctionVersion, InvocationId};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::calls::calls_client::CallsClient;
use super::calls::{
    Complete, FromHandler, RequestHead, Response, ResponseHead, ToHandler, from_handler, response_head, to_handler,
};
use super::failure;
use super::fields::{from_error, from_headers, from_report, id_bytes, id_number, to_error, to_headers, to_report};
use super::packed::{pack, unpack};
use crate::worker::{HttpCall, HttpReply};
use crate::{Body, BoxError, Worker};

/// Sends a request to the worker behind `channel` and waits for the response's head, for `limit` at most; for as long for each
/// piece of its body. `name` is the worker's, for errors.
pub(super) async fn call(channel: Channel, name: &str, call: HttpCall, limit: Duration) -> HttpReply {
    let (id, number) = (call.id, call.version.version);
    let refused = |error| HttpReply { report: Report::new(id, number), outcome: Err(error) };
    let specification = match pack(&*call.version) {
        Ok(specification) => specification,
        Err(error) => return refused(Error::internal(format!("the version can't be sent: {error}"))),
    };
    let user = call.user;
    let (parts, body) = call.request.into_parts();
    let head = RequestHead {
        invocation: id_bytes(id.number()),
        specification,
        method: parts.method.as_str().to_owned(),
        uri: parts.uri.to_string(),
        headers: Some(from_headers(&parts.headers)),
        user: user.as_deref().unwrap_or_default().to_owned(),
    };
    let messages = stream::iter([to_handler::What::Head(head)]).chain(outgoing(body));
    let messages = messages.map(|what| ToHandler { what: Some(what) });
    let begun = async {
        let mut answers = CallsClient::new(channel).serve(messages).await?.into_inner();
        Ok((answers.next().await, answers))
    };
    let (head, answers) = match tokio::time::timeout(limit, begun).await {
        Ok(Ok(begun)) => begun,
        Ok(Err(status)) => return refused(missed(&status, name)),
        Err(_) => return refused(overdue(name, limit)),
    };
    let head = match head {
        Some(Ok(FromHandler { what: Some(from_handler::What::Head(head)) })) => head,
        Some(Err(status)) => return refused(missed(&status, name)),
        _ => return refused(Error::new(Code::WorkerLost, format!("worker {name} was lost before it answered"))),
    };
    let report = to_report(id, number, &head.report.unwrap_or_default());
    let outcome = match head.outcome {
        Some(response_head::Outcome::Response(response)) => to_response(response, answers, name, limit),
        Some(response_head::Outcome::Error(error)) => Err(to_error(&error)),
        None => Err(Error::internal("the worker sent an answer without an outcome")),
    };
    HttpReply { report, outcome }
}

/// Why there is no answer. What the worker says itself counts; where nobody was reached, the request was not sent; in any
/// other case it may have run.
fn missed(status: &Status, name: &str) -> Error {
    let mut causes = std::iter::successors(std::error::Error::source(status), |cause| cause.source());
    if !status.details().is_empty() || causes.any(|cause| cause.is::<tonic::ConnectError>()) {
        return failure::from_status(status, &format!("worker {name}"));
    }
    tracing::debug!(%status, name, "a worker was lost while it had a request");
    Error::new(Code::WorkerLost, format!("worker {name} was lost while it had this call; it may have run"))
}

/// The messages of a request's body. One that breaks off ends without [`Complete`].
fn outgoing(body: Body) -> impl Stream<Item = to_handler::What> + Send {
    stream::unfold(Some(body), |body| async move {
        let mut body = body?;
        match body.frame().await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => Some((to_handler::What::Data(data), Some(body))),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    Some((to_handler::What::Trailers(from_headers(&trailers)), Some(body)))
                }
            },
            Some(Err(_)) => None,
            None => Some((to_handler::What::Complete(Complete {}), None)),
        }
    })
}

fn overdue(name: &str, limit: Duration) -> Error {
    let seconds = limit.as_secs();
    let detail = format!("worker {name} said nothing for {seconds} s, which is longer than this call may take there");
    Error::new(Code::WorkerLost, format!("{detail}; it may have run"))
}

fn to_response(
    response: Response,
    answers: Streaming<FromHandler>,
    name: &str,
    limit: Duration,
) -> Result<http::Response<Body>, Error> {
    let name: Arc<str> = Arc::from(name);
    let answers = stream::unfold(Some(answers), move |answers| {
        let name = Arc::clone(&name);
        async move {
            let mut answers = answers?;
            match tokio::time::timeout(limit, answers.next()).await {
                Ok(item) => item.map(|item| (item, Some(answers))),
                Err(_) => Some((Err(failure::to_status(&overdue(&name, limit))), None)),
            }
        }
    });
    let bad = || Error::internal("the worker sent a response that is none");
    let body = answers.map(|message| match message {
        Ok(FromHandler { what: Some(from_handler::What::Data(data)) }) => Ok(Frame::data(data)),
        Ok(FromHandler { what: Some(from_handler::What::Trailers(fields)) }) => {
            to_headers(Some(fields)).map(Frame::trailers).ok_or_else(|| broken("trailers that are none"))
        }
        Ok(_) => Err(broken("a message out of place")),
        Err(status) => Err(BoxError::from(failure::from_status(&status, "the worker"))),
    });
    let mut out = http::Response::new(Body::new(StreamBody::new(body)));
    *out.status_mut() =
        u16::try_from(response.status).ok().and_then(|code| http::StatusCode::from_u16(code).ok()).ok_or_else(bad)?;
    *out.headers_mut() = to_headers(response.headers).ok_or_else(bad)?;
    Ok(out)
}

fn broken(what: &str) -> BoxError {
    BoxError::from(format!("the body broke off: {what}"))
}

/// Serves one request; what it returns is the response's head, then its body.
///
/// # Errors
/// When the caller does not keep to the protocol.
pub(super) async fn serve(
    worker: &dyn Worker,
    mut messages: Streaming<ToHandler>,
) -> Result<impl Stream<Item = Result<FromHandler, Status>> + Send + use<>, Status> {
    let Some(ToHandler { what: Some(to_handler::What::Head(head)) }) = messages.message().await? else {
        return Err(Status::invalid_argument("a request begins with its head"));
    };
    let call = to_call(head, messages).ok_or_else(|| Status::invalid_argument("not a request"))?;
    let HttpReply { report, outcome } = worker.serve(call).await;
    let report = Some(from_report(&report));
    let (outcome, body) = match outcome {
        Ok(response) => {
            let (parts, body) = response.into_parts();
            let status = u32::from(parts.status.as_u16());
            let response = Response { status, headers: Some(from_headers(&parts.headers)) };
            (response_head::Outcome::Response(response), Some(body))
        }
        Err(error) => (response_head::Outcome::Error(from_error(&error)), None),
    };
    let head = from_handler::What::Head(ResponseHead { report, outcome: Some(outcome) });
    let rest = stream::iter(body).flat_map(answer);
    Ok(stream::iter([Ok(head)]).chain(rest).map(|what| what.map(|what| FromHandler { what: Some(what) })))
}

/// The messages of a response's body.
fn answer(body: Body) -> impl Stream<Item = Result<from_handler::What, Status>> + Send {
    http_body_util::BodyStream::new(body).map(|frame| match frame.map(Frame::into_data) {
        Ok(Ok(data)) => Ok(from_handler::What::Data(data)),
        Ok(Err(frame)) => Ok(from_handler::What::Trailers(from_headers(&frame.into_trailers().unwrap_or_default()))),
        Err(error) => Err(match error.downcast::<Error>() {
            Ok(error) => failure::to_status(&error),
            Err(error) => Status::unknown(error.to_string()),
        }),
    })
}

fn to_call(head: RequestHead, messages: Streaming<ToHandler>) -> Option<HttpCall> {
    let version = Arc::new(unpack::<FunctionVersion>(&head.specification).ok()?);
    let mut request = http::Request::new(Body::new(StreamBody::new(incoming(messages))));
    *request.method_mut() = head.method.parse().ok()?;
    *request.uri_mut() = head.uri.parse().ok()?;
    *request.headers_mut() = to_headers(head.headers)?;
    let user = (!head.user.is_empty()).then(|| head.user.as_str().into());
    Some(HttpCall { id: InvocationId::from_number(id_number(&head.invocation)?), version, request, user })
}

/// The frames of a request's body.
fn incoming(messages: Streaming<ToHandler>) -> impl Stream<Item = Result<Frame<Bytes>, BoxError>> + Send {
    stream::unfold(Some(messages), |messages| async move {
        let mut messages = messages?;
        match messages.message().await.map(|message| message.and_then(|message| message.what)) {
            Ok(Some(to_handler::What::Data(data))) => Some((Ok(Frame::data(data)), Some(messages))),
            Ok(Some(to_handler::What::Trailers(fields))) => match to_headers(Some(fields)) {
                Some(trailers) => Some((Ok(Frame::trailers(trailers)), Some(messages))),
                None => Some((Err(broken("trailers that are none")), None)),
            },
            Ok(Some(to_handler::What::Complete(_))) => None,
            Ok(Some(to_handler::What::Head(_))) => Some((Err(broken("a head out of place")), None)),
            Ok(None) => Some((Err(broken("the client went away")), None)),
            Err(status) => Some((Err(broken(status.message())), None)),
        }
    })
}

#[cfg(test)]
mod tests {
    use lyra_types::function::Digest;
    use lyra_types::{FunctionName, Runtime};

    use super::super::endpoint;
    use super::*;

    #[tokio::test]
    async fn a_worker_that_says_nothing_does_not_hold_a_request() {
        // It is connected to, and nobody reads what is sent.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let channel = endpoint(&listener.local_addr().unwrap().to_string()).unwrap().connect_lazy();
        let function = FunctionName::new("f").unwrap();
        let version = Arc::new(FunctionVersion::new(function, Runtime::Wasm, Digest("0".repeat(64))));
        let request = http::Request::new(crate::full_body("x"));
        let asked = HttpCall { id: InvocationId::from_parts(1, 2), version, request, user: None };
        let error = call(channel, "w1", asked, Duration::from_millis(200)).await.outcome.unwrap_err();
        assert_eq!(error.code, Code::WorkerLost, "{error}");
        assert!(error.detail.contains("w1"), "{error}");
    }
}
