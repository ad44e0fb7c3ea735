//! What helpers compute: conditions, and operations on collections. Pure functions of values.

mod collection;
mod condition;

use std::ops::Deref;

use lyra_afcl::graph::Gather;
use serde_json::Value;

pub use collection::collection;
pub use condition::condition;

/// Why a helper can't do its work.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// It got a value that it can't work on.
    Data(String),
    /// A limit is reached.
    Limit(String),
}

impl From<String> for Fault {
    fn from(detail: String) -> Fault {
        Fault::Data(detail)
    }
}

impl From<&str> for Fault {
    fn from(detail: &str) -> Fault {
        Fault::Data(detail.to_owned())
    }
}

/// How much one operation may make.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    /// Elements.
    pub elements: usize,
    /// Bytes of memory.
    pub bytes: u64,
}

impl Most {
    /// Whether a result may take so many bytes.
    ///
    /// # Errors
    /// When it may not.
    pub fn allows(self, bytes: u64) -> Result<(), Fault> {
        let Most { bytes: limit, .. } = self;
        if bytes <= limit {
            return Ok(());
        }
        let detail = format!(
            "what it would make takes {bytes} bytes or more, the limit is {limit} (the setting workflow.max_result_bytes)"
        );
        Err(Fault::Limit(detail))
    }

    /// Whether a result may have so many elements.
    ///
    /// # Errors
    /// When it may not.
    pub fn has(self, elements: usize) -> Result<(), Fault> {
        let Most { elements: limit, .. } = self;
        if elements <= limit {
            return Ok(());
        }
        let detail =
            format!("{elements} elements are more than the limit of {limit} (the setting workflow.max_elements)");
        Err(Fault::Limit(detail))
    }
}

/// A whole number; one with a fraction of zero is one.
///
/// # Errors
/// What it is instead.
pub fn whole(value: &Value) -> Result<i64, String> {
    let number = value.as_i64().or_else(|| {
        value.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9.0e15).map(|f| {
            #[expect(clippy::cast_possible_truncation, reason = "it has no fraction and is in range")]
            let whole = f as i64;
            whole
        })
    });
    number.ok_or_else(|| format!("{} is no whole number", shown(value)))
}

/// A value in an error: its kind, and its text where that is short.
pub(super) fn shown(value: &Value) -> String {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "the boolean",
        Value::Number(_) => "the number",
        Value::String(_) => "the string",
        Value::Array(_) => return format!("an array of {}", value.as_array().map_or(0, Vec::len)),
        Value::Object(_) => return "an object".to_owned(),
    };
    let text: String = value.to_string().chars().take(40).collect();
    if matches!(value, Value::Null) { text } else { format!("{kind} {text}") }
}

/// The length that all arrays have.
pub(super) fn common_length<V: Deref<Target = Value>>(names: &[&str], values: &[V]) -> Result<usize, String> {
    let mut common: Option<(usize, &str)> = None;
    for (name, value) in names.iter().zip(values) {
        let array =
            value.as_array().ok_or_else(|| format!("\"{name}\" is {}, no array to iterate over", shown(value)))?;
        match common {
            None => common = Some((array.len(), name)),
            Some((length, _)) if length == array.len() => {}
            Some((length, first)) => {
                return Err(format!("\"{first}\" has {length} elements, \"{name}\" has {}", array.len()));
            }
        }
    }
    common.map(|(length, _)| length).ok_or_else(|| "there is nothing to iterate over".to_owned())
}

/// One array of several values, in their order.
pub(super) fn gather<V: Deref<Target = Value>>(how: Gather, values: &[V]) -> Value {
    let mut gathered = Vec::with_capacity(values.len());
    for value in values {
        match (how, &**value) {
            (Gather::Elements, Value::Array(elements)) => gathered.extend(elements.iter().cloned()),
            (_, value) => gathered.push(value.clone()),
        }
    }
    Value::Array(gathered)
}

/// A number of iterations.
pub(super) fn count<V: Deref<Target = Value>>(values: &[V]) -> Result<usize, String> {
    let count = whole(values.first().ok_or("there is no number of iterations")?)?;
    usize::try_from(count).map_err(|_| format!("there can't be {count} iterations"))
}

/// How many numbers stand in a range: from, to (left out), step.
pub(super) fn range<V: Deref<Target = Value>>(values: &[V]) -> Result<usize, String> {
    let [from, to, step] = values else { return Err("a range needs from, to and step".to_owned()) };
    let (from, to, step) = (whole(from)?, whole(to)?, whole(step)?);
    if step == 0 {
        return Err("the step of a counter can't be 0".to_owned());
    }
    let way = i128::from(to) - i128::from(from);
    let step = i128::from(step);
    let count = if way.signum() == step.signum() { (way.abs() + step.abs() - 1) / step.abs() } else { 0 };
    usize::try_from(count).map_err(|_| "the range is too long".to_owned())
}
