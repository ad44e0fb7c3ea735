//! Tokens: list, make, show, revoke.
//!
//! Who may make one: whoever logged in, for themselves and with no more than they have; administrators of a tenant, any in their tenant;
//! operators, any. A token without the scope `admin` can't make another, so that one that was stolen does not outlive its end.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use http::StatusCode;
use lyra_types::Scope as Permission;
use lyra_types::api::{IssuedView, Page, TokenRequest, TokenView};
use lyra_types::{Code, Error, Result, Scopes, TenantName, TokenId, UserName};
use lyra_wire::accounts::{NewToken, Token, TokenQuery};
use lyra_wire::control::PageQuery;

use super::Answer;
use super::functions::no_content;
use super::login::{issued, known};
use crate::access::audit::AuditAs;
use crate::access::{By, Identity};
use crate::body;
use crate::extract::{Scope, expect_json, parse_json};
use crate::openapi::{Busy, Missing, Paging, Refused};
use crate::query::{DEFAULT_PAGE, MAX_PAGE};
use crate::service::App;

pub(super) fn view(token: Token) -> TokenView {
    TokenView {
        id: token.id.to_string(),
        name: token.name,
        tenant: token.tenant.map(|tenant| tenant.to_string()),
        user: token.user.map(|user| user.to_string()),
        scopes: token.scopes,
        login: token.login,
        created_at: token.created_at,
        expires_at: token.expires_at,
    }
}

fn denied(detail: impl Into<String>) -> Error {
    Error::new(Code::PermissionDenied, detail)
}

/// What a caller asks for, if it may have it.
fn allowed(identity: &Identity, tenant: &TenantName, asked: TokenRequest) -> Result<NewToken> {
    let TokenRequest { name, scopes, user, expires_in } = asked;
    let expires_in = expires_in.map(Duration::from_secs);
    if scopes.is_some_and(|scopes| scopes.has(Permission::Operator)) {
        return match identity.is_operator() {
            true => Ok(NewToken {
                name,
                tenant: None,
                user: user.map(|user| UserName::new(&user)).transpose()?,
                scopes,
                expires_in,
            }),
            false => Err(denied("only operators make tokens of operators")),
        };
    }
    let user = match user.as_deref() {
        None => identity.user.clone(),
        Some("") => None,
        Some(name) => Some(UserName::new(name)?),
    };
    let own = user.is_some() && user == identity.user && identity.tenant.as_ref() == Some(tenant);
    let scopes = match (identity.may(Permission::Admin), own) {
        (true, _) => scopes,
        (false, false) => return Err(denied("to make tokens for others needs the scope admin")),
        (false, true) if !matches!(identity.by, By::Login | By::Oidc) => {
            return Err(denied("a token without the scope admin can't make another; log in"));
        }
        (false, true) => match scopes {
            Some(scopes) if !identity.scopes.has_all(scopes) => {
                return Err(denied(format!("{} has {} only", identity.name, identity.scopes)));
            }
            scopes => Some(scopes.unwrap_or_else(|| identity.scopes.and(Scopes::OF_TENANT))),
        },
    };
    Ok(NewToken { name, tenant: Some(tenant.clone()), user, scopes, expires_in })
}

/// Make a token. It is shown in this answer, and never again.
#[utoipa::path(
    post, path = "/v1/tokens", tag = "accounts", operation_id = "createToken",
    params(("Lyra-Tenant" = Option<String>, Header, description = "Owner, default the caller's own, else `default`")),
    request_body(content = TokenRequest, example = json!({"name": "ci", "scopes": ["deploy", "read"], "expires_in": 86400})),
    responses((status = 201, description = "The token", body = IssuedView), Refused, Missing, Busy)
)]
pub(crate) async fn create(State(app): State<Arc<App>>, scope: Scope, request: Request) -> Answer {
    expect_json(&scope.headers)?;
    let body = body::read(&app, &scope.headers, request.into_body(), app.config.max_json_bytes).await?;
    let new = allowed(&scope.identity, &scope.tenant, parse_json(&body.bytes)?)?;
    let made = app.accounts.create_token(new).await?;
    let made = known(&app, made).await;
    let (tenant, place) = (made.token.tenant.clone(), format!("/v1/tokens/{}", made.token.id));
    Ok(AuditAs::made(issued(StatusCode::CREATED, made), &scope.identity, tenant, place))
}

/// List tokens, oldest first: a tenant's for its administrators, else the caller's own.
#[utoipa::path(
    get, path = "/v1/tokens", tag = "accounts", operation_id = "listTokens",
    params(
        ("user" = Option<String>, Query, description = "Only this user's"),
        ("operator" = Option<bool>, Query, description = "Those of operators, for operators"),
        Paging,
        ("Lyra-Tenant" = Option<String>, Header, description = "Owner, default the caller's own, else `default`"),
    ),
    responses((status = 200, description = "A page", body = Page<TokenView>), Refused, Busy)
)]
pub(crate) async fn list(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let (params, identity) = (scope.params(), &scope.identity);
    let page = PageQuery { limit: params.limit(DEFAULT_PAGE, MAX_PAGE)?, cursor: params.cursor()? };
    let mut query = TokenQuery { tenant: Some(scope.tenant.clone()), user: None, page };
    query.user = params.text("user")?.map(UserName::new).transpose()?;
    if params.flag("operator")? {
        if !identity.is_operator() {
            return Err(denied("only operators see tokens of operators").into());
        }
        query.tenant = None;
    } else if !identity.may(Permission::Admin) {
        let own = identity.user.clone();
        if own.is_none() || query.user.is_some() && query.user != own {
            return Err(denied("to see others' tokens needs the scope admin").into());
        }
        query.user = own;
    }
    let found = app.accounts.tokens(query).await?;
    Ok(Json(found.map(view)).into_response())
}

/// The token that the path names, if the caller may know of it; else it is as if it were not there.
async fn find(app: &App, scope: &Scope) -> Result<Token> {
    let id: TokenId = scope.part("id").parse()?;
    let (token, identity) = (app.accounts.token(id).await?, &scope.identity);
    let in_tenant = identity.tenant.is_some() && token.tenant == identity.tenant;
    let own = identity.token == Some(id) || (identity.user.is_some() && token.user == identity.user);
    match identity.is_operator() || (in_tenant && (own || identity.may(Permission::Admin))) {
        true => Ok(token),
        false => Err(Error::not_found("token", id)),
    }
}

/// Show a token, without what it is.
#[utoipa::path(
    get, path = "/v1/tokens/{id}", tag = "accounts", operation_id = "getToken",
    params(("id" = String, Path, description = "Token", example = "tok_01jcr2x7k3w9v5t8n6m4p0q2s1")),
    responses((status = 200, description = "The token", body = TokenView), Refused, Missing, Busy)
)]
pub(crate) async fn get(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    Ok(Json(view(find(&app, &scope).await?)).into_response())
}

/// Revoke a token.
#[utoipa::path(
    delete, path = "/v1/tokens/{id}", tag = "accounts", operation_id = "deleteToken",
    params(("id" = String, Path, description = "Token", example = "tok_01jcr2x7k3w9v5t8n6m4p0q2s1")),
    responses((status = 204, description = "It is good for nothing any more"), Refused, Missing, Busy)
)]
pub(crate) async fn delete(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let token = find(&app, &scope).await?;
    let gone = app.accounts.delete_token(token.id).await?;
    known(&app, gone).await;
    Ok(no_content())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(by: By, user: Option<&str>, scopes: &[Permission]) -> Identity {
        Identity {
            tenant: Some("acme".parse().unwrap()),
            user: user.map(|user| user.parse().unwrap()),
            scopes: Scopes::of(scopes),
            ..Identity::operator("acme/ada", by)
        }
    }

    fn asked(user: Option<&str>, scopes: Option<&[Permission]>) -> TokenRequest {
        TokenRequest {
            name: "ci".into(),
            scopes: scopes.map(Scopes::of),
            user: user.map(str::to_owned),
            expires_in: None,
        }
    }

    #[test]
    fn nobody_gives_more_than_they_have() {
        use Permission::{Admin, Deploy, Invoke, Operator, Read};
        let acme = TenantName::new("acme").unwrap();
        let made = |identity: &Identity, request| {
            allowed(identity, &acme, request)
                .map(|new| (new.user.map(|u| u.to_string()), new.scopes))
                .map_err(|e| e.code)
        };
        let no = Err(Code::PermissionDenied);
        let (ada, all) = (Some("ada".to_owned()), Some(Scopes::of(&[Deploy, Read])));
        let login = identity(By::Login, Some("ada"), &[Deploy, Read]);
        assert_eq!(made(&login, asked(None, None)), Ok((ada.clone(), all)));
        assert_eq!(made(&login, asked(None, Some(&[Read]))), Ok((ada.clone(), Some(Scopes::of(&[Read])))));
        assert_eq!(made(&login, asked(None, Some(&[Invoke]))), no);
        assert_eq!(made(&login, asked(Some("bob"), Some(&[Read]))), no);
        assert_eq!(made(&login, asked(Some(""), Some(&[Read]))), no);
        let token = identity(By::Token, Some("ada"), &[Deploy, Read]);
        assert_eq!(made(&token, asked(None, Some(&[Read]))), no, "a stolen token does not make another");
        let admin = identity(By::Token, None, &[Admin]);
        assert_eq!(made(&admin, asked(Some("bob"), None)), Ok((Some("bob".into()), None)));
        assert_eq!(made(&admin, asked(None, Some(&[Deploy]))), Ok((None, Some(Scopes::of(&[Deploy])))));
        assert_eq!(made(&admin, asked(None, Some(&[Operator]))), no);
        let operator = Identity::operator("operator", By::OperatorFile);
        let new = allowed(&operator, &acme, asked(None, Some(&[Operator]))).unwrap();
        assert_eq!(new.tenant, None);
    }
}
