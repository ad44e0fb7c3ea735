//! Calling functions, now or as jobs.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use lyra_types::FunctionName;
use lyra_types::api::JobAccepted;
use lyra_types::delivery::DestinationsRequest;
use lyra_types::name::Qualifier;
use reqwest::{Method, RequestBuilder, Url};

use crate::{Answer, CallInfo, Client, Result};

/// Outcome of a call that went well.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The result, as the function gave it.
    pub body: Bytes,
    /// How the call went.
    pub call: CallInfo,
}

impl Client {
    fn invoke_request(&self, name: &FunctionName, qualifier: &Qualifier, event: Bytes) -> RequestBuilder {
        self.call_request(self.at(&["v1", "functions", name.as_str(), "invoke"]), qualifier, event)
    }

    /// A call by the route `url`, without a deadline.
    pub(crate) fn call_request(&self, mut url: Url, qualifier: &Qualifier, event: Bytes) -> RequestBuilder {
        match qualifier {
            Qualifier::Live => {}
            Qualifier::Version(version) => {
                url.query_pairs_mut().append_pair("version", &version.to_string());
            }
            Qualifier::Alias(alias) => {
                url.query_pairs_mut().append_pair("alias", alias.as_str());
            }
        }
        self.http.request(Method::POST, url).header(CONTENT_TYPE, "application/json").body(event)
    }

    /// Calls a function and waits for its result: for `limit`, or without one until the function's own
    /// deadline. Dropping the future cancels the call.
    ///
    /// # Errors
    /// `function_error` with what it threw, `timeout`, `out_of_memory`, `overloaded`, …; [`crate::Error::Deadline`]
    /// when `limit` passes first.
    pub async fn invoke(
        &self,
        name: &FunctionName,
        qualifier: &Qualifier,
        event: impl Into<Bytes>,
        limit: Option<Duration>,
    ) -> Result<Invocation> {
        let mut request = self.invoke_request(name, qualifier, event.into());
        if let Some(limit) = limit {
            request = request.timeout(limit);
        }
        self.call(request).await
    }

    pub(crate) async fn call(&self, request: RequestBuilder) -> Result<Invocation> {
        let whole = self.send(request).await?;
        Ok(Invocation { call: CallInfo::read(&whole.headers), body: whole.body })
    }

    /// Hands in a job. It is durable when this returns. The same `idempotency_key` with the same event gives
    /// the same job again, which makes this safe to repeat.
    ///
    /// # Errors
    /// `idempotency_mismatch` when the key was used with another event.
    pub async fn submit(
        &self,
        name: &FunctionName,
        qualifier: &Qualifier,
        event: impl Into<Bytes>,
        idempotency_key: Option<&str>,
    ) -> Result<Answer<JobAccepted>> {
        self.submit_telling(name, qualifier, event, idempotency_key, None).await
    }

    /// As [`Client::submit`], with who hears of the job's end in place of the function's own destinations.
    ///
    /// # Errors
    /// As [`Client::submit`]; `invalid_field` with what is wrong with the destinations.
    pub async fn submit_telling(
        &self,
        name: &FunctionName,
        qualifier: &Qualifier,
        event: impl Into<Bytes>,
        idempotency_key: Option<&str>,
        destinations: Option<&DestinationsRequest>,
    ) -> Result<Answer<JobAccepted>> {
        let mut request = self.invoke_request(name, qualifier, event.into()).timeout(self.timeout);
        request = request.header("prefer", "respond-async");
        if let Some(key) = idempotency_key {
            request = request.header("idempotency-key", key);
        }
        if let Some(destinations) = destinations {
            request = request.header("lyra-destinations", header(destinations));
        }
        self.fetch(request).await
    }
}

/// Destinations as the value of a header: JSON in ASCII, which no line break is in.
fn header(destinations: &DestinationsRequest) -> String {
    let mut text = String::new();
    for unit in serde_json::to_string(destinations).unwrap_or_default().encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte) if byte.is_ascii() => text.push(char::from(byte)),
            // Writing to a String can't fail.
            _ => drop(write!(text, "\\u{unit:04x}")),
        }
    }
    text
}
