//! HTTP triggers: a function behind a URL of its own.
//!
//! A request is for a function when it has the header `X-Trigger-ID: {id}`, when its host is
//! `{id}.func.{domain}`, or when its path is `/fn/{tenant}/{function}[@version or alias]/…`; the first that holds
//! counts. An id is `{function}` for tenant `default`, or `{tenant}--{function}`, split at the first `--`: a function of
//! `default` whose own name holds `--` is `default--{function}`. In the header an id may end in `@version` or
//! `@alias`.

mod http;
mod lambda_event;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use ::http::request::Parts;
use ::http::uri::PathAndQuery;
use axum::response::Response;
use http_body_util::BodyExt;
use lyra_types::function::Contract;
use lyra_types::name::Qualifier;
use lyra_types::{Code, Error, FunctionVersion, Result};
use lyra_wire::BoxError;
use lyra_wire::worker::{Account, Call, Reply};

use crate::auth::{authority, without_port};
use crate::body::{self, Lingering};
use crate::bound;
use crate::extract::DEFAULT_TENANT;
use crate::headers::{self, TRIGGER_ID};
use crate::ingress::Seen;
use crate::openapi::{Busy, Failed, Missing, Refused};
use crate::problem;
use crate::quota;
use crate::rest::invoke::result_response;
use crate::service::App;

/// Who calls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    /// Address of the other end of the connection.
    pub peer: SocketAddr,
    /// `Authorization` was for Lyra: the function must not see it.
    pub strip_authorization: bool,
    /// The request came by TLS.
    pub is_secure: bool,
}

/// The function that a request is for.
#[derive(Debug, PartialEq)]
pub(crate) struct Target {
    tenant: String,
    function: String,
    qualifier: Qualifier,
    /// What the function sees of the path and query, as the client wrote it.
    path: PathAndQuery,
    /// What was taken off the path.
    prefix: String,
}

impl Target {
    /// Owner of the function, as it was written.
    pub(crate) fn tenant(&self) -> &str {
        &self.tenant
    }
}

/// The function that a request is for, if it is for one.
///
/// # Errors
/// [`Code::BadRequest`] and [`Code::InvalidName`] when the id or the path can't be read.
pub(crate) fn target(parts: &Parts, domain: Option<&str>) -> Result<Option<Target>> {
    if let Some(id) = parts.headers.get(TRIGGER_ID) {
        let id = id.to_str().map_err(|_| Error::new(Code::BadRequest, "X-Trigger-ID is not ASCII text"))?;
        let (id, qualifier) = split_qualifier(id)?;
        return of_id(id, qualifier, parts).map(Some);
    }
    if let Some(id) = authority(parts)?.and_then(|host| host_id(host, domain)) {
        return of_id(&id.to_ascii_lowercase(), Qualifier::Live, parts).map(Some);
    }
    match parts.uri.path().strip_prefix("/fn/") {
        Some(rest) => of_path(rest, parts).map(Some),
        None => Ok(None),
    }
}

/// Whether a request names a function by header or by host, which comes before any other way of naming something.
pub(crate) fn is_named(parts: &Parts, domain: Option<&str>) -> bool {
    parts.headers.contains_key(TRIGGER_ID)
        || matches!(authority(parts), Ok(Some(host)) if host_id(host, domain).is_some())
}

fn split_qualifier(text: &str) -> Result<(&str, Qualifier)> {
    match text.split_once('@') {
        Some((name, qualifier)) => Ok((name, Qualifier::parse(qualifier)?)),
        None => Ok((text, Qualifier::Live)),
    }
}

/// The id in a host name `{id}.func.{domain}`.
fn host_id<'a>(host: &'a str, domain: Option<&str>) -> Option<&'a str> {
    let name = without_port(host);
    let (id, rest) = name.split_once('.')?;
    let (label, rest) = rest.split_once('.')?;
    let known = domain.is_none_or(|domain| rest.eq_ignore_ascii_case(domain) || rest.eq_ignore_ascii_case("localhost"));
    (label.eq_ignore_ascii_case("func") && known && !id.is_empty() && !rest.is_empty()).then_some(id)
}

fn of_id(id: &str, qualifier: Qualifier, parts: &Parts) -> Result<Target> {
    let (tenant, function) = id.split_once("--").unwrap_or((DEFAULT_TENANT, id));
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    Ok(Target { tenant: tenant.to_owned(), function: function.to_owned(), qualifier, path, prefix: String::new() })
}

/// `rest` is the path after `/fn/`, not decoded.
fn of_path(rest: &str, parts: &Parts) -> Result<Target> {
    let (tenant, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let (name, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let decode = |text: &'_ str| -> Result<String> {
        let decoded: Cow<'_, str> = percent_encoding::percent_decode_str(text)
            .decode_utf8()
            .map_err(|_| Error::new(Code::BadRequest, "the path is not UTF-8 after percent-decoding"))?;
        Ok(decoded.into_owned())
    };
    let name_text = decode(name)?;
    if name_text.is_empty() {
        return Err(Error::new(Code::NotFound, "the path of a trigger is /fn/{tenant}/{function}/…"));
    }
    let (function, qualifier) = split_qualifier(&name_text)?;
    let prefix = format!("/fn/{tenant}/{name}");
    let mut seen = String::with_capacity(path.len() + 1 + parts.uri.query().map_or(0, |query| query.len() + 1));
    seen.push_str(if path.is_empty() { "/" } else { path });
    if let Some(query) = parts.uri.query() {
        seen.push('?');
        seen.push_str(query);
    }
    let path = PathAndQuery::try_from(seen).map_err(|_| Error::new(Code::BadRequest, "the path can't be read"))?;
    Ok(Target { tenant: decode(tenant)?, function: function.to_owned(), qualifier, path, prefix })
}

/// Hands the request to the function.
///
/// # Errors
/// Everything that keeps the request from the function; a function that fails is an answer.
pub(crate) async fn serve(
    app: &Arc<App>,
    caller: Caller,
    target: Target,
    parts: Parts,
    body: Lingering,
) -> Result<Response> {
    let route = app.table.find(&target.tenant, &target.function, app.config.route_wait).await?;
    let version = Arc::clone(route.resolve(&target.qualifier, app.random.u64())?);
    drop(route);
    let pass = match quota::enter_call(app, &version).await {
        Ok(pass) => pass,
        Err(refused) => return Ok(*refused),
    };
    let response = answer_to(app, caller, target, version, parts, body).await?;
    Ok(quota::until_sent(pass, response))
}

async fn answer_to(
    app: &Arc<App>,
    caller: Caller,
    target: Target,
    version: Arc<FunctionVersion>,
    parts: Parts,
    body: Lingering,
) -> Result<Response> {
    if let Some(binding) = &version.sessions {
        let body = body.map_err(|error| -> BoxError { Box::new(error) }).boxed_unsync();
        let seen = Seen { caller, path: target.path, prefix: &target.prefix };
        return bound::serve(app, &version, binding, seen, parts, body).await;
    }
    let request = Request { caller, target, parts };
    match version.contract {
        Contract::Http => http::pass_through(app, version, request, body).await,
        Contract::Handler => {
            let whole = body::read(app, &request.parts.headers, body, app.config.max_event_bytes).await?;
            let id = app.ids.invocation();
            let event = lambda_event::of_request(app, id, &version, &request, &whole.bytes)?;
            drop(whole);
            if event.len() > app.config.max_event_bytes {
                return Err(Error::new(
                    Code::TooLarge,
                    format!("the request as an event is larger than {} bytes, the limit", app.config.max_event_bytes),
                ));
            }
            let call =
                Call { id, version, event: event.into(), timeout: None, account: Account::default(), trace: None };
            Ok(answer(app, call, |result| lambda_event::to_response(&result)).await)
        }
        Contract::Command => {
            let whole = body::read(app, &request.parts.headers, body, app.config.max_event_bytes).await?;
            let call = Call {
                id: app.ids.invocation(),
                version,
                event: whole.bytes.clone(),
                timeout: None,
                account: Account::default(),
                trace: None,
            };
            Ok(answer(app, call, |output| Ok(result_response(Contract::Command, output))).await)
        }
    }
}

/// A request for a function, without its body.
struct Request {
    caller: Caller,
    target: Target,
    parts: Parts,
}

async fn answer(app: &App, call: Call, shape: impl FnOnce(bytes::Bytes) -> Result<Response>) -> Response {
    let id = call.id;
    let Reply { report, outcome } = app.worker.invoke(call).await;
    let mut response = outcome.and_then(shape).unwrap_or_else(|error| problem::of_call(id, &error));
    headers::stamp(&report, response.headers_mut());
    response
}

/// Call a function with an HTTP request.
///
/// The function sees the rest of the path, the query, the headers and the body as they are, and its answer is passed on, both
/// streaming, where it takes HTTP requests. A handler gets the event of the AWS HTTP API, payload format 2.0, and answers by its rules. A
/// command gets the body on its standard input, and its output is the answer. The same function is reached on any path with the header
/// `X-Trigger-ID`, and at the host `{id}.func.{domain}`. Every method works.
#[utoipa::path(
    method(get, head, post, put, delete, options, patch), path = "/fn/{tenant}/{function}/{path}", tag = "triggers",
    params(
        ("tenant" = String, Path, description = "Owner", example = "default"),
        ("function" = String, Path, description = "Function, `@version` or `@alias` after it", example = "hello"),
        ("path" = String, Path, description = "Anything, slashes too; may be empty"),
    ),
    request_body(content = Vec<u8>, content_type = "*/*", description = "Anything"),
    responses((status = "default", description = "What the function answers"), Failed, Refused, Missing, Busy)
)]
#[expect(dead_code, reason = "the document needs a name for what `serve` does")]
pub(crate) fn documented() {}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(uri: &str, pairs: &[(&str, &str)]) -> Result<Option<(String, String, Qualifier, String)>> {
        let mut request = ::http::Request::builder().uri(uri);
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let found = target(&parts, Some("example.org"))?;
        Ok(found.map(|t| (t.tenant, t.function, t.qualifier, t.path.to_string())))
    }

    fn live(tenant: &str, function: &str, path: &str) -> Result<Option<(String, String, Qualifier, String)>> {
        Ok(Some((tenant.to_owned(), function.to_owned(), Qualifier::Live, path.to_owned())))
    }

    #[test]
    fn the_path_after_the_function_is_kept_as_it_was_written() {
        assert_eq!(find("/fn/default/hello", &[]), live("default", "hello", "/"));
        assert_eq!(find("/fn/default/hello?a=1", &[]), live("default", "hello", "/?a=1"));
        assert_eq!(find("/fn/acme/hello/", &[]), live("acme", "hello", "/"));
        assert_eq!(find("/fn/acme/hello//a%2Fb/../c?x=%20&x", &[]), live("acme", "hello", "//a%2Fb/../c?x=%20&x"));
        let version = |v| Ok(Some(("default".to_owned(), "hello".to_owned(), v, "/x".to_owned())));
        assert_eq!(find("/fn/default/hello@2/x", &[]), version(Qualifier::Version(2)));
        assert_eq!(find("/fn/default/hello%402/x", &[]), version(Qualifier::Version(2)));
        let beta = Qualifier::Alias("beta".parse().unwrap());
        assert_eq!(find("/fn/default/hello@beta/x", &[]), version(beta));
        assert_eq!(find("/fnord/default/hello", &[]), Ok(None));
        assert_eq!(find("/v1/functions", &[]), Ok(None));
        assert_eq!(find("/fn/default", &[]).unwrap_err().code, Code::NotFound);
        assert_eq!(find("/fn/default/hello@/x", &[]).unwrap_err().code, Code::InvalidName);
        assert_eq!(find("/fn/default/%ff/x", &[]).unwrap_err().code, Code::BadRequest);
    }

    #[test]
    fn ids_name_a_function_in_header_and_host() {
        assert_eq!(find("/a?b", &[("x-trigger-id", "hello")]), live("default", "hello", "/a?b"));
        assert_eq!(find("/fn/x/y", &[("x-trigger-id", "acme--hello")]), live("acme", "hello", "/fn/x/y"));
        assert_eq!(find("/", &[("x-trigger-id", "default--a--b")]), live("default", "a--b", "/"));
        assert_eq!(find("/a", &[("host", "hello.func.localhost:8080")]), live("default", "hello", "/a"));
        assert_eq!(find("/a", &[("host", "Acme--Hello.FUNC.example.org")]), live("acme", "hello", "/a"));
        assert_eq!(find("/a", &[("host", "hello.func.other.org")]), Ok(None));
        assert_eq!(find("/a", &[("host", "func.localhost")]), Ok(None));
        assert_eq!(find("/a", &[("host", "localhost:8080")]), Ok(None));
    }
}
