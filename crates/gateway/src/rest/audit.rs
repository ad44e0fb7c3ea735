//! The audit log.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use lyra_types::TenantName;
use lyra_types::api::{AuditView, Page};
use lyra_wire::accounts::{AuditEvent, AuditQuery};
use lyra_wire::control::PageQuery;

use super::Answer;
use crate::extract::{Scope, named_tenant};
use crate::openapi::{Busy, Paging, Refused};
use crate::query::{DEFAULT_PAGE, MAX_PAGE};
use crate::service::App;

fn view(event: AuditEvent) -> AuditView {
    AuditView {
        time: event.time,
        actor: event.actor,
        token: event.token.map(|token| token.to_string()),
        address: event.address,
        tenant: event.tenant.map(|tenant| tenant.to_string()),
        action: event.action,
        target: event.target,
        outcome: event.outcome,
        status: event.status,
    }
}

/// Show who changed what, newest first.
///
/// Administrators of a tenant see what was done in it; operators see everything, or one tenant's where they name it.
#[utoipa::path(
    get, path = "/v1/audit", tag = "accounts", operation_id = "listAudit",
    params(
        Paging,
        ("Lyra-Tenant" = Option<String>, Header, description = "Only this tenant's"),
    ),
    responses((status = 200, description = "A page", body = Page<AuditView>), Refused, Busy)
)]
pub(crate) async fn list(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let params = scope.params();
    let page = PageQuery { limit: params.limit(DEFAULT_PAGE, MAX_PAGE)?, cursor: params.cursor()? };
    // That the caller may act in it was found out with the scope.
    let tenant = match named_tenant(&scope.headers, &params)? {
        Some(tenant) => Some(TenantName::new(tenant)?),
        None => scope.identity.tenant.clone(),
    };
    let found = app.accounts.audit(AuditQuery { tenant, page }).await?;
    Ok(Json(found.map(view)).into_response())
}
