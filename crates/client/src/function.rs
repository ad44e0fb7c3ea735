//! Functions, versions and aliases.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use lyra_types::api::{AliasRequest, AliasView, DeployRequest, FunctionView, VersionView};
use lyra_types::{AliasName, FunctionName};
use reqwest::{Method, RequestBuilder};

use crate::{Answer, Client, Listing, Result};

/// How much longer than a plain request a deploy may take: it compiles.
const DEPLOY_FACTOR: u32 = 6;

/// What a deploy depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// The newest version has this number; else `stale_version`.
    Newest(u64),
    /// The function does not exist; else `stale_version`.
    Absent,
}

/// Outcome of a deploy.
#[derive(Debug, Clone)]
pub struct Deployed {
    /// The function with its new version.
    pub function: Answer<FunctionView>,
    /// Whether the function is new.
    pub created: bool,
}

impl Client {
    fn function_url(&self, name: &FunctionName, rest: &[&str]) -> reqwest::Url {
        self.at(&[&["v1", "functions", name.as_str()], rest].concat())
    }

    fn deploy_timeout(&self) -> Duration {
        self.timeout * DEPLOY_FACTOR
    }

    async fn deploy_with(&self, request: RequestBuilder, precondition: Precondition) -> Result<Deployed> {
        let request = request.timeout(self.deploy_timeout());
        let request = match precondition {
            Precondition::None => request,
            Precondition::Newest(version) => request.header(IF_MATCH, format!("\"{version}\"")),
            Precondition::Absent => request.header(IF_NONE_MATCH, "*"),
        };
        let whole = self.send(request).await?;
        let function = Answer::read(&whole.body).map_err(|error| self.misunderstood(&error))?;
        Ok(Deployed { function, created: whole.status == StatusCode::CREATED })
    }

    /// Creates a function, or a new version of it.
    ///
    /// # Errors
    /// `invalid_code` with line and column where the code can't be loaded; nothing is stored then.
    pub async fn deploy(
        &self,
        name: &FunctionName,
        request: &DeployRequest,
        precondition: Precondition,
    ) -> Result<Deployed> {
        let put = self.request(Method::PUT, self.function_url(name, &[])).json(request);
        self.deploy_with(put, precondition).await
    }

    /// A new version with the settings of the newest one and other code. `media_type` says what `code` is:
    /// `text/javascript`, `application/wasm` or `application/zip`.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn deploy_code(
        &self,
        name: &FunctionName,
        media_type: &str,
        code: Bytes,
        precondition: Precondition,
    ) -> Result<Deployed> {
        let put = self.request(Method::PUT, self.function_url(name, &["code"]));
        self.deploy_with(put.header(CONTENT_TYPE, media_type).body(code), precondition).await
    }

    /// One function.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn function(&self, name: &FunctionName) -> Result<Answer<FunctionView>> {
        self.fetch(self.request(Method::GET, self.function_url(name, &[]))).await
    }

    /// Functions by name, `limit` at most.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn functions(&self, limit: usize) -> Result<Listing<FunctionView>> {
        self.list(self.at(&["v1", "functions"]), &[], limit).await
    }

    /// Deletes a function with its versions, aliases, logs, and its jobs that have not begun.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn delete_function(&self, name: &FunctionName) -> Result<()> {
        self.send(self.request(Method::DELETE, self.function_url(name, &[]))).await.map(drop)
    }

    /// Versions of a function, newest first, `limit` at most.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn versions(&self, name: &FunctionName, limit: usize) -> Result<Listing<VersionView>> {
        self.list(self.function_url(name, &["versions"]), &[], limit).await
    }

    /// One version.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn version(&self, name: &FunctionName, version: u64) -> Result<Answer<VersionView>> {
        let url = self.function_url(name, &["versions", &version.to_string()]);
        self.fetch(self.request(Method::GET, url)).await
    }

    /// Aliases of a function, `limit` at most.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn aliases(&self, name: &FunctionName, limit: usize) -> Result<Listing<AliasView>> {
        self.list(self.function_url(name, &["aliases"]), &[], limit).await
    }

    /// One alias.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn alias(&self, name: &FunctionName, alias: &AliasName) -> Result<Answer<AliasView>> {
        self.fetch(self.request(Method::GET, self.function_url(name, &["aliases", alias.as_str()]))).await
    }

    /// Makes or moves an alias.
    ///
    /// # Errors
    /// `not_found` for the function or a version, `invalid_field` for weights.
    pub async fn put_alias(
        &self,
        name: &FunctionName,
        alias: &AliasName,
        request: &AliasRequest,
    ) -> Result<Answer<AliasView>> {
        let url = self.function_url(name, &["aliases", alias.as_str()]);
        self.fetch(self.request(Method::PUT, url).json(request)).await
    }

    /// Deletes an alias.
    ///
    /// # Errors
    /// `not_found`; `conflict` for `live`, which every function has.
    pub async fn delete_alias(&self, name: &FunctionName, alias: &AliasName) -> Result<()> {
        let url = self.function_url(name, &["aliases", alias.as_str()]);
        self.send(self.request(Method::DELETE, url)).await.map(drop)
    }

    /// Moves `live` to what it pointed at before.
    ///
    /// # Errors
    /// `not_found`; `conflict` when there is nothing before.
    pub async fn rollback(&self, name: &FunctionName) -> Result<Answer<AliasView>> {
        self.fetch(self.request(Method::POST, self.function_url(name, &["rollback"]))).await
    }
}
