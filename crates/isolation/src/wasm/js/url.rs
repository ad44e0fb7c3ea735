//! The parsing behind `URL` and `URLSearchParams`, by the WHATWG URL standard.

use url::Url;
use url::form_urlencoded::{Serializer, parse};
use url::quirks;

/// Longest text that is parsed, in bytes: parsing blocks the thread.
const MAX: usize = 1 << 20;

/// Answers a request of the prelude. `None`: not a valid URL, or too long.
///
/// `what` from 0 to 9 sets a part of the URL `first` to `second`; 100 parses `first` (on the base `second`); both answer
/// with all parts, one a line. 101 parses a query into JSON pairs, 102 writes one.
pub(super) fn answer(what: i32, first: &str, second: Option<&str>) -> Option<String> {
    if first.len() > MAX || second.is_some_and(|second| second.len() > MAX) {
        return None;
    }
    match (what, second) {
        (0..=9, Some(value)) => set(what, first, value),
        (100, None) => Url::parse(first).ok().map(|url| parts(&url)),
        (100, Some(base)) => Url::parse(base).ok()?.join(first).ok().map(|url| parts(&url)),
        (101, None) => serde_json::to_string(&parse(first.as_bytes()).collect::<Vec<_>>()).ok(),
        (102, None) => {
            let pairs: Vec<(String, String)> = serde_json::from_str(first).ok()?;
            Some(Serializer::new(String::new()).extend_pairs(pairs).finish())
        }
        _ => None,
    }
}

/// A setter that fails leaves the URL as it is; only a bad `href` is an error.
fn set(part: i32, href: &str, value: &str) -> Option<String> {
    let mut url = Url::parse(href).ok()?;
    let done = match part {
        0 => return quirks::set_href(&mut url, value).ok().map(|()| parts(&url)),
        1 => quirks::set_protocol(&mut url, value),
        2 => quirks::set_username(&mut url, value),
        3 => quirks::set_password(&mut url, value),
        4 => quirks::set_host(&mut url, value),
        5 => quirks::set_hostname(&mut url, value),
        6 => quirks::set_port(&mut url, value),
        7 => {
            quirks::set_pathname(&mut url, value);
            Ok(())
        }
        8 => {
            quirks::set_search(&mut url, value);
            Ok(())
        }
        _ => {
            quirks::set_hash(&mut url, value);
            Ok(())
        }
    };
    // What a refused value leaves is what the standard asks for: no change.
    let _ = done;
    Some(parts(&url))
}

/// All parts, in the order that the prelude knows. No part can hold a line's end.
fn parts(url: &Url) -> String {
    let origin = quirks::origin(url);
    let parts = [
        quirks::href(url),
        quirks::protocol(url),
        quirks::username(url),
        quirks::password(url),
        quirks::host(url),
        quirks::hostname(url),
        quirks::port(url),
        quirks::pathname(url),
        quirks::search(url),
        quirks::hash(url),
        &origin,
    ];
    parts.join("\n")
}
