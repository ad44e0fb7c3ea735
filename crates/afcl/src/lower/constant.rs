//! Constants: the text of a source that names nobody, or a value that is written as one.

use serde_json::Value;

use super::Lowering;
use super::wires::type_name;
use crate::diagnostic::{DiagnosticCode as Code, Located, Position};
use crate::document::{lenient, quote};
use crate::graph::{DataId, DataKind, DataType, ScopeId};

impl Lowering<'_, '_> {
    /// The constant that a text means where a value of this type is asked for: `5` is a text where a string is.
    pub(super) fn constant_text(&mut self, text: &Located<String>, want: DataType, owner: &str) -> Option<DataId> {
        let trimmed = text.value.trim();
        let value = match want {
            DataType::String => match serde_json::from_str(trimmed) {
                Ok(Value::String(inner)) => Value::String(inner),
                _ => Value::String(text.value.clone()),
            },
            DataType::Object | DataType::Collection | DataType::Array => {
                lenient(trimmed).unwrap_or_else(|| Value::String(text.value.clone()))
            }
            DataType::Number | DataType::Boolean => {
                serde_json::from_str(trimmed).unwrap_or_else(|_| Value::String(text.value.clone()))
            }
        };
        self.constant(text.at, value, want, owner, &text.value)
    }

    /// A constant that stands in the document as a value.
    pub(super) fn constant_value(&mut self, value: &Located<Value>, want: DataType, owner: &str) -> Option<DataId> {
        let shown = match &value.value {
            // 1.0 writes numbers between quotes, too.
            Value::String(text) if want != DataType::String => {
                let text = Located { at: value.at, value: text.clone() };
                return self.constant_text(&text, want, owner);
            }
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        // YAML writes many texts without quotes.
        let typed = match (&value.value, want) {
            (Value::Number(_) | Value::Bool(_), DataType::String) => Value::String(shown.clone()),
            (other, _) => other.clone(),
        };
        self.constant(value.at, typed, want, owner, &shown)
    }

    fn constant(&mut self, at: Position, value: Value, want: DataType, owner: &str, shown: &str) -> Option<DataId> {
        let is = match want {
            DataType::Number => value.is_number(),
            DataType::String => value.is_string(),
            DataType::Boolean => value.is_boolean(),
            DataType::Object => value.is_object(),
            DataType::Collection | DataType::Array => value.is_array(),
        };
        if !is {
            let message = format!(
                "{} is a constant, and no {}; a source is written PRODUCER/PORT",
                quote(shown),
                type_name(want)
            );
            self.findings.error(at, Code::InvalidConstant, message);
            return None;
        }
        Some(self.add_constant(value, want, owner, shown))
    }

    fn add_constant(&mut self, value: Value, data_type: DataType, owner: &str, shown: &str) -> DataId {
        const LONGEST: usize = 64;
        let shown = match shown.char_indices().nth(LONGEST) {
            None => shown,
            Some((end, _)) => &shown[..end],
        };
        let name = format!("{owner}/{shown}");
        let key = (name, data_type, value.to_string());
        if let Some(known) = self.constants.get(&key) {
            return *known;
        }
        let data = self.add_data(key.0.clone(), ScopeId::WORKFLOW, DataKind::Constant(value), data_type);
        self.constants.insert(key, data);
        data
    }

    /// The constant `null`, of no type that is checked.
    pub(super) fn null(&mut self) -> DataId {
        self.add_constant(Value::Null, DataType::Object, "Constant", "null")
    }

    /// A number that Lyra needs itself.
    pub(super) fn number(&mut self, value: i64) -> DataId {
        self.add_constant(Value::from(value), DataType::Number, "Constant", &value.to_string())
    }

    /// The constant `true`.
    pub(super) fn truth(&mut self) -> DataId {
        self.add_constant(Value::Bool(true), DataType::Boolean, "Constant", "true")
    }
}
