//! The scale of a StatefulSet or a Deployment of Kubernetes.
//!
//! Two requests of its API, on the scale subresource (`autoscaling/v1`): `GET` reads how many replicas are asked for, `PATCH` asks for
//! others. The bearer token is read anew for each request, as Kubernetes rotates it. Of a StatefulSet the pods with the highest
//! numbers go, so they can be named and are emptied before; a Deployment chooses by itself, and each pod has what its grace period
//! allows.

use std::time::Duration;

use async_trait::async_trait;
use lyra_wire::scaler::Load;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Certificate, Client, Method, Response, StatusCode};
use serde::Deserialize;

use super::{Backend, BackendError, Change};
use crate::config::Kubernetes;

/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;
const READ: &str = "reading the scale";
const CHANGE: &str = "changing the scale";

/// Changes a scale.
pub struct KubernetesBackend {
    config: Kubernetes,
    http: Client,
}

#[derive(Deserialize)]
struct Scale {
    #[serde(default)]
    spec: Spec,
}

#[derive(Deserialize, Default)]
struct Spec {
    /// Left out by Kubernetes where it is 0.
    #[serde(default)]
    replicas: u32,
}

impl KubernetesBackend {
    /// A back end with these settings.
    ///
    /// # Errors
    /// Where the certificates can't be read, or a name is none.
    pub fn new(config: Kubernetes) -> Result<KubernetesBackend, BackendError> {
        const OPERATION: &str = "the way to Kubernetes";
        let failed = |reason: String| BackendError::failed(OPERATION, reason);
        let is_name = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
        };
        if !is_name(&config.namespace) || !is_name(&config.name) {
            return Err(failed("kubernetes.namespace and kubernetes.name must be names".to_owned()));
        }
        // An `Err` means that the process has chosen one before: it stays.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut builder = Client::builder()
            .user_agent(concat!("lyra-scaler/", env!("CARGO_PKG_VERSION")))
            .timeout(config.timeout.max(Duration::from_millis(1)))
            // The token goes nowhere else.
            .redirect(reqwest::redirect::Policy::none());
        if !config.ca_file.as_os_str().is_empty() && config.server.starts_with("https:") {
            let path = config.ca_file.display();
            let pem = std::fs::read(&config.ca_file).map_err(|error| failed(format!("{path}: {error}")))?;
            let bundle = Certificate::from_pem_bundle(&pem).map_err(|error| failed(format!("{path}: {error}")))?;
            builder = builder.tls_certs_only(bundle);
        }
        let http = builder.build().map_err(|error| failed(error.to_string()))?;
        Ok(KubernetesBackend { config, http })
    }

    fn url(&self) -> String {
        let Kubernetes { server, namespace, kind, name, .. } = &self.config;
        let plural = if kind == "Deployment" { "deployments" } else { "statefulsets" };
        format!("{}/apis/apps/v1/namespaces/{namespace}/{plural}/{name}/scale", server.trim_end_matches('/'))
    }

    async fn token(&self, operation: &'static str) -> Result<HeaderValue, BackendError> {
        let path = self.config.token_file.clone();
        let failed = |reason: String| BackendError::failed(operation, reason);
        let read = lyra_kit::tasks::blocking(move || std::fs::read_to_string(&path)).await;
        let read = read.map_err(|_| failed("the process ends".to_owned()))?;
        let token = read.map_err(|error| failed(format!("{}: {error}", self.config.token_file.display())))?;
        let header = HeaderValue::from_str(&format!("Bearer {}", token.trim()));
        let mut header = header.map_err(|_| failed("the token has characters that no header may have".to_owned()))?;
        header.set_sensitive(true);
        Ok(header)
    }

    async fn ask(&self, method: Method, body: Option<String>, operation: &'static str) -> Result<u32, BackendError> {
        let mut request = self.http.request(method, self.url()).header(AUTHORIZATION, self.token(operation).await?);
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/merge-patch+json").body(body);
        }
        let answer = request.send().await.map_err(|error| BackendError::failed(operation, error.without_url()))?;
        let status = answer.status();
        let body = read(answer).await.map_err(|reason| BackendError::failed(operation, reason))?;
        if !status.is_success() {
            return Err(BackendError::failed(operation, self.explain(status, &body)));
        }
        let scale: Scale = serde_json::from_slice(&body)
            .map_err(|error| BackendError::failed(operation, format!("the answer is no scale: {error}")))?;
        Ok(scale.spec.replicas)
    }

    fn explain(&self, status: StatusCode, body: &[u8]) -> String {
        #[derive(Deserialize)]
        struct Said {
            message: String,
        }
        let said = serde_json::from_slice::<Said>(body).map(|said| said.message).unwrap_or_default();
        let said: String = said.chars().take(300).collect();
        let Kubernetes { kind, name, namespace, .. } = &self.config;
        match status {
            StatusCode::UNAUTHORIZED => format!("the token is not taken ({said})"),
            StatusCode::FORBIDDEN => format!("the role lacks get and patch of {kind} {name}'s scale ({said})"),
            StatusCode::NOT_FOUND => format!("there is no {kind} {name} in {namespace} ({said})"),
            _ => format!("the API server answers with status {} ({said})", status.as_u16()),
        }
    }
}

async fn read(mut answer: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|error| error.without_url().to_string())? {
        if body.len() + piece.len() > MAX_ANSWER {
            return Err("the answer is too large".to_owned());
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

#[async_trait]
impl Backend for KubernetesBackend {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    async fn current(&self, _: &Load) -> Result<u32, BackendError> {
        self.ask(Method::GET, None, READ).await
    }

    fn going(&self, _: &Load, from: u32, to: u32) -> Vec<String> {
        match self.config.kind.as_str() {
            "StatefulSet" => (to..from).map(|number| format!("{}-{number}", self.config.name)).collect(),
            _ => Vec::new(),
        }
    }

    async fn apply(&self, change: &Change) -> Result<(), BackendError> {
        let body = serde_json::json!({ "spec": { "replicas": change.to } }).to_string();
        match self.ask(Method::PATCH, Some(body), CHANGE).await? {
            asked if asked == change.to => Ok(()),
            asked => Err(BackendError::failed(CHANGE, format!("{asked} replicas are asked for, not {}", change.to))),
        }
    }
}
