//! Who asked, in the headers that reverse proxies use: `X-Forwarded-…`, and `Forwarded` (RFC 7239).
//!
//! What the client says of those before it is kept in the chains, as proxies do; that the last element is true is all that a
//! program may rely on.

use std::net::IpAddr;

use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};
use http::uri::Authority;

use crate::headers::value;
use crate::trigger::Caller;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// Says who asked, for which host, and what was taken off the path. What a proxy on this machine has said already is kept.
pub(crate) fn add_forwarded(map: &mut HeaderMap, caller: &Caller, host: &Authority, prefix: &str) {
    let peer = caller.peer.ip().to_canonical();
    let proto = if caller.is_secure { "https" } else { "http" };
    append(map, FORWARDED_FOR, &peer.to_string());
    let trusted = peer.is_loopback();
    if !(trusted && map.contains_key(FORWARDED_PROTO)) {
        map.insert(FORWARDED_PROTO, HeaderValue::from_static(proto));
    }
    if !(trusted && map.contains_key(FORWARDED_HOST)) {
        map.insert(FORWARDED_HOST, value(host));
    }
    let element = match peer {
        IpAddr::V4(peer) => format!("for={peer};host=\"{host}\";proto={proto}"),
        IpAddr::V6(peer) => format!("for=\"[{peer}]\";host=\"{host}\";proto={proto}"),
    };
    append(map, FORWARDED, &element);
    if prefix.is_empty() {
        map.remove(FORWARDED_PREFIX);
    } else {
        map.insert(FORWARDED_PREFIX, value(prefix));
    }
}

/// Puts one element at the end of a list.
fn append(map: &mut HeaderMap, name: HeaderName, element: &str) {
    let before: Vec<&str> = map.get_all(&name).iter().filter_map(|value| value.to_str().ok()).collect();
    let list = if before.is_empty() { value(element) } else { value(format_args!("{}, {element}", before.join(", "))) };
    map.insert(name, list);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(address: &str, is_secure: bool) -> Caller {
        let peer = (address.parse::<IpAddr>().unwrap(), 1).into();
        Caller { peer, strip_authorization: false, is_secure }
    }

    #[test]
    fn chains_grow_and_strangers_do_not_say_how_they_came() {
        let host = Authority::from_static("example.org:8080");
        let mut map = HeaderMap::new();
        map.append(FORWARDED_FOR, HeaderValue::from_static("192.0.2.1"));
        map.append(FORWARDED_FOR, HeaderValue::from_static("192.0.2.2"));
        map.insert(FORWARDED_PROTO, HeaderValue::from_static("https"));
        map.insert(FORWARDED, HeaderValue::from_static("for=192.0.2.1;proto=https"));
        let mut told = map.clone();
        add_forwarded(&mut told, &caller("2001:db8::7", false), &host, "/s/a/b");
        assert_eq!(told[FORWARDED_FOR], "192.0.2.1, 192.0.2.2, 2001:db8::7");
        assert_eq!(told[FORWARDED_PROTO], "http");
        assert_eq!(told[FORWARDED_HOST], "example.org:8080");
        assert_eq!(told[FORWARDED_PREFIX], "/s/a/b");
        let chain = "for=192.0.2.1;proto=https, for=\"[2001:db8::7]\";host=\"example.org:8080\";proto=http";
        assert_eq!(told[FORWARDED], chain);
        let mut secure = HeaderMap::new();
        add_forwarded(&mut secure, &caller("192.0.2.9", true), &host, "");
        assert_eq!(secure[FORWARDED_PROTO], "https");
        assert_eq!(secure[FORWARDED], "for=192.0.2.9;host=\"example.org:8080\";proto=https");
        add_forwarded(&mut map, &caller("127.0.0.1", false), &host, "");
        assert_eq!(map[FORWARDED_PROTO], "https");
        assert!(!map.contains_key(FORWARDED_PREFIX));
    }
}
