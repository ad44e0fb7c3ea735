//! The kinds that are served.

mod application;
mod containers;
mod session;

use serde_json::Value;

/// Makes a schema out of a type: OpenAPI 3.0 as Kubernetes uses it (no `$ref`, no `null`, enumerations by `enum`).
fn schema_of<T: schemars::JsonSchema>() -> Value {
    let mut settings = schemars::generate::SchemaSettings::openapi3();
    settings.inline_subschemas = true;
    let schema = settings.into_generator().into_root_schema_for::<T>();
    let mut schema = serde_json::to_value(schema).expect("schemas are JSON");
    tidy(&mut schema);
    schema
}

/// Takes out what Kubernetes does not know.
fn tidy(schema: &mut Value) {
    if let Value::Array(items) = schema {
        items.iter_mut().for_each(tidy);
        return;
    }
    let Value::Object(map) = schema else { return };
    for key in ["$schema", "title", "nullable", "components", "format"] {
        // "format" is also the name of a field in principle; of these it is only ever a string.
        if key != "format" || map.get(key).is_some_and(|format| format != "date-time" && format != "int64") {
            if map.get(key).is_some_and(|value| !value.is_object() || key == "components") {
                map.remove(key);
            }
        }
    }
    if map.get("minimum") == Some(&Value::from(0)) && map.get("maximum").is_none() {
        map.insert("format".to_owned(), "int64".into());
    }
    // Enumerations with a comment for each value.
    if let Some(Value::Array(choices)) = map.get("oneOf") {
        let values: Option<Vec<Value>> = choices
            .iter()
            .map(|choice| match (choice.get("enum"), choice.get("const")) {
                (Some(Value::Array(values)), _) => Some(values.clone()),
                (_, Some(value)) => Some(vec![value.clone()]),
                _ => None,
            })
            .collect::<Option<Vec<_>>>()
            .map(|values| values.concat());
        if let Some(values) = values {
            map.remove("oneOf");
            map.insert("type".to_owned(), "string".into());
            map.insert("enum".to_owned(), values.into());
        }
    }
    // A field that may be absent: schemars says `anyOf: [T, null]`.
    if let Some(Value::Array(choices)) = map.get("allOf")
        && choices.len() == 1
        && let Value::Object(only) = choices[0].clone()
    {
        map.remove("allOf");
        for (key, value) in only {
            map.entry(key).or_insert(value);
        }
    }
    if !map.contains_key("x-kubernetes-int-or-string")
        && let Some(Value::Array(choices)) = map.get("anyOf")
        && let Some(Value::Object(only)) = choices.first().cloned()
    {
        map.remove("anyOf");
        for (key, value) in only {
            map.entry(key).or_insert(value);
        }
    }
    map.values_mut().for_each(tidy);
}
