//! Resources of type `Serverless`: a POST of the input to a URL, whose answer is the output.
//!
//! What must hold: each call ends by its deadline and in one of the codes of `docs/reference/type-mapping.md`, whatever
//! the other side does; of an answer no more is read than [`Config::max_result_bytes`]; a redirect is not followed, since
//! that would turn a POST into a GET and lead where the mapping does not point. Proxies of the environment are of no
//! account.

mod address;
mod fault;
mod places;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{HeaderName, StatusCode};
use ipnet::IpNet;
use jiff::fmt::rfc2822::DateTimeParser;
use lyra_kit::Clock;
use lyra_types::account::Secret;
use lyra_types::{Error, Timestamp};
use percent_encoding::{CONTROLS, utf8_percent_encode};
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::answer::{check_object, start_of};
use super::{Enactment, Failure};
use address::{Forbidden, Rule};
use places::Places;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const RUN: HeaderName = HeaderName::from_static("lyra-run-id");
const TASK: HeaderName = HeaderName::from_static("lyra-task");
const ATTEMPT: HeaderName = HeaderName::from_static("lyra-attempt");

/// W3C Trace Context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Of the body of an answer that is no success: how much is shown, and how long it is waited for.
const SHOWN: usize = 1 << 10;
const SHOWN_WAIT: Duration = Duration::from_secs(1);
/// Longest `Retry-After` that is honoured.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// How URLs are called.
#[derive(Debug, Clone)]
pub struct Config {
    /// Longest time to a connection: name, TCP and TLS.
    pub connect_timeout: Duration,
    /// Calls of one host that may be open at a time; further ones wait, within their deadline.
    pub calls_per_host: usize,
    /// How long an idle connection is kept for the next call. Shorter than the 5 s of Node.js, so that few calls meet a
    /// connection that the other side closes at that moment.
    pub keep_idle: Duration,
    /// Largest answer.
    pub max_result_bytes: usize,
    /// Whether public addresses only are called: those of this host and its neighbours are not for every tenant to reach. What is of one
    /// link is never called: a cloud gives out its machines' secrets there.
    pub public_only: bool,
    /// Networks that are called all the same.
    pub allow: Vec<IpNet>,
    /// Whether there is a client for what the operator names, which calls any address.
    pub trusted: bool,
    /// Authorities that are trusted beside those of the system, as PEM.
    pub ca: Option<String>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            connect_timeout: Duration::from_secs(5),
            calls_per_host: 256,
            keep_idle: Duration::from_secs(4),
            max_result_bytes: 6 << 20,
            public_only: false,
            allow: Vec::new(),
            trusted: false,
            ca: None,
        }
    }
}

/// Calls URLs. Connections are shared by all calls.
pub struct Http {
    client: reqwest::Client,
    /// For what the operator names.
    trusted: Option<reqwest::Client>,
    config: Config,
    rule: Rule,
    places: Places,
    clock: Clock,
}

impl Http {
    /// Makes a client; does not connect yet.
    ///
    /// # Errors
    /// [`lyra_types::Code::InvalidField`] when [`Config::ca`] is no PEM.
    pub fn new(config: Config, clock: Clock) -> Result<Http, Error> {
        // reqwest is built without a TLS provider; whoever comes first chooses the only one that there is.
        drop(rustls::crypto::ring::default_provider().install_default());
        let rule = Rule { public_only: config.public_only, allow: config.allow.clone().into() };
        let authorities = match &config.ca {
            None => Vec::new(),
            Some(pem) => reqwest::Certificate::from_pem_bundle(pem.as_bytes()).map_err(|error| {
                Error::field(lyra_types::Code::InvalidField, "ca", format!("holds no certificates as PEM: {error}"))
            })?,
        };
        let builder = || {
            reqwest::Client::builder()
                .user_agent(concat!("lyra/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(config.connect_timeout)
                .pool_idle_timeout(config.keep_idle)
                .pool_max_idle_per_host(config.calls_per_host)
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .tcp_nodelay(true)
                .no_proxy()
        };
        let made = |builder: &dyn Fn() -> reqwest::ClientBuilder| match builder()
            .tls_certs_merge(authorities.clone())
            .build()
        {
            Ok(client) => Ok(client),
            Err(error) => {
                tracing::warn!(%error, "the system's certificate authorities can't be read: only configured ones are trusted");
                let only = builder().tls_certs_only(authorities.clone()).build();
                only.map_err(|error| Error::internal(format!("no HTTP client can be made: {error}")))
            }
        };
        let client = made(&|| builder().dns_resolver(rule.clone()))?;
        let trusted = config.trusted.then(|| made(&builder)).transpose()?;
        let places = Places::new(config.calls_per_host);
        Ok(Http { client, trusted, config, rule, places, clock })
    }

    /// The client for what the operator names, where there is one.
    pub(crate) fn trusted(&self) -> Option<reqwest::Client> {
        self.trusted.clone()
    }

    /// Posts the input to `uri` and returns the answer, a JSON object. `limit`, where there is one, shortens the
    /// enactment's own.
    pub async fn enact(&self, enactment: &Enactment, uri: &str, limit: Option<Duration>) -> Result<Bytes, Failure> {
        self.enact_as(enactment, uri, limit, None).await
    }

    /// The same, with a token where there is one: which is for an address that the operator has named, so that any may be called.
    pub(crate) async fn enact_as(
        &self,
        enactment: &Enactment,
        uri: &str,
        limit: Option<Duration>,
        token: Option<&Secret>,
    ) -> Result<Bytes, Failure> {
        let url = parsed(uri)?;
        let client = match (&self.trusted, token) {
            (Some(trusted), Some(_)) => trusted,
            _ => self.checked(&url)?,
        };
        let mut request = client.post(url.clone()).headers(headers(enactment));
        if let Some(token) = token {
            request = request.bearer_auth(token.reveal());
        }
        self.post(&url, request, enactment, limit).await
    }

    /// The same with more headers, none of which is one of Lyra's own.
    pub(super) async fn enact_with(
        &self,
        enactment: &Enactment,
        uri: &str,
        limit: Option<Duration>,
        more: HeaderMap,
    ) -> Result<Bytes, Failure> {
        let url = parsed(uri)?;
        let request = self.checked(&url)?.post(url.clone()).headers(headers(enactment)).headers(more);
        self.post(&url, request, enactment, limit).await
    }

    /// Sends what is to be sent to `url`, and reads the answer.
    async fn post(
        &self,
        url: &Url,
        request: reqwest::RequestBuilder,
        enactment: &Enactment,
        limit: Option<Duration>,
    ) -> Result<Bytes, Failure> {
        let limit = limit.map_or(enactment.timeout, |limit| limit.min(enactment.timeout));
        let deadline = self.clock.instant() + limit;
        let places = self.places.of(&url.origin().ascii_serialization());
        let place = timeout_at(deadline, places.acquire_owned()).await.map_err(|_| self.no_place())?;
        let _place = place.map_err(|_| self.no_place())?;
        let request = request.body(enactment.input.clone());
        let response = match timeout_at(deadline, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(fault::of(&error)),
            Err(_) => return Err(Failure::passing("timeout", format!("there was no answer within {limit:?}"))),
        };
        if !response.status().is_success() {
            return Err(self.refusal(response, deadline).await);
        }
        let body = match timeout_at(deadline, self.body(response)).await {
            Ok(body) => body?,
            Err(_) => {
                let message = format!("the answer began and was not whole within {limit:?}");
                return Err(Failure::passing("body_timeout", message));
            }
        };
        check_object(&body)?;
        Ok(body)
    }

    /// Gets what stands at a URL that an answer named: by the same rules, and no larger than an answer may be.
    pub(crate) async fn fetch(&self, uri: &str, limit: Duration) -> Result<Bytes, Failure> {
        let deadline = self.clock.instant() + limit;
        let url = parsed(uri)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Failure::lasting("invalid_url", format!("\"{uri}\" does not begin with http:// or https://")));
        }
        let client = self.checked(&url)?;
        let late = |_| Failure::passing("timeout", format!("\"{uri}\" was not there within {limit:?}"));
        let places = self.places.of(&url.origin().ascii_serialization());
        let place = timeout_at(deadline, places.acquire_owned()).await.map_err(|_| self.no_place())?;
        let _place = place.map_err(|_| self.no_place())?;
        let sent = timeout_at(deadline, client.get(url).send()).await.map_err(late)?;
        let response = sent.map_err(|error| fault::of(&error))?;
        if !response.status().is_success() {
            return Err(self.refusal(response, deadline).await);
        }
        timeout_at(deadline, self.body(response)).await.map_err(late)?
    }

    /// The client for an address that a tenant has named.
    fn checked(&self, url: &Url) -> Result<&reqwest::Client, Failure> {
        match self.rule.allows_host_of(url) {
            true => Ok(&self.client),
            false => Err(Failure::lasting("forbidden_address", Forbidden.to_string())),
        }
    }

    fn no_place(&self) -> Failure {
        let most = self.config.calls_per_host;
        Failure::passing("too_many_calls", format!("{most} calls of this host are open already, the most that may"))
    }

    async fn body(&self, mut response: reqwest::Response) -> Result<Bytes, Failure> {
        let most = self.config.max_result_bytes;
        let too_large = || Failure::lasting("result_too_large", format!("the answer is larger than {most} bytes"));
        let told = response.content_length().unwrap_or(0);
        if told > most as u64 {
            return Err(too_large());
        }
        // What the other side says of the length is not worth an allocation of that size.
        let mut body = BytesMut::with_capacity((told as usize).min(64 << 10));
        while let Some(chunk) = response.chunk().await.map_err(|error| fault::of(&error))? {
            if body.len() + chunk.len() > most {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// The failure of an answer that is no success, with the beginning of its body.
    async fn refusal(&self, mut response: reqwest::Response, deadline: Instant) -> Failure {
        let status = response.status();
        let retry_after = retry_after(status, response.headers(), self.clock.now());
        let mut shown = BytesMut::new();
        let read = async {
            while shown.len() < SHOWN {
                match response.chunk().await {
                    Ok(Some(chunk)) => shown.extend_from_slice(&chunk[..chunk.len().min(SHOWN)]),
                    Ok(None) | Err(_) => break,
                }
            }
        };
        // The status says it all; a body that does not come is no loss.
        drop(timeout_at(deadline.min(self.clock.instant() + SHOWN_WAIT), read).await);
        let mut message = format!("the answer was {status}");
        if status.is_redirection() {
            message.push_str(", and redirects are not followed: map the URL that it leads to");
        } else if !shown.is_empty() {
            message = format!("{message}: {}", start_of(&shown));
        }
        let code = format!("http_{}", status.as_u16());
        let failure =
            if is_passing(status) { Failure::passing(code, message) } else { Failure::lasting(code, message) };
        Failure { retry_after, ..failure }
    }
}

fn parsed(uri: &str) -> Result<Url, Failure> {
    Url::parse(uri).map_err(|error| Failure::lasting("invalid_url", format!("\"{uri}\": {error}")))
}

/// The headers of every call, which no mapping may set.
pub(crate) const OWN: [&str; 6] =
    ["content-type", "idempotency-key", "lyra-run-id", "lyra-task", "lyra-attempt", "traceparent"];

/// Whether another try may be answered otherwise.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS)
}

/// How long the other side asks to be left alone: seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    if !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return None;
    }
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            static DATES: DateTimeParser = DateTimeParser::new();
            let until = DATES.parse_timestamp(text).ok()?.as_millisecond();
            Duration::from_millis(u64::try_from(until.saturating_sub(now.millis())).unwrap_or(0))
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

fn headers(enactment: &Enactment) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(6);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(IDEMPOTENCY_KEY, value(&enactment.key));
    headers.insert(RUN, value(enactment.run.as_str()));
    headers.insert(TASK, value(&enactment.task));
    headers.insert(ATTEMPT, HeaderValue::from(enactment.attempt));
    headers.insert(TRACEPARENT, value(&enactment.traceparent));
    headers
}

/// Text as a header carries it; what is no ASCII is percent-encoded.
fn value(text: &str) -> HeaderValue {
    let encoded = utf8_percent_encode(text, CONTROLS).to_string();
    HeaderValue::from_str(&encoded).expect("what is left is printable ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_after_is_seconds_or_a_date() {
        let now = Timestamp::from_millis(1_000_000_000_000);
        let of = |status: u16, text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).expect("a header"))]);
            retry_after(StatusCode::from_u16(status).expect("a status"), &headers, now)
        };
        assert_eq!(of(503, "7"), Some(Duration::from_secs(7)));
        assert_eq!(of(429, "Sun, 09 Sep 2001 01:46:50 GMT"), Some(Duration::from_secs(10)));
        assert_eq!(of(429, "Sun, 09 Sep 2001 01:46:30 GMT"), Some(Duration::ZERO));
        assert_eq!(of(503, "99999999"), Some(MAX_RETRY_AFTER));
        assert_eq!(of(503, "soon"), None);
        assert_eq!(of(500, "7"), None);
    }

    #[test]
    fn names_of_any_kind_fit_in_headers() {
        assert_eq!(value("resize[3]"), "resize[3]");
        assert_eq!(value("größer\n").to_str().expect("ASCII"), "gr%C3%B6%C3%9Fer%0A");
    }
}
