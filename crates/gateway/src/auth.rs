//! Who may call: bearer tokens, or, on a loopback listener without tokens, who is not a foreign web page.
//!
//! Without tokens the only callers are programs of this machine. A web page that a browser of this machine
//! shows is not one of them: it is kept out by its `Origin`, and, where it made its own name resolve to
//! loopback ("DNS rebinding"), by its `Host`.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, Version};
use lyra_types::{Code, Error, Result};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::resources::ResourceCaller;

/// Tokens that are let in, kept as SHA-256 hashes.
#[derive(Clone, Default)]
pub struct Tokens(Vec<[u8; 32]>);

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tokens", self.0.len())
    }
}

impl Tokens {
    /// Reads tokens, one a line: the token itself, or `sha256:` and the hex SHA-256 of it. Empty lines and
    /// lines that start with `#` are skipped.
    ///
    /// # Errors
    /// [`Code::InvalidField`] with the number of a line that is neither.
    pub fn parse(text: &str) -> Result<Tokens> {
        let mut tokens = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let hash = match line.strip_prefix("sha256:") {
                Some(hex) => {
                    let mut hash = [0; 32];
                    hex::decode_to_slice(hex, &mut hash)
                        .map_err(|_| bad_line(number, "sha256: needs 64 hex digits"))?;
                    hash
                }
                None if line.len() < 16 => return Err(bad_line(number, "a token needs 16 characters or more")),
                None => Sha256::digest(line).into(),
            };
            tokens.push(hash);
        }
        Ok(Tokens(tokens))
    }

    /// Reads tokens from a file, see [`Tokens::parse`].
    ///
    /// # Errors
    /// [`Code::InvalidField`] when the file can't be read, holds no token, or has a bad line.
    pub fn from_file(path: &Path) -> Result<Tokens> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Error::field(Code::InvalidField, "tokens", format!("can't read {}: {error}", path.display()))
        })?;
        let tokens = Tokens::parse(&text)?;
        if tokens.is_empty() {
            return Err(Error::field(Code::InvalidField, "tokens", format!("{} holds no token", path.display())));
        }
        Ok(tokens)
    }

    /// Whether nobody is let in by token.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares with every token, in a time that tells nothing of where they differ.
    fn holds(&self, token: &[u8]) -> bool {
        let hash = Sha256::digest(token);
        self.0.iter().fold(subtle::Choice::from(0), |found, known| found | known.ct_eq(hash.as_slice())).into()
    }
}

fn bad_line(number: usize, reason: &str) -> Error {
    // The line itself may be a secret.
    Error::field(Code::InvalidField, "tokens", format!("line {}: {reason}", number + 1))
}

/// How one listener checks its callers.
#[derive(Debug, Clone)]
pub(crate) enum Guard {
    /// By token.
    Tokens(Tokens),
    /// By `Host` and `Origin`; holds the domain of triggers.
    Loopback { domain: Option<String> },
}

impl Guard {
    /// The guard of a listener at `address`.
    ///
    /// # Errors
    /// [`Code::InvalidField`] when the address is not loopback and there are no tokens.
    pub(crate) fn of(address: SocketAddr, tokens: &Tokens, domain: Option<&str>) -> Result<Guard> {
        if !tokens.is_empty() {
            return Ok(Guard::Tokens(tokens.clone()));
        }
        if is_loopback(address.ip()) {
            return Ok(Guard::Loopback { domain: domain.map(str::to_owned) });
        }
        Err(Error::field(
            Code::InvalidField,
            "listen",
            format!(
                "{address} can be reached from other machines, and no tokens are set: anyone could run code here. \
                 Listen on 127.0.0.1, or set a file of tokens"
            ),
        ))
    }

    /// Whether `Authorization` holds a secret of Lyra that a function must not see.
    pub(crate) fn uses_authorization(&self) -> bool {
        matches!(self, Guard::Tokens(_))
    }

    /// Who a caller that was let in is to the Kubernetes-style API: whoever is let in may act in every tenant.
    pub(crate) fn resource_caller(&self) -> ResourceCaller {
        let name = match self {
            Guard::Tokens(_) => "operator",
            Guard::Loopback { .. } => "local",
        };
        ResourceCaller { name: name.to_owned(), tenants: None }
    }

    /// Lets a request to a session in or says why not. Sessions need no token, since their clients are not callers of Lyra; only a
    /// foreign web page is kept from those of this machine.
    pub(crate) fn check_session(&self, parts: &Parts) -> Result<()> {
        match self {
            Guard::Tokens(_) => Ok(()),
            Guard::Loopback { domain } => check_local(parts, domain.as_deref()),
        }
    }

    /// Whether `Authorization` holds a token of Lyra itself, which nobody else is to see.
    pub(crate) fn knows_token(&self, headers: &HeaderMap) -> bool {
        match self {
            Guard::Tokens(tokens) => bearer(headers).is_some_and(|token| tokens.holds(token)),
            Guard::Loopback { .. } => false,
        }
    }

    /// Lets a request in or says why not.
    pub(crate) fn check(&self, parts: &Parts) -> Result<()> {
        match self {
            Guard::Tokens(tokens) => check_token(tokens, parts),
            Guard::Loopback { domain } => check_local(parts, domain.as_deref()),
        }
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

fn check_token(tokens: &Tokens, parts: &Parts) -> Result<()> {
    if matches!(parts.uri.path(), "/healthz" | "/readyz") {
        return Ok(());
    }
    match bearer(&parts.headers) {
        Some(token) if tokens.holds(token) => Ok(()),
        Some(_) => Err(Error::new(Code::Unauthenticated, "the token is not known here")),
        None => Err(Error::new(Code::Unauthenticated, "send a token: Authorization: Bearer TOKEN")),
    }
}

/// The bearer token of a request.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn check_local(parts: &Parts, domain: Option<&str>) -> Result<()> {
    match authority(parts)? {
        Some(host) if is_local_host(host, domain) => {}
        Some(host) => {
            return Err(Error::new(
                Code::PermissionDenied,
                format!(
                    "this listener takes only requests to localhost, not to the host \"{}\"",
                    shown(host).escape_debug()
                ),
            ));
        }
        None if parts.version == Version::HTTP_10 => {}
        None => return Err(Error::new(Code::BadRequest, "the Host header is missing")),
    }
    for origin in parts.headers.get_all(ORIGIN) {
        let host = origin.to_str().ok().and_then(|text| text.split_once("://")).map(|(_, host)| host);
        if !host.is_some_and(|host| is_local_host(host, domain)) {
            return Err(Error::new(
                Code::PermissionDenied,
                "pages of other sites may not call this listener (Origin is not localhost); \
                 set tokens to allow other callers",
            ));
        }
    }
    Ok(())
}

fn shown(text: &str) -> &str {
    let end = text.char_indices().nth(80).map_or(text.len(), |(at, _)| at);
    &text[..end]
}

/// The host that the client asked for, with its port: the URI's authority or the `Host` header.
pub(crate) fn authority(parts: &Parts) -> Result<Option<&str>> {
    if let Some(authority) = parts.uri.authority() {
        return Ok(Some(authority.as_str()));
    }
    host_header(&parts.headers)
}

fn host_header(headers: &HeaderMap) -> Result<Option<&str>> {
    let mut hosts = headers.get_all(HOST).iter();
    let Some(host) = hosts.next() else { return Ok(None) };
    if hosts.next().is_some() {
        return Err(Error::new(Code::BadRequest, "there is more than one Host header"));
    }
    host.to_str().map(Some).map_err(|_| Error::new(Code::BadRequest, "the Host header is not ASCII text"))
}

/// The host without its port.
pub(crate) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

fn is_local_host(host: &str, domain: Option<&str>) -> bool {
    let name = without_port(host);
    let name = name.strip_suffix('.').unwrap_or(name);
    if let Some(v6) = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        return v6.parse().is_ok_and(is_loopback);
    }
    if let Ok(ip) = name.parse::<IpAddr>() {
        return is_loopback(ip);
    }
    is_in(name, "localhost") || domain.is_some_and(|domain| is_in(name, domain))
}

/// Whether `name` is `domain` or ends with `.domain`, whatever the case.
fn is_in(name: &str, domain: &str) -> bool {
    let Some(start) = name.len().checked_sub(domain.len()) else { return false };
    name.is_char_boundary(start)
        && name[start..].eq_ignore_ascii_case(domain)
        && (start == 0 || name[..start].ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_local() {
        for local in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1",
            "127.9.9.9:1",
            "[::1]",
            "[::1]:80",
            "hello.func.localhost:8080",
            "localhost.",
        ] {
            assert!(is_local_host(local, None), "{local}");
        }
        for foreign in [
            "",
            "evil.example",
            "localhost.evil.example",
            "notlocalhost",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "[::2]",
            "0.0.0.0",
            "evil.example:80",
            "localhost@evil.example",
            "é",
        ] {
            assert!(!is_local_host(foreign, None), "{foreign}");
        }
        assert!(is_local_host("hello.func.example.org", Some("example.org")));
        assert!(!is_local_host("hello.func.badexample.org", Some("example.org")));
    }

    #[test]
    fn a_listener_for_others_needs_tokens() {
        let open = |address: &str, tokens: &Tokens| Guard::of(address.parse().unwrap(), tokens, None);
        let none = Tokens::default();
        assert!(open("127.0.0.1:0", &none).is_ok());
        assert!(open("[::1]:0", &none).is_ok());
        let error = open("0.0.0.0:8080", &none).unwrap_err();
        assert!(error.detail.contains("tokens"), "{error}");
        assert!(open("0.0.0.0:8080", &Tokens::parse("0123456789abcdef").unwrap()).is_ok());
    }

    #[test]
    fn tokens_are_read_plain_and_hashed_and_never_shown() {
        let hash = hex::encode(Sha256::digest("a-second-long-token"));
        let tokens = Tokens::parse(&format!("# who\n\n  a-first-long-token \nsha256:{hash}\n")).unwrap();
        assert!(tokens.holds(b"a-first-long-token") && tokens.holds(b"a-second-long-token"));
        assert!(!tokens.holds(b"a-third-long-token") && !tokens.holds(b""));
        assert_eq!(format!("{tokens:?}"), "2 tokens");
        for bad in ["short", "sha256:xyz", "sha256:"] {
            let error = Tokens::parse(bad).unwrap_err();
            assert!(error.detail.contains("line 1") && !error.detail.contains("xyz"), "{error}");
        }
    }
}
