//! Lets calls in under the quotas of their tenant and function, before their event is read.
//!
//! A place counts until the call has ended, which is when its answer has gone out, or its client has gone away.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use lyra_fleet::quota::{Called, Entry, Pass};
use lyra_types::invocation::Report;
use lyra_types::{FunctionVersion, Result, TenantName};

use crate::service::App;
use crate::{headers, problem};

/// Lets a call of a version in, or says which limit it would break.
///
/// # Errors
/// [`lyra_types::Code::LimitReached`].
pub(crate) async fn enter(app: &App, version: &FunctionVersion, entry: Entry) -> Result<Pass> {
    let (tenant, function) = (&version.tenant, Some(&version.function));
    app.meters.enter(Called { tenant, function, memory_mb: version.memory_mb }, entry).await
}

/// Lets a call in that is answered here, or answers it: also one that is refused has an id, and says how long it waited for room.
pub(crate) async fn enter_call(app: &App, version: &FunctionVersion) -> std::result::Result<Pass, Box<Response>> {
    let begun = app.clock.instant();
    enter(app, version, Entry::Call).await.map_err(|error| {
        let mut report = Report::new(app.ids.invocation(), version.version);
        report.phases.queue = begun.elapsed();
        let mut response = problem::of_call(report.invocation, &error);
        headers::stamp(&report, response.headers_mut());
        Box::new(response)
    })
}

/// Lets in what makes calls later and is of no function of its own: the start of a run.
///
/// # Errors
/// As [`enter`].
pub(crate) async fn enter_start(app: &App, tenant: &TenantName) -> Result<Pass> {
    app.meters.enter(Called { tenant, function: None, memory_mb: 0 }, Entry::Submit).await
}

/// The same answer, whose call counts until all of it has gone out.
pub(crate) fn until_sent(pass: Pass, response: Response) -> Response {
    // One that is all there needs its instance no more.
    if pass.is_empty() || http_body::Body::size_hint(response.body()).exact().is_some() {
        return response;
    }
    response.map(|body| Body::new(Counted { body, _pass: pass }))
}

/// A body with the place of its call.
struct Counted {
    body: Body,
    _pass: Pass,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
