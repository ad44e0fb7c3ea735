//! Quotas: of tenants, which operators set, and of functions, which their tenant's owners set too.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use lyra_types::Result;
use lyra_types::api::{Page, QuotaView};
use lyra_types::quota::{Quota, QuotaKey};
use lyra_wire::control::PageQuery;

use super::Answer;
use super::functions::no_content;
use crate::body;
use crate::extract::{Scope, expect_json, parse_json};
use crate::openapi::{Busy, Missing, Paging, Refused};
use crate::query::{DEFAULT_PAGE, MAX_PAGE};
use crate::service::App;

fn of_tenant(scope: &Scope) -> Result<QuotaKey> {
    Ok(QuotaKey { tenant: scope.tenant_in_path()?, function: None })
}

fn of_function(scope: &Scope) -> Result<QuotaKey> {
    Ok(QuotaKey { tenant: scope.tenant_in_path()?, function: Some(scope.function()?) })
}

/// Waits until this gateway holds to what was changed.
async fn in_force(app: &App) {
    if !app.meters.refreshed(app.config.route_wait).await {
        tracing::warn!("the quota is stored, but this gateway does not hold to it yet");
    }
}

async fn set(app: &App, key: QuotaKey, scope: &Scope, request: Request) -> Answer {
    expect_json(&scope.headers)?;
    let body = body::read(app, &scope.headers, request.into_body(), app.config.max_json_bytes).await?;
    let quota: Quota = parse_json(&body.bytes)?;
    let view = app.quotas.set_quota(&key, quota).await?;
    in_force(app).await;
    Ok(Json(view).into_response())
}

async fn remove(app: &App, key: QuotaKey) -> Answer {
    app.quotas.remove_quota(&key).await?;
    in_force(app).await;
    Ok(no_content())
}

/// List quotas that were set, of all tenants and functions.
#[utoipa::path(
    get, path = "/v1/quotas", tag = "quotas", operation_id = "listQuotas",
    params(Paging),
    responses((status = 200, description = "A page", body = Page<QuotaView>), Refused, Busy)
)]
pub(crate) async fn list(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let params = scope.params();
    let page = PageQuery { limit: params.limit(DEFAULT_PAGE, MAX_PAGE)?, cursor: params.cursor()? };
    Ok(Json(app.quotas.quotas(page).await?).into_response())
}

/// Show a tenant's quota, what counts against it now, and the quotas of its functions.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/quota", tag = "quotas", operation_id = "getQuota",
    params(("tenant" = String, Path, description = "Tenant", example = "acme")),
    responses((status = 200, description = "The quota", body = QuotaView), Refused, Missing, Busy)
)]
pub(crate) async fn get(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    Ok(Json(app.quotas.quota(&of_tenant(&scope)?).await?).into_response())
}

/// Set a tenant's quota in place of the one before.
///
/// What the body does not name has no limit. What is over a limit already stays; nothing is added to it.
#[utoipa::path(
    put, path = "/v1/tenants/{tenant}/quota", tag = "quotas", operation_id = "setQuota",
    params(("tenant" = String, Path, description = "Tenant", example = "acme")),
    request_body(content = Quota, example = json!({"rate": 100, "burst": 200, "concurrency": 50, "functions": 20})),
    responses((status = 200, description = "The quota", body = QuotaView), Refused, Missing, Busy)
)]
pub(crate) async fn put(State(app): State<Arc<App>>, scope: Scope, request: Request) -> Answer {
    set(&app, of_tenant(&scope)?, &scope, request).await
}

/// Take a tenant's quota back. That of the settings is in force then.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/quota", tag = "quotas", operation_id = "removeQuota",
    params(("tenant" = String, Path, description = "Tenant", example = "acme")),
    responses((status = 204, description = "It is gone"), Refused, Missing, Busy)
)]
pub(crate) async fn delete(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    remove(&app, of_tenant(&scope)?).await
}

/// Show a function's quota, and what counts against it now.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/quota/functions/{name}", tag = "quotas", operation_id = "getFunctionQuota",
    params(
        ("tenant" = String, Path, description = "Tenant", example = "acme"),
        ("name" = String, Path, description = "Function", example = "hello"),
    ),
    responses((status = 200, description = "The quota", body = QuotaView), Refused, Missing, Busy)
)]
pub(crate) async fn get_of_function(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    Ok(Json(app.quotas.quota(&of_function(&scope)?).await?).into_response())
}

/// Set a function's quota in place of the one before.
///
/// It holds beside the tenant's, and no limit of it may be above the tenant's. The function need not be there yet.
#[utoipa::path(
    put, path = "/v1/tenants/{tenant}/quota/functions/{name}", tag = "quotas", operation_id = "setFunctionQuota",
    params(
        ("tenant" = String, Path, description = "Tenant", example = "acme"),
        ("name" = String, Path, description = "Function", example = "hello"),
    ),
    request_body(content = Quota, example = json!({"rate": 10, "concurrency": 5})),
    responses((status = 200, description = "The quota", body = QuotaView), Refused, Missing, Busy)
)]
pub(crate) async fn put_of_function(State(app): State<Arc<App>>, scope: Scope, request: Request) -> Answer {
    set(&app, of_function(&scope)?, &scope, request).await
}

/// Take a function's quota back.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/quota/functions/{name}", tag = "quotas", operation_id = "removeFunctionQuota",
    params(
        ("tenant" = String, Path, description = "Tenant", example = "acme"),
        ("name" = String, Path, description = "Function", example = "hello"),
    ),
    responses((status = 204, description = "It is gone"), Refused, Missing, Busy)
)]
pub(crate) async fn delete_of_function(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    remove(&app, of_function(&scope)?).await
}
