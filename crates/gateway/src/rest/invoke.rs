//! Calls with an event: now, or as a job.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use lyra_fleet::quota::Entry;
use lyra_types::api::JobAccepted;
use lyra_types::function::{Contract, ResultForm, label};
use lyra_types::name::Qualifier;
use lyra_types::{AliasName, Code, Error, FunctionVersion, Result};
use lyra_wire::Worker;
use lyra_wire::control::Submit;
use lyra_wire::worker::{Account, Call, Reply};

use super::Answer;
use crate::access::gate::identity_of;
use crate::body;
use crate::bound;
use crate::extract::{check_json, part, path_params, tenant_text};
use crate::headers;
use crate::openapi::{Busy, Failed, Missing, Owner, Refused};
use crate::problem;
use crate::query::Params;
use crate::quota;
use crate::service::App;

/// Call a function with an event.
///
/// The body is the event: JSON for handlers (nothing means `null`), any bytes for commands. A function that takes HTTP
/// requests gets the event as the body of a `POST /`; its answer's body is the result. With `Prefer: respond-async`
/// or `?async=true` the call becomes a job, and the answer comes once the job is durable.
#[utoipa::path(
    post, path = "/v1/functions/{name}/invoke", tag = "invoke", operation_id = "invokeFunction",
    params(
        ("name" = String, Path, description = "Function", example = "hello"),
        ("version" = Option<u64>, Query, description = "This version instead of the alias `live`"),
        ("alias" = Option<String>, Query, description = "This alias instead of `live`"),
        ("async" = Option<bool>, Query, description = "As a job"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`: as a job"),
        ("Lyra-Destinations" = Option<String>, Header, description = "For jobs: who hears of its end, in place of the function's own destinations; JSON as for `PUT …/destinations`, in which a URL needs a secret"),
        ("Idempotency-Key" = Option<String>, Header, description = "For jobs: the same key and body give the same job; 1 to 255 characters"),
        Owner,
    ),
    request_body(content = serde_json::Value, description = "The event, up to 6 MiB", example = json!({"name": "Ada"})),
    responses(
        (status = 200, description = "The result", body = serde_json::Value,
            headers(
                ("Lyra-Invocation-Id" = String, description = "The call"), ("Lyra-Version" = u64, description = "The version that ran"),
                ("Lyra-Start" = String, description = "`warm`, `prewarmed` or `cold`"), ("Lyra-Instance" = String, description = "`fresh` or `reused`"),
                ("Server-Timing" = String, description = "`queue;dur=…, start;dur=…, exec;dur=…`, in ms"),
            )),
        (status = 202, description = "The job is durable", body = JobAccepted, headers(("Location" = String, description = "The job"))),
        Failed, Refused, Missing, Busy
    )
)]
pub(crate) async fn invoke(State(app): State<Arc<App>>, request: Request) -> Answer {
    let (mut parts, body) = request.into_parts();
    let path = path_params(&mut parts, &app).await?;
    let params = Params::of(&parts.uri);
    let identity = identity_of(&parts.extensions)?;
    let tenant = tenant_text(&identity, &parts.headers, &params)?;
    let qualifier = qualifier(&params)?;
    let later = headers::prefers_async(&parts.headers) || params.flag("async")?;
    let route = app.table.find(tenant, part(&path, "name"), app.config.route_wait).await?;
    let version = Arc::clone(route.resolve(&qualifier, app.random.u64())?);
    let _pass = match later {
        true => quota::enter(&app, &version, Entry::Submit).await?,
        false => match quota::enter_call(&app, &version).await {
            Ok(pass) => pass,
            Err(refused) => return Ok(*refused),
        },
    };
    let body = body::read(&app, &parts.headers, body, app.config.max_event_bytes).await?;
    let event = event(version.contract, body.bytes.clone())?;
    if let Some(binding) = &version.sessions {
        if later {
            let detail = "sessions serve this function's calls, and they can't be jobs";
            return Err(Error::new(Code::Conflict, detail).into());
        }
        return Ok(bound::invoke(&app, &version, binding, &parts, event).await?);
    }
    let user = identity.account();
    if later {
        return submit(&app, &parts.headers, version, event, user).await;
    }
    Ok(call(&app, &app.worker, version, event, user).await)
}

/// A call on `worker`, with the version that the query names.
pub(crate) async fn now(app: &App, worker: &Arc<dyn Worker>, parts: &Parts, name: &str, body: Body) -> Answer {
    let params = Params::of(&parts.uri);
    let identity = identity_of(&parts.extensions)?;
    let tenant = tenant_text(&identity, &parts.headers, &params)?;
    let qualifier = qualifier(&params)?;
    let route = app.table.find(tenant, name, app.config.route_wait).await?;
    let version = Arc::clone(route.resolve(&qualifier, app.random.u64())?);
    let body = body::read(app, &parts.headers, body, app.config.max_event_bytes).await?;
    let event = event(version.contract, body.bytes.clone())?;
    Ok(call(app, worker, version, event, identity.account()).await)
}

fn qualifier(params: &Params<'_>) -> Result<Qualifier> {
    match (params.number("version")?, params.text("alias")?) {
        (None, None) => Ok(Qualifier::Live),
        (Some(0), None) => Err(Error::field(Code::BadRequest, "version", "versions count from 1")),
        (Some(version), None) => Ok(Qualifier::Version(version)),
        (None, Some(alias)) => match AliasName::new(alias)? {
            alias if alias.as_str() == "live" => Ok(Qualifier::Live),
            alias => Ok(Qualifier::Alias(alias)),
        },
        (Some(_), Some(_)) => Err(Error::field(Code::BadRequest, "version", "give version or alias, not both")),
    }
}

fn event(contract: Contract, body: Bytes) -> Result<Bytes> {
    if contract == Contract::Command {
        return Ok(body);
    }
    if body.is_empty() {
        return Ok(Bytes::from_static(b"null"));
    }
    check_json(&body)?;
    Ok(body)
}

async fn submit(
    app: &App,
    request: &http::HeaderMap,
    version: Arc<FunctionVersion>,
    event: Bytes,
    user: Option<Arc<str>>,
) -> Answer {
    let idempotency_key = headers::idempotency_key(request)?;
    // Ids of classic jobs are numbers, which control gives.
    let id = (!version.labels.contains_key(label::CLASSIC)).then(|| app.ids.job());
    let destinations = headers::destinations(request)?.map(Box::new);
    let submit = Submit { id, version, event, idempotency_key, user, destinations };
    let submitted = app.control.submit(submit).await?;
    let body = JobAccepted { id: submitted.id.to_string(), status: submitted.status };
    let mut response = (StatusCode::ACCEPTED, Json(body)).into_response();
    let answer = response.headers_mut();
    answer.insert(LOCATION, headers::value(format_args!("/v1/jobs/{}", submitted.id)));
    if headers::prefers_async(request) {
        answer.insert(headers::PREFERENCE_APPLIED, HeaderValue::from_static("respond-async"));
    }
    Ok(response)
}

/// Runs the call inside of the caller's future: dropping it cancels the invocation.
async fn call(
    app: &App,
    worker: &Arc<dyn Worker>,
    version: Arc<FunctionVersion>,
    event: Bytes,
    user: Option<Arc<str>>,
) -> Response {
    let id = app.ids.invocation();
    let texts = ResultForm::of(&version.labels).is_text();
    let contract = if texts { Contract::Command } else { version.contract };
    let Reply { report, outcome } = worker
        .invoke(Call { id, version, event, timeout: None, account: Account { user, by_caller: false }, trace: None })
        .await;
    let mut response = match outcome {
        Ok(result) => result_response(contract, result),
        Err(error) => problem::of_call(id, &error),
    };
    headers::stamp(&report, response.headers_mut());
    response
}

/// The answer with a result.
pub(crate) fn result_response(contract: Contract, result: Bytes) -> Response {
    let media_type = match contract {
        Contract::Handler => "application/json",
        Contract::Command | Contract::Http => sniff(&result),
    };
    let mut response = Response::new(Body::from(result));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// What a program's output is. The look costs less than writing it to the socket.
pub(crate) fn sniff(output: &[u8]) -> &'static str {
    match std::str::from_utf8(output) {
        Ok(text) if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() => "application/json",
        Ok(_) => "text/plain; charset=utf-8",
        Err(_) => "application/octet-stream",
    }
}
