//! Calls of functions that are bound to an application: an open session serves them, the same key the same session.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use lyra_types::function::Contract;
use lyra_types::invocation::{Report, Start};
use lyra_types::{Code, Error, FunctionVersion, InvocationId, Result, SessionBinding};

use crate::headers::{self, INVOCATION_ID};
use crate::ingress::{Reached, Seen, key};
use crate::problem;
use crate::rest::invoke::result_response;
use crate::service::App;

const SESSION: HeaderName = HeaderName::from_static("lyra-session");

/// A call under way.
struct Call<'a> {
    app: &'a App,
    version: &'a FunctionVersion,
    report: Report,
}

impl<'a> Call<'a> {
    fn new(app: &'a App, version: &'a FunctionVersion) -> Call<'a> {
        Call { app, version, report: Report::new(app.ids.invocation(), version.version) }
    }

    async fn reach(&mut self, binding: &SessionBinding, key: &str) -> Result<Reached> {
        let (app, begun) = (self.app, self.app.clock.instant());
        let wait = self.version.timeout();
        let (session, was_there) = app.ingress.reach(&app.control, &self.version.tenant, binding, key, wait).await?;
        self.report.phases.start = app.clock.instant().duration_since(begun);
        self.report.start = Some(if was_there { Start::Warm } else { Start::Cold });
        self.report.reused = was_there;
        Reached::new(&app.ingress, session)
    }

    /// The answer, with what every answer of a call carries.
    fn answer(
        mut self,
        begun: tokio::time::Instant,
        session: Option<HeaderValue>,
        outcome: Result<Response>,
    ) -> Response {
        self.report.phases.exec =
            self.app.clock.instant().duration_since(begun).saturating_sub(self.report.phases.start);
        let id = self.report.invocation;
        let mut response = outcome.unwrap_or_else(|error| problem::of_call(id, &error));
        headers::stamp(&self.report, response.headers_mut());
        if let Some(session) = session {
            response.headers_mut().insert(SESSION, session);
        }
        response
    }
}

/// An HTTP request, passed on as to a session's own address.
///
/// # Errors
/// [`Code::BadRequest`] where it names no session; whatever comes after that is an answer.
pub(crate) async fn serve(
    app: &Arc<App>,
    version: &FunctionVersion,
    binding: &SessionBinding,
    seen: Seen<'_>,
    parts: Parts,
    body: lyra_wire::Body,
) -> Result<Response> {
    let begun = app.clock.instant();
    let key = key(&binding.key, &parts.headers, parts.uri.query(), Some(&seen.path))?.into_owned();
    let mut call = Call::new(app, version);
    let mut name = None;
    let outcome = async {
        let session = call.reach(binding, &key).await?;
        name = Some(headers::value(session.name()));
        session.pass_on(seen, parts, body).await
    };
    let outcome = outcome.await;
    Ok(call.answer(begun, name, outcome))
}

/// An event: the body of a `POST /`, whose answer's body is the result.
///
/// # Errors
/// As [`serve`].
pub(crate) async fn invoke(
    app: &Arc<App>,
    version: &FunctionVersion,
    binding: &SessionBinding,
    parts: &Parts,
    event: Bytes,
) -> Result<Response> {
    let begun = app.clock.instant();
    let key = key(&binding.key, &parts.headers, parts.uri.query(), None)?;
    let mut call = Call::new(app, version);
    let id = call.report.invocation;
    let mut name = None;
    let limit = version.timeout();
    let outcome = tokio::time::timeout(limit, async {
        let session = call.reach(binding, &key).await?;
        name = Some(headers::value(session.name()));
        result(app, &session, id, event).await
    });
    let outcome = outcome.await.unwrap_or_else(|_| Err(too_late(limit)));
    Ok(call.answer(begun, name, outcome))
}

fn too_late(limit: Duration) -> Error {
    Error::new(
        Code::Timeout,
        format!("the session did not answer within {} ms, the function's timeout", limit.as_millis()),
    )
}

async fn result(app: &App, session: &Reached, id: InvocationId, event: Bytes) -> Result<Response> {
    let mut request = http::Request::new(lyra_wire::full_body(event));
    *request.method_mut() = Method::POST;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_static("localhost"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(INVOCATION_ID, headers::value(id));
    let answer = session.send(request).await?;
    let status = answer.status();
    if !status.is_success() {
        return Err(Error::new(Code::FunctionError, format!("the session answered with the status {status}")));
    }
    let limit = app.config.max_event_bytes;
    let body = Limited::new(answer.into_body(), limit).collect().await.map_err(|error| {
        match error.downcast_ref::<LengthLimitError>() {
            Some(_) => Error::new(Code::ResultTooLarge, format!("the result is larger than {limit} bytes, the limit")),
            None => Error::new(Code::SessionError, format!("the session broke off its answer: {error}")),
        }
    })?;
    Ok(result_response(Contract::Http, body.to_bytes()).map(Body::new))
}
