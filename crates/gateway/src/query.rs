//! Query parameters, with errors that name the parameter. Parameters that a route does not know are ignored.

use std::borrow::Cow;
use std::time::Duration;

use lyra_types::{Code, Error, Result, Timestamp};

/// Most items in a page; a larger `limit` gets this many.
pub(crate) const MAX_PAGE: usize = 1_000;
/// Items in a page when no `limit` is given.
pub(crate) const DEFAULT_PAGE: usize = 100;
/// Longest cursor, in bytes.
const MAX_CURSOR: usize = 1_024;

/// The parameters of one request.
pub(crate) struct Params<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Params<'a> {
    /// Reads what stands after the `?`.
    pub(crate) fn of(uri: &'a http::Uri) -> Params<'a> {
        Params(uri.query().map_or_else(Vec::new, |query| form_urlencoded::parse(query.as_bytes()).collect()))
    }

    /// The value of `name`; given twice, it is an error.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>> {
        let mut values = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| &**value);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(bad(name, "is given twice")),
            (value, None) => Ok(value),
        }
    }

    /// `true` and `1`, `false` and `0`; empty (`?async`) means true.
    pub(crate) fn flag(&self, name: &str) -> Result<bool> {
        match self.text(name)? {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(_) => Err(bad(name, "must be true or false")),
        }
    }

    /// A whole number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>> {
        self.text(name)?
            .map(|text| match text.bytes().all(|b| b.is_ascii_digit()) {
                true => text.parse().map_err(|_| bad(name, "must be a whole number")),
                false => Err(bad(name, "must be a whole number")),
            })
            .transpose()
    }

    /// Size of a page, from 1 to `most`.
    pub(crate) fn limit(&self, default: usize, most: usize) -> Result<usize> {
        match self.number("limit")? {
            None => Ok(default),
            Some(0) => Err(bad("limit", "must be 1 or more")),
            Some(limit) => Ok(usize::try_from(limit).unwrap_or(most).min(most)),
        }
    }

    /// Where the page before ended.
    pub(crate) fn cursor(&self) -> Result<Option<String>> {
        match self.text("cursor")? {
            Some(cursor) if cursor.len() > MAX_CURSOR => Err(bad("cursor", "is not one that a list gave")),
            cursor => Ok(cursor.filter(|cursor| !cursor.is_empty()).map(str::to_owned)),
        }
    }

    /// Seconds to wait, from 0 to `most`; may have a fraction.
    pub(crate) fn wait(&self, most: Duration) -> Result<Duration> {
        let Some(text) = self.text("wait")? else { return Ok(Duration::ZERO) };
        let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=most.as_secs_f64()).contains(seconds));
        seconds
            .map(Duration::from_secs_f64)
            .ok_or_else(|| bad("wait", &format!("must be a number of seconds from 0 to {}", most.as_secs())))
    }

    /// A point in time in RFC 3339, or a time before `now` such as `10m`.
    pub(crate) fn since(&self, now: Timestamp) -> Result<Option<Timestamp>> {
        let Some(text) = self.text("since")? else { return Ok(None) };
        // A form decodes the "+" of an offset to a space.
        let time = Timestamp::parse(text).or_else(|| Timestamp::parse(&text.replace(' ', "+")));
        let time = time.or_else(|| humantime::parse_duration(text).ok().map(|ago| now - ago));
        time.map(Some).ok_or_else(|| bad("since", "must be a time (2026-01-31T12:00:00Z) or a time ago (10m)"))
    }
}

fn bad(name: &str, reason: &str) -> Error {
    Error::field(Code::BadRequest, name, format!("the query parameter {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_and_faults_named() {
        let uri: http::Uri =
            "/x?a=1&b=true&wait=1.5&since=2023-11-14T23:13:20.123%2B01:00&twice=1&twice=2&e".parse().unwrap();
        let params = Params::of(&uri);
        assert_eq!(params.number("a"), Ok(Some(1)));
        assert_eq!(params.number("none"), Ok(None));
        assert_eq!((params.flag("b"), params.flag("e"), params.flag("none")), (Ok(true), Ok(true), Ok(false)));
        assert_eq!(params.wait(Duration::from_secs(60)), Ok(Duration::from_millis(1_500)));
        assert_eq!(params.since(Timestamp::default()), Ok(Some(Timestamp::from_millis(1_700_000_000_123))));
        assert!(params.text("twice").unwrap_err().detail.contains("twice: "));
        let uri: http::Uri = "/x?a=-1&b=maybe&wait=61&since=yesterday&limit=0".parse().unwrap();
        let params = Params::of(&uri);
        assert!(params.number("a").is_err() && params.flag("b").is_err() && params.limit(1, 10).is_err());
        assert!(params.wait(Duration::from_secs(60)).is_err() && params.since(Timestamp::default()).is_err());
        for wait in ["nan", "inf", "-1", "1e99", ""] {
            let uri: http::Uri = format!("/x?wait={wait}").parse().unwrap();
            assert!(Params::of(&uri).wait(Duration::from_secs(60)).is_err(), "{wait}");
        }
        let uri: http::Uri = "/x?since=10m&limit=99999999999".parse().unwrap();
        let params = Params::of(&uri);
        assert_eq!(params.since(Timestamp::from_millis(600_001)), Ok(Some(Timestamp::from_millis(1))));
        assert_eq!(params.limit(5, 1_000), Ok(1_000));
    }
}
