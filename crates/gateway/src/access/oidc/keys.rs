//! The provider's public keys (JWK sets, RFC 7517): fetched when they are first needed, again when they are old, and when a token names
//! one that is not known, but not more often than the settings say. One request at a time, with a deadline and a bound on its answer;
//! where the provider can't be reached, the keys that are known go on for a day.

use std::collections::HashMap;
use std::sync::{Arc, Once};
use std::time::Duration;

use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use lyra_kit::Clock;
use lyra_types::{Code, Error, Result};
use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{OidcConfig, refused};

/// Longest wait for one answer of the provider.
const ANSWER: Duration = Duration::from_secs(5);
/// Largest answer, in bytes.
const MAX_ANSWER: usize = 1 << 20;
/// Keys go on for so long without the provider.
const MAX_AGE: Duration = Duration::from_secs(86_400);
/// Most keys of a set.
const MAX_KEYS: usize = 100;

struct Known {
    key: Arc<DecodingKey>,
    algorithm: Option<String>,
}

struct Set {
    keys: HashMap<String, Known>,
    at: Instant,
}

/// The keys of a provider.
pub(super) struct Keys {
    config: OidcConfig,
    http: reqwest::Client,
    set: RwLock<Option<Arc<Set>>>,
    /// When they were last asked for, whatever came of it.
    asked: Mutex<Option<Instant>>,
    clock: Clock,
}

#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct Published {
    keys: Vec<Value>,
}

fn install_tls_provider() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // An `Err` means that the process has chosen one before: it stays.
        drop(rustls::crypto::ring::default_provider().install_default());
    });
}

impl Keys {
    pub(super) fn new(config: OidcConfig, clock: Clock) -> Result<Keys> {
        install_tls_provider();
        let http = reqwest::Client::builder()
            .user_agent(concat!("lyra/", env!("CARGO_PKG_VERSION")))
            .timeout(ANSWER)
            // Keys come from where the settings or the provider say, and from nowhere else.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Error::internal(format!("the way to the identity provider can't be made: {error}")))?;
        Ok(Keys { config, http, set: RwLock::new(None), asked: Mutex::new(None), clock })
    }

    /// The key of that name for that algorithm. Without a name: the only one that there is.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] where the provider has no such key, [`Code::Unavailable`] where it can't be asked.
    pub(super) async fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Arc<DecodingKey>> {
        let now = self.clock.instant();
        let known = self.set.read().clone();
        if let Some(set) = &known
            && now.duration_since(set.at) < self.config.refresh
            && let Some(key) = set.find(kid, algorithm)
        {
            return Ok(key);
        }
        let fresh = self.again(known.as_ref().map(|set| set.at)).await;
        match (self.set.read().clone(), fresh) {
            (Some(set), fresh) if now.duration_since(set.at) < MAX_AGE => match (set.find(kid, algorithm), fresh) {
                (Some(key), _) => Ok(key),
                (None, Ok(())) => Err(refused("the provider has no such key")),
                (None, Err(error)) => Err(error),
            },
            (_, Err(error)) => Err(error),
            (_, Ok(())) => Err(unreachable("its keys are too old")),
        }
    }

    /// Fetches the keys unless that was done a moment ago, or somebody else has just done it.
    async fn again(&self, seen: Option<Instant>) -> Result<()> {
        let mut asked = self.asked.lock().await;
        if self.set.read().as_ref().map(|set| set.at) != seen {
            return Ok(());
        }
        let now = self.clock.instant();
        if asked.is_some_and(|at| now.duration_since(at) < self.config.refetch) {
            return if seen.is_some() { Ok(()) } else { Err(unreachable("it could not be reached a moment ago")) };
        }
        *asked = Some(now);
        let fetched = self.fetch().await;
        if let Err(error) = &fetched {
            tracing::warn!(issuer = self.config.issuer, %error, "the identity provider's keys can't be read");
        }
        let keys = fetched?;
        tracing::debug!(issuer = self.config.issuer, keys = keys.len(), "the identity provider's keys were read");
        *self.set.write() = Some(Arc::new(Set { keys, at: self.clock.instant() }));
        Ok(())
    }

    async fn fetch(&self) -> Result<HashMap<String, Known>> {
        let url = match self.config.jwks_url.as_str() {
            "" => {
                let base = self.config.issuer.trim_end_matches('/');
                let found: Discovered = self.read(&format!("{base}/.well-known/openid-configuration")).await?;
                if found.issuer != self.config.issuer {
                    return Err(unreachable("what is published there is of another issuer"));
                }
                let keys_at = OidcConfig { jwks_url: found.jwks_uri.clone(), ..self.config.clone() };
                keys_at.check().map_err(|_| unreachable("its keys are published without https"))?;
                found.jwks_uri
            }
            url => url.to_owned(),
        };
        let published: Published = self.read(&url).await?;
        let mut keys = HashMap::new();
        for value in published.keys.into_iter().take(MAX_KEYS) {
            // Kinds of keys that are not known here may stand beside those that are.
            let Ok(jwk) = serde_json::from_value::<Jwk>(value) else { continue };
            let signs = jwk.common.public_key_use.as_ref().is_none_or(|of| *of == PublicKeyUse::Signature);
            let Some(key) = DecodingKey::from_jwk(&jwk).ok().filter(|_| signs) else { continue };
            let algorithm = jwk.common.key_algorithm.map(|algorithm| algorithm.to_string());
            keys.insert(jwk.common.key_id.unwrap_or_default(), Known { key: Arc::new(key), algorithm });
        }
        Ok(keys)
    }

    async fn read<T: serde::de::DeserializeOwned>(&self, url: &str) -> Result<T> {
        let away = |_: reqwest::Error| unreachable("it does not answer");
        let mut answer = self.http.get(url).send().await.map_err(away)?;
        if !answer.status().is_success() {
            return Err(unreachable(&format!("it answers with status {}", answer.status().as_u16())));
        }
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(away)? {
            if body.len() + piece.len() > MAX_ANSWER {
                return Err(unreachable("its answer is too large"));
            }
            body.extend_from_slice(&piece);
        }
        serde_json::from_slice(&body).map_err(|_| unreachable("its answer is not what was asked for"))
    }
}

impl Set {
    fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<Arc<DecodingKey>> {
        let known = match kid {
            Some(kid) => self.keys.get(kid)?,
            None if self.keys.len() == 1 => self.keys.values().next()?,
            None => return None,
        };
        let fits = known.algorithm.as_ref().is_none_or(|of| *of == format!("{algorithm:?}"));
        fits.then(|| Arc::clone(&known.key))
    }
}

fn unreachable(why: &str) -> Error {
    let detail = format!("the identity provider can't be asked for its keys: {why}");
    Error::new(Code::Unavailable, detail).with_retry_after(Duration::from_secs(10))
}
