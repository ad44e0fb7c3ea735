//! What Lyra says of itself: health, readiness, metrics, version, the OpenAPI document.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use lyra_types::{Code, Error};
use serde::Serialize;

use super::Answer;
use crate::openapi::{Busy, Refused};
use crate::service::App;

/// The build.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct VersionInfo {
    /// Semantic version.
    version: &'static str,
    /// Major version of the Kubernetes API whose conventions `/apis` follows.
    major: &'static str,
    /// Its minor version.
    minor: &'static str,
    /// Both versions, as `kubectl version` reads them.
    #[serde(rename = "gitVersion")]
    git_version: &'static str,
}

/// Whether the process answers.
#[utoipa::path(
    get, path = "/healthz", tag = "platform", operation_id = "health",
    responses((status = 200, description = "It does", body = String))
)]
pub(crate) async fn healthz() -> Answer {
    Ok("ok\n".into_response())
}

/// Whether calls are taken.
#[utoipa::path(
    get, path = "/readyz", tag = "platform", operation_id = "ready",
    responses((status = 200, description = "They are", body = String), Busy)
)]
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Answer {
    let why_not = if app.stopping.is_cancelled() {
        "the gateway is draining"
    } else if !app.table.is_synced() {
        "the gateway does not know its functions yet"
    } else {
        return Ok("ready\n".into_response());
    };
    Err(Error::new(Code::Unavailable, why_not).with_retry_after(Duration::from_secs(1)).into())
}

/// Metrics in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", tag = "platform", operation_id = "metrics",
    responses((status = 200, description = "All metrics of the process", body = String), Refused)
)]
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Answer {
    Ok(rendered(&app.registry))
}

/// All metrics of a process.
pub(crate) fn rendered(registry: &lyra_kit::telemetry::Metrics) -> axum::response::Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], registry.render()).into_response()
}

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "platform", operation_id = "openapi",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value), Refused)
)]
pub(crate) async fn openapi() -> Answer {
    static TEXT: OnceLock<Bytes> = OnceLock::new();
    let text = TEXT.get_or_init(|| crate::openapi::document().to_json().unwrap_or_default().into()).clone();
    Ok(([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")], text).into_response())
}

/// The build's version.
#[utoipa::path(
    get, path = "/version", tag = "platform", operation_id = "version",
    responses((status = 200, description = "The version", body = VersionInfo), Refused)
)]
pub(crate) async fn version() -> Answer {
    Ok(Json(VersionInfo {
        version: env!("CARGO_PKG_VERSION"),
        major: "1",
        minor: "32",
        git_version: concat!("v1.32.0+lyra-", env!("CARGO_PKG_VERSION")),
    })
    .into_response())
}
