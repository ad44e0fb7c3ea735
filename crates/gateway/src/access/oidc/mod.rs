//! Bearer tokens of an identity provider (OpenID Connect): JSON Web Tokens (RFC 7519) that its published keys verify.
//!
//! What must hold: only signatures by a key of the provider count, by algorithms with a public key; issuer, audience and times are
//! checked for each token; who may do what comes from claims by the settings, and nobody is let into a tenant that is not there. A
//! token that was verified is known by its hash for a short while, so that the next request with it costs a look-up.

mod claims;
mod config;
mod keys;

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, Validation};
use lyra_kit::Clock;
use lyra_types::{Code, Error, Result, Timestamp};
use lyra_wire::accounts::TokenHash;
use serde_json::{Map, Value};

pub use config::OidcConfig;

use super::Identity;
use keys::Keys;

/// Algorithms that are taken: those whose keys can be published.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];
/// A token that was verified is verified again after this time: its key may have been withdrawn.
const VERIFIED_FOR: Duration = Duration::from_secs(300);
/// Tokens that are known to be verified.
const MAX_VERIFIED: usize = 10_000;
/// Longest token, in bytes.
const MAX_TOKEN: usize = 16 << 10;

/// Verifies tokens of one provider.
pub(crate) struct Oidc {
    config: OidcConfig,
    keys: Keys,
    verified: papaya::HashMap<TokenHash, (Arc<Identity>, Timestamp)>,
    clock: Clock,
}

impl Oidc {
    /// `None` where the settings name no provider.
    ///
    /// # Errors
    /// [`Code::InvalidField`] where the settings can't be used.
    pub(crate) fn new(config: &OidcConfig, clock: Clock) -> Result<Option<Oidc>> {
        if config.issuer.is_empty() {
            return Ok(None);
        }
        config.check()?;
        let keys = Keys::new(config.clone(), clock.clone())?;
        Ok(Some(Oidc { config: config.clone(), keys, verified: papaya::HashMap::new(), clock }))
    }

    /// Whether a text could be a token of a provider.
    pub(crate) fn is_one(token: &[u8]) -> bool {
        token.len() <= MAX_TOKEN && token.iter().filter(|b| **b == b'.').count() == 2
    }

    /// Who holds a token that was verified a short while ago.
    pub(crate) fn known(&self, hash: &TokenHash) -> Option<Arc<Identity>> {
        let verified = self.verified.pin();
        let (identity, until) = verified.get(hash)?;
        (*until > self.clock.now()).then(|| Arc::clone(identity))
    }

    /// Who holds a token.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] where it is not good, [`Code::PermissionDenied`] where its holder may do nothing here,
    /// [`Code::Unavailable`] where the provider's keys can't be had.
    pub(crate) async fn identify(&self, token: &[u8], hash: &TokenHash) -> Result<Arc<Identity>> {
        if let Some(identity) = self.known(hash) {
            return Ok(identity);
        }
        let token = std::str::from_utf8(token).map_err(|_| refused("it is not text"))?;
        let claims = self.verify(token).await?;
        let now = self.clock.now();
        let end = claims::times(&claims, now, self.config.leeway)?;
        let identity = Arc::new(claims::identity(&self.config, &claims, end)?);
        self.remember(*hash, Arc::clone(&identity), end.min(now + VERIFIED_FOR));
        Ok(identity)
    }

    async fn verify(&self, token: &str) -> Result<Map<String, Value>> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| refused("its header can't be read"))?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(refused("its algorithm is not taken"));
        }
        let key = self.keys.find(header.kid.as_deref(), header.alg).await?;
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_audience(&self.config.audience);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        // Times are held against the clock of the process, below.
        validation.validate_exp = false;
        let verified = jsonwebtoken::decode(token, &key, &validation).map_err(|error| {
            use jsonwebtoken::errors::ErrorKind::{InvalidAudience, InvalidIssuer, InvalidSignature};
            refused(match error.kind() {
                InvalidSignature => "its signature is wrong",
                InvalidIssuer => "it is of another issuer",
                InvalidAudience => "it is for another audience",
                _ => "it can't be verified",
            })
        })?;
        Ok(verified.claims)
    }

    fn remember(&self, hash: TokenHash, identity: Arc<Identity>, until: Timestamp) {
        let verified = self.verified.pin();
        if verified.len() >= MAX_VERIFIED {
            let now = self.clock.now();
            verified.retain(|_, (_, until)| *until > now);
            if verified.len() >= MAX_VERIFIED {
                verified.clear();
            }
        }
        verified.insert(hash, (identity, until));
    }
}

fn refused(why: &str) -> Error {
    Error::new(Code::Unauthenticated, format!("the identity provider's token is not good: {why}"))
}
