//! Sending a request and reading its answer.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, StatusCode};
use lyra_types::api::Problem;
use lyra_types::{Code, Error as ApiError};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;

use crate::error::{TlsFault, root_cause, tls_fault};
use crate::{Answer, CallInfo, Client, Error, Listing, Result};

/// Bytes of a strange answer that an error shows.
const SHOWN: usize = 200;

/// A whole response with a good status.
#[derive(Debug)]
pub(crate) struct Whole {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Client {
    pub(crate) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.http.request(method, url).timeout(self.timeout)
    }

    pub(crate) fn transport_error(&self, error: &reqwest::Error, after: Option<Duration>) -> Error {
        let (url, reason) = (self.url().to_owned(), root_cause(error));
        // A connect timeout is both; it means that nothing is there.
        if error.is_connect() || error.is_builder() {
            return match tls_fault(error) {
                Some(TlsFault::Untrusted(reason)) => Error::Untrusted { url, reason },
                Some(TlsFault::Plain) => {
                    Error::Unreachable { url, reason: "it does not speak TLS; is its address http://?".to_owned() }
                }
                None => Error::Unreachable { url, reason },
            };
        }
        if error.is_timeout() {
            return Error::Deadline { after: after.unwrap_or(self.timeout) };
        }
        Error::Broken { url, reason }
    }

    /// Sends, and turns an error status into [`Error::Api`]. The body of a good answer is still to be read.
    pub(crate) fn open(&self, request: RequestBuilder) -> BoxFuture<'_, Result<Response>> {
        Box::pin(async move {
            let (client, request) = request.build_split();
            let request = request.map_err(|error| Error::Config(root_cause(&error)))?;
            let after = request.timeout().copied();
            let response = client.execute(request).await.map_err(|error| self.transport_error(&error, after))?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            let url = response.url().to_string();
            let headers = response.headers().clone();
            let body = response.bytes().await.map_err(|error| self.transport_error(&error, after))?;
            Err(read_problem(&url, status, &headers, &body))
        })
    }

    /// Sends and reads the whole answer.
    pub(crate) fn send(&self, request: RequestBuilder) -> BoxFuture<'_, Result<Whole>> {
        Box::pin(async move {
            let response = self.open(request).await?;
            let (status, headers) = (response.status(), response.headers().clone());
            let body = response.bytes().await.map_err(|error| self.transport_error(&error, None))?;
            Ok(Whole { status, headers, body })
        })
    }

    pub(crate) fn misunderstood(&self, error: &serde_json::Error) -> Error {
        Error::Protocol { url: self.url().to_owned(), reason: format!("its JSON is not what was asked for ({error})") }
    }

    /// Sends and reads the answer as JSON.
    pub(crate) async fn fetch<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<Answer<T>> {
        let whole = self.send(request).await?;
        Answer::read(&whole.body).map_err(|error| self.misunderstood(&error))
    }

    /// Fetches pages of a list until `limit` items are there or none are left.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        url: Url,
        query: &[(&str, String)],
        limit: usize,
    ) -> Result<Listing<T>> {
        let mut all = Listing { items: Vec::new(), next: None };
        loop {
            let page = (limit - all.items.len()).min(MAX_PAGE);
            let mut query: Vec<(&str, String)> = query.to_vec();
            query.push(("limit", page.to_string()));
            query.extend(all.next.take().map(|cursor| ("cursor", cursor)));
            let whole = self.send(self.request(Method::GET, url.clone()).query(&query)).await?;
            let more: Listing<T> = Listing::read(&whole.body).map_err(|error| self.misunderstood(&error))?;
            let empty = more.items.is_empty();
            all.items.extend(more.items);
            all.next = more.next;
            if all.next.is_none() || all.items.len() >= limit || empty {
                return Ok(all);
            }
        }
    }
}

/// Items asked for in one page.
const MAX_PAGE: usize = 100;

/// The error that a response with an error status tells of.
fn read_problem(url: &str, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
    let retry_after = headers
        .get(http::header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let call = Box::new(CallInfo::read(headers));
    if let Some(mut error) = crate::status::read(body) {
        error.retry_after = error.retry_after.or(retry_after);
        let json = serde_json::to_string(&Problem::from(&error)).unwrap_or_default();
        return Error::Api { error: Box::new(error), json, call };
    }
    let Ok(problem) = serde_json::from_slice::<Problem>(body) else {
        let text = String::from_utf8_lossy(body);
        let shown: String = text.trim().chars().take(SHOWN).collect();
        let reason = format!("status {status} with \"{}\"", shown.escape_debug());
        return Error::Protocol { url: url.to_owned(), reason };
    };
    let code_is_known = Code::parse(&problem.code).is_some();
    let mut error: ApiError = problem.into_error();
    if !code_is_known {
        error.code = by_status(status);
    }
    error.retry_after = retry_after;
    Error::Api { error: Box::new(error), json: String::from_utf8_lossy(body).into_owned(), call }
}

/// The nearest code for a problem of a newer server, whose own code this client does not know.
fn by_status(status: StatusCode) -> Code {
    match status.as_u16() {
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        429 => Code::LimitReached,
        503 => Code::Overloaded,
        504 => Code::Timeout,
        400..=499 => Code::BadRequest,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(status: u16, body: &str) -> Error {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", "7".parse().expect("a header value"));
        headers.insert("lyra-invocation-id", "inv_1".parse().expect("a header value"));
        read_problem("http://h/", StatusCode::from_u16(status).expect("a status"), &headers, body.as_bytes())
    }

    #[test]
    fn a_problem_document_becomes_the_error_it_tells_of() {
        let body = r#"{"type":"t","title":"T","status":503,"detail":"full","code":"overloaded"}"#;
        let error = problem(503, body);
        assert_eq!((error.code(), error.exit_code()), (Code::Overloaded, 5));
        let api = error.api().expect("an API error");
        assert_eq!(api.retry_after, Some(Duration::from_secs(7)));
        assert_eq!(error.call().and_then(|call| call.invocation.as_deref()), Some("inv_1"));
        assert!(matches!(error, Error::Api { json, .. } if json == body));
    }

    #[test]
    fn a_code_of_a_newer_server_falls_back_on_its_status() {
        let body = r#"{"type":"t","title":"T","status":403,"detail":"d","code":"quota_of_2031"}"#;
        assert_eq!(problem(403, body).code(), Code::PermissionDenied);
    }

    #[test]
    fn an_answer_that_is_no_problem_document_is_told_from_lyra() {
        let error = problem(502, "<html>Bad Gateway</html>");
        assert!(matches!(&error, Error::Protocol { .. }), "{error:?}");
        assert_eq!(error.exit_code(), 7);
        assert!(error.to_string().contains("Bad Gateway"), "{error}");
    }
}
