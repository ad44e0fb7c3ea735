//! Versions of a function.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use lyra_types::api::{Page, Settings, VersionView};
use lyra_types::name::Qualifier;
use lyra_types::{Error, FunctionVersion};
use lyra_wire::control::Route;

use super::{Answer, page};
use crate::extract::Scope;
use crate::openapi::{Busy, Missing, Owner, Paging, Refused};
use crate::service::App;

fn view(route: &Route, version: &FunctionVersion) -> VersionView {
    let points_at = |weights: &std::collections::BTreeMap<u64, u32>| weights.contains_key(&version.version);
    let aliases = route.aliases.values().filter(|alias| points_at(&alias.weights)).map(|alias| alias.name.to_string());
    VersionView {
        name: route.function.to_string(),
        version: version.version,
        state: "ready".to_owned(),
        aliases: aliases.collect(),
        settings: Settings::from(version),
        created_at: version.created_at,
    }
}

/// List the versions of a function, newest first.
#[utoipa::path(
    get, path = "/v1/functions/{name}/versions", tag = "versions", operation_id = "listVersions",
    params(
        ("name" = String, Path, description = "Function", example = "hello"),
        Paging,
        Owner,
    ),
    responses((status = 200, description = "A page", body = Page<VersionView>), Refused, Missing, Busy)
)]
pub(crate) async fn list(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let route = app.control.function(&scope.tenant, &scope.function()?).await?;
    let versions: Vec<&Arc<FunctionVersion>> = route.versions.values().rev().collect();
    let page = page(versions, &scope.params(), |version| version.version.to_string())?;
    Ok(Json(page.map(|version| view(&route, version))).into_response())
}

/// Show one version.
#[utoipa::path(
    get, path = "/v1/functions/{name}/versions/{version}", tag = "versions", operation_id = "getVersion",
    params(
        ("name" = String, Path, description = "Function", example = "hello"),
        ("version" = u64, Path, description = "Number, from 1", example = 1),
        Owner,
    ),
    responses((status = 200, description = "The version", body = VersionView), Refused, Missing, Busy)
)]
pub(crate) async fn get(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let function = scope.function()?;
    let text = scope.part("version");
    let Qualifier::Version(number) = Qualifier::parse(text)? else {
        return Err(Error::not_found("version", format_args!("{text} of function {function}")).into());
    };
    let route = app.control.function(&scope.tenant, &function).await?;
    let version = route.resolve(&Qualifier::Version(number), 0)?;
    Ok(Json(view(&route, version)).into_response())
}
