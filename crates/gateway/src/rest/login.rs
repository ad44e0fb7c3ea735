//! Logging in, and who the caller is.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CACHE_CONTROL;
use lyra_types::api::{IssuedView, LoginRequest, WhoAmI};
use lyra_types::{Code, Error, TenantName, UserName};
use lyra_wire::accounts::{Issued, Login, UserKey};
use lyra_wire::control::Changed;

use super::{Answer, tokens};
use crate::access::audit::AuditAs;
use crate::access::gate::Peer;
use crate::body;
use crate::extract::{Scope, expect_json, parse_secret_json};
use crate::openapi::{Busy, Refused};
use crate::problem;
use crate::service::App;

/// Waits until this gateway knows of a change, so that who made it finds it done.
pub(crate) async fn known<T>(app: &App, changed: Changed<T>) -> T {
    if !app.grants.wait_for(changed.revision, app.config.route_wait).await {
        tracing::warn!(revision = changed.revision, "the change is stored, but this gateway does not know of it yet");
    }
    changed.value
}

/// The answer with a new token, which nobody may keep.
pub(super) fn issued(status: StatusCode, issued: Issued) -> Response {
    let view = IssuedView { token: issued.secret, about: tokens::view(issued.token) };
    (status, [(CACHE_CONTROL, "no-store")], Json(view)).into_response()
}

/// Log in by password.
///
/// The answer holds a token that ends soon. What is wrong (tenant, user or password) is not told; too many wrong passwords, for a user
/// or from an address, are refused for a while.
#[utoipa::path(
    post, path = "/v1/login", tag = "accounts", operation_id = "login", security(()),
    request_body(content = LoginRequest, example = json!({"tenant": "acme", "user": "ada", "password": "correct horse battery staple"})),
    responses((status = 200, description = "A token", body = IssuedView), Refused, Busy)
)]
pub(crate) async fn login(State(app): State<Arc<App>>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    expect_json(&parts.headers)?;
    let body = body::read(&app, &parts.headers, body, app.config.max_json_bytes).await?;
    let LoginRequest { tenant, user, password } = parse_secret_json(&body.bytes)?;
    drop(body);
    let wrong = || Error::new(Code::Unauthenticated, "tenant, user or password is wrong");
    let tenant = tenant.map_or_else(|| Ok(TenantName::default_tenant()), |text| TenantName::new(&text));
    // Names that nobody can have are wrong like any other.
    let (Ok(tenant), Ok(name)) = (tenant, UserName::new(&user)) else { return Err(wrong().into()) };
    let address = Peer::address(&parts)?;
    let by = AuditAs { actor: format!("{tenant}/{name}"), tenant: known_tenant(&app, &tenant), target: None };
    let outcome = app.accounts.login(Login { user: UserKey { tenant, name }, password, address }).await;
    let mut response = match outcome {
        Ok(changed) => issued(StatusCode::OK, known(&app, changed).await),
        // A wrong password is worth an entry in the audit log; of tries that were not even looked at there is no bound.
        Err(error) if error.code != Code::Unauthenticated => return Err(error.into()),
        Err(error) => problem::respond(&error),
    };
    response.extensions_mut().insert(by);
    Ok(response)
}

/// Strangers write into the log of a tenant only where there is one.
fn known_tenant(app: &App, tenant: &TenantName) -> Option<TenantName> {
    app.grants.is_active(tenant).then(|| tenant.clone())
}

/// Who the caller is, and what it may do.
#[utoipa::path(
    get, path = "/v1/whoami", tag = "accounts", operation_id = "whoAmI",
    responses((status = 200, description = "The caller", body = WhoAmI), Refused)
)]
pub(crate) async fn whoami(scope: Scope) -> Answer {
    let identity = &scope.identity;
    let view = WhoAmI {
        name: identity.name.clone(),
        tenant: identity.tenant.as_ref().map(ToString::to_string),
        user: identity.user.as_ref().map(ToString::to_string),
        scopes: identity.scopes,
        token: identity.token.as_ref().map(ToString::to_string),
        by: identity.by.as_str().to_owned(),
        expires_at: identity.expires_at,
    };
    Ok(Json(view).into_response())
}
