//! The control processes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use lyra_types::api::{ControlView, Page};
use lyra_wire::control::ControlProcess;

use super::{Answer, page};
use crate::extract::Scope;
use crate::openapi::{Paging, Refused};
use crate::service::App;

fn view(process: ControlProcess) -> ControlView {
    ControlView {
        state: if process.epoch.is_some() { "leader" } else { "standby" }.to_owned(),
        name: process.name,
        address: Some(process.address).filter(|address| !address.is_empty()),
        epoch: process.epoch,
        since: process.since,
    }
}

/// List the control processes: which one leads, which stand by.
#[utoipa::path(
    get, path = "/v1/control", tag = "control", operation_id = "listControl",
    params(Paging),
    responses((status = 200, description = "A page", body = Page<ControlView>), Refused)
)]
pub(crate) async fn list(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let all: Vec<ControlView> = app.control.processes().await?.into_iter().map(view).collect();
    // Two may have one name by mistake; then their times tell them apart.
    let key = |of: &ControlView| format!("{}@{}", of.name, of.since);
    Ok(Json(page(all, &scope.params(), key)?).into_response())
}
