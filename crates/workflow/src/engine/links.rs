//! Large values by URL, for tasks whose type mapping asks for that.
//!
//! A try of such a task gets `{"$ref": {"url", "size", "type", "expires"}}` in the place of each input above the size that the mapping
//! names; whoever has the URL gets the value, without a login. An answer may hold such an object, too: one of the run's own URLs
//! moves no byte, any other is fetched.
//!
//! What must hold: a URL is good for one value of one run, until it expires or the run is forgotten; nobody can make one, since it
//! carries an HMAC by a key that only the workflow roles of this Lyra have; what it leads to belongs to the run before anybody is told.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use lyra_kit::Random;
use lyra_store::objects::{Change, Check, Txn};
use lyra_store::{Objects, TxnError};
use lyra_types::{Error, Result, RunId, TenantName, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::Sha256;

/// Where the key is in the store of objects.
const KEY: &str = "workflow-keys/values";
/// Bytes of the key.
const KEY_BYTES: usize = 32;
/// The one member of a value that stands elsewhere.
const REF: &str = "$ref";
/// Where gateways serve values.
const ROUTE: &str = "/v1/values/";
/// Longest token that is looked at, in bytes.
const LONGEST: usize = 1_024;

/// What a URL is good for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    #[serde(rename = "t")]
    pub tenant: TenantName,
    #[serde(rename = "r")]
    pub run: RunId,
    /// The blob.
    #[serde(rename = "d")]
    pub digest: String,
    /// Its size as JSON, about.
    #[serde(rename = "s")]
    pub size: u64,
    #[serde(rename = "e")]
    pub expires: Timestamp,
}

/// Makes URLs of values, and reads them.
pub(crate) struct Links {
    key: [u8; KEY_BYTES],
    /// Address of the gateways, without a slash at its end; empty where it is not known.
    base: String,
}

impl Links {
    /// With the key of this Lyra, which is made where there is none.
    ///
    /// # Errors
    /// When the store can't be read or written.
    pub(crate) async fn open(objects: &dyn Objects, random: &Random, public_url: &str) -> Result<Links> {
        let key = loop {
            if let Some(entry) = objects.get(KEY).await? {
                let unreadable = |_| Error::internal("the key for values of workflows can't be read");
                let bytes = hex::decode(&entry.value).map_err(unreadable)?;
                break <[u8; KEY_BYTES]>::try_from(bytes)
                    .map_err(|_| Error::internal("the key for values is cut off"))?;
            }
            let mut bytes = [0; KEY_BYTES];
            random.fill(&mut bytes);
            let changes = vec![Change::Put(KEY.to_owned(), Bytes::from(hex::encode(bytes)))];
            match objects.txn(Txn { checks: vec![Check::Absent(KEY.to_owned())], changes }).await {
                // Another process was first, or the next look finds it.
                Ok(_) | Err(TxnError::Failed { .. }) => {}
                Err(TxnError::Store(error)) => return Err(error.into()),
            }
        };
        Ok(Links { key, base: public_url.trim_end_matches('/').to_owned() })
    }

    /// Whether URLs can be made at all.
    pub(crate) fn has_address(&self) -> bool {
        !self.base.is_empty()
    }

    fn mac(&self, text: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        mac.update(b"lyra value 1\0");
        mac.update(text);
        mac
    }

    fn token(&self, claim: &Claim) -> String {
        let text = URL_SAFE_NO_PAD.encode(serde_json::to_vec(claim).unwrap_or_default());
        let proof = URL_SAFE_NO_PAD.encode(self.mac(text.as_bytes()).finalize().into_bytes());
        format!("{text}.{proof}")
    }

    /// What a token is good for; `None` for what nobody here has made, and for what has expired.
    pub(crate) fn read(&self, token: &str, now: Timestamp) -> Option<Claim> {
        let (text, proof) = token.split_once('.').filter(|_| token.len() <= LONGEST)?;
        let proof = URL_SAFE_NO_PAD.decode(proof).ok()?;
        // In constant time.
        self.mac(text.as_bytes()).verify_slice(&proof).ok()?;
        let claim: Claim = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        (claim.expires > now).then_some(claim)
    }

    /// What stands in the place of a value.
    pub(crate) fn reference(&self, claim: &Claim) -> Value {
        let url = format!("{}{ROUTE}{}", self.base, self.token(claim));
        let shown = json!({"url": url, "size": claim.size, "type": "application/json", "expires": claim.expires});
        Value::Object(Map::from_iter([(REF.to_owned(), shown)]))
    }

    /// What a URL is good for, where it is one of those that this Lyra has made.
    pub(crate) fn own(&self, url: &str, now: Timestamp) -> Option<Claim> {
        self.read(url.strip_prefix(&self.base)?.strip_prefix(ROUTE)?, now)
    }
}

/// The URL of a value that stands elsewhere.
pub(crate) fn url_of(value: &Value) -> Option<&str> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    object.get(REF)?.as_object()?.get("url")?.as_str()
}

#[cfg(test)]
mod tests {
    use lyra_store::SqliteObjects;
    use lyra_store::objects::History;

    use super::*;

    fn claim(expires: i64) -> Claim {
        Claim {
            tenant: TenantName::default_tenant(),
            run: RunId::new("r").expect("an id"),
            digest: "00".repeat(32),
            size: 70_000,
            expires: Timestamp::from_millis(expires),
        }
    }

    #[tokio::test]
    async fn a_url_is_good_until_it_expires_and_nobody_else_can_make_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let open = |name: &str| SqliteObjects::open(&dir.path().join(name), History::default(), None).expect("opens");
        let (objects, others) = (open("a.db"), open("b.db"));
        let links = Links::open(&objects, &Random::seeded(1), "https://lyra.test/").await.expect("a key");
        let again = Links::open(&objects, &Random::seeded(2), "https://lyra.test").await.expect("the same key");
        let other = Links::open(&others, &Random::seeded(3), "https://lyra.test").await.expect("another key");
        let value = links.reference(&claim(1_000));
        let url = url_of(&value).expect("a URL");
        assert!(url.starts_with("https://lyra.test/v1/values/"), "{url}");
        let at = Timestamp::from_millis;
        assert_eq!(again.own(url, at(999)), Some(claim(1_000)));
        assert_eq!(again.own(url, at(1_000)), None, "it has expired");
        assert_eq!(other.own(url, at(0)), None);
        assert_eq!(links.own(&url.replace("lyra.test", "else.test"), at(0)), None);
        let token = &url["https://lyra.test/v1/values/".len()..];
        for place in 0..token.len() {
            let mut forged = token.as_bytes().to_vec();
            forged[place] = if forged[place] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).expect("ASCII");
            // The last digit of base64 has bits that say nothing.
            let last = place + 1 == token.len() || token.as_bytes()[place + 1] == b'.';
            assert!(links.read(&forged, at(0)).is_none() || last, "{place}");
        }
        for odd in ["", ".", "a.b", &"a".repeat(5_000)] {
            assert_eq!(links.read(odd, at(0)), None, "{odd}");
        }
    }

    #[test]
    fn what_only_looks_like_a_reference_is_data() {
        for odd in
            [json!({"$ref": "x"}), json!({"$ref": {"url": "x"}, "y": 1}), json!({"$ref": {"u": "x"}}), json!("x")]
        {
            assert_eq!(url_of(&odd), None, "{odd}");
        }
    }
}
