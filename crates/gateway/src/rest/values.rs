//! Values of runs by URL, for tasks that were given one in place of a large input.

use std::ops::RangeInclusive;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderMap, StatusCode};

use super::Answer;
use super::workflows::role;
use crate::extract::Scope;
use crate::headers;
use crate::openapi::{Busy, Missing, Refused};
use crate::service::App;

/// A value of a run, by a URL that a task was given.
///
/// The URL is all that is needed: it is good for this value until it expires or the run is forgotten. One range of bytes may be asked for.
#[utoipa::path(
    get, path = "/v1/values/{token}", tag = "runs", operation_id = "getValue",
    params(
        ("token" = String, Path, description = "The last part of the URL", example = "eyJ0Ijoi…"),
        ("Range" = Option<String>, Header, description = "One range, `bytes=0-1023`"),
    ),
    responses(
        (status = 200, description = "The value, JSON", body = Object),
        (status = 206, description = "The range", body = String, content_type = "application/json"),
        (status = 416, description = "There is no such range"),
        Refused, Missing, Busy
    )
)]
pub(crate) async fn get(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let value = role(&app)?.value(scope.part("token")).await?;
    let size = value.len();
    let mut response: Response = match range(&scope.headers, size) {
        Asked::All => Body::from(value).into_response(),
        Asked::Part(part) => {
            let shown = headers::value(format_args!("bytes {}-{}/{size}", part.start(), part.end()));
            let bytes = value.slice(part);
            (StatusCode::PARTIAL_CONTENT, [(CONTENT_RANGE, shown)], Body::from(bytes)).into_response()
        }
        Asked::Nothing => {
            let shown = headers::value(format_args!("bytes */{size}"));
            (StatusCode::RANGE_NOT_SATISFIABLE, [(CONTENT_RANGE, shown)]).into_response()
        }
    };
    let with = response.headers_mut();
    with.insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    with.insert(ACCEPT_RANGES, http::HeaderValue::from_static("bytes"));
    // Whoever has the URL has the value: nobody in between keeps it.
    with.insert(CACHE_CONTROL, http::HeaderValue::from_static("private, no-store"));
    Ok(response)
}

/// What of it is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    All,
    Part(RangeInclusive<usize>),
    /// What is not there.
    Nothing,
}

/// One range of bytes (RFC 9110, 14.2); what is more, or can't be read, is as if nothing had been asked for.
fn range(headers: &HeaderMap, size: usize) -> Asked {
    let asked = headers.get(RANGE).and_then(|value| value.to_str().ok()).and_then(|text| text.strip_prefix("bytes="));
    let Some((from, to)) = asked.and_then(|text| text.trim().split_once('-')) else { return Asked::All };
    let number = |text: &str| text.parse::<usize>().ok();
    let (from, to) = match (from.is_empty(), number(from), to.is_empty(), number(to)) {
        // The last so many.
        (true, _, false, Some(last)) => (size.saturating_sub(last), if last == 0 { None } else { Some(usize::MAX) }),
        (false, Some(from), true, _) => (from, Some(usize::MAX)),
        (false, Some(from), false, Some(to)) if from <= to => (from, Some(to)),
        _ => return Asked::All,
    };
    match to {
        Some(to) if from < size => Asked::Part(from..=to.min(size - 1)),
        _ => Asked::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_understood_and_all_else_is_the_whole() {
        let of = |text: &str| range(&HeaderMap::from_iter([(RANGE, text.parse().unwrap())]), 10);
        assert_eq!(of("bytes=0-3"), Asked::Part(0..=3));
        assert_eq!(of("bytes=8-99"), Asked::Part(8..=9));
        assert_eq!(of("bytes=4-"), Asked::Part(4..=9));
        assert_eq!(of("bytes=-3"), Asked::Part(7..=9));
        assert_eq!(of("bytes=-99"), Asked::Part(0..=9));
        assert_eq!((of("bytes=10-"), of("bytes=-0")), (Asked::Nothing, Asked::Nothing));
        for odd in ["bytes=3-1", "bytes=-", "bytes=a-b", "bytes=0-1,3-4", "lines=0-1", "bytes"] {
            assert_eq!(of(odd), Asked::All, "{odd}");
        }
        assert_eq!(range(&HeaderMap::new(), 10), Asked::All);
        assert_eq!(range(&HeaderMap::from_iter([(RANGE, "bytes=0-".parse().unwrap())]), 0), Asked::Nothing);
    }
}
