//! Values of a run, with what they take: counted once for each that was made, however many places hold it.
//!
//! What must hold: what a run holds is known at each moment without a look at the values again; nothing that the engine
//! makes is nested deeper than [`DEPTH`], since whoever goes through a value goes down it on the stack, and readers of JSON
//! refuse what is deeper than 128.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value};

/// How deep arrays and objects may stand in one another.
pub const DEPTH: u32 = 100;

/// The one member of what stands in the place of a value in the blob store.
pub(crate) const REFERENCE: &str = "lyra:value";

/// The largest size of what a reference stands for that is believed: anybody can write what looks like one.
const LARGEST: u64 = 1 << 40;

/// Digest, size and proof of what looks like a reference.
pub(crate) fn parts(object: &Map<String, Value>) -> Option<(&str, u64, &str)> {
    if object.len() != 1 {
        return None;
    }
    let mut parts = object.get(REFERENCE)?.as_str()?.split('.');
    let (digest, bytes, proof) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
    parts.next().is_none().then_some((digest, bytes, proof))
}

/// What a value takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// Bytes of memory, about.
    pub memory: u64,
    /// Bytes as JSON, about; what a reference stands for counts.
    pub text: u64,
    /// How deep arrays and objects stand in one another.
    pub depth: u32,
}

/// What a value takes in memory before what it refers to.
const PLAIN: u64 = size_of::<Value>() as u64;
/// What each piece of memory takes that is allocated.
const PIECE: u64 = 16;
/// What a node of a map takes, and how many members find room there.
const NODE: u64 = 11 * (PLAIN + size_of::<String>() as u64) + PIECE;
const NODE_MEMBERS: u64 = 11;
/// The least elements that an array makes room for.
const LEAST: u64 = 4;

impl Extent {
    /// Of a value.
    pub fn of(value: &Value) -> Extent {
        match value {
            Value::Null | Value::Bool(_) => Extent { memory: PLAIN, text: 5, depth: 0 },
            Value::Number(_) => Extent { memory: PLAIN, text: 8, depth: 0 },
            Value::String(text) => {
                let bytes = text.len() as u64;
                Extent { memory: PLAIN + PIECE + bytes, text: bytes + 2, depth: 0 }
            }
            Value::Array(elements) => {
                let room = LEAST.saturating_sub(elements.len() as u64) % LEAST;
                let empty = Extent { memory: PLAIN + PIECE + room * PLAIN, text: 2, depth: 1 };
                elements.iter().fold(empty, |all, one| all.with(Extent::of(one)))
            }
            Value::Object(members) => {
                let nodes = (members.len() as u64).div_ceil(NODE_MEMBERS);
                let mut all = Extent { memory: PLAIN + nodes * NODE, text: 2, depth: 1 };
                for (name, value) in members {
                    let (name, value) = (name.len() as u64, Extent::of(value));
                    // The value itself stands in the node.
                    all.memory += PIECE + name + value.memory - PLAIN;
                    all.text += name + 4 + value.text;
                    all.depth = all.depth.max(value.depth + 1);
                }
                if let Some((_, bytes, _)) = parts(members) {
                    all.text = bytes.min(LARGEST);
                }
                all
            }
        }
    }

    /// Of an empty array.
    pub fn array() -> Extent {
        Extent { memory: PLAIN + PIECE, text: 2, depth: 1 }
    }

    /// Of an object with one more member.
    #[must_use]
    pub fn with_member(self, name: &str, value: Extent) -> Extent {
        let name = name.len() as u64;
        Extent {
            memory: self.memory.saturating_add(value.memory + name),
            text: self.text.saturating_add(value.text + name + 4),
            depth: self.depth.max(value.depth + 1),
        }
    }

    /// Of an array with one more element.
    #[must_use]
    pub fn with(self, element: Extent) -> Extent {
        Extent {
            memory: self.memory.saturating_add(element.memory),
            text: self.text.saturating_add(element.text + 1),
            depth: self.depth.max(element.depth + 1),
        }
    }
}

/// Bytes that are held.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter(Arc<AtomicU64>);

impl Meter {
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts bytes until what is returned is dropped.
    pub(crate) fn charge(&self, bytes: u64) -> Charge {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Charge { bytes, meter: self.clone() }
    }
}

/// Bytes that count while it is there.
#[derive(Debug)]
pub struct Charge {
    bytes: u64,
    meter: Meter,
}

impl Charge {
    /// Counts more.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.meter.0.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
    }
}

impl Clone for Charge {
    fn clone(&self) -> Charge {
        self.meter.charge(self.bytes)
    }
}

impl PartialEq for Charge {
    fn eq(&self, other: &Charge) -> bool {
        self.bytes == other.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.meter.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A value of a run. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Datum(Arc<Held>);

#[derive(Debug)]
struct Held {
    value: Value,
    extent: Extent,
    _charge: Charge,
}

impl Datum {
    /// A value that counts at this meter while somebody holds it.
    pub(crate) fn new(value: Value, extent: Extent, meter: &Meter) -> Datum {
        let charge = meter.charge(extent.memory + size_of::<Held>() as u64);
        Datum(Arc::new(Held { value, extent, _charge: charge }))
    }

    /// One that counts nowhere: it belongs to no run.
    pub(crate) fn constant(value: Value) -> Datum {
        let extent = Extent::of(&value);
        Datum::new(value, extent, &Meter::default())
    }

    pub(crate) fn extent(&self) -> Extent {
        self.0.extent
    }

    /// The value alone, moved where nobody else holds it.
    pub(crate) fn into_value(self) -> Value {
        match Arc::try_unwrap(self.0) {
            Ok(held) => held.value,
            Err(shared) => shared.value.clone(),
        }
    }
}

impl Deref for Datum {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.0.value
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_shared_counts_once_and_nothing_counts_when_all_is_dropped() {
        let meter = Meter::default();
        let value = json!({"a": ["x".repeat(1_000), 1, null]});
        let one = Datum::new(value.clone(), Extent::of(&value), &meter);
        let bytes = meter.bytes();
        assert!((1_500..2_500).contains(&bytes), "{bytes}");
        let two = one.clone();
        assert_eq!(meter.bytes(), bytes);
        assert_eq!(one.into_value(), value, "a copy, since another holds it");
        assert_eq!(meter.bytes(), bytes);
        assert_eq!(two.into_value(), value);
        assert_eq!(meter.bytes(), 0);
        let charge = meter.charge(7);
        let again = charge.clone();
        assert_eq!((again == charge, meter.bytes()), (true, 14));
        drop((charge, again));
        assert_eq!(meter.bytes(), 0);
    }

    #[test]
    fn depth_and_sizes_are_those_of_the_parts() {
        let value = json!([[1, 2], {"a": [[]]}, "ü", 5]);
        let extent = Extent::of(&value);
        assert_eq!(extent.depth, 4);
        let parts = value.as_array().expect("an array").iter().map(Extent::of);
        assert_eq!(parts.fold(Extent::array(), Extent::with), extent);
        assert_eq!(Extent::of(&json!({"lyra:value": "00.5000.ff"})).text, 5_000);
        assert_eq!(Extent::of(&json!({"lyra:value": "00.18446744073709551615.ff"})).text, LARGEST);
    }
}
