//! HTTP triggers and sessions: requests that a program answers itself, streaming both ways.

use bytes::Bytes;
use futures::stream::{Stream, StreamExt};
use http::{HeaderMap, Method, StatusCode};
use lyra_types::FunctionName;
use reqwest::{Body, Response};

use crate::{CallInfo, Client, Result};

/// A program's own answer to an HTTP request. Its body streams.
#[derive(Debug)]
pub struct Triggered {
    /// Status, as the program set it.
    pub status: StatusCode,
    /// Headers, the platform's among them.
    pub headers: HeaderMap,
    /// How the call went, until its headers.
    pub call: CallInfo,
    response: Response,
    client: Client,
}

impl Client {
    /// Sends a request to a function's HTTP trigger. `path` begins with `/` and may hold a query. The answer is
    /// there with its headers; the request's body may still be on its way. Any status is a good answer here.
    ///
    /// # Errors
    /// [`crate::Error::Unreachable`], or a connection that breaks.
    pub async fn trigger<S>(&self, name: &FunctionName, method: Method, path: &str, body: S) -> Result<Triggered>
    where
        S: Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static,
    {
        self.pass_on(&self.trigger_url(name), method, path, body).await
    }

    /// Sends a request to the program of a session, through the server. `path` and the answer are as in [`Client::trigger`].
    ///
    /// # Errors
    /// As [`Client::trigger`].
    pub async fn call_session<S>(&self, session: &str, method: Method, path: &str, body: S) -> Result<Triggered>
    where
        S: Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static,
    {
        self.pass_on(&self.session_url(session), method, path, body).await
    }

    async fn pass_on<S>(&self, base: &str, method: Method, path: &str, body: S) -> Result<Triggered>
    where
        S: Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static,
    {
        let url = format!("{}{}", base.trim_end_matches('/'), path);
        let request = self.http.request(method, url).body(Body::wrap_stream(body.boxed()));
        let response = request.send().await.map_err(|error| self.transport_error(&error, None))?;
        Ok(Triggered {
            status: response.status(),
            headers: response.headers().clone(),
            call: CallInfo::read(response.headers()),
            response,
            client: self.clone(),
        })
    }
}

impl Triggered {
    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        self.response.chunk().await.map_err(|error| self.client.transport_error(&error, None))
    }

    /// The rest of the body as text.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn text(mut self) -> Result<String> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            body.extend_from_slice(&chunk);
        }
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}
