//! What a server tells of itself.

use reqwest::Method;
use serde::Deserialize;

use crate::{Answer, Client, Result};

/// Answer of `GET /version`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ServerVersion {
    /// The server's version.
    pub version: String,
}

impl Client {
    /// Whether the server can take calls.
    ///
    /// # Errors
    /// `unavailable` while it starts or drains.
    pub async fn ready(&self) -> Result<()> {
        self.send(self.request(Method::GET, self.at(&["readyz"]))).await.map(drop)
    }

    /// The server's version.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn server_version(&self) -> Result<Answer<ServerVersion>> {
        self.fetch(self.request(Method::GET, self.at(&["version"]))).await
    }

    /// The OpenAPI 3.1 document, as the server sent it.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn openapi(&self) -> Result<Answer<serde_json::Value>> {
        self.fetch(self.request(Method::GET, self.at(&["openapi.json"]))).await
    }

    /// The metrics, in Prometheus' text format.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn metrics(&self) -> Result<String> {
        let whole = self.send(self.request(Method::GET, self.at(&["metrics"]))).await?;
        Ok(String::from_utf8_lossy(&whole.body).into_owned())
    }
}
