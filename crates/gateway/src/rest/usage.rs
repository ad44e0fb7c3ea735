//! Usage: what attempts used, added up.

use std::fmt::Write;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::{ACCEPT, CONTENT_TYPE};
use lyra_types::api::{UsageReport, UsageView};
use lyra_types::usage::{Hour, UsageGroup, UsageQuery};
use lyra_types::{Code, Error, FunctionName, Result, Timestamp};

use super::Answer;
use crate::access::Needs;
use crate::extract::Scope;
use crate::openapi::{Busy, Owner, Refused};
use crate::query::{MAX_PAGE, Params};
use crate::service::App;

/// Get what attempts used.
///
/// Every attempt that reached an instance is counted once, by the hour in which it ended: calls within about two seconds, jobs
/// together with their outcome.
#[utoipa::path(
    get, path = "/v1/usage", tag = "usage", operation_id = "getUsage",
    params(
        ("from" = Option<String>, Query, description = "From the hour of this time on (RFC 3339), or from this day of UTC on", example = "2026-01-31T12:00:00Z"),
        ("to" = Option<String>, Query, description = "Before the hour of this time (RFC 3339), or before this day of UTC"),
        ("group" = Option<String>, Query, description = "One sum for each of these, parted by commas: `tenant`, `user`, `function`, `version`, `hour`, `day`", example = "function,day"),
        ("function" = Option<String>, Query, description = "Only of this function"),
        ("all" = Option<bool>, Query, description = "Of all tenants; an operator's"),
        ("format" = Option<String>, Query, description = "`json` (the default) or `csv`, as does `Accept: text/csv`"),
        ("limit" = Option<u32>, Query, description = "Sums in a page: 1 to 1000, default 1000"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
        Owner,
    ),
    responses((status = 200, description = "The sums", content((UsageReport = "application/json"), (String = "text/csv"))), Refused, Busy)
)]
pub(crate) async fn get(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let params = scope.params();
    let csv = wants_csv(&scope, &params)?;
    let limit = params.limit(MAX_PAGE, MAX_PAGE)?;
    let bad_cursor = |_| Error::field(Code::BadRequest, "cursor", "the query parameter is not one that a list gave");
    let offset = params.cursor()?.map(|cursor| cursor.parse::<usize>().map_err(bad_cursor)).transpose()?.unwrap_or(0);
    let tenant = if params.flag("all")? {
        Needs::OPERATOR.check(&scope.identity)?;
        None
    } else {
        Some(scope.tenant.clone())
    };
    let (from, to) = (hour(&params, "from")?, hour(&params, "to")?);
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        return Err(Error::field(Code::BadRequest, "to", "the query parameter is a time before that of `from`").into());
    }
    let query = UsageQuery {
        tenant,
        function: params.text("function")?.map(FunctionName::new).transpose()?,
        from,
        to,
        by: groups(&params)?,
        limit: limit + 1,
        offset,
    };
    let whole = UsageQuery { by: Vec::new(), limit: 1, offset: 0, ..query.clone() };
    let mut sums = app.control.usage(query).await?;
    let total = app.control.usage(whole).await?.pop().unwrap_or_default();
    let more = sums.len() > limit;
    sums.truncate(limit);
    let report = UsageReport {
        items: sums.into_iter().map(UsageView::from).collect(),
        next: more.then(|| (offset + limit).to_string()),
        total: total.into(),
    };
    Ok(if csv { as_csv(&report) } else { Json(report).into_response() })
}

fn wants_csv(scope: &Scope, params: &Params<'_>) -> Result<bool> {
    match params.text("format")? {
        Some("csv") => Ok(true),
        Some("json") => Ok(false),
        Some(_) => Err(Error::field(Code::BadRequest, "format", "the query parameter must be json or csv")),
        None => Ok(scope
            .headers
            .get(ACCEPT)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|accept| accept.split(',').any(|kind| kind.trim().split(';').next() == Some("text/csv")))),
    }
}

fn hour(params: &Params<'_>, name: &str) -> Result<Option<Hour>> {
    let Some(text) = params.text(name)? else { return Ok(None) };
    // A form decodes the "+" of an offset to a space.
    let time = Timestamp::parse(text).or_else(|| Timestamp::parse(&text.replace(' ', "+")));
    let time = time.or_else(|| Timestamp::parse(&format!("{text}T00:00:00Z")));
    let fault = || {
        let reason = "the query parameter must be a time (2026-01-31T12:00:00Z), or a day of UTC (2026-01-31)";
        Error::field(Code::BadRequest, name, reason)
    };
    time.map(|time| Some(Hour::of(time))).ok_or_else(fault)
}

fn groups(params: &Params<'_>) -> Result<Vec<UsageGroup>> {
    let Some(text) = params.text("group")? else { return Ok(Vec::new()) };
    let mut groups = Vec::new();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let all = || UsageGroup::ALL.map(UsageGroup::as_str).join(", ");
        let fault = || Error::field(Code::BadRequest, "group", format!("the query parameter must name of {}", all()));
        groups.push(UsageGroup::parse(word).ok_or_else(fault)?);
    }
    if groups.contains(&UsageGroup::Hour) && groups.contains(&UsageGroup::Day) {
        return Err(Error::field(Code::BadRequest, "group", "the query parameter may name hour or day, not both"));
    }
    Ok(groups)
}

/// The page as a table; the next page is named by a header.
fn as_csv(report: &UsageReport) -> Response {
    let mut text = String::from(
        "tenant,user,function,version,begin,invocations,failures,cold_starts,exec_ms,cpu_ms,gb_ms,egress_bytes\r\n",
    );
    for item in &report.items {
        let text_of = |value: &Option<String>| value.clone().unwrap_or_default();
        let user = quoted(&text_of(&item.user));
        let version = item.version.map(|version| version.to_string()).unwrap_or_default();
        let begin = item.begin.map(|begin| begin.to_string()).unwrap_or_default();
        let names = format!("{},{user},{},{version},{begin}", text_of(&item.tenant), text_of(&item.function));
        // Writing to a text does not fail.
        let _ = write!(
            text,
            "{names},{},{},{},{},{},{},{}\r\n",
            item.invocations, item.failures, item.cold_starts, item.exec_ms, item.cpu_ms, item.gb_ms, item.egress_bytes
        );
    }
    let mut response = text.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8; header=present"));
    if let Some(next) = report.next.as_deref().and_then(|next| HeaderValue::from_str(next).ok()) {
        headers.insert("lyra-next", next);
    }
    response
}

/// A value of CSV (RFC 4180).
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}
