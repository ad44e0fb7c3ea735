//! The OpenAPI document, made from the annotations of the routes.

use std::collections::BTreeMap;

use lyra_types::api::Problem;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::response::Response;
use utoipa::openapi::{
    ContentBuilder, HeaderBuilder, OpenApi as Document, Ref, RefOr, Required, ResponseBuilder, Schema,
};
use utoipa::{IntoParams, IntoResponses, OpenApi, PartialSchema};

use crate::classic::documented as classic;
use crate::ingress::proxy as sessions;
use crate::rest::{
    aliases, audit, control, dead_letters, deliveries, functions, invoke, job_events, jobs, login, logs, members, meta,
    quotas, runs, scaler, schedules, secrets, tenants, tokens, triggers, usage, users, values, versions, workers,
    workflows,
};
use crate::trigger;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Lyra",
        description = "A self-hosted serverless platform. Errors are RFC 9457 problem documents whose `code` programs can branch on.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        functions::list, functions::get, functions::put, functions::delete, functions::put_code, functions::rollback,
        versions::list, versions::get,
        aliases::list, aliases::get, aliases::put, aliases::delete,
        invoke::invoke, logs::logs, logs::find,
        jobs::list, jobs::get, jobs::cancel, jobs::result,
        job_events::events,
        dead_letters::list, dead_letters::purge, dead_letters::redrive_all,
        dead_letters::get, dead_letters::delete, dead_letters::redrive,
        trigger::documented, sessions::documented,
        deliveries::destinations, deliveries::put_destinations, deliveries::delete_destinations, deliveries::test,
        deliveries::of_workflow, deliveries::put_of_workflow, deliveries::delete_of_workflow, deliveries::test_of_workflow,
        deliveries::list, deliveries::get, deliveries::redeliver,
        schedules::list, schedules::get, schedules::put, schedules::delete, schedules::pause, schedules::resume, schedules::run,
        triggers::list, triggers::get, triggers::put, triggers::delete, triggers::pause, triggers::resume, triggers::post,
        usage::get,
        secrets::list, secrets::get, secrets::put, secrets::delete, secrets::keys, secrets::rotate,
        control::list,
        scaler::get, scaler::history, scaler::change,
        workers::list, workers::get, workers::known, workers::health,
        workers::cordon, workers::uncordon, workers::drain, workers::clean, workers::prewarm, workers::invoke_on,
        workers::instances, workers::terminate, workers::hibernate, workers::activate,
        members::list,
        workflows::list, workflows::deploy, workflows::get, workflows::delete, workflows::version, workflows::start, workflows::start_part,
        runs::list, runs::get, runs::delete, runs::pause, runs::resume, runs::cancel, runs::redrive, runs::trace, runs::waiting, runs::complete, values::get,
        login::login, login::whoami,
        tenants::list, tenants::create, tenants::get, tenants::delete,
        users::list, users::create, users::get, users::change, users::delete, users::set_password,
        quotas::list, quotas::get, quotas::put, quotas::delete,
        quotas::get_of_function, quotas::put_of_function, quotas::delete_of_function,
        tokens::list, tokens::create, tokens::get, tokens::delete,
        audit::list,
        classic::put_user, classic::remove_user, classic::time, classic::functions, classic::function,
        classic::put_function, classic::remove_function, classic::run, classic::job, classic::job_result, classic::remove_job,
        meta::healthz, meta::readyz, meta::metrics, meta::openapi, meta::version,
    ),
    components(schemas(Problem)),
    security((), ("token" = [])),
    modifiers(&Token)
)]
struct Api;

struct Token;

impl utoipa::Modify for Token {
    fn modify(&self, document: &mut Document) {
        use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
        let components = document.components.get_or_insert_with(Default::default);
        components.add_security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

/// The document.
pub fn document() -> Document {
    Api::openapi()
}

/// Whose things a request is about.
pub(crate) struct Owner;

impl IntoParams for Owner {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let description = "Owner, default `default`";
        vec![optional("Lyra-Tenant", ParameterIn::Header, description, Option::<String>::schema())]
    }
}

/// Which part of a list.
pub(crate) struct Paging;

impl IntoParams for Paging {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![
            optional("limit", ParameterIn::Query, "Items in a page: 1 to 1000, default 100", Option::<u32>::schema()),
            optional("cursor", ParameterIn::Query, "`next` of the page before", Option::<String>::schema()),
        ]
    }
}

fn optional(name: &str, place: ParameterIn, description: &str, schema: RefOr<Schema>) -> Parameter {
    let parameter = ParameterBuilder::new().name(name).parameter_in(place).required(Required::False);
    parameter.description(Some(description)).schema(Some(schema)).build()
}

type Responses = BTreeMap<String, RefOr<Response>>;

fn problem(description: &str) -> ResponseBuilder {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(description).content("application/problem+json", content)
}

fn problems(rows: &[(&str, &str)]) -> Responses {
    rows.iter().map(|(status, description)| ((*status).to_owned(), problem(description).build().into())).collect()
}

/// What every route may answer when it does not take the request.
pub(crate) struct Refused;

impl IntoResponses for Refused {
    fn responses() -> Responses {
        problems(&[
            ("400", "The request can't be understood (`bad_request`)"),
            ("401", "No valid token (`unauthenticated`)"),
            ("403", "Not allowed here (`permission_denied`)"),
            ("413", "The body is larger than the limit that the detail names (`too_large`)"),
            ("415", "The body's media type is not taken (`unsupported_media_type`)"),
            (
                "422",
                "A name, field or code is at fault (`invalid_name`, `invalid_field`, `invalid_code`, `idempotency_mismatch`); `errors` says where",
            ),
        ])
    }
}

/// The thing that the path names is not there.
pub(crate) struct Missing;

impl IntoResponses for Missing {
    fn responses() -> Responses {
        problems(&[("404", "It does not exist (`not_found`)")])
    }
}

/// Limits and platform faults.
pub(crate) struct Busy;

impl IntoResponses for Busy {
    fn responses() -> Responses {
        let retry = || HeaderBuilder::new().description(Some("Seconds until another try")).build();
        let rows = [
            ("429", "A limit of the caller is reached (`limit_reached`)"),
            ("503", "No capacity, or a part is starting or stopping (`overloaded`, `unavailable`)"),
        ];
        rows.into_iter()
            .map(|(status, text)| (status.to_owned(), problem(text).header("Retry-After", retry()).build().into()))
            .collect()
    }
}

/// The session took the request, and gave no answer.
pub(crate) struct NoAnswer;

impl IntoResponses for NoAnswer {
    fn responses() -> Responses {
        problems(&[
            ("400", "The request can't be understood (`bad_request`)"),
            ("502", "The session gave no answer; it may have seen the request (`session_error`)"),
            ("504", "Nothing came or went for too long (`timeout`)"),
        ])
    }
}

/// The function itself failed.
pub(crate) struct Failed;

impl IntoResponses for Failed {
    fn responses() -> Responses {
        problems(&[
            (
                "500",
                "The function failed (`function_error` with `error`, `out_of_memory`, `instance_crashed`, \
                 `result_too_large`, `invalid_result`), its worker was lost (`worker_lost`), or Lyra failed (`internal`)",
            ),
            ("502", "A session that serves the function's calls gave no answer (`session_error`)"),
            ("504", "The function did not end before its deadline (`timeout`)"),
        ])
    }
}
