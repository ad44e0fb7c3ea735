//! Which classic route a path is: the fixed parts in any case, a `/` at the end or none.

use lyra_types::{Code, Error, Result, TenantName};
use lyra_wire::classic::ClassicName;
use percent_encoding::percent_decode_str;

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    User(String),
    Time(String),
    Functions(String),
    Function(String, String),
    Run(String, String),
    Job(String),
    JobResult(String),
}

impl Target {
    /// The tenant of the user that it names, where it names one.
    pub(super) fn tenant(&self) -> Option<TenantName> {
        match self {
            Target::User(user)
            | Target::Time(user)
            | Target::Functions(user)
            | Target::Function(user, _)
            | Target::Run(user, _) => ClassicName::new(user).ok().map(|user| user.tenant()),
            Target::Job(_) | Target::JobResult(_) => None,
        }
    }
}

/// Whether the path is one that the classic routes answer.
pub(crate) fn is_classic(path: &str) -> bool {
    let first = path.strip_prefix('/').map_or("", |rest| rest.split('/').next().unwrap_or_default());
    first.eq_ignore_ascii_case("u") || first.eq_ignore_ascii_case("j")
}

/// What the path names; `None` where that is nothing.
///
/// # Errors
/// [`Code::BadRequest`] where it can't be decoded.
pub(super) fn target(path: &str) -> Result<Option<Target>> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    let parts: Vec<&str> = path.split('/').collect();
    let is = |part: &str, word: &str| part.eq_ignore_ascii_case(word);
    Ok(match *parts.as_slice() {
        _ if parts.iter().any(|part| part.is_empty()) => None,
        [u, user] if is(u, "u") => Some(Target::User(decoded(user)?)),
        [u, user, word] if is(u, "u") && is(word, "time") => Some(Target::Time(decoded(user)?)),
        [u, user, word] if is(u, "u") && is(word, "fn") => Some(Target::Functions(decoded(user)?)),
        [u, user, word, function] if is(u, "u") && is(word, "fn") => {
            Some(Target::Function(decoded(user)?, decoded(function)?))
        }
        [u, user, word, function, run] if is(u, "u") && is(word, "fn") && is(run, "run") => {
            Some(Target::Run(decoded(user)?, decoded(function)?))
        }
        [j, job] if is(j, "j") => Some(Target::Job(decoded(job)?)),
        [j, job, word] if is(j, "j") && is(word, "res") => Some(Target::JobResult(decoded(job)?)),
        _ => None,
    })
}

fn decoded(part: &str) -> Result<String> {
    let fault = || Error::new(Code::BadRequest, "the path can't be decoded");
    let whole = |(at, _): (usize, &str)| {
        part.as_bytes().get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !part.match_indices('%').all(whole) {
        return Err(fault());
    }
    percent_decode_str(part).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| fault())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> Option<Target> {
        target(path).unwrap()
    }

    #[test]
    fn case_and_a_slash_at_the_end_make_no_difference() {
        let user = Some(Target::User("Ada".to_owned()));
        for path in ["/u/Ada", "/U/Ada", "/u/Ada/", "/u/A%64a"] {
            assert_eq!(of(path), user, "{path}");
        }
        let run = Some(Target::Run("a".to_owned(), "Fn".to_owned()));
        for path in ["/u/a/fn/Fn/run", "/U/a/FN/Fn/RUN/"] {
            assert_eq!(of(path), run, "{path}");
        }
        assert_eq!(of("/j/x/RES"), Some(Target::JobResult("x".to_owned())));
    }

    #[test]
    fn what_is_no_route_is_none() {
        for path in ["/u", "/u/", "/j", "/u//fn", "/u/a//", "/u/a/b", "/u/a/fn/f/run/x", "/j/a/b", "/u/a/job/x"] {
            assert_eq!(of(path), None, "{path}");
        }
        for path in ["/u/%zz", "/u/%4", "/u/%ff"] {
            assert_eq!(target(path).unwrap_err().code, Code::BadRequest, "{path}");
        }
        assert!(
            is_classic("/u") && is_classic("/J/x") && !is_classic("/users") && !is_classic("/") && !is_classic("u")
        );
    }
}
