//! Who calls: the holder of a token, or, on a loopback listener without authentication, a program of this machine.
//!
//! Tokens are those of the operators' file, those that control keeps, and those of the identity provider. The first two are found by
//! their SHA-256 in tables of this process: the time of a look-up tells nothing of a token, since nobody can choose its hash.
//!
//! Without tokens the only callers are programs of this machine. A web page that a browser of this machine
//! shows is not one of them: it is kept out by its `Origin`, and, where it made its own name resolve to
//! loopback ("DNS rebinding"), by its `Host`.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, Version};
use lyra_kit::Clock;
use lyra_types::account::is_token;
use lyra_types::{Code, Error, Result};
use lyra_wire::accounts::TokenHash;
use sha2::{Digest, Sha256};

use crate::access::grants::Grants;
use crate::access::oidc::Oidc;
use crate::access::{By, Identity};
use crate::metrics::Metrics;
use crate::resources::ResourceCaller;

/// Tokens of operators, kept as SHA-256 hashes.
#[derive(Clone, Default)]
pub struct Tokens(Arc<HashSet<TokenHash>>);

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
        let mut tokens = HashSet::new();
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
            tokens.insert(hash);
        }
        Ok(Tokens(Arc::new(tokens)))
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

    fn holds(&self, hash: &TokenHash) -> bool {
        self.0.contains(hash)
    }
}

fn bad_line(number: usize, reason: &str) -> Error {
    // The line itself may be a secret.
    Error::field(Code::InvalidField, "tokens", format!("line {}: {reason}", number + 1))
}

/// Paths that are answered to anybody, with a token or without.
const OPEN: [&str; 3] = ["/healthz", "/readyz", "/v1/login"];
/// What paths begin with that hold what entitles to them.
const CAPABILITIES: [&str; 2] = ["/v1/callbacks/", "/v1/values/"];

/// Whether a path is answered to anybody.
pub(crate) fn is_open(path: &str) -> bool {
    OPEN.contains(&path) || CAPABILITIES.iter().any(|beginning| path.starts_with(beginning))
}

/// All tokens that this process knows.
pub(crate) struct Keyring {
    operators: Tokens,
    operator: Arc<Identity>,
    /// Those that control keeps, where this process follows it.
    grants: Option<Arc<Grants>>,
    oidc: Option<Oidc>,
    clock: Clock,
    metrics: Metrics,
    /// Longest wait for control's tokens at the start.
    wait: Duration,
}

impl Keyring {
    pub(crate) fn new(
        operators: Tokens,
        grants: Option<Arc<Grants>>,
        oidc: Option<Oidc>,
        clock: Clock,
        metrics: Metrics,
        wait: Duration,
    ) -> Keyring {
        let operator = Arc::new(Identity::operator("operator", By::OperatorFile));
        Keyring { operators, operator, grants, oidc, clock, metrics, wait }
    }

    /// Whether a listener that others reach may be served.
    fn is_on(&self) -> bool {
        !self.operators.is_empty() || self.oidc.is_some()
    }

    fn refused<T>(&self, reason: &str, code: Code, detail: &str) -> Result<T> {
        self.metrics.denied(reason);
        Err(Error::new(code, detail))
    }

    /// Who holds a token.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] where nobody does; [`Code::Unavailable`] where that can't be known now.
    pub(crate) async fn identify(&self, token: &[u8]) -> Result<Arc<Identity>> {
        let hash: TokenHash = Sha256::digest(token).into();
        if self.operators.holds(&hash) {
            return Ok(Arc::clone(&self.operator));
        }
        if let Some(grants) = self.grants.as_ref().filter(|_| is_token(token)) {
            grants.complete(self.wait).await;
            let found = grants.find(&hash).inspect_err(|_| self.metrics.denied("stale"))?;
            return match found {
                Some(identity) if identity.expires_at.is_some_and(|end| end <= self.clock.now()) => self.refused(
                    "expired_token",
                    Code::Unauthenticated,
                    "the token has ended; log in again or make another",
                ),
                Some(identity) => Ok(identity),
                None => self.refused("unknown_token", Code::Unauthenticated, "the token is not known here"),
            };
        }
        if let Some(oidc) = self.oidc.as_ref().filter(|_| Oidc::is_one(token)) {
            let identity = oidc.identify(token, &hash).await.inspect_err(|_| self.metrics.denied("oidc"))?;
            let is_there =
                |grants: &Arc<Grants>| identity.tenant.as_ref().is_none_or(|tenant| grants.is_active(tenant));
            if let Some(grants) = &self.grants {
                grants.complete(self.wait).await;
            }
            return match self.grants.as_ref().is_none_or(is_there) {
                true => Ok(identity),
                false => self.refused("oidc", Code::PermissionDenied, "the token's tenant does not exist here"),
            };
        }
        self.refused("unknown_token", Code::Unauthenticated, "the token is not known here")
    }

    /// Whether a token is one of Lyra's, good or not, so that nobody else may see it.
    fn is_own(&self, token: &[u8]) -> bool {
        let hash: TokenHash = Sha256::digest(token).into();
        is_token(token)
            || self.operators.holds(&hash)
            || self.oidc.as_ref().is_some_and(|oidc| oidc.known(&hash).is_some())
    }
}

/// How one listener checks its callers.
#[derive(Clone)]
pub(crate) struct Guard {
    door: Door,
    keyring: Arc<Keyring>,
    local: Arc<Identity>,
    nobody: Arc<Identity>,
}

#[derive(Debug, Clone)]
enum Door {
    /// By token.
    Tokens,
    /// By `Host` and `Origin`, and by token where one of Lyra's is sent; holds the domain of triggers.
    Loopback { domain: Option<String> },
}

impl Guard {
    /// The guard of a listener at `address`.
    ///
    /// # Errors
    /// [`Code::InvalidField`] when the address is not loopback and authentication is off.
    pub(crate) fn of(address: SocketAddr, keyring: &Arc<Keyring>, domain: Option<&str>) -> Result<Guard> {
        let door = if keyring.is_on() {
            Door::Tokens
        } else if is_loopback(address.ip()) {
            Door::Loopback { domain: domain.map(str::to_owned) }
        } else {
            return Err(Error::field(
                Code::InvalidField,
                "listen",
                format!(
                    "{address} can be reached from other machines, and no tokens are set: anyone could run code here. \
                     Listen on 127.0.0.1, or set a file of tokens"
                ),
            ));
        };
        let local = Arc::new(Identity::operator("local", By::Local));
        Ok(Guard { door, keyring: Arc::clone(keyring), local, nobody: Arc::new(Identity::nobody()) })
    }

    /// Who a caller is to the Kubernetes-style API.
    pub(crate) fn resource_caller(identity: &Identity) -> ResourceCaller {
        let tenants = match identity.is_operator() {
            true => None,
            false => Some(identity.tenant.iter().cloned().collect()),
        };
        ResourceCaller { name: identity.name.clone(), tenants, scopes: identity.scopes }
    }

    /// Lets a request to a session in or says why not. Sessions need no token, since their clients are not callers of Lyra; only a
    /// foreign web page is kept from those of this machine.
    pub(crate) fn check_session(&self, parts: &Parts) -> Result<()> {
        match &self.door {
            Door::Tokens => Ok(()),
            Door::Loopback { domain } => check_local(parts, domain.as_deref()),
        }
    }

    /// Whether `Authorization` holds a secret of Lyra that a function must not see.
    pub(crate) fn uses_authorization(&self, headers: &HeaderMap) -> bool {
        matches!(self.door, Door::Tokens) || self.knows_token(headers)
    }

    /// Whether `Authorization` holds a token of Lyra itself, which nobody else is to see.
    pub(crate) fn knows_token(&self, headers: &HeaderMap) -> bool {
        bearer(headers).is_some_and(|token| self.keyring.is_own(token))
    }

    /// Finds out who sends a request, or says why it is not let in.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`], [`Code::PermissionDenied`]; [`Code::Unavailable`] where that can't be known now.
    pub(crate) async fn check(&self, parts: &Parts) -> Result<Arc<Identity>> {
        let token = bearer(&parts.headers);
        match &self.door {
            Door::Tokens if is_open(parts.uri.path()) => Ok(Arc::clone(&self.nobody)),
            Door::Tokens => match token {
                Some(token) => self.keyring.identify(token).await,
                None => {
                    let detail = "send a token: Authorization: Bearer TOKEN";
                    self.keyring.refused("no_token", Code::Unauthenticated, detail)
                }
            },
            Door::Loopback { domain } => {
                check_local(parts, domain.as_deref()).inspect_err(|_| self.keyring.metrics.denied("foreign"))?;
                match token {
                    // A token narrows what a program of this machine may do; others are the business of functions.
                    Some(token) if is_token(token) && !is_open(parts.uri.path()) => self.keyring.identify(token).await,
                    _ => Ok(Arc::clone(&self.local)),
                }
            }
        }
    }

    /// The same for a request that strangers may send: who shows no token is nobody.
    ///
    /// # Errors
    /// As [`Guard::check`].
    pub(crate) async fn check_stranger(&self, parts: &Parts) -> Result<Arc<Identity>> {
        match (&self.door, bearer(&parts.headers)) {
            (Door::Tokens, None) => Ok(Arc::clone(&self.nobody)),
            _ => self.check(parts).await,
        }
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
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
        let open = |address: &str, tokens: &str| {
            let (tokens, metrics) =
                (Tokens::parse(tokens).unwrap(), Metrics::new(&lyra_kit::telemetry::Metrics::new()));
            let keyring = Keyring::new(tokens, None, None, Clock::system(), metrics, Duration::ZERO);
            Guard::of(address.parse().unwrap(), &Arc::new(keyring), None).map(drop)
        };
        assert!(open("127.0.0.1:0", "").is_ok());
        assert!(open("[::1]:0", "").is_ok());
        let error = open("0.0.0.0:8080", "").unwrap_err();
        assert!(error.detail.contains("tokens"), "{error}");
        assert!(open("0.0.0.0:8080", "0123456789abcdef").is_ok());
    }

    #[test]
    fn tokens_are_read_plain_and_hashed_and_never_shown() {
        let hash = hex::encode(Sha256::digest("a-second-long-token"));
        let tokens = Tokens::parse(&format!("# who\n\n  a-first-long-token \nsha256:{hash}\n")).unwrap();
        let holds = |text: &str| tokens.holds(&Sha256::digest(text).into());
        assert!(holds("a-first-long-token") && holds("a-second-long-token"));
        assert!(!holds("a-third-long-token") && !holds(""));
        assert_eq!(format!("{tokens:?}"), "2 tokens");
        for bad in ["short", "sha256:xyz", "sha256:"] {
            let error = Tokens::parse(bad).unwrap_err();
            assert!(error.detail.contains("line 1") && !error.detail.contains("xyz"), "{error}");
        }
    }
}
