//! The kinds that are served.

mod application;
mod containers;
mod session;

use serde_json::Value;

pub(crate) use self::session::short;

/// Makes a schema out of a type: OpenAPI 3.0 as Kubernetes uses it (no `$ref`, no `null`, enumerations by `enum`).
pub(crate) fn schema_of<T: schemars::JsonSchema>() -> Value {
    let mut settings = schemars::generate::SchemaSettings::openapi3();
    settings.inline_subschemas = true;
    let schema = settings.into_generator().into_root_schema_for::<T>();
    let mut schema = serde_json::to_value(schema).expect("schemas are JSON");
    tidy(&mut schema);
    schema
}

/// Takes out of a schema, and of those in it, what Kubernetes does not know.
fn tidy(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    for key in ["$schema", "title", "nullable", "components", "default", "required"] {
        map.remove(key);
    }
    // Numbers without a sign are not a format there.
    if map.get("format").is_some_and(|format| format != "date-time") {
        map.remove("format");
    }
    // An enumeration with a comment for each value.
    if let Some(Value::Array(choices)) = map.get("oneOf") {
        let values: Vec<Value> =
            choices.iter().filter_map(|choice| choice.get("enum")?.as_array().cloned()).flatten().collect();
        map.remove("oneOf");
        map.insert("type".to_owned(), "string".into());
        map.insert("enum".to_owned(), values.into());
    }
    // A comment on a field whose type has one, or a field that may be absent.
    for key in ["allOf", "anyOf"] {
        if !map.contains_key("x-kubernetes-int-or-string")
            && let Some(Value::Array(choices)) = map.remove(key)
            && let Some(Value::Object(only)) = choices.into_iter().next()
        {
            for (key, value) in only {
                map.entry(key).or_insert(value);
            }
            return tidy(schema);
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(schema) = map.get_mut(key) {
            tidy(schema);
        }
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(tidy);
    }
}
