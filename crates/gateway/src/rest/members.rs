//! The processes that run workflows.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use lyra_types::api::Page;
use lyra_types::api::workflows::WorkflowMemberView;
use lyra_wire::workflows::WorkflowMember;

use super::{Answer, page, workflows};
use crate::extract::Scope;
use crate::openapi::{Busy, Paging, Refused};
use crate::service::App;

fn view(member: WorkflowMember) -> WorkflowMemberView {
    let WorkflowMember { process, load } = member;
    let state = match load {
        _ if process.leaving => "leaving",
        Some(_) => "ready",
        None => "unreachable",
    };
    WorkflowMemberView {
        name: process.name,
        address: Some(process.address).filter(|address| !address.is_empty()),
        role: process.role.as_str().to_owned(),
        state: state.to_owned(),
        runs: load.map(|load| load.runs),
        stuck: load.map(|load| load.stuck),
        calls: load.map(|load| load.calls),
        since: process.since,
    }
}

/// List the processes that run workflows: what each owns, and whether it answers.
#[utoipa::path(
    get, path = "/v1/workflow-members", tag = "workflows", operation_id = "listWorkflowMembers",
    params(Paging),
    responses((status = 200, description = "A page", body = Page<WorkflowMemberView>), Refused, Busy)
)]
pub(crate) async fn list(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let members = workflows::role(&app)?.members().await?;
    let all: Vec<WorkflowMemberView> = members.into_iter().map(view).collect();
    // Two may have one name by mistake; then their times tell them apart.
    let key = |of: &WorkflowMemberView| format!("{}@{}", of.name, of.since);
    Ok(Json(page(all, &scope.params(), key)?).into_response())
}
