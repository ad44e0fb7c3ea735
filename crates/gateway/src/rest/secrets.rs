//! Secrets: set, list, show, delete; and the keys that seal them. No answer holds a value.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::LOCATION;
use lyra_types::api::{Page, ResealedView, SecretKeyView, SecretKeysView, SecretRequest, SecretView};
use lyra_types::secret::MAX_SECRET;
use lyra_types::{Code, Error, Result, SecretBytes, SecretName};
use lyra_wire::control::PageQuery;
use lyra_wire::secrets::{PutSecret, Resealed, SealingKey, SecretInfo, SecretKey};

use super::functions::no_content;
use super::{Answer, json_with};
use crate::body;
use crate::extract::{Scope, expect_json, parse_secret_json};
use crate::headers;
use crate::openapi::{Busy, Missing, Owner, Paging, Refused};
use crate::query::{DEFAULT_PAGE, MAX_PAGE};
use crate::service::App;

/// Largest body: a value of which each byte is escaped, and what is around it.
const MAX_BODY: usize = MAX_SECRET * 6 + 1_024;

fn view(info: SecretInfo) -> SecretView {
    SecretView {
        name: info.key.name.to_string(),
        tenant: info.key.tenant.to_string(),
        version: info.version,
        functions: info.functions.iter().map(ToString::to_string).collect(),
        applications: info.applications,
        created_at: info.created_at,
        updated_at: info.updated_at,
    }
}

fn key(scope: &Scope) -> Result<SecretKey> {
    Ok(SecretKey { tenant: scope.tenant.clone(), name: SecretName::new(scope.part("name"))? })
}

/// The bytes that a request brings.
fn value_of(request: &SecretRequest) -> Result<SecretBytes> {
    match (&request.value, &request.base64) {
        (Some(text), None) => Ok(SecretBytes::new(text.reveal().as_bytes().to_vec())),
        (None, Some(text)) => match STANDARD.decode(text.reveal()) {
            Ok(bytes) => Ok(SecretBytes::new(bytes)),
            Err(_) => Err(Error::field(Code::InvalidField, "base64", "is not base64")),
        },
        _ => Err(Error::field(Code::InvalidField, "value", "exactly one of value and base64 is needed")),
    }
}

/// List secrets by name, without their values.
#[utoipa::path(
    get, path = "/v1/secrets", tag = "secrets", operation_id = "listSecrets",
    params(Paging, Owner),
    responses((status = 200, description = "A page", body = Page<SecretView>), Refused, Busy)
)]
pub(crate) async fn list(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let params = scope.params();
    let page = PageQuery { limit: params.limit(DEFAULT_PAGE, MAX_PAGE)?, cursor: params.cursor()? };
    Ok(Json(app.control.secrets(&scope.tenant, page).await?.map(view)).into_response())
}

/// Show what is known of a secret. Its value is never sent back.
#[utoipa::path(
    get, path = "/v1/secrets/{name}", tag = "secrets", operation_id = "getSecret",
    params(
        ("name" = String, Path, description = "Secret", example = "db-password"),
        Owner,
    ),
    responses((status = 200, description = "The secret without its value", body = SecretView), Refused, Missing, Busy)
)]
pub(crate) async fn get(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    Ok(Json(view(app.control.secret(&key(&scope)?).await?)).into_response())
}

/// Set a secret. New instances of functions that are given it have the new value; kept ones are let go within seconds.
#[utoipa::path(
    put, path = "/v1/secrets/{name}", tag = "secrets", operation_id = "putSecret",
    params(
        ("name" = String, Path, description = "Secret: 1 to 63 lower-case letters, digits and `-`", example = "db-password"),
        Owner,
    ),
    request_body(content = SecretRequest, example = json!({"value": "correct horse battery staple"})),
    responses(
        (status = 200, description = "It has another value", body = SecretView),
        (status = 201, description = "A new secret", body = SecretView, headers(("Location" = String))),
        (status = 409, description = "Others change it all the time", body = lyra_types::api::Problem, content_type = "application/problem+json"),
        Refused, Missing, Busy
    )
)]
pub(crate) async fn put(State(app): State<Arc<App>>, scope: Scope, request: Request) -> Answer {
    let key = key(&scope)?;
    expect_json(&scope.headers)?;
    let body = body::read(&app, &scope.headers, request.into_body(), MAX_BODY).await?;
    let value = value_of(&parse_secret_json(&body.bytes)?)?;
    drop(body);
    let put = app.control.put_secret(PutSecret { key, value }).await?;
    let (created, put) = (put.created, view(put.info));
    if !created {
        return Ok(Json(put).into_response());
    }
    let location = headers::value(format_args!("/v1/secrets/{}", put.name));
    Ok(json_with(StatusCode::CREATED, LOCATION, location, &put))
}

/// Delete a secret.
#[utoipa::path(
    delete, path = "/v1/secrets/{name}", tag = "secrets", operation_id = "deleteSecret",
    params(
        ("name" = String, Path, description = "Secret", example = "db-password"),
        ("force" = Option<bool>, Query, description = "Also where functions are given it; their instances can't start any more"),
        Owner,
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 409, description = "A function is given it", body = lyra_types::api::Problem, content_type = "application/problem+json"),
        Refused, Missing, Busy
    )
)]
pub(crate) async fn delete(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let force = scope.params().flag("force")?;
    app.control.delete_secret(&key(&scope)?, force).await?;
    Ok(no_content())
}

/// List the keys that seal secrets, of all tenants: those of the key file, then others that are in use.
#[utoipa::path(
    get, path = "/v1/secret-keys", tag = "secrets", operation_id = "listSecretKeys",
    responses((status = 200, description = "The keys, by what names them", body = SecretKeysView), Refused, Busy)
)]
pub(crate) async fn keys(State(app): State<Arc<App>>) -> Answer {
    let show = |SealingKey { id, seals, known, secrets }| SecretKeyView { id, seals, known, secrets };
    let keys = app.control.sealing_keys().await?.into_iter().map(show).collect();
    Ok(Json(SecretKeysView { keys }).into_response())
}

/// Seal all secrets of all tenants with the first key of the key file. Where it is broken off, doing it again goes on.
#[utoipa::path(
    post, path = "/v1/secret-keys/rotate", tag = "secrets", operation_id = "rotateSecretKey",
    responses((status = 200, description = "All are sealed with it", body = ResealedView), Refused, Busy)
)]
pub(crate) async fn rotate(State(app): State<Arc<App>>) -> Answer {
    let Resealed { key, resealed } = app.control.reseal_secrets().await?;
    Ok(Json(ResealedView { key, resealed }).into_response())
}

#[cfg(test)]
mod tests {
    use lyra_types::Secret;

    use super::*;

    #[test]
    fn a_value_comes_in_one_form() {
        let of = |value: Option<&str>, base64: Option<&str>| {
            let request = SecretRequest { value: value.map(Secret::new), base64: base64.map(Secret::new) };
            value_of(&request).map(|bytes| bytes.reveal().to_vec()).map_err(|error| error.errors[0].field.clone())
        };
        assert_eq!(of(Some("a"), None), Ok(b"a".to_vec()));
        assert_eq!(of(None, Some("/wA=")), Ok(vec![0xff, 0]));
        assert_eq!(of(None, Some("!")), Err("base64".to_owned()));
        assert_eq!(of(Some("a"), Some("YQ==")), Err("value".to_owned()));
        assert_eq!(of(None, None), Err("value".to_owned()));
    }
}
