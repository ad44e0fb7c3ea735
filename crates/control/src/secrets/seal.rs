//! How secrets are sealed: AES-256-GCM with a random nonce, bound to what they are.
//!
//! What must hold: what is sealed opens only with the key that sealed it and for the same context (whose it is, which one, which value of
//! it), so that a value can't be put in another's place in the store. A key may seal 2^32 values before two nonces are likely enough to
//! be the same (NIST SP 800-38D, 8.3); secrets are set by hand.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lyra_kit::Random;
use lyra_types::SecretBytes;
use parking_lot::RwLock;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::key_file::{self, KeyFileError};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of the hash that names a key.
const ID_BYTES: usize = 6;

/// A key that seals and opens.
pub struct Key {
    id: String,
    key: LessSafeKey,
}

impl Key {
    /// The key of these bytes, if they are [`KEY_BYTES`].
    pub fn new(bytes: &[u8]) -> Option<Key> {
        let key = UnboundKey::new(&AES_256_GCM, bytes).ok()?;
        let hash = Sha256::new().chain_update(b"lyra secrets key id").chain_update(bytes).finalize();
        Some(Key { id: hex::encode(&hash[..ID_BYTES]), key: LessSafeKey::new(key) })
    }

    /// What names it, and tells nothing of it.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// Something that is sealed, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The key that sealed it.
    pub key: String,
    /// Nonce, sealed bytes and tag, in base64.
    data: String,
}

/// Why something can't be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// There are no keys.
    #[error("there is no key for secrets: control is started with --secrets-key FILE (the setting secrets.key_file)")]
    NoKey,
    /// It is sealed with a key that is not known here.
    #[error("it is sealed with key {id}, which is not in this control process's key file")]
    UnknownKey {
        /// The key.
        id: String,
    },
    /// It was changed, or is somebody else's.
    #[error("what is stored does not open: it was changed, or put in another's place")]
    Broken,
}

/// Seals and opens, with the keys of a file.
pub struct Sealer {
    path: Option<PathBuf>,
    random: Random,
    keys: RwLock<Arc<[Key]>>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What says what is sealed: each part with its length, so that no two contexts are the same bytes.
fn bound(context: &[&str]) -> Vec<u8> {
    let mut bytes = b"lyra secrets 1".to_vec();
    for part in context {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

impl Sealer {
    /// One with the keys in this file, once they are [read](Sealer::reload); `None`: it has none.
    pub fn new(path: Option<PathBuf>, random: Random) -> Sealer {
        Sealer { path, random, keys: RwLock::new(Arc::new([])) }
    }

    /// The file.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Reads the keys anew. What is wrong with the file leaves those that were read before.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub async fn reload(&self) -> Result<(), KeyFileError> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        let read = {
            let path = path.clone();
            lyra_kit::tasks::blocking(move || key_file::read(&path)).await
        };
        let stopping = |_| KeyFileError::Access { path, done: "read", source: std::io::ErrorKind::Interrupted.into() };
        let keys: Arc<[Key]> = read.map_err(stopping)??.into();
        *self.keys.write() = keys;
        Ok(())
    }

    /// The ids of the keys, the one that seals first.
    pub fn ids(&self) -> Vec<String> {
        self.keys.read().iter().map(|key| key.id.clone()).collect()
    }

    /// Seals with the first key. `context` says what it is, and must be the same when it is opened.
    ///
    /// # Errors
    /// [`SealError::NoKey`].
    pub fn seal(&self, context: &[&str], plain: &[u8]) -> Result<Sealed, SealError> {
        let keys = Arc::clone(&self.keys.read());
        let key = keys.first().ok_or(SealError::NoKey)?;
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce);
        let mut sealed = plain.to_vec();
        let (aad, of) = (Aad::from(bound(context)), Nonce::assume_unique_for_key(nonce));
        key.key.seal_in_place_append_tag(of, aad, &mut sealed).map_err(|_| SealError::Broken)?;
        Ok(Sealed { key: key.id.clone(), data: STANDARD.encode([&nonce[..], &sealed].concat()) })
    }

    /// Opens with the key that sealed it.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn open(&self, context: &[&str], sealed: &Sealed) -> Result<SecretBytes, SealError> {
        let keys = Arc::clone(&self.keys.read());
        let unknown = || match keys.is_empty() {
            true => SealError::NoKey,
            false => SealError::UnknownKey { id: sealed.key.clone() },
        };
        let key = keys.iter().find(|key| key.id == sealed.key).ok_or_else(unknown)?;
        let data = STANDARD.decode(&sealed.data).map_err(|_| SealError::Broken)?;
        let (nonce, data) = data.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Broken)?;
        let mut buffer = zeroize::Zeroizing::new(data.to_vec());
        let (aad, nonce) = (Aad::from(bound(context)), Nonce::assume_unique_for_key(*nonce));
        let plain = key.key.open_in_place(nonce, aad, &mut buffer).map_err(|_| SealError::Broken)?;
        Ok(SecretBytes::new(plain.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sealer(keys: &[u8]) -> Sealer {
        let sealer = Sealer::new(None, Random::seeded(1));
        *sealer.keys.write() = keys.iter().map(|key| Key::new(&[*key; KEY_BYTES]).unwrap()).collect();
        sealer
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_for_the_same_context_only(
            plain in prop::collection::vec(any::<u8>(), 0..200),
            context in prop::collection::vec("[a-z]{0,8}", 0..4),
            other in prop::collection::vec("[a-z]{0,8}", 0..4),
            flip in any::<prop::sample::Index>(),
        ) {
            let sealer = sealer(&[1, 2]);
            let parts: Vec<&str> = context.iter().map(String::as_str).collect();
            let sealed = sealer.seal(&parts, &plain).unwrap();
            let opened = sealer.open(&parts, &sealed).unwrap();
            prop_assert_eq!(opened.reveal(), &plain[..]);
            let others: Vec<&str> = other.iter().map(String::as_str).collect();
            prop_assert_eq!(sealer.open(&others, &sealed).is_ok(), parts == others);
            let mut data = STANDARD.decode(&sealed.data).unwrap();
            let at = flip.index(data.len());
            data[at] ^= 1;
            let changed = Sealed { data: STANDARD.encode(data), ..sealed.clone() };
            prop_assert!(matches!(sealer.open(&parts, &changed), Err(SealError::Broken)));
            // The same twice does not look the same.
            prop_assert_ne!(sealer.seal(&parts, &plain).unwrap(), sealed);
        }

        #[test]
        fn whatever_is_stored_opens_or_is_an_error(data in "[A-Za-z0-9+/=]{0,80}") {
            let sealer = sealer(&[1]);
            let sealed = Sealed { key: sealer.ids().remove(0), data };
            prop_assert!(sealer.open(&[], &sealed).is_err());
        }
    }

    #[test]
    fn all_keys_open_and_the_first_one_seals() {
        let old = sealer(&[1]).seal(&["a"], b"x").unwrap();
        let both = sealer(&[2, 1]);
        assert_eq!(both.open(&["a"], &old).unwrap().reveal(), b"x");
        let new = both.seal(&["a"], b"x").unwrap();
        assert_eq!((&new.key, &old.key), (&both.ids()[0], &both.ids()[1]));
        assert!(matches!(sealer(&[1]).open(&["a"], &new), Err(SealError::UnknownKey { .. })));
        assert!(matches!(sealer(&[]).open(&["a"], &new), Err(SealError::NoKey)));
        assert!(matches!(sealer(&[]).seal(&["a"], b"x"), Err(SealError::NoKey)));
    }
}
