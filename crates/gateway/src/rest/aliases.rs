//! Aliases of a function.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use http::StatusCode;
use lyra_types::api::{AliasRequest, AliasView, Page};
use lyra_types::{Alias, AliasName, Error};

use super::functions::{no_content, routed};
use super::{Answer, page};
use crate::body;
use crate::extract::{Scope, expect_json, parse_json};
use crate::openapi::{Busy, Missing, Owner, Paging, Refused};
use crate::service::App;

/// List the aliases of a function, by name.
#[utoipa::path(
    get, path = "/v1/functions/{name}/aliases", tag = "aliases", operation_id = "listAliases",
    params(
        ("name" = String, Path, description = "Function", example = "hello"),
        Paging,
        Owner,
    ),
    responses((status = 200, description = "A page", body = Page<AliasView>), Refused, Missing, Busy)
)]
pub(crate) async fn list(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let function = scope.function()?;
    let route = app.control.function(&scope.tenant, &function).await?;
    let aliases: Vec<&Alias> = route.aliases.values().collect();
    let page = page(aliases, &scope.params(), |alias| alias.name.to_string())?;
    Ok(Json(page.map(|alias| AliasView::of(function.as_str(), alias))).into_response())
}

/// Show an alias.
#[utoipa::path(
    get, path = "/v1/functions/{name}/aliases/{alias}", tag = "aliases", operation_id = "getAlias",
    params(
        ("name" = String, Path, description = "Function", example = "hello"),
        ("alias" = String, Path, description = "Alias", example = "live"),
        Owner,
    ),
    responses((status = 200, description = "The alias", body = AliasView), Refused, Missing, Busy)
)]
pub(crate) async fn get(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let (function, name) = (scope.function()?, AliasName::new(scope.part("alias"))?);
    let route = app.control.function(&scope.tenant, &function).await?;
    let missing = || Error::not_found("alias", format_args!("{name} of function {function}"));
    let alias = route.aliases.get(&name).ok_or_else(missing)?;
    Ok(Json(AliasView::of(function.as_str(), alias)).into_response())
}

/// Make or move an alias.
#[utoipa::path(
    put, path = "/v1/functions/{name}/aliases/{alias}", tag = "aliases", operation_id = "putAlias",
    params(
        ("name" = String, Path, description = "Function", example = "hello"),
        ("alias" = String, Path, description = "Alias: as a function's name, with at least one letter", example = "live"),
        Owner,
    ),
    request_body(content = AliasRequest, example = json!({"weights": {"1": 90, "2": 10}})),
    responses((status = 200, description = "The alias", body = AliasView), Refused, Missing, Busy)
)]
pub(crate) async fn put(State(app): State<Arc<App>>, scope: Scope, request: Request) -> Answer {
    let (function, name) = (scope.function()?, AliasName::new(scope.part("alias"))?);
    expect_json(&scope.headers)?;
    let body = body::read(&app, &scope.headers, request.into_body(), app.config.max_json_bytes).await?;
    let wanted: AliasRequest = parse_json(&body.bytes)?;
    let alias = app.control.put_alias(&scope.tenant, &function, &name, wanted).await?;
    let alias = routed(&app, alias).await;
    Ok((StatusCode::OK, Json(AliasView::of(function.as_str(), &alias))).into_response())
}

/// Delete an alias; `live` stays.
#[utoipa::path(
    delete, path = "/v1/functions/{name}/aliases/{alias}", tag = "aliases", operation_id = "deleteAlias",
    params(
        ("name" = String, Path, description = "Function", example = "hello"),
        ("alias" = String, Path, description = "Alias", example = "beta"),
        Owner,
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 409, description = "`live` can't be deleted", body = lyra_types::api::Problem, content_type = "application/problem+json"),
        Refused, Missing, Busy
    )
)]
pub(crate) async fn delete(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let name = AliasName::new(scope.part("alias"))?;
    let gone = app.control.delete_alias(&scope.tenant, &scope.function()?, &name).await?;
    routed(&app, gone).await;
    Ok(no_content())
}
