//! Requests of the Kubernetes-style API, from a gateway to the control role, which serves it.

use bytes::Bytes;
use lyra_types::{Scopes, TenantName};
use serde::{Deserialize, Serialize};

/// Headers as they came: names and values.
pub type Headers = Vec<(String, Vec<u8>)>;

/// A request, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceRequest {
    /// Who asks, as messages have it. The gateway has found that out.
    pub caller: String,
    /// The tenants that the caller may act in; `None`: all of them.
    pub tenants: Option<Vec<TenantName>>,
    /// What the caller may do there. A gateway of before there were scopes let in only who may do everything.
    #[serde(default = "all")]
    pub scopes: Scopes,
    /// Its method.
    pub method: String,
    /// Path and query.
    pub uri: String,
    /// Its headers.
    pub headers: Headers,
    /// Its body.
    #[serde(with = "crate::octets")]
    pub body: Bytes,
}

fn all() -> Scopes {
    Scopes::ALL
}

/// A piece of an answer: its head first, then its body, which goes on for as long as a watch does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResourceAnswer {
    /// Status and headers.
    Head(u16, Headers),
    /// Some of the body.
    Data(#[serde(with = "crate::octets")] Bytes),
}

/// Headers in the form of a message.
pub fn to_pairs(headers: &http::HeaderMap) -> Headers {
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
}

/// Headers out of a message; what can be none is left out.
pub fn to_header_map(pairs: &Headers) -> http::HeaderMap {
    let pair = |(name, value): &(String, Vec<u8>)| {
        Some((http::HeaderName::try_from(name).ok()?, http::HeaderValue::from_bytes(value).ok()?))
    };
    pairs.iter().filter_map(pair).collect()
}
