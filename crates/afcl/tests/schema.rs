//! The schema for editors takes what the compiler takes.

use lyra_afcl::schema;
use serde_json::Value;

use crate::golden::{documents, snapshots};
use crate::shapes::{Shape, document};

/// Whether a value is as the schema says; a validator of the few words that the schema uses.
fn check(root: &Value, schema: &Value, value: &Value, path: &str) -> Result<(), String> {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let target = root.pointer(reference.trim_start_matches('#')).ok_or(format!("{reference} is not there"))?;
        return check(root, target, value, path);
    }
    if let Some(choices) = schema.get("oneOf").and_then(Value::as_array) {
        let matches = choices.iter().filter(|choice| check(root, choice, value, path).is_ok()).count();
        let why: Vec<String> = choices.iter().filter_map(|choice| check(root, choice, value, path).err()).collect();
        return if matches == 1 { Ok(()) } else { Err(format!("{path}: {matches} choices fit: {why:?}")) };
    }
    if let Some(choices) = schema.get("enum").and_then(Value::as_array) {
        return if choices.contains(value) { Ok(()) } else { Err(format!("{path}: {value} is none of {choices:?}")) };
    }
    let name = |value: &Value| match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    let is = name(value);
    if !types.is_empty() && !types.contains(&is) && !(is == "integer" && types.contains(&"number")) {
        return Err(format!("{path}: {value} is no {types:?}"));
    }
    if let Value::Object(fields) = value {
        for required in schema["required"].as_array().into_iter().flatten() {
            if !fields.contains_key(required.as_str().unwrap()) {
                return Err(format!("{path}: {required} is missing"));
            }
        }
        for (field, value) in fields {
            match schema["properties"].get(field) {
                Some(inner) => check(root, inner, value, &format!("{path}/{field}"))?,
                None if schema["additionalProperties"] == Value::Bool(false) => {
                    return Err(format!("{path}: {field} is unknown"));
                }
                None => {}
            }
        }
    }
    if let Value::Array(items) = value {
        if (items.len() as u64) < schema["minItems"].as_u64().unwrap_or_default() {
            return Err(format!("{path}: too few"));
        }
        for (index, item) in items.iter().enumerate() {
            check(root, &schema["items"], item, &format!("{path}/{index}"))?;
        }
    }
    Ok(())
}

#[test]
fn the_schema_is_as_it_was() {
    snapshots().bind(|| insta::assert_snapshot!("schema", serde_json::to_string_pretty(&schema()).unwrap()));
}

#[test]
fn documents_that_compile_fit_the_schema() {
    let schema = schema();
    let nestings = Shape::ALL.iter().flat_map(|outer| Shape::ALL.map(|inner| document(&[*outer, inner])));
    let json = documents().into_iter().filter(|(name, _)| name == "json").map(|(_, text)| text);
    for text in nestings.chain(json) {
        let value: Value = serde_json::from_str(&text).unwrap();
        check(&schema, &schema, &value, "").unwrap_or_else(|reason| panic!("{reason}\n{text}"));
    }
}

#[test]
fn what_the_compiler_refuses_for_its_form_does_not_fit_the_schema() {
    let schema = schema();
    for text in [
        r#"{"name": "wf"}"#,
        r#"{"name": "wf", "workflowBody": []}"#,
        r#"{"name": "wf", "workflowBody": [{"function": {"name": "f"}}]}"#,
        r#"{"name": "wf", "workflowBody": [{"funktion": {"name": "f", "type": "F"}}]}"#,
        r#"{"name": "wf", "workflowBody": [{"function": {"name": "f", "type": "F", "colour": "red"}}]}"#,
        r#"{"name": "wf", "workflowBody": [{"function": {"name": "f", "type": "F", "dataIns": [{"name": "a", "type": "bool", "source": "1"}]}}]}"#,
    ] {
        let value: Value = serde_json::from_str(text).unwrap();
        assert!(check(&schema, &schema, &value, "").is_err(), "{text}");
        assert!(lyra_afcl::compile(text).is_err(), "{text}");
    }
}
