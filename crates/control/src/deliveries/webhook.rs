//! Signed calls of URLs (Standard Webhooks, version 1).
//!
//! What must hold: each call ends by its timeout, whatever the other side does; of its answer no more is read than is shown; a
//! redirect is not followed, since it would lead where nobody looked at the address; proxies of the environment are of no account.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use lyra_kit::{Clock, Random};
use lyra_types::delivery::{DeliveryTry, SECRET_PREFIX};
use lyra_types::{Code, Error, Result, Secret, Timestamp};
use reqwest::Url;
use sha2::Sha256;

use super::address::{Allowed, Forbidden};
use super::config::WebhooksConfig;
use crate::secrets::SealError;

/// Bytes of an answer that are shown.
const SHOWN: usize = 512;
/// Bytes of a secret that is made here.
const MADE: usize = 32;

/// Calls URLs.
pub(super) struct Caller {
    /// Or why there is none.
    client: Result<reqwest::Client, String>,
    allowed: Allowed,
    timeout: Duration,
    clock: Clock,
}

/// What is sent.
pub(super) struct Message<'a> {
    pub(super) id: &'a str,
    pub(super) body: Bytes,
}

/// How a call went.
pub(super) struct Called {
    /// As it is shown.
    pub(super) shown: DeliveryTry,
    /// The other side has the message.
    pub(super) has_it: bool,
    /// How long it asks to be left alone.
    pub(super) retry_after: Option<Duration>,
}

/// What was answered.
struct Answered {
    status: u16,
    body: String,
    retry_after: Option<Duration>,
}

impl Caller {
    /// Makes the client; connects to nothing yet. Where none can be made, each call says why.
    pub(super) fn new(config: &WebhooksConfig, clock: Clock) -> Caller {
        // reqwest is built without a TLS provider; whoever comes first chooses the only one that there is.
        drop(rustls::crypto::ring::default_provider().install_default());
        let allowed = Allowed(config.allow.clone().into());
        let builder = || {
            reqwest::Client::builder()
                .user_agent(concat!("lyra/", env!("CARGO_PKG_VERSION")))
                .timeout(config.timeout)
                .connect_timeout(config.timeout)
                // Few calls go to one host in a row, and a connection that is kept is one that may have gone.
                .pool_max_idle_per_host(0)
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .no_proxy()
                .dns_resolver(allowed.clone())
        };
        let client = match builder().build() {
            Ok(client) => Ok(client),
            Err(error) => {
                tracing::warn!(%error, "the system's certificate authorities can't be read: https is not delivered to");
                let only = builder().tls_certs_only(Vec::new()).build();
                only.map_err(|error| format!("no HTTP client can be made: {error}"))
            }
        };
        Caller { client, allowed, timeout: config.timeout, clock }
    }

    /// Checks a URL as far as can be told without resolving its host.
    ///
    /// # Errors
    /// [`Code::InvalidField`], with `field`.
    pub(super) fn check(&self, url: &str, field: &str) -> Result<()> {
        let bad = |reason: String| Err(Error::field(Code::InvalidField, field, reason));
        let parsed = match Url::parse(url) {
            Ok(parsed) => parsed,
            Err(error) => return bad(format!("is no URL: {error}")),
        };
        if !matches!(parsed.scheme(), "http" | "https") {
            return bad("must begin with http:// or https://".to_owned());
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return bad("must hold no user and password: calls are signed".to_owned());
        }
        match self.allowed.check(&parsed) {
            Ok(()) => Ok(()),
            Err(forbidden) => bad(forbidden.to_string()),
        }
    }

    /// Makes one call; says how it went. Nothing is sent where there is no secret to sign with.
    pub(super) async fn call(&self, url: &str, secret: Result<Secret, SealError>, message: Message<'_>) -> Called {
        let (at, begun) = (self.clock.now(), self.clock.instant());
        let sent = async {
            let secret = secret.map_err(|error| format!("its secret can't be opened: {error}"))?;
            self.send(url, &secret, message, at).await
        };
        let outcome = tokio::time::timeout(self.timeout, sent).await;
        let mut retry_after = None;
        let mut one = DeliveryTry { at, duration_ms: 0, http_status: None, answer: None, error: None };
        match outcome {
            Ok(Ok(Answered { status, body, retry_after: asked })) => {
                retry_after = asked;
                one.http_status = Some(status);
                one.answer = Some(body).filter(|body| !body.is_empty());
                if !(200..300).contains(&status) {
                    one.error = Some(format!("the answer was {status}, not one of success"));
                }
            }
            Ok(Err(reason)) => one.error = Some(reason),
            Err(_) => one.error = Some(format!("there was no answer within {:?}", self.timeout)),
        }
        one.duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let has_it = one.error.is_none();
        Called { shown: one, has_it, retry_after }
    }

    async fn send(&self, url: &str, secret: &Secret, message: Message<'_>, now: Timestamp) -> Result<Answered, String> {
        let url = Url::parse(url).map_err(|error| error.to_string())?;
        // What was allowed when the destination was set may not be any more.
        self.allowed.check(&url).map_err(|forbidden| forbidden.to_string())?;
        let seconds = now.millis() / 1_000;
        let signature = sign(secret, message.id, seconds, &message.body).ok_or("its secret can't be read")?;
        let client = self.client.as_ref().map_err(Clone::clone)?;
        let request = client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", message.id)
            .header("webhook-timestamp", seconds.to_string())
            .header("webhook-signature", signature)
            .body(message.body);
        let mut response = request.send().await.map_err(|error| reason(&error))?;
        let status = response.status();
        let retry_after = retry_after(status, response.headers(), self.clock.now());
        let mut shown = Vec::new();
        while shown.len() < SHOWN
            && let Ok(Some(chunk)) = response.chunk().await
        {
            shown.extend_from_slice(&chunk[..chunk.len().min(SHOWN - shown.len())]);
        }
        let body = String::from_utf8_lossy(&shown).into_owned();
        Ok(Answered { status: status.as_u16(), body, retry_after })
    }
}

/// How long an answer that refuses for now asks to be left alone (RFC 9110, 10.2.3): in seconds, or until a date.
fn retry_after(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    if !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return None;
    }
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(value).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    let until = Timestamp::from_millis(i64::try_from(until.as_millis()).ok()?);
    Some(until.since(now))
}

/// The innermost cause: the outer ones repeat the URL.
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    loop {
        if cause.is::<Forbidden>() {
            return cause.to_string();
        }
        match cause.source() {
            Some(inner) => cause = inner,
            None => return cause.to_string(),
        }
    }
}

/// `v1,` and the HMAC-SHA256 of id, time and body in base64; `None` for a secret that is none.
pub(crate) fn sign(secret: &Secret, id: &str, seconds: i64, body: &[u8]) -> Option<String> {
    let key = key(secret)?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    mac.update(format!("{id}.{seconds}.").as_bytes());
    mac.update(body);
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

fn key(secret: &Secret) -> Option<Vec<u8>> {
    let key = STANDARD.decode(secret.reveal().strip_prefix(SECRET_PREFIX)?).ok()?;
    (24..=64).contains(&key.len()).then_some(key)
}

/// Checks a secret that a user gave.
///
/// # Errors
/// [`Code::InvalidField`], without a word of what it holds.
pub(super) fn check_secret(secret: &Secret, field: &str) -> Result<()> {
    match key(secret) {
        Some(_) => Ok(()),
        None => {
            let reason = format!("must be {SECRET_PREFIX} and 24 to 64 bytes in base64");
            Err(Error::field(Code::InvalidField, field, reason))
        }
    }
}

/// A new secret.
pub(super) fn make_secret(random: &Random) -> Secret {
    let mut bytes = [0; MADE];
    random.fill(&mut bytes);
    Secret::new(format!("{SECRET_PREFIX}{}", STANDARD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_refuses_for_now_says_when_to_come_back() {
        let at = Timestamp::from_millis(784_111_770_000);
        let wait = |status: u16, value: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
            retry_after(StatusCode::from_u16(status).unwrap(), &headers, at).map(|wait| wait.as_secs())
        };
        assert_eq!(wait(429, "7"), Some(7));
        assert_eq!(wait(503, "Sun, 06 Nov 1994 08:49:37 GMT"), Some(7));
        assert_eq!(wait(503, "Sun, 06 Nov 1994 08:49:00 GMT"), Some(0), "it is over");
        assert_eq!(wait(500, "7"), None);
        for odd in ["", "soon", "-1", "1.5", "99999999999999999999"] {
            assert_eq!(wait(429, odd), None, "{odd}");
        }
    }

    #[test]
    fn a_signature_is_that_of_the_standards_example() {
        // The example of the specification of Standard Webhooks.
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let body = br#"{"test": 2432232314}"#;
        let signed = sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signed.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
    }

    #[test]
    fn a_secret_is_of_the_standards_form() {
        let random = Random::seeded(1);
        let made = make_secret(&random);
        assert_eq!(check_secret(&made, "secret"), Ok(()));
        assert_ne!(made, make_secret(&random));
        for bad in ["", "whsec_", "whsec_AAAA", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!!!"] {
            let error = check_secret(&Secret::new(bad), "secret").unwrap_err();
            assert!(bad.is_empty() || !error.detail.contains(bad) || bad == "whsec_", "{error}");
        }
    }
}
