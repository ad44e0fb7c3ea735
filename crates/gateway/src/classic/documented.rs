//! What the OpenAPI document says of the classic routes.
#![expect(dead_code, reason = "the document needs names for what `answer` does")]

use serde::Serialize;
use utoipa::ToSchema;

/// Every classic answer.
#[derive(Serialize, ToSchema)]
pub(crate) struct ClassicEnvelope {
    /// Whether something is wrong; then `res` says what.
    error: bool,
    /// The answer.
    res: serde_json::Value,
}

/// Make a user, or take the functions and the time of the one that is there.
///
/// With authentication on, the answer to an operator who makes a user has the user's first token beside `res`, this once. Only the owner or an
/// operator takes functions and time away.
#[utoipa::path(
    post, path = "/u/{user}", tag = "classic", operation_id = "classicPutUser",
    params(("user" = String, Path, description = "User: 1 to 64 letters, digits, `_` and `-`", example = "user1")),
    responses(
        (status = "default", description = "`res`: 1; with authentication on, `token` of the new user, which is shown this once", body = ClassicEnvelope),
        (status = 429, description = "Too many strangers signed up from this address: wait for the seconds of `Retry-After`", body = ClassicEnvelope),
    )
)]
pub(crate) fn put_user() {}

/// Remove a user with all functions; jobs stay.
#[utoipa::path(
    delete, path = "/u/{user}", tag = "classic", operation_id = "classicRemoveUser",
    params(("user" = String, Path, description = "User", example = "user1")),
    responses((status = "default", description = "`res`: 1, also where there was none", body = ClassicEnvelope))
)]
pub(crate) fn remove_user() {}

/// Get a user's execution time, in ms.
#[utoipa::path(
    get, path = "/u/{user}/time", tag = "classic", operation_id = "classicTime",
    params(("user" = String, Path, description = "User", example = "user1")),
    responses((status = "default", description = "`res`: ms", body = ClassicEnvelope))
)]
pub(crate) fn time() {}

/// List a user's functions with their sources.
#[utoipa::path(
    get, path = "/u/{user}/fn", tag = "classic", operation_id = "classicFunctions",
    params(("user" = String, Path, description = "User", example = "user1")),
    responses((status = "default", description = "`res`: source by name", body = ClassicEnvelope))
)]
pub(crate) fn functions() {}

/// Get a function's source.
#[utoipa::path(
    get, path = "/u/{user}/fn/{function}", tag = "classic", operation_id = "classicFunction",
    params(("user" = String, Path, description = "User", example = "user1"), ("function" = String, Path, description = "Function", example = "add")),
    responses((status = "default", description = "`res`: `f_name`, `name` and `src`", body = ClassicEnvelope))
)]
pub(crate) fn function() {}

/// Put a function: its source is the body, of any type.
#[utoipa::path(
    post, path = "/u/{user}/fn/{function}", tag = "classic", operation_id = "classicPutFunction",
    params(
        ("user" = String, Path, description = "User", example = "user1"),
        ("function" = String, Path, description = "Function: 1 to 64 letters, digits, `_` and `-`", example = "add"),
        ("timeout_ms" = Option<u64>, Query, description = "Deadline of a call: 1 to 900,000, default 60,000"),
        ("memory_mb" = Option<u32>, Query, description = "Most memory of a call: 16 to 1024, default 128"),
        ("result" = Option<String>, Query, description = "`text` (the default): objects and arrays leave as JSON; `string`: as `String` shows them"),
    ),
    request_body(content = String, content_type = "*/*", description = "One expression that is a function, up to 100 KiB", example = "function add(a,b){return a+b;}"),
    responses((status = "default", description = "`res`: 1", body = ClassicEnvelope))
)]
pub(crate) fn put_function() {}

/// Remove a function; jobs that wait for it run to their end.
#[utoipa::path(
    delete, path = "/u/{user}/fn/{function}", tag = "classic", operation_id = "classicRemoveFunction",
    params(("user" = String, Path, description = "User", example = "user1"), ("function" = String, Path, description = "Function", example = "add")),
    responses((status = "default", description = "`res`: 1, also where there was none", body = ClassicEnvelope))
)]
pub(crate) fn remove_function() {}

/// Run a function as a job; the body is the JSON array of its arguments.
#[utoipa::path(
    post, path = "/u/{user}/fn/{function}/run", tag = "classic", operation_id = "classicRun",
    params(
        ("user" = String, Path, description = "User", example = "user1"),
        ("function" = String, Path, description = "Function", example = "add"),
        ("wait" = Option<f64>, Query, description = "Seconds to wait for the job to end: 0 to 60; then `status` and `result` stand beside `res`"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body give the same job"),
    ),
    request_body(content = String, content_type = "*/*", description = "Up to 100 KiB", example = "[4,7]"),
    responses((status = "default", description = "`res`: the job's id, 24 hexadecimal digits", body = ClassicEnvelope))
)]
pub(crate) fn run() {}

/// Get a job's status.
#[utoipa::path(
    get, path = "/j/{job}", tag = "classic", operation_id = "classicJob",
    params(
        ("job" = String, Path, description = "Job", example = "5ff867daccccb5e5167f5a0f"),
        ("wait" = Option<f64>, Query, description = "Seconds to wait for the job to end: 0 to 60"),
    ),
    responses((status = "default", description = "`res`: 0 while it waits or runs, 1 when it has ended", body = ClassicEnvelope))
)]
pub(crate) fn job() {}

/// Get a job's result.
#[utoipa::path(
    get, path = "/j/{job}/res", tag = "classic", operation_id = "classicJobResult",
    params(
        ("job" = String, Path, description = "Job", example = "5ff867daccccb5e5167f5a0f"),
        ("wait" = Option<f64>, Query, description = "Seconds to wait for the job to end: 0 to 60"),
    ),
    responses((status = "default", description = "`res`: a text, what the function returned or threw; `null` before it has ended", body = ClassicEnvelope))
)]
pub(crate) fn job_result() {}

/// Remove a job with its result; one that runs is stopped.
#[utoipa::path(
    delete, path = "/j/{job}", tag = "classic", operation_id = "classicRemoveJob",
    params(("job" = String, Path, description = "Job", example = "5ff867daccccb5e5167f5a0f")),
    responses((status = "default", description = "`res`: 1, or 0 where there is no such job", body = ClassicEnvelope))
)]
pub(crate) fn remove_job() {}
