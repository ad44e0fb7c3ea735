//! Large values that stay in the blob store, with a reference in their place in the run.
//!
//! A function's output that the run only hands on is put into the blob store when the try has ended; what goes through
//! the run's memory and journal is a reference of some hundred bytes. The value is fetched for the try that gets it as input,
//! and for the run's output.
//!
//! What must hold: no caller sees a reference; nobody can make one: it carries a proof by the run's secret, and an object
//! that only looks like a reference is data like any other.

use std::collections::HashMap;
use std::io::Write;

use bytes::Bytes;
use lyra_store::Blobs;
use lyra_types::function::Digest;
use lyra_types::{Code, Error, Result};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::journal;
use crate::core::datum::{REFERENCE as KEY, parts};

/// A reference: the blob, its size as JSON, and the proof.
pub(super) fn reference(digest: &str, bytes: u64, secret: &str) -> Value {
    let mut object = Map::with_capacity(1);
    object.insert(KEY.to_owned(), Value::String(format!("{digest}.{bytes}.{}", proof(digest, bytes, secret))));
    Value::Object(object)
}

fn proof(digest: &str, bytes: u64, secret: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(secret.as_bytes());
    hash.update(b"\0value\0");
    hash.update(digest.as_bytes());
    hash.update(bytes.to_be_bytes());
    hex::encode(&hash.finalize()[..16])
}

/// The digest of a reference of this run.
fn named<'v>(object: &'v Map<String, Value>, secret: &str) -> Option<&'v str> {
    let (digest, bytes, given) = parts(object)?;
    let right = proof(digest, bytes, secret);
    bool::from(subtle::ConstantTimeEq::ct_eq(right.as_bytes(), given.as_bytes())).then_some(digest)
}

/// Digest and size of what a value stands for that is a reference of this run.
pub(super) fn named_by<'v>(value: &'v Value, secret: &str) -> Option<(&'v str, u64)> {
    let object = value.as_object()?;
    let digest = named(object, secret)?;
    parts(object).map(|(_, bytes, _)| (digest, bytes))
}

/// A value with all that its references stand for.
///
/// # Errors
/// As [`written`].
pub(super) async fn whole(value: &Value, secret: &str, blobs: &dyn Blobs, most: u64) -> Result<Value> {
    let object = Map::from_iter([(String::new(), value.clone())]);
    if !any(&object) {
        return Ok(value.clone());
    }
    let text = written(&object, secret, blobs, most).await?;
    let mut read: Map<String, Value> = serde_json::from_slice(&text)
        .map_err(|error| Error::internal(format!("a large value can't be read: {error}")))?;
    Ok(read.remove("").unwrap_or_default())
}

/// Whether there is something in it that may be a reference.
pub(super) fn any(input: &Map<String, Value>) -> bool {
    fn within(value: &Value) -> bool {
        match value {
            Value::Array(elements) => elements.iter().any(within),
            Value::Object(members) => parts(members).is_some() || any(members),
            _ => false,
        }
    }
    input.values().any(within)
}

/// Size as JSON, about: exact for what is short, and not worth a second writing for what is long. What a reference stands
/// for counts.
pub(super) fn size(input: &Map<String, Value>) -> u64 {
    if let Some((_, bytes, _)) = parts(input) {
        return bytes;
    }
    input.iter().map(|(name, value)| name.len() as u64 + 4 + size_of(value)).sum::<u64>() + 2
}

/// The same of any value.
pub(super) fn size_of(value: &Value) -> u64 {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(_) => 8,
        Value::String(text) => text.len() as u64 + 2,
        Value::Array(elements) => elements.iter().map(|element| size_of(element) + 1).sum::<u64>() + 2,
        Value::Object(members) => size(members),
    }
}

/// Leaves a value in the blob store: the reference, and the blob's digest.
pub(super) async fn leave(
    value: &Value,
    secret: &str,
    blobs: &dyn Blobs,
    random: &lyra_kit::Random,
) -> Result<(Value, String)> {
    let digest = journal::keep(value, blobs, random).await?;
    Ok((reference(&digest, size_of(value), secret), digest))
}

/// Why an object can't be written.
#[derive(Debug)]
pub(super) enum Unwritten {
    /// A value is not in the blob store, and nobody has it any more.
    Gone {
        /// The object's member that it belongs to.
        member: String,
        /// Its digest.
        digest: String,
    },
    /// It would have more bytes than it may have.
    TooLarge {
        /// How many it may have.
        most: u64,
    },
    /// The blob store is away, or what it has is damaged.
    Failed(Error),
}

impl From<Unwritten> for Error {
    fn from(unwritten: Unwritten) -> Error {
        match unwritten {
            Unwritten::Gone { member, digest } => {
                Error::internal(format!("the value of \"{member}\" is not in the blob store any more ({digest})"))
            }
            Unwritten::TooLarge { most } => Error::new(Code::TooLarge, too_large(most)),
            Unwritten::Failed(error) => error,
        }
    }
}

/// Why a value is not written.
pub(super) fn too_large(most: u64) -> String {
    format!(
        "with what its references stand for it has more bytes than the limit of {most} (the setting \
         workflow.max_result_bytes)"
    )
}

/// How many bytes an object has as JSON, at the least: where that is too much, nothing needs to be fetched.
fn least(object: &Map<String, Value>, secret: &str) -> u64 {
    let mut bytes = 0_u64;
    let mut open: Vec<&Value> = object.values().collect();
    while let Some(value) = open.pop() {
        match value {
            Value::Array(elements) => open.extend(elements),
            Value::String(text) => bytes = bytes.saturating_add(text.len() as u64),
            Value::Object(members) => match named(members, secret).and_then(|_| parts(members)) {
                // Sizes are known about: a digit counts as much as a long number.
                Some((_, size, _)) => bytes = bytes.saturating_add(size / 5),
                None => open.extend(members.values()),
            },
            _ => {}
        }
    }
    bytes
}

/// What takes so many bytes at most.
struct Limited {
    bytes: Vec<u8>,
    most: usize,
}

impl std::io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.most {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// An object as JSON, with each value in the place of its reference; `most` bytes of it.
///
/// # Errors
/// When a value is not there, the blob store is away, or it would have more bytes.
pub(super) async fn written(
    object: &Map<String, Value>,
    secret: &str,
    blobs: &dyn Blobs,
    most: u64,
) -> Result<Bytes, Unwritten> {
    if least(object, secret) > most {
        return Err(Unwritten::TooLarge { most });
    }
    let (mut fetched, mut bytes): (HashMap<String, Bytes>, u64) = (HashMap::new(), 0);
    let mut open: Vec<(&String, &Value)> = object.iter().collect();
    while let Some((member, value)) = open.pop() {
        match value {
            Value::Array(elements) => open.extend(elements.iter().map(|element| (member, element))),
            Value::Object(members) => match named(members, secret) {
                Some(digest) if fetched.contains_key(digest) => {}
                Some(digest) => {
                    let found = blobs.get(&Digest(digest.to_owned())).await;
                    let gone = || Unwritten::Gone { member: member.clone(), digest: digest.to_owned() };
                    let found = found.map_err(|error| Unwritten::Failed(error.into()))?.ok_or_else(gone)?;
                    let value = journal::value_of(&found);
                    bytes += value.len() as u64;
                    if bytes > most {
                        return Err(Unwritten::TooLarge { most });
                    }
                    fetched.insert(digest.to_owned(), value);
                }
                None => open.extend(members.values().map(|value| (member, value))),
            },
            _ => {}
        }
    }
    let unwritable = |error: serde_json::Error| match error.io_error_kind() {
        Some(std::io::ErrorKind::FileTooLarge) => Unwritten::TooLarge { most },
        _ => Unwritten::Failed(Error::internal(format!("a value can't be written: {error}"))),
    };
    let room = fetched.values().map(Bytes::len).sum::<usize>() + 128;
    let mut out = Limited { bytes: Vec::with_capacity(room), most: usize::try_from(most).unwrap_or(usize::MAX) };
    if fetched.is_empty() {
        serde_json::to_writer(&mut out, object).map_err(unwritable)?;
    } else {
        members(object, secret, &fetched, &mut out).map_err(unwritable)?;
    }
    Ok(Bytes::from(out.bytes))
}

fn members(
    object: &Map<String, Value>,
    secret: &str,
    fetched: &HashMap<String, Bytes>,
    out: &mut Limited,
) -> serde_json::Result<()> {
    out.write_all(b"{").map_err(serde_json::Error::io)?;
    for (index, (name, value)) in object.iter().enumerate() {
        if index > 0 {
            out.write_all(b",").map_err(serde_json::Error::io)?;
        }
        serde_json::to_writer(&mut *out, name)?;
        out.write_all(b":").map_err(serde_json::Error::io)?;
        any_value(value, secret, fetched, out)?;
    }
    out.write_all(b"}").map_err(serde_json::Error::io)?;
    Ok(())
}

fn any_value(
    value: &Value,
    secret: &str,
    fetched: &HashMap<String, Bytes>,
    out: &mut Limited,
) -> serde_json::Result<()> {
    match value {
        Value::Array(elements) => {
            out.write_all(b"[").map_err(serde_json::Error::io)?;
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.write_all(b",").map_err(serde_json::Error::io)?;
                }
                any_value(element, secret, fetched, out)?;
            }
            out.write_all(b"]").map_err(serde_json::Error::io)?;
        }
        Value::Object(object) => match named(object, secret).and_then(|digest| fetched.get(digest)) {
            Some(text) => out.write_all(text).map_err(serde_json::Error::io)?,
            None => members(object, secret, fetched, out)?,
        },
        plain => serde_json::to_writer(&mut *out, plain)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use lyra_kit::Random;
    use lyra_store::DirectoryBlobs;
    use serde_json::json;

    use super::*;

    const MOST: u64 = 1 << 20;

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    #[tokio::test]
    async fn a_value_comes_back_wherever_its_reference_stands_and_only_by_the_run_s_own() {
        let dir = tempfile::tempdir().expect("a directory");
        let blobs = DirectoryBlobs::open(dir.path()).expect("opens");
        let value = json!({"text": "ü\"\n", "n": [1, 2.5, null]});
        let (reference, digest) = leave(&value, "secret", &blobs, &Random::seeded(1)).await.expect("left");
        let input = object(&json!({"a": reference, "b": [1, reference, {"c": reference}], "d": "x"}));
        assert!(any(&input) && !any(&object(&json!({"a": [1, {"b": 2}]}))));
        let text = written(&input, "secret", &blobs, MOST).await.expect("written");
        let back: Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(back, json!({"a": value, "b": [1, value, {"c": value}], "d": "x"}));
        // What another run's secret, or nobody's, has proved is data.
        let text = written(&input, "another", &blobs, MOST).await.expect("written");
        assert_eq!(serde_json::from_slice::<Value>(&text).expect("JSON"), Value::Object(input));
        let forged = object(&json!({"a": {KEY: format!("{digest}.5.{}", "0".repeat(32))}}));
        let text = written(&forged, "secret", &blobs, MOST).await.expect("written");
        assert_eq!(serde_json::from_slice::<Value>(&text).expect("JSON"), Value::Object(forged));
        blobs.delete(&Digest(digest)).await.expect("deleted");
        assert!(written(&object(&json!({"a": reference})), "secret", &blobs, MOST).await.is_err());
    }

    #[tokio::test]
    async fn what_would_be_too_large_is_not_fetched_and_not_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let blobs = DirectoryBlobs::open(dir.path()).expect("opens");
        let value = json!("x".repeat(100_000));
        let (reference, digest) = leave(&value, "secret", &blobs, &Random::seeded(1)).await.expect("left");
        let many = object(&json!({"a": vec![reference.clone(); 1_000]}));
        let twelve = object(&json!({"a": vec![reference; 12]}));
        let escaped = object(&json!({"a": "\u{1}".repeat(300_000)}));
        for large in [&twelve, &escaped] {
            let refused = written(large, "secret", &blobs, MOST).await;
            assert!(matches!(refused, Err(Unwritten::TooLarge { most: MOST })), "{refused:?}");
        }
        assert!(written(&twelve, "secret", &blobs, 2 * MOST).await.is_ok());
        blobs.delete(&Digest(digest)).await.expect("deleted");
        let refused = written(&many, "secret", &blobs, MOST).await;
        assert!(matches!(refused, Err(Unwritten::TooLarge { .. })), "it was not asked for: {refused:?}");
    }

    #[test]
    fn a_reference_is_as_large_as_what_it_stands_for() {
        let plain = json!({"a": "x".repeat(10_000)});
        let bytes = size(&object(&plain));
        assert!((10_000..10_100).contains(&bytes));
        assert_eq!(size_of(&reference("00", bytes, "secret")), bytes);
    }
}
