//! What routes read from a request: owner, names, JSON bodies, media types.

use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, Uri};
use lyra_types::api::DeployRequest;
use lyra_types::{Code, Error, FieldError, FunctionName, Result, TenantName};
use serde::de::DeserializeOwned;

use crate::access::gate::identity_of;
use crate::access::{By, Identity};
use crate::headers::TENANT;
use crate::problem::Fault;
use crate::query::Params;
use crate::service::App;

/// The tenant of whoever names none.
pub(crate) const DEFAULT_TENANT: &str = "default";

/// Owner of what the request is about: header `Lyra-Tenant`, or `?tenant=`, or the tenant that the caller is bound to, or `default`.
///
/// # Errors
/// [`Code::BadRequest`] when header and parameter differ or the header is not text; [`Code::PermissionDenied`] when the caller may not
/// act in that tenant.
pub(crate) fn tenant_text<'a>(
    identity: &'a Identity,
    headers: &'a HeaderMap,
    params: &'a Params<'_>,
) -> Result<&'a str> {
    let tenant = named_tenant(headers, params)?.unwrap_or_else(|| identity.home());
    // Nobody gets only to routes that need nothing, which are about no tenant.
    if identity.by != By::Nothing {
        identity.check_tenant(tenant)?;
    }
    Ok(tenant)
}

/// The tenant that the request names.
pub(crate) fn named_tenant<'a>(headers: &'a HeaderMap, params: &'a Params<'_>) -> Result<Option<&'a str>> {
    let header = headers
        .get(TENANT)
        .map(|value| value.to_str().map_err(|_| Error::new(Code::BadRequest, "Lyra-Tenant is not ASCII text")))
        .transpose()?;
    match (header, params.text("tenant")?) {
        (Some(header), Some(param)) if header != param => {
            Err(Error::new(Code::BadRequest, "Lyra-Tenant and ?tenant= name different tenants"))
        }
        (Some(tenant), _) | (None, Some(tenant)) => Ok(Some(tenant)),
        (None, None) => Ok(None),
    }
}

/// Owner, path parameters and query of a request that is not on the hot path.
pub(crate) struct Scope {
    pub tenant: TenantName,
    pub identity: Arc<Identity>,
    pub headers: HeaderMap,
    pub uri: Uri,
    path: RawPathParams,
}

impl Scope {
    /// The part of the path that the route calls `name`.
    pub(crate) fn part(&self, name: &str) -> &str {
        part(&self.path, name)
    }

    /// The function that the path names.
    pub(crate) fn function(&self) -> Result<FunctionName> {
        FunctionName::new(self.part("name"))
    }

    /// The tenant that the path names, in which the caller may act.
    pub(crate) fn tenant_in_path(&self) -> Result<TenantName> {
        let text = self.part("tenant");
        self.identity.check_tenant(text)?;
        TenantName::new(text)
    }

    /// The query.
    pub(crate) fn params(&self) -> Params<'_> {
        Params::of(&self.uri)
    }
}

/// The part of a path that the route calls `name`; empty when the route has none of that name.
pub(crate) fn part<'a>(path: &'a RawPathParams, name: &str) -> &'a str {
    path.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
}

impl FromRequestParts<Arc<App>> for Scope {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> std::result::Result<Scope, Fault> {
        let path = path_params(parts, app).await?;
        let identity = identity_of(&parts.extensions)?;
        let tenant = TenantName::new(tenant_text(&identity, &parts.headers, &Params::of(&parts.uri))?)?;
        Ok(Scope { tenant, identity, headers: parts.headers.clone(), uri: parts.uri.clone(), path })
    }
}

/// The parts of the path, percent-decoded.
///
/// # Errors
/// [`Code::BadRequest`] when they are not UTF-8.
pub(crate) async fn path_params(parts: &mut Parts, app: &Arc<App>) -> Result<RawPathParams> {
    RawPathParams::from_request_parts(parts, app)
        .await
        .map_err(|_| Error::new(Code::BadRequest, "the path is not UTF-8 after percent-decoding"))
}

/// The media type without its parameters, in lower case; empty where there is none.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Refuses a body that says it is something other than JSON. `curl -d` says it sends a form unless told
/// otherwise, and no form can be JSON by chance, so that type is let through.
///
/// # Errors
/// [`Code::UnsupportedMediaType`].
pub(crate) fn expect_json(headers: &HeaderMap) -> Result<()> {
    match media_type(headers).as_str() {
        "" | "application/json" | "application/x-www-form-urlencoded" => Ok(()),
        other if other.ends_with("+json") => Ok(()),
        other => Err(Error::new(
            Code::UnsupportedMediaType,
            format!("this route takes application/json, not \"{}\"", other.escape_debug()),
        )),
    }
}

/// Reads a JSON body.
///
/// # Errors
/// [`Code::BadRequest`] with line and column where it is not JSON, [`Code::InvalidField`] with the field where
/// it does not fit.
pub(crate) fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        // Some values that do not fit, such as a key that is no number, are faults of syntax to the parser.
        let is_json = error.is_data() || check_json(bytes).is_ok();
        if is_json { field_error(&path, &error) } else { syntax_error(&error) }
    })?;
    deserializer.end().map_err(|error| syntax_error(&error))?;
    Ok(value)
}

/// Reads a JSON body that holds a secret: what is wrong with it is said without a word of what it holds.
///
/// # Errors
/// As [`parse_json`].
pub(crate) fn parse_secret_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    parse_json(bytes).map_err(|error: Error| {
        let field = error.errors.first().map_or("body", |field| field.field.as_str());
        let says = |words: &str| error.errors.first().is_some_and(|field| field.reason.starts_with(words));
        let reason = match (says("missing field"), says("unknown field")) {
            (true, _) => "is missing",
            (_, true) => "is no field of this request",
            _ => "can't be read",
        };
        Error::field(error.code, field, reason)
    })
}

/// Reads the body of a deploy; public so that a fuzzer can feed it anything.
///
/// # Errors
/// As every JSON body: [`Code::BadRequest`] or [`Code::InvalidField`].
pub fn parse_deploy(bytes: &[u8]) -> Result<DeployRequest> {
    parse_json(bytes)
}

/// The event of a handler must be JSON, and no more of it is asked here.
///
/// # Errors
/// [`Code::BadRequest`] with line and column.
pub(crate) fn check_json(bytes: &[u8]) -> Result<()> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        Error::new(Code::BadRequest, format!("the event is not UTF-8 at byte {}", error.valid_up_to()))
    })?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(drop).map_err(|error| syntax_error(&error))
}

/// What is wrong, and where: serde_json ends its message with the place, which has fields of its own here.
fn fault(field: String, error: &serde_json::Error) -> FieldError {
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or(&text).to_owned();
    FieldError { field, reason, line: u32::try_from(error.line()).ok(), column: u32::try_from(error.column()).ok() }
}

fn syntax_error(error: &serde_json::Error) -> Error {
    let fault = fault("body".to_owned(), error);
    let (line, column) = (error.line(), error.column());
    let detail = format!("the body is not JSON: {} at line {line} column {column}", fault.reason);
    Error::new(Code::BadRequest, detail).with_field(fault)
}

fn field_error(path: &str, error: &serde_json::Error) -> Error {
    let mut fault = fault(String::new(), error);
    fault.field = field_at(path, &fault.reason);
    Error::new(Code::InvalidField, format!("{}: {}", fault.field, fault.reason)).with_field(fault)
}

/// The field at fault: the path, and for a missing or unknown field the name that the message quotes.
fn field_at(path: &str, reason: &str) -> String {
    // The parser shows a key that it could not read as "?".
    let path = path.trim_end_matches(".?").trim_end_matches('.');
    let named = ["missing field `", "unknown field `", "duplicate field `"]
        .iter()
        .find_map(|start| reason.strip_prefix(start)?.split('`').next());
    match named {
        Some(name) if path.is_empty() => name.to_owned(),
        Some(name) if path == name || path.ends_with(&format!(".{name}")) => path.to_owned(),
        Some(name) => format!("{path}.{name}"),
        None if path.is_empty() => "body".to_owned(),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn json_faults_name_their_place_or_their_field() {
        let fault = |text: &str| {
            let error = parse_deploy(text.as_bytes()).unwrap_err();
            let field = error.errors[0].clone();
            (error.code, field.field, field.line, field.column)
        };
        assert_eq!(fault("{\"runtime\": \"js\",\n  oops}"), (Code::BadRequest, "body".to_owned(), Some(2), Some(3)));
        assert_eq!(fault("").0, Code::BadRequest);
        assert_eq!(fault("{\"runtime\":\"js\",\"code\":{}} x").0, Code::BadRequest);
        let field = |text: &str| (fault(text).0, fault(text).1);
        let invalid = |name: &str| (Code::InvalidField, name.to_owned());
        assert_eq!(field(r#"{"code":{"source":"x"}}"#), invalid("runtime"));
        assert_eq!(field(r#"{"runtime":"js","code":{"source":"x"},"memory":1}"#), invalid("memory"));
        assert_eq!(field(r#"{"runtime":"js","code":{"sauce":"x"}}"#), invalid("code.sauce"));
        assert_eq!(field(r#"{"runtime":"js","code":{"source":1}}"#), invalid("code.source"));
        assert_eq!(field(r#"{"runtime":"js","code":{"source":"x"},"memory_mb":-1}"#), invalid("memory_mb"));
        assert_eq!(field(r#"{"runtime":"js","code":{},"env":{"A":1}}"#), invalid("env.A"));
        assert_eq!(field(r#"{"runtime":"js","runtime":"js","code":{}}"#), invalid("runtime"));
        assert_eq!(field("[1]"), invalid("[0]"));
        assert_eq!(field(r#"{"runtime":"js","code":{"source":"\ud800"}}"#), invalid("code.source"));
        assert_eq!(field("1"), invalid("body"));
    }

    #[test]
    fn an_event_is_any_json_value_and_nothing_else() {
        for good in ["null", " {} ", "[1,2]", "\"\\ud800\"", "1e999", "0"] {
            assert!(check_json(good.as_bytes()).is_ok(), "{good}");
        }
        for bad in ["", "{", "{}{}", "undefined", "{'a':1}", "\"\n\"", "[1,]"] {
            assert_eq!(check_json(bad.as_bytes()).unwrap_err().code, Code::BadRequest, "{bad}");
        }
        assert!(check_json(b"\"\xff\"").is_err());
        let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        assert!(check_json(deep.as_bytes()).is_ok(), "depth is the function's own matter");
    }

    proptest! {
        #[test]
        fn no_body_makes_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            drop(parse_deploy(&bytes));
            drop(check_json(&bytes));
        }
    }
}
