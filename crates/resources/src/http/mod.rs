//! The HTTP side: requests of clients that speak to a Kubernetes API server.
//!
//! `kubectl` and the client libraries are what it is measured by: paths, media types, parameters, status objects and the
//! wording of errors are those of the Kubernetes API conventions. Who asks is known before; here it is only checked what they
//! may do. Answers are made of the JSON that the cache keeps for each object, so that an object is written out once a change.

mod answer;
mod content;
mod decode;
mod discovery;
mod events;
mod namespaces;
mod objects;
mod openapi;
mod openapi_v2;
mod query;
mod reviews;
mod table;
mod target;
mod watch;
mod write;

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::{BodyExt, Limited};
use lyra_types::resources::{Application, ApplicationSession};

pub use self::answer::Body;
use self::content::Accept;
use self::query::Query;
use self::target::{Target, What};
use crate::{Caller, ResourceApi, Status};

/// Largest body of a request, in bytes (3 MiB, as Kubernetes has it).
const MAX_BODY: usize = 3 << 20;

/// A request, read.
struct Request<'a> {
    caller: &'a Caller,
    method: Method,
    query: Query,
    accept: Accept,
    content_type: String,
    user_agent: String,
    body: Bytes,
}

impl ResourceApi {
    /// Answers a request: everything under `/api`, `/apis`, `/openapi` and `/version`. Never fails: what is wrong is said in
    /// the answer.
    pub async fn handle<B>(self: &Arc<ResourceApi>, caller: &Caller, request: http::Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let accept = Accept::of(&parts.headers);
        let outcome = async {
            let header = |name: http::HeaderName| -> String {
                parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
            };
            let body = Limited::new(body, MAX_BODY).collect().await.map_err(|error| {
                if error.is::<http_body_util::LengthLimitError>() {
                    Status::new(413, "RequestEntityTooLarge", format!("limit is {MAX_BODY} bytes"))
                } else {
                    Status::bad_request("the body of the request can't be read")
                }
            })?;
            let request = Request {
                caller,
                query: Query::parse(parts.uri.query().unwrap_or_default())?,
                accept: accept.clone(),
                content_type: header(http::header::CONTENT_TYPE),
                user_agent: header(http::header::USER_AGENT),
                body: body.to_bytes(),
                method: parts.method.clone(),
            };
            self.route(parts.uri.path(), request).await
        };
        outcome.await.unwrap_or_else(|status: Status| answer::failure(&status, &accept))
    }

    async fn route(self: &Arc<ResourceApi>, path: &str, request: Request<'_>) -> Result<Response<Body>, Status> {
        let (target, watched) = match Target::parse(path)? {
            What::Document => return discovery::answer(path, &request),
            What::Review(review) => return reviews::answer(review, self, &request),
            What::Target(target, watched) => (target, watched),
        };
        let mut request = request;
        request.query.watch |= watched;
        match (target.group.as_str(), target.resource.as_str()) {
            ("lyra.dev", "applications") => objects::answer::<Application>(self, target, request).await,
            ("lyra.dev", "applicationsessions") => objects::answer::<ApplicationSession>(self, target, request).await,
            ("", "namespaces") => namespaces::answer(self, &target, &request),
            ("" | "events.k8s.io", "events") => events::answer(self, &target, &request),
            _ => Err(Status::no_such_path()),
        }
    }
}

/// The answer to a method that a path does not have.
fn method_not_allowed() -> Status {
    Status::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
}
