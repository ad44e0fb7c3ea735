//! What helpers compute: conditions, and operations on collections. Pure functions of values.

mod collection;
mod condition;

use std::sync::Arc;

use lyra_afcl::graph::Gather;
use serde_json::Value;

pub use collection::collection;
pub use condition::condition;

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
pub(super) fn common_length(names: &[&str], values: &[Arc<Value>]) -> Result<usize, String> {
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
pub(super) fn gather(how: Gather, values: &[Arc<Value>]) -> Value {
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
pub(super) fn count(values: &[Arc<Value>]) -> Result<usize, String> {
    let count = whole(values.first().ok_or("there is no number of iterations")?)?;
    usize::try_from(count).map_err(|_| format!("there can't be {count} iterations"))
}

/// How many numbers stand in a range: from, to (left out), step.
pub(super) fn range(values: &[Arc<Value>]) -> Result<usize, String> {
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
