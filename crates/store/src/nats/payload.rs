//! Bytes that belong to a record: small ones stand in it, large ones apart in parts that any server takes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Payloads up to this size, in bytes, stand in the record itself; larger ones in the data stream.
const INLINE: usize = 4 << 10;
/// Largest part of a payload in one message, in bytes: below the server's default `max_payload` of 1 MiB.
pub(super) const PART: usize = 512 << 10;
/// Bytes that belong to a record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Payload {
    /// There is none.
    #[default]
    None,
    /// It stands here.
    Inline(#[serde(serialize_with = "to_base64", deserialize_with = "from_base64")] Bytes),
    /// It stands in the data stream, in so many parts under this name.
    Stored {
        /// Size in bytes.
        bytes: usize,
        /// Distinguishes it from payloads of other tries.
        name: String,
    },
}

fn to_base64<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
    STANDARD.decode(text.as_bytes()).map(Bytes::from).map_err(serde::de::Error::custom)
}

impl Payload {
    /// A payload, and what of it has to be put into the data stream before the record is written.
    pub(crate) fn of(bytes: Bytes, name: &str) -> (Payload, Option<Bytes>) {
        if bytes.len() <= INLINE {
            (Payload::Inline(bytes), None)
        } else {
            (Payload::Stored { bytes: bytes.len(), name: name.to_owned() }, Some(bytes))
        }
    }

    /// Size in bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Payload::None => 0,
            Payload::Inline(bytes) => bytes.len(),
            Payload::Stored { bytes, .. } => *bytes,
        }
    }
}
