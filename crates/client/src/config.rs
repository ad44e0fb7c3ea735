//! The client and its settings.

use std::fmt;
use std::sync::Once;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use lyra_types::TenantName;
use reqwest::Url;

use crate::error::root_cause;
use crate::{Error, Result};

/// Where a server is expected when nothing else is said.
pub const DEFAULT_URL: &str = "http://127.0.0.1:8080";

const TENANT: HeaderName = HeaderName::from_static("lyra-tenant");

/// Settings of a [`Client`].
#[derive(Clone)]
pub struct Config {
    /// The server, `http://127.0.0.1:8080` for example. A path in it is kept before every route.
    pub url: String,
    /// Bearer token, where the server asks for one.
    pub token: Option<String>,
    /// Certificates (PEM) of authorities that are trusted beside those of the system, for servers by `https://`.
    pub authorities: Option<Vec<u8>>,
    /// Whose functions are meant; `None`: those of the tenant that the token is bound to, else of `default`.
    pub tenant: Option<TenantName>,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// Longest time for an answer to a request that only reads or changes records. Calls of functions and
    /// long-polls have deadlines of their own; a deploy has six times this, since it compiles.
    pub timeout: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            url: DEFAULT_URL.to_owned(),
            token: None,
            authorities: None,
            tenant: None,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("url", &self.url)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("tenant", &self.tenant)
            .finish_non_exhaustive()
    }
}

/// A client of one server for one tenant. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) http: reqwest::Client,
    pub(crate) base: Url,
    pub(crate) tenant: TenantName,
    pub(crate) timeout: Duration,
}

/// One TLS provider in the process, chosen here because reqwest is built without one.
fn install_tls_provider() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // An `Err` means that the embedding program chose one before: it stays.
        drop(rustls::crypto::ring::default_provider().install_default());
    });
}

fn parse_url(text: &str) -> Result<Url> {
    let fault = |why: &str| {
        Error::Config(format!("\"{text}\" is not the URL of a server ({why}); one looks like {DEFAULT_URL}"))
    };
    let url = Url::parse(text).map_err(|error| fault(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(fault("it does not start with http:// or https://"));
    }
    if url.host_str().is_none_or(str::is_empty) || url.query().is_some() || url.fragment().is_some() {
        return Err(fault("it needs a host, and neither query nor fragment"));
    }
    Ok(url)
}

fn authorities(pem: &[u8]) -> Result<Vec<reqwest::Certificate>> {
    let fault = |why: &str| Error::Config(format!("the certificate of the authority can't be used: {why}"));
    let certificates = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| fault(&root_cause(&error)))?;
    if certificates.is_empty() {
        return Err(fault("there is no certificate in PEM"));
    }
    Ok(certificates)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl Client {
    /// A client. Does not connect yet.
    ///
    /// # Errors
    /// [`Error::Config`] when the URL, the token or the certificates can't be one.
    pub fn new(config: Config) -> Result<Client> {
        install_tls_provider();
        let base = parse_url(&config.url)?;
        let mut headers = HeaderMap::new();
        if let Some(tenant) = &config.tenant {
            let tenant = HeaderValue::from_str(tenant.as_str()).expect("a tenant's name is a DNS label");
            headers.insert(TENANT, tenant);
        }
        if let Some(token) = config.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
                Error::Config("the token holds characters that no header can carry (a line break?)".to_owned())
            })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("lyra/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .connect_timeout(config.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .tcp_nodelay(true);
        if let Some(pem) = &config.authorities {
            http = http.tls_certs_merge(authorities(pem)?);
        }
        if is_loopback(&base) {
            http = http.no_proxy();
        }
        let http = http.build().map_err(|error| Error::Config(root_cause(&error)))?;
        let tenant = config.tenant.unwrap_or_else(TenantName::default_tenant);
        Ok(Client { http, base, tenant, timeout: config.timeout })
    }

    /// The server's URL, without a slash at its end.
    pub fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// The same client, with `tenant` in paths that name one. For a token that is bound to it.
    #[must_use]
    pub fn bound_to(self, tenant: TenantName) -> Client {
        Client { tenant, ..self }
    }

    /// Whose functions are meant, where a path names it.
    pub fn tenant(&self) -> &TenantName {
        &self.tenant
    }

    /// The URL of a route; each segment is escaped.
    pub(crate) fn at(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        url.path_segments_mut().expect("an http URL has a path").pop_if_empty().extend(segments);
        url
    }

    /// The URL of a function's HTTP trigger (`/fn/{tenant}/{function}/`).
    pub fn trigger_url(&self, function: &lyra_types::FunctionName) -> String {
        self.at(&["fn", self.tenant.as_str(), function.as_str(), ""]).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str) -> Result<Client> {
        Client::new(Config { url: url.to_owned(), ..Config::default() })
    }

    #[test]
    fn refuses_what_is_no_server_url_and_says_what_one_looks_like() {
        for bad in ["", "127.0.0.1:8080", "ftp://x", "http://", "http://h/?q=1", "http://h/#f", "hello"] {
            let error = client(bad).map(|c| c.base).expect_err(bad);
            assert_eq!(error.exit_code(), 2, "{bad}");
            assert!(error.to_string().contains(DEFAULT_URL), "{error}");
        }
    }

    #[test]
    fn keeps_a_path_before_its_routes_and_escapes_segments() {
        let client = client("http://h:1/lyra/").expect("a good URL");
        assert_eq!(client.at(&["v1", "a/b"]).as_str(), "http://h:1/lyra/v1/a%2Fb");
        assert_eq!(client.url(), "http://h:1/lyra");
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        for bad in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let authorities = Some(bad.as_bytes().to_vec());
            let error = Client::new(Config { authorities, ..Config::default() }).map(|c| c.base).expect_err(bad);
            assert_eq!(error.exit_code(), 2, "{bad}: {error}");
        }
    }

    #[test]
    fn a_token_never_shows() {
        let config = Config { token: Some("secret".to_owned()), ..Config::default() };
        assert!(!format!("{config:?}").contains("secret"));
        let client = Client::new(config).expect("builds");
        assert!(!format!("{client:?}").contains("secret"));
        let bad = Config { token: Some("sec\nret".to_owned()), ..Config::default() };
        assert!(!Client::new(bad).expect_err("refused").to_string().contains("ret\n"));
    }
}
