//! Functions: listed, shown, put, removed, run.

use std::sync::Arc;

use bytes::Bytes;
use lyra_fleet::quota::Entry;
use lyra_types::function::label;
use lyra_types::name::Qualifier;
use lyra_types::{Code, Error, FieldError, FunctionVersion, Result};
use lyra_wire::classic::{ClassicAnswer, ClassicJob, ClassicName, ClassicRequest, ClassicSettings};
use lyra_wire::control::Submit;
use serde_json::{Map, Value};

use super::envelope::Envelope;
use super::users::{done, no_user, unexpected, user};
use super::{Asked, body, jobs};
use crate::extract::check_json;
use crate::headers;
use crate::query::Params;
use crate::quota;

/// Sources that one list gives, in bytes.
const MAX_LISTED: usize = 64 << 20;

/// The answer where the user has no such function.
fn no_function(name: &str) -> Envelope {
    Envelope::fault(format!("[ERR] User function <{name}> does not exist."))
}

pub(super) async fn list(asked: &Asked<'_>, name: &str) -> Result<Envelope> {
    let user = user(asked, name)?;
    let (mut listed, mut bytes, mut after) = (Map::new(), 0, None);
    loop {
        let request = ClassicRequest::Functions { user: user.clone(), after };
        match asked.app.control.classic(request).await? {
            ClassicAnswer::Functions { functions, next } => {
                for (name, source) in functions {
                    bytes += source.len();
                    listed.insert(name, Value::String(source));
                }
                if bytes > MAX_LISTED {
                    let detail = format!("the functions' sources have more than {} MiB", MAX_LISTED >> 20);
                    return Err(Error::new(Code::ResultTooLarge, detail));
                }
                match next {
                    Some(next) => after = Some(next),
                    None => return Ok(Envelope::ok(listed)),
                }
            }
            ClassicAnswer::NoUser => return Ok(no_user(name)),
            _ => return Err(unexpected()),
        }
    }
}

pub(super) async fn get(asked: &Asked<'_>, name: &str, function: &str) -> Result<Envelope> {
    let (user, of) = (user(asked, name)?, ClassicName::new(function)?);
    match asked.app.control.classic(ClassicRequest::Function { user, function: of }).await? {
        ClassicAnswer::Source(source) => {
            let fields = [("f_name", function), ("name", function), ("src", &source)];
            let fields: Map<String, Value> =
                fields.into_iter().map(|(field, value)| (field.to_owned(), value.into())).collect();
            Ok(Envelope::ok(fields))
        }
        ClassicAnswer::NoUser => Ok(no_user(name)),
        ClassicAnswer::NoFunction => Ok(no_function(function)),
        _ => Err(unexpected()),
    }
}

pub(super) async fn put(mut asked: Asked<'_>, name: &str, function: &str) -> Result<Envelope> {
    let (user, of) = (user(&asked, name)?, ClassicName::new(function)?);
    let settings = settings(&Params::of(&asked.parts.uri))?;
    let source = body::text(&mut asked).await?.unwrap_or_default();
    let request = ClassicRequest::PutFunction { user, function: of, source, settings };
    match done(&asked, request).await {
        Ok(ClassicAnswer::Done { .. }) => Ok(Envelope::ok(1)),
        Ok(ClassicAnswer::NoUser) => Ok(no_user(name)),
        Ok(_) => Err(unexpected()),
        Err(error) if error.errors.first().is_some_and(|fault| fault.field.starts_with("code")) => {
            Ok(refused(function, &error))
        }
        Err(error) => Err(error),
    }
}

/// Why a source is not taken.
fn refused(function: &str, error: &Error) -> Envelope {
    let fault = error.errors.first();
    let reason = fault.map_or(error.detail.as_str(), |fault| fault.reason.as_str());
    let place = match fault {
        Some(FieldError { line: Some(line), column: Some(column), .. }) => format!(" (line {line}, column {column})"),
        _ => String::new(),
    };
    Envelope::fault(format!("[ERR] Invalid source <{function}> - {reason}{place}"))
}

/// What the query asks for, beside the classic routes' own.
fn settings(params: &Params<'_>) -> Result<ClassicSettings> {
    let exact = match params.text("result")? {
        None | Some("text") => false,
        Some("string") => true,
        Some(_) => return Err(Error::field(Code::BadRequest, "result", "the query parameter must be text or string")),
    };
    let memory = params.number("memory_mb")?;
    let memory_mb = memory.map(|memory| u32::try_from(memory).unwrap_or(u32::MAX));
    Ok(ClassicSettings { timeout_ms: params.number("timeout_ms")?, memory_mb, exact })
}

pub(super) async fn remove(asked: &Asked<'_>, name: &str, function: &str) -> Result<Envelope> {
    let (user, of) = (user(asked, name)?, ClassicName::new(function)?);
    match done(asked, ClassicRequest::RemoveFunction { user, function: of }).await? {
        ClassicAnswer::Done { .. } => Ok(Envelope::ok(1)),
        ClassicAnswer::NoUser => Ok(no_user(name)),
        _ => Err(unexpected()),
    }
}

/// Makes a call a job, and answers with its id; with `?wait=`, also with how it ended if it does in time.
pub(super) async fn run(mut asked: Asked<'_>, name: &str, function: &str) -> Result<Envelope> {
    let user = user(&asked, name)?;
    let found = version(&asked, &user, function).await?;
    let wait = Params::of(&asked.parts.uri).wait(asked.app.config.max_wait)?;
    let idempotency_key = headers::idempotency_key(&asked.parts.headers)?;
    let version = match found {
        Found::Version(version) => version,
        Found::NoUser => return Ok(no_user(name)),
        Found::NoFunction => return Ok(no_function(function)),
    };
    let _pass = quota::enter(asked.app, &version, Entry::Submit).await?;
    let event = match body::text(&mut asked).await? {
        None => Err("([object Object]) - invalid JSON".to_owned()),
        Some(text) => argv(text),
    };
    let event = match event {
        Ok(event) => event,
        Err(why) => return Ok(Envelope::fault(format!("[ERR] Invalid argv {why}"))),
    };
    let submit =
        Submit { id: None, version, event, idempotency_key, user: asked.identity.account(), destinations: None };
    let submitted = asked.app.control.submit(submit).await?;
    let id = ClassicJob::of(submitted.id).ok_or_else(|| Error::internal("the job has no classic id"))?;
    let envelope = Envelope::ok(id.to_string());
    if wait.is_zero() {
        return Ok(envelope);
    }
    jobs::waited(&asked, &user.tenant(), submitted.id, wait, envelope).await
}

/// The arguments, as they came; or what is wrong with them.
fn argv(text: String) -> std::result::Result<Bytes, String> {
    if check_json(text.as_bytes()).is_err() {
        return Err(format!("({text}) - invalid JSON"));
    }
    match text.trim_start().starts_with('[') {
        true => Ok(Bytes::from(text)),
        false => Err(format!("({text}) - not an array")),
    }
}

/// What a run finds.
enum Found {
    Version(Arc<FunctionVersion>),
    NoUser,
    NoFunction,
}

/// The version that a run has: by this gateway's own table; control is asked only where it is not there.
async fn version(asked: &Asked<'_>, user: &ClassicName, function: &str) -> Result<Found> {
    let app = asked.app;
    if let Ok(of) = ClassicName::new(function) {
        let (tenant, lyra) = (user.tenant(), of.function());
        let route = app.table.find(tenant.as_str(), lyra.as_str(), app.config.route_wait).await;
        match route {
            Ok(route) => {
                if let Ok(version) = route.resolve(&Qualifier::Live, app.random.u64())
                    && version.labels.contains_key(label::CLASSIC)
                {
                    return Ok(Found::Version(Arc::clone(version)));
                }
            }
            Err(error) if error.code == Code::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    match app.control.classic(ClassicRequest::User(user.clone())).await? {
        ClassicAnswer::NoUser => Ok(Found::NoUser),
        _ => Ok(Found::NoFunction),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_told_from_what_is_none() {
        let of = |text: &str| argv(text.to_owned());
        assert_eq!(of(" [4,6]").as_deref(), Ok(&b" [4,6]"[..]));
        assert!(of("[{\"a.b\":1,\"$x\":2}]").is_ok());
        assert_eq!(of("").unwrap_err(), "() - invalid JSON");
        assert_eq!(of("[1,").unwrap_err(), "([1,) - invalid JSON");
        assert_eq!(of("{\"a\":1}").unwrap_err(), "({\"a\":1}) - not an array");
        assert_eq!(of("4").unwrap_err(), "(4) - not an array");
    }
}
