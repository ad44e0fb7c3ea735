//! Tenants: list, make, show, delete.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use http::StatusCode;
use http::header::LOCATION;
use lyra_types::api::{Page, TenantRequest, TenantView};
use lyra_types::{Code, TenantName};
use lyra_wire::accounts::{Tenant, TenantState};
use lyra_wire::control::PageQuery;

use super::functions::no_content;
use super::login::known;
use super::{Answer, json_with};
use crate::access::audit::AuditAs;
use crate::body;
use crate::extract::{Scope, expect_json, parse_json};
use crate::headers;
use crate::openapi::{Busy, Missing, Paging, Refused};
use crate::query::{DEFAULT_PAGE, MAX_PAGE};
use crate::service::App;

/// How long a deletion waits for its end when `?wait=` does not say.
const DELETE_WAIT: Duration = Duration::from_secs(10);
/// Between two looks at whether it has ended.
const LOOK: Duration = Duration::from_millis(100);

fn view(tenant: &Tenant) -> TenantView {
    let state = match tenant.state {
        TenantState::Active => "active",
        TenantState::Deleting => "deleting",
    };
    TenantView { name: tenant.name.to_string(), state: state.to_owned(), created_at: tenant.created_at }
}

/// List tenants, by name: all of them for operators, else the caller's own.
#[utoipa::path(
    get, path = "/v1/tenants", tag = "accounts", operation_id = "listTenants",
    params(Paging),
    responses((status = 200, description = "A page", body = Page<TenantView>), Refused, Busy)
)]
pub(crate) async fn list(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let params = scope.params();
    let page = PageQuery { limit: params.limit(DEFAULT_PAGE, MAX_PAGE)?, cursor: params.cursor()? };
    let found = match &scope.identity.tenant {
        Some(own) => Page { items: vec![app.accounts.tenant(own).await?], next: None },
        None => app.accounts.tenants(page).await?,
    };
    Ok(Json(found.map(|tenant| view(&tenant))).into_response())
}

/// Make a tenant.
///
/// Functions that an operator has deployed for this name before are the tenant's from now on.
#[utoipa::path(
    post, path = "/v1/tenants", tag = "accounts", operation_id = "createTenant",
    request_body(content = TenantRequest, example = json!({"name": "acme"})),
    responses(
        (status = 201, description = "The tenant", body = TenantView, headers(("Location" = String))),
        (status = 409, description = "It exists already", body = lyra_types::api::Problem, content_type = "application/problem+json"),
        Refused, Busy
    )
)]
pub(crate) async fn create(State(app): State<Arc<App>>, scope: Scope, request: Request) -> Answer {
    expect_json(&scope.headers)?;
    let body = body::read(&app, &scope.headers, request.into_body(), app.config.max_json_bytes).await?;
    let TenantRequest { name } = parse_json(&body.bytes)?;
    let made = app.accounts.create_tenant(&TenantName::new(&name)?).await?;
    let made = known(&app, made).await;
    let place = format!("/v1/tenants/{}", made.name);
    let answer = json_with(StatusCode::CREATED, LOCATION, headers::value(&place), &view(&made));
    Ok(AuditAs::made(answer, &scope.identity, Some(made.name), place))
}

/// Show a tenant.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}", tag = "accounts", operation_id = "getTenant",
    params(("tenant" = String, Path, description = "Tenant", example = "acme")),
    responses((status = 200, description = "The tenant", body = TenantView), Refused, Missing, Busy)
)]
pub(crate) async fn get(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let tenant = app.accounts.tenant(&scope.tenant_in_path()?).await?;
    Ok(Json(view(&tenant)).into_response())
}

/// Delete a tenant.
///
/// Its tokens are good for nothing from then on; functions, applications, sessions, jobs, users and tokens are cleared away.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}", tag = "accounts", operation_id = "deleteTenant",
    params(
        ("tenant" = String, Path, description = "Tenant", example = "acme"),
        ("force" = Option<bool>, Query, description = "Also while it has functions, applications or sessions"),
        ("wait" = Option<f64>, Query, description = "Seconds to wait until it is gone: 0 to 60, default 10"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 202, description = "It is being deleted", body = TenantView),
        (status = 409, description = "It still has something, or is the default tenant", body = lyra_types::api::Problem, content_type = "application/problem+json"),
        Refused, Missing, Busy
    )
)]
pub(crate) async fn delete(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let (params, tenant) = (scope.params(), scope.tenant_in_path()?);
    let wait = match params.text("wait")? {
        None => DELETE_WAIT.min(app.config.max_wait),
        Some(_) => params.wait(app.config.max_wait)?,
    };
    let marked = app.accounts.delete_tenant(&tenant, params.flag("force")?).await?;
    let marked = known(&app, marked).await;
    let end = app.clock.instant() + wait;
    loop {
        match app.accounts.tenant(&tenant).await {
            Err(error) if error.code == Code::NotFound => return Ok(no_content()),
            _ if app.clock.instant() >= end || app.stopping.is_cancelled() => {
                return Ok((StatusCode::ACCEPTED, Json(view(&marked))).into_response());
            }
            _ => app.clock.sleep(LOOK).await,
        }
    }
}
