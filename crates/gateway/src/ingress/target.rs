//! Which requests are for sessions, and for which.
//!
//! A request is for a session when its host is `{session}.{tenant}.s.{domain}`, or when its path is
//! `/s/{tenant}/{session}[:port]/…`; triggers by header and by host come before both.

use std::borrow::Cow;

use http::Uri;
use http::request::Parts;
use http::uri::PathAndQuery;
use lyra_types::{Code, Error, Result};

use crate::auth::{authority, without_port};

/// Path of sessions, as the document and the metrics call it.
pub(crate) const SESSION_PATH: &str = "/s/{tenant}/{session}/{path}";

/// The session that a request is for.
#[derive(Debug, PartialEq)]
pub(crate) struct Target {
    /// Owner.
    pub tenant: String,
    /// The session's name.
    pub session: String,
    /// Name or number of the port; `None`: the first TCP port.
    pub port: Option<String>,
    /// What the session sees of the path and query, as the client wrote it.
    pub path: PathAndQuery,
    /// What was taken off the path.
    pub prefix: String,
}

impl Target {
    /// The session that a request is for, if it is for one.
    ///
    /// # Errors
    /// [`Code::BadRequest`] where host or path can't be read, [`Code::NotFound`] where the path names none.
    pub(crate) fn of(parts: &Parts, domain: Option<&str>) -> Result<Option<Target>> {
        if let Some((session, tenant)) = authority(parts)?.and_then(|host| of_host(host, domain)) {
            return Ok(Some(Target {
                tenant: tenant.to_ascii_lowercase(),
                session: session.to_ascii_lowercase(),
                port: None,
                path: parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")),
                prefix: String::new(),
            }));
        }
        match parts.uri.path().strip_prefix("/s/") {
            Some(rest) => of_path(rest, &parts.uri).map(Some),
            None => Ok(None),
        }
    }
}

/// Session and tenant in a host name.
fn of_host<'a>(host: &'a str, domain: Option<&str>) -> Option<(&'a str, &'a str)> {
    let name = without_port(host);
    let name = name.strip_suffix('.').unwrap_or(name);
    let names = match domain {
        Some(domain) => before_domain(name, domain).or_else(|| before_domain(name, "localhost"))?,
        None => {
            let at = name.as_bytes().windows(3).position(|label| label.eq_ignore_ascii_case(b".s."))?;
            (at + 3 < name.len()).then(|| &name[..at])?
        }
    };
    // A session's name may hold dots, a tenant's does not.
    names.rsplit_once('.').filter(|(session, tenant)| !session.is_empty() && !tenant.is_empty())
}

/// What comes before `.s.{domain}`.
fn before_domain<'a>(name: &'a str, domain: &str) -> Option<&'a str> {
    let (front, end) = name.split_at_checked(name.len().checked_sub(domain.len())?)?;
    let (front, label) = front.split_at_checked(front.len().checked_sub(3)?)?;
    (end.eq_ignore_ascii_case(domain) && label.eq_ignore_ascii_case(".s.")).then_some(front)
}

/// `rest` is the path after `/s/`, not decoded.
fn of_path(rest: &str, uri: &Uri) -> Result<Target> {
    let (tenant, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let (name, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let named = decoded(name)?;
    let (session, port) = match named.split_once(':') {
        Some((session, port)) => (session, Some(port.to_owned())),
        None => (named.as_ref(), None),
    };
    if tenant.is_empty() || session.is_empty() {
        return Err(Error::new(Code::NotFound, "the path of a session is /s/{tenant}/{session}/…"));
    }
    let prefix = format!("/s/{tenant}/{name}");
    let mut seen = String::with_capacity(path.len() + 2 + uri.query().map_or(0, str::len));
    seen.push_str(if path.is_empty() { "/" } else { path });
    if let Some(query) = uri.query() {
        seen.push('?');
        seen.push_str(query);
    }
    let path = PathAndQuery::try_from(seen).map_err(|_| Error::new(Code::BadRequest, "the path can't be read"))?;
    Ok(Target { tenant: decoded(tenant)?.into_owned(), session: session.to_owned(), port, path, prefix })
}

fn decoded(text: &str) -> Result<Cow<'_, str>> {
    percent_encoding::percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| Error::new(Code::BadRequest, "the path is not UTF-8 after percent-decoding"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tenant, session, port, path and prefix.
    fn find(uri: &str, host: &str) -> Result<Option<[String; 5]>> {
        let (parts, ()) = http::Request::builder().uri(uri).header("host", host).body(()).unwrap().into_parts();
        let found = Target::of(&parts, Some("example.org"))?;
        Ok(found.map(|t| [t.tenant, t.session, t.port.unwrap_or_default(), t.path.to_string(), t.prefix]))
    }

    #[test]
    fn a_session_is_found_by_path_and_the_rest_is_kept_as_it_was_written() {
        let is = |uri: &str, port: Option<&str>, path: &str, prefix: &str| {
            let expected = ["game1", "echo-1", port.unwrap_or_default(), path, prefix].map(str::to_owned);
            assert_eq!(find(uri, "localhost:8080"), Ok(Some(expected)), "{uri}");
        };
        is("/s/game1/echo-1", None, "/", "/s/game1/echo-1");
        is("/s/game1/echo-1/", None, "/", "/s/game1/echo-1");
        is("/s/game1/echo-1?a=b", None, "/?a=b", "/s/game1/echo-1");
        is("/s/game1/echo-1//a%2Fb/../c?x=%20&x", None, "//a%2Fb/../c?x=%20&x", "/s/game1/echo-1");
        is("/s/game1/echo-1:admin/x", Some("admin"), "/x", "/s/game1/echo-1:admin");
        is("/s/game1/echo%2D1:8080/x", Some("8080"), "/x", "/s/game1/echo%2D1:8080");
        assert_eq!(find("/sessions/x", "localhost"), Ok(None));
        for bad in ["/s/", "/s/game1", "/s//x", "/s/game1/", "/s/game1/:80/"] {
            assert_eq!(find(bad, "localhost").unwrap_err().code, Code::NotFound, "{bad}");
        }
        assert_eq!(find("/s/game1/%ff/", "localhost").unwrap_err().code, Code::BadRequest);
    }

    #[test]
    fn a_session_is_found_by_host() {
        let names = |host: &str| find("/a?b", host).unwrap().map(|[tenant, session, ..]| (tenant, session));
        let is = |tenant: &str, session: &str| Some((tenant.to_owned(), session.to_owned()));
        assert_eq!(names("echo-1.game1.s.localhost:8080"), is("game1", "echo-1"));
        assert_eq!(names("Echo.1.Game1.S.Example.org."), is("game1", "echo.1"));
        for other in ["game1.s.localhost", "a.b.s.other.org", "s.localhost", ".b.s.localhost", "a..s.localhost"] {
            assert_eq!(names(other), None, "{other}");
        }
        assert_eq!(of_host("a.b.s.any.org", None), Some(("a", "b")));
        assert_eq!(of_host("b.s.any.org", None), None);
        assert_eq!(of_host("127.0.0.1:8080", None), None);
        assert_eq!(of_host("a.b.s.", None), None);
        assert_eq!(of_host("é.é.s.é", Some("é")), Some(("é", "é")));
    }
}
