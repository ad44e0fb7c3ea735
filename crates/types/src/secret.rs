//! Secrets that functions are given: how they are named, where a function finds them, and bytes that never show.
//!
//! What must hold: [`SecretBytes`] has no way into a log line, an error or a list, and is wiped when it is dropped. Copies that a
//! sandbox needs to be given them are the sandbox's; they are not wiped.

use std::fmt;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::SecretName;

/// Most bytes of a secret's value (24 KiB).
pub const MAX_SECRET: usize = 24 << 10;
/// Most secrets of a tenant.
pub const MAX_SECRETS: usize = 1_000;
/// Most secrets that one function is given.
pub const MAX_FUNCTION_SECRETS: usize = 32;
/// Most bytes of all secrets that one function is given (48 KiB).
pub const MAX_FUNCTION_SECRET_BYTES: usize = 48 << 10;
/// Longest name of a file that holds a secret, in bytes.
pub const MAX_SECRET_FILE: usize = 128;
/// Where files with secrets are, inside of an instance.
pub const SECRETS_DIRECTORY: &str = "/run/secrets";

/// A secret that a function is given: as a variable of its environment, or as a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretUse {
    /// The secret, of the function's tenant.
    #[schema(value_type = String, example = "db-password")]
    pub name: SecretName,
    /// The variable that holds its value. One of this and `file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// The file in `/run/secrets` that holds its value; not for `js` and `wasm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// Bytes of a secret.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Wraps them.
    pub fn new(bytes: Vec<u8>) -> SecretBytes {
        SecretBytes(Zeroizing::new(bytes))
    }

    /// The bytes themselves.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }

    /// The text that they are, where they are one that a variable can hold.
    pub fn as_variable(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok().filter(|text| !text.contains('\0'))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Serialize for SecretBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for SecretBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SecretBytes, D::Error> {
        struct Octets;

        impl<'de> Visitor<'de> for Octets {
            type Value = SecretBytes;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<SecretBytes, E> {
                Ok(SecretBytes::new(bytes.to_vec()))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<SecretBytes, E> {
                Ok(SecretBytes::new(bytes))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<SecretBytes, A::Error> {
                let mut bytes = Zeroizing::new(Vec::with_capacity(list.size_hint().unwrap_or(0).min(MAX_SECRET)));
                while let Some(byte) = list.next_element()? {
                    bytes.push(byte);
                }
                Ok(SecretBytes(bytes))
            }
        }

        deserializer.deserialize_byte_buf(Octets)
    }
}

/// Whether a file in [`SECRETS_DIRECTORY`] may have this name: one part of a path, which is not hidden.
pub fn is_secret_file(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !name.is_empty() && name.len() <= MAX_SECRET_FILE && !name.starts_with('.') && name.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_secret_do_not_show() {
        let secret = SecretBytes::new(b"hunter2".to_vec());
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "… Some(…)");
        let read: SecretBytes = serde_json::from_str(&serde_json::to_string(&secret).unwrap()).unwrap();
        assert_eq!((read.reveal(), read.as_variable()), (&b"hunter2"[..], Some("hunter2")));
        assert_eq!(SecretBytes::new(b"a\0".to_vec()).as_variable(), None);
        assert_eq!(SecretBytes::new(vec![0xff]).as_variable(), None);
    }

    #[test]
    fn a_file_of_a_secret_is_one_plain_part_of_a_path() {
        for good in ["tls.key", "a", "A_b-c.d"] {
            assert!(is_secret_file(good), "{good}");
        }
        for bad in ["", ".", "..", ".a", "a/b", "/a", "a b", "ä"] {
            assert!(!is_secret_file(bad), "{bad}");
        }
        assert!(!is_secret_file(&"a".repeat(MAX_SECRET_FILE + 1)));
    }

    #[test]
    fn a_use_reads_as_it_was_written() {
        let text = r#"{"name":"db-password","env":"DB_PASSWORD"}"#;
        let one: SecretUse = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&one).unwrap(), text);
        assert!(serde_json::from_str::<SecretUse>(r#"{"name":"No"}"#).is_err());
    }
}
