//! A tenant's users: list, make, show, change, delete.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use http::StatusCode;
use http::header::LOCATION;
use lyra_types::Scope as Permission;
use lyra_types::api::{Page, PasswordRequest, UserChange, UserRequest, UserView};
use lyra_types::{Code, Error, Result, UserName};
use lyra_wire::accounts::{NewPassword, NewUser, User, UserKey};
use lyra_wire::control::PageQuery;

use super::functions::no_content;
use super::login::known;
use super::{Answer, json_with};
use crate::access::Identity;
use crate::access::audit::AuditAs;
use crate::access::gate::Peer;
use crate::body;
use crate::extract::{Scope, expect_json, parse_json, parse_secret_json};
use crate::headers;
use crate::openapi::{Busy, Missing, Paging, Refused};
use crate::query::{DEFAULT_PAGE, MAX_PAGE};
use crate::service::App;

fn view(user: User) -> UserView {
    UserView {
        name: user.name.to_string(),
        tenant: user.tenant.to_string(),
        role: user.role,
        has_password: user.has_password,
        created_at: user.created_at,
    }
}

/// The user that the path names, in a tenant that the caller may act in.
fn key(scope: &Scope) -> Result<UserKey> {
    Ok(UserKey { tenant: scope.tenant_in_path()?, name: UserName::new(scope.part("user"))? })
}

fn is_self(identity: &Identity, user: &UserKey) -> bool {
    identity.tenant.as_ref() == Some(&user.tenant) && identity.user.as_ref() == Some(&user.name)
}

/// List a tenant's users, by name.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/users", tag = "accounts", operation_id = "listUsers",
    params(
        ("tenant" = String, Path, description = "Tenant", example = "acme"),
        Paging,
    ),
    responses((status = 200, description = "A page", body = Page<UserView>), Refused, Missing, Busy)
)]
pub(crate) async fn list(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let params = scope.params();
    let page = PageQuery { limit: params.limit(DEFAULT_PAGE, MAX_PAGE)?, cursor: params.cursor()? };
    let found = app.accounts.users(&scope.tenant_in_path()?, page).await?;
    Ok(Json(found.map(view)).into_response())
}

/// Make a user.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/users", tag = "accounts", operation_id = "createUser",
    params(("tenant" = String, Path, description = "Tenant", example = "acme")),
    request_body(content = UserRequest, example = json!({"name": "ada", "role": "developer"})),
    responses(
        (status = 201, description = "The user", body = UserView, headers(("Location" = String))),
        (status = 409, description = "There is one of that name", body = lyra_types::api::Problem, content_type = "application/problem+json"),
        Refused, Missing, Busy
    )
)]
pub(crate) async fn create(State(app): State<Arc<App>>, scope: Scope, request: Request) -> Answer {
    let tenant = scope.tenant_in_path()?;
    expect_json(&scope.headers)?;
    let body = body::read(&app, &scope.headers, request.into_body(), app.config.max_json_bytes).await?;
    let UserRequest { name, role, password } = parse_secret_json(&body.bytes)?;
    drop(body);
    let name = UserName::new(&name)?;
    let made = app.accounts.create_user(NewUser { tenant: tenant.clone(), name, role, password }).await?;
    let made = view(known(&app, made).await);
    let place = format!("/v1/tenants/{}/users/{}", made.tenant, made.name);
    let answer = json_with(StatusCode::CREATED, LOCATION, headers::value(&place), &made);
    Ok(AuditAs::made(answer, &scope.identity, Some(tenant), place))
}

/// Show a user. Users see themselves, administrators everybody.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/users/{user}", tag = "accounts", operation_id = "getUser",
    params(
        ("tenant" = String, Path, description = "Tenant", example = "acme"),
        ("user" = String, Path, description = "User", example = "ada"),
    ),
    responses((status = 200, description = "The user", body = UserView), Refused, Missing, Busy)
)]
pub(crate) async fn get(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let user = key(&scope)?;
    if !scope.identity.may(Permission::Admin) && !is_self(&scope.identity, &user) {
        return Err(Error::new(Code::PermissionDenied, "to see other users needs the scope admin").into());
    }
    Ok(Json(view(app.accounts.user(&user).await?)).into_response())
}

/// Give a user another role. Tokens of the user are narrowed by it at once.
#[utoipa::path(
    patch, path = "/v1/tenants/{tenant}/users/{user}", tag = "accounts", operation_id = "changeUser",
    params(
        ("tenant" = String, Path, description = "Tenant", example = "acme"),
        ("user" = String, Path, description = "User", example = "ada"),
    ),
    request_body(content = UserChange, example = json!({"role": "viewer"})),
    responses((status = 200, description = "The user", body = UserView), Refused, Missing, Busy)
)]
pub(crate) async fn change(State(app): State<Arc<App>>, scope: Scope, request: Request) -> Answer {
    let user = key(&scope)?;
    expect_json(&scope.headers)?;
    let body = body::read(&app, &scope.headers, request.into_body(), app.config.max_json_bytes).await?;
    let UserChange { role } = parse_json(&body.bytes)?;
    let changed = app.accounts.set_role(&user, role).await?;
    Ok(Json(view(known(&app, changed).await)).into_response())
}

/// Set a user's password. What was logged in by the old one ends.
///
/// Users change their own, and send the `current` one with it; administrators set anybody's.
#[utoipa::path(
    put, path = "/v1/tenants/{tenant}/users/{user}/password", tag = "accounts", operation_id = "setPassword",
    params(
        ("tenant" = String, Path, description = "Tenant", example = "acme"),
        ("user" = String, Path, description = "User", example = "ada"),
    ),
    request_body(content = PasswordRequest, example = json!({"password": "correct horse battery staple"})),
    responses((status = 204, description = "It is set"), Refused, Missing, Busy)
)]
pub(crate) async fn set_password(State(app): State<Arc<App>>, scope: Scope, request: Request) -> Answer {
    let user = key(&scope)?;
    let is_admin = scope.identity.may(Permission::Admin);
    if !is_admin && !is_self(&scope.identity, &user) {
        return Err(Error::new(Code::PermissionDenied, "to set others' passwords needs the scope admin").into());
    }
    expect_json(&scope.headers)?;
    let (parts, body) = request.into_parts();
    let body = body::read(&app, &scope.headers, body, app.config.max_json_bytes).await?;
    let PasswordRequest { password, current } = parse_secret_json(&body.bytes)?;
    drop(body);
    let address = Peer::address(&parts)?;
    let current = match current {
        Some(current) => Some((current, address)),
        None if is_admin => None,
        None => {
            return Err(Error::field(Code::InvalidField, "current", "is missing: the password that holds now").into());
        }
    };
    let changed = app.accounts.set_password(NewPassword { user, password, current }).await?;
    known(&app, changed).await;
    Ok(no_content())
}

/// Delete a user and revoke the user's tokens.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/users/{user}", tag = "accounts", operation_id = "deleteUser",
    params(
        ("tenant" = String, Path, description = "Tenant", example = "acme"),
        ("user" = String, Path, description = "User", example = "ada"),
    ),
    responses((status = 204, description = "The user is gone"), Refused, Missing, Busy)
)]
pub(crate) async fn delete(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let gone = app.accounts.delete_user(&key(&scope)?).await?;
    known(&app, gone).await;
    Ok(no_content())
}
