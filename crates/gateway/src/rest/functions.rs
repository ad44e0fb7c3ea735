//! Functions: deploy, show, list, delete, roll back.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{ETAG, LOCATION};
use http::{HeaderMap, StatusCode};
use lyra_types::api::{AliasView, DeployRequest, FunctionView, Page, Settings};
use lyra_types::{Code, Error, Result};
use lyra_wire::control::{Changed, Deployed, PageQuery, RawCode, Route};

use super::{Answer, json_with};
use crate::body;
use crate::extract::{Scope, expect_json, media_type, parse_json};
use crate::headers::{self, etag};
use crate::openapi::{Busy, Missing, Owner, Paging, Refused};
use crate::query::{DEFAULT_PAGE, MAX_PAGE};
use crate::service::App;

/// A function with the settings of `version`; `None` when it has no such version.
fn view(route: &Route, version: u64) -> Option<FunctionView> {
    let settings = route.versions.get(&version)?;
    Some(FunctionView {
        name: route.function.to_string(),
        tenant: route.tenant.to_string(),
        version,
        state: "ready".to_owned(),
        live: route.aliases.get("live").map(|alias| alias.weights.clone()).unwrap_or_default(),
        settings: Settings::from(&**settings),
        created_at: route.created_at,
        updated_at: settings.created_at,
    })
}

fn newest(route: &Route) -> u64 {
    route.versions.keys().next_back().copied().unwrap_or(0)
}

fn must_view(route: &Route, version: u64) -> Result<FunctionView> {
    view(route, version).ok_or_else(|| Error::not_found("function", &route.function))
}

/// Waits until this gateway routes by a change, so that who made it finds it done.
pub(crate) async fn routed<T>(app: &App, changed: Changed<T>) -> T {
    if !app.table.wait_for(changed.revision, app.config.route_wait).await {
        tracing::warn!(revision = changed.revision, "the change is stored, but this gateway does not route by it yet");
    }
    changed.value
}

/// List functions, by name.
#[utoipa::path(
    get, path = "/v1/functions", tag = "functions", operation_id = "listFunctions",
    params(Paging, Owner),
    responses((status = 200, description = "A page", body = Page<FunctionView>), Refused, Busy)
)]
pub(crate) async fn list(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let params = scope.params();
    let page = PageQuery { limit: params.limit(DEFAULT_PAGE, MAX_PAGE)?, cursor: params.cursor()? };
    let page = app.control.functions(&scope.tenant, page).await?;
    let items = page.items.iter().filter_map(|route| view(route, newest(route))).collect();
    Ok(Json(Page { items, next: page.next }).into_response())
}

/// Show a function.
#[utoipa::path(
    get, path = "/v1/functions/{name}", tag = "functions", operation_id = "getFunction",
    params(
        ("name" = String, Path, description = "Function", example = "hello"),
        ("If-None-Match" = Option<String>, Header, description = "ETag of the version that the caller has"),
        Owner,
    ),
    responses(
        (status = 200, description = "The function with its newest version", body = FunctionView,
            headers(("ETag" = String, description = "The newest version in quotes"))),
        (status = 304, description = "The caller has it already"),
        Refused, Missing, Busy
    )
)]
pub(crate) async fn get(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let route = app.control.function(&scope.tenant, &scope.function()?).await?;
    let version = newest(&route);
    if headers::has_already(&scope.headers, version) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, etag(version))]).into_response());
    }
    Ok(json_with(StatusCode::OK, ETAG, etag(version), &must_view(&route, version)?))
}

/// Create a function, or a new version of it.
///
/// The code is checked and compiled before anything is stored; `live` moves to the new version unless `promote` is false.
#[utoipa::path(
    put, path = "/v1/functions/{name}", tag = "functions", operation_id = "putFunction",
    params(
        ("name" = String, Path, description = "Function: 1 to 63 lower-case letters, digits and `-`", example = "hello"),
        ("If-Match" = Option<String>, Header, description = "`\"3\"`: only when 3 is the newest version; `*`: only when the function exists"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only when the function does not exist"),
        Owner,
    ),
    request_body(content = DeployRequest, example = json!({"runtime": "js", "code": {"source": "export default (event) => ({ hello: event.name })"}})),
    responses(
        (status = 200, description = "A new version", body = FunctionView, headers(("ETag" = String, description = "The version in quotes"))),
        (status = 201, description = "A new function", body = FunctionView, headers(("ETag" = String, description = "The version in quotes"), ("Location" = String))),
        (status = 409, description = "The function is in a state that does not allow this", body = lyra_types::api::Problem, content_type = "application/problem+json"),
        (status = 412, description = "The precondition does not hold", body = lyra_types::api::Problem, content_type = "application/problem+json"),
        Refused, Missing, Busy
    )
)]
pub(crate) async fn put(State(app): State<Arc<App>>, scope: Scope, request: Request) -> Answer {
    let function = scope.function()?;
    let precondition = headers::precondition(&scope.headers)?;
    expect_json(&scope.headers)?;
    let body = body::read(&app, &scope.headers, request.into_body(), app.config.max_deploy_bytes).await?;
    let deploy: DeployRequest = parse_json(&body.bytes)?;
    drop(body);
    let deployed = app.control.deploy(&scope.tenant, &function, deploy, precondition).await?;
    answer_deploy(&app, deployed).await
}

/// Make a new version from a raw file, with the settings of the newest one.
#[utoipa::path(
    put, path = "/v1/functions/{name}/code", tag = "functions", operation_id = "putFunctionCode",
    params(
        ("name" = String, Path, description = "Function", example = "hello"),
        ("If-Match" = Option<String>, Header, description = "`\"3\"`: only when 3 is the newest version; `*`: only when the function exists"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only when the function does not exist"),
        Owner,
    ),
    request_body(content(
        (String = "text/javascript", example = "export default (event) => event"),
        (String = "text/x-python", example = "def handler(event, context): return event"),
        (Vec<u8> = "application/wasm"),
        (Vec<u8> = "application/zip")
    )),
    responses(
        (status = 200, description = "A new version", body = FunctionView),
        (status = 201, description = "A new function with default settings", body = FunctionView),
        (status = 409, description = "The function is in a state that does not allow this", body = lyra_types::api::Problem, content_type = "application/problem+json"),
        (status = 412, description = "The precondition does not hold", body = lyra_types::api::Problem, content_type = "application/problem+json"),
        Refused, Missing, Busy
    )
)]
pub(crate) async fn put_code(State(app): State<Arc<App>>, scope: Scope, request: Request) -> Answer {
    let function = scope.function()?;
    let precondition = headers::precondition(&scope.headers)?;
    let kind = raw_kind(&scope.headers)?;
    let body = body::read(&app, &scope.headers, request.into_body(), app.config.max_code_bytes).await?;
    let deployed = app.control.deploy_code(&scope.tenant, &function, kind(body.bytes.clone()), precondition).await?;
    drop(body);
    answer_deploy(&app, deployed).await
}

fn raw_kind(headers: &HeaderMap) -> Result<fn(Bytes) -> RawCode> {
    const TAKEN: &str = "text/javascript, text/x-python, application/wasm and application/zip";
    match media_type(headers).as_str() {
        "text/javascript" | "application/javascript" | "application/x-javascript" => Ok(RawCode::JavaScript),
        "text/x-python" | "text/python" | "application/x-python-code" => Ok(RawCode::Python),
        "application/wasm" => Ok(RawCode::Wasm),
        "application/zip" | "application/x-zip-compressed" => Ok(RawCode::Zip),
        "" => {
            Err(Error::new(Code::UnsupportedMediaType, format!("say by Content-Type what the code is: one of {TAKEN}")))
        }
        other => Err(Error::new(
            Code::UnsupportedMediaType,
            format!("this build takes {TAKEN} as code, not \"{}\"", other.escape_debug()),
        )),
    }
}

async fn answer_deploy(app: &App, deployed: Changed<Deployed>) -> Answer {
    let deployed = routed(app, deployed).await;
    let view = must_view(&deployed.route, deployed.version)?;
    let status = if deployed.created { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = json_with(status, ETAG, etag(deployed.version), &view);
    if deployed.created {
        let location = headers::value(format_args!("/v1/functions/{}", deployed.route.function));
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// Delete a function with its versions, aliases, logs and waiting jobs.
#[utoipa::path(
    delete, path = "/v1/functions/{name}", tag = "functions", operation_id = "deleteFunction",
    params(
        ("name" = String, Path, description = "Function", example = "hello"),
        Owner,
    ),
    responses((status = 204, description = "It is gone"), Refused, Missing, Busy)
)]
pub(crate) async fn delete(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let function = scope.function()?;
    let gone = app.control.delete_function(&scope.tenant, &function).await?;
    // Each control process forgets the lines that it has when it hears of this. Whoever deploys the same name next finds none now.
    if let Err(error) = app.logs.forget(&scope.tenant, &function).await {
        tracing::warn!(%error, tenant = %scope.tenant, %function, "logs of a deleted function are left");
    }
    routed(&app, gone).await;
    Ok(no_content())
}

/// Move `live` back to what it pointed at before its last change.
#[utoipa::path(
    post, path = "/v1/functions/{name}/rollback", tag = "functions", operation_id = "rollbackFunction",
    params(
        ("name" = String, Path, description = "Function", example = "hello"),
        Owner,
    ),
    responses(
        (status = 200, description = "Where `live` points now", body = AliasView),
        (status = 409, description = "There is no version to go back to", body = lyra_types::api::Problem, content_type = "application/problem+json"),
        Refused, Missing, Busy
    )
)]
pub(crate) async fn rollback(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let function = scope.function()?;
    let alias = app.control.rollback(&scope.tenant, &function).await?;
    let alias = routed(&app, alias).await;
    Ok(Json(AliasView::of(function.as_str(), &alias)).into_response())
}

/// 204.
pub(crate) fn no_content() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
