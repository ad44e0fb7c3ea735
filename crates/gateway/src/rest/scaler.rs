//! The scaler: how it stands, what it decided, and what operators ask of it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use lyra_types::api::{Page, ScalerChange, ScalerDecision, ScalerView};
use lyra_wire::scaler::ScalerStatus;

use super::{Answer, page};
use crate::body;
use crate::extract::{Scope, expect_json, parse_json};
use crate::openapi::{Busy, Paging, Refused};
use crate::service::App;

fn view(status: ScalerStatus) -> ScalerView {
    let (name, seen_at, report) = match status.leader {
        Some((name, at, report)) => (Some(name), Some(at), report),
        None => (None, None, None),
    };
    let state = match (&name, status.orders.paused) {
        (None, _) => "absent",
        (Some(_), true) => "paused",
        (Some(_), false) => "active",
    };
    ScalerView {
        state: state.to_owned(),
        name,
        seen_at,
        mode: report.as_ref().map(|report| report.mode.clone()),
        backend: report.as_ref().map(|report| report.backend.clone()),
        dry_run: report.as_ref().is_some_and(|report| report.dry_run),
        min: report.as_ref().map(|report| report.min),
        max: report.as_ref().map(|report| report.max),
        orders: status.orders,
        desired: report.as_ref().map(|report| report.desired),
        look: report.as_ref().map(|report| report.look),
        fault: report.and_then(|report| report.fault),
        last: status.history.into_iter().next(),
    }
}

/// Show how the scaler stands.
#[utoipa::path(
    get, path = "/v1/scaler", tag = "scaler", operation_id = "getScaler",
    responses((status = 200, description = "How it stands", body = ScalerView), Refused, Busy)
)]
pub(crate) async fn get(State(app): State<Arc<App>>) -> Answer {
    Ok(Json(view(app.control.scaler().await?)).into_response())
}

/// List the last changes that the scaler has decided on, newest first.
#[utoipa::path(
    get, path = "/v1/scaler/history", tag = "scaler", operation_id = "listScalerDecisions",
    params(Paging),
    responses((status = 200, description = "A page", body = Page<ScalerDecision>), Refused, Busy)
)]
pub(crate) async fn history(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let decided = app.control.scaler().await?.history;
    let key = |of: &ScalerDecision| format!("{}@{}-{}", of.time, of.from, of.to);
    Ok(Json(page(decided, &scope.params(), key)?).into_response())
}

/// Ask something of the scaler: other bounds, to pause, to go on.
///
/// It holds for every scaler, over its settings, until it is changed again.
#[utoipa::path(
    patch, path = "/v1/scaler", tag = "scaler", operation_id = "changeScaler",
    request_body(content = ScalerChange, example = json!({"min": 2, "max": 16})),
    responses((status = 200, description = "How it stands", body = ScalerView), Refused, Busy)
)]
pub(crate) async fn change(State(app): State<Arc<App>>, scope: Scope, request: Request) -> Answer {
    expect_json(&scope.headers)?;
    let body = body::read(&app, &scope.headers, request.into_body(), app.config.max_json_bytes).await?;
    let change: ScalerChange = parse_json(&body.bytes)?;
    Ok(Json(view(app.control.steer_scaler(change).await?)).into_response())
}
