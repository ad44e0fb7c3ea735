//! From JSON to objects: what is not known is found and left out, what does not fit is told with the path of its field.

use std::fmt;
use std::sync::OnceLock;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::openapi;
use crate::kind::Kind;
use crate::{Cause, Status};

/// Unknown fields that are told of one object.
const MAX_TOLD: usize = 32;

/// Makes an object out of JSON.
///
/// # Errors
/// 400 for another kind, 422 for a field that does not fit.
pub(super) fn object<K: Kind>(mut value: Value) -> Result<K, Status> {
    let Value::Object(map) = &mut value else { return Err(Status::bad_request("the object is not a JSON object")) };
    let (api_version, kind) = (format!("{}/{}", K::NAMES.group, K::NAMES.version), K::NAMES.kind);
    for (field, expected) in [("apiVersion", api_version.as_str()), ("kind", kind)] {
        match map.get(field) {
            None | Some(Value::Null) => {}
            Some(given) if given == expected => {}
            Some(given) => {
                return Err(Status::bad_request(format!(
                    "the {field} in the data ({given}) does not match the expected one (\"{expected}\")"
                )));
            }
        }
        map.insert(field.to_owned(), expected.into());
    }
    let name =
        map.get("metadata").and_then(|meta| meta.get("name")).and_then(Value::as_str).unwrap_or_default().to_owned();
    without_nulls(&mut value);
    serde_path_to_error::deserialize(&value).map_err(|error| {
        let field = error.path().to_string();
        let message = format!("Invalid value: {}", error.inner());
        Status::invalid::<K>(&name, vec![Cause { reason: "FieldValueTypeInvalid", message, field }])
    })
}

/// A field that is null is one that is absent.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// The schema of a kind, made once.
pub(super) fn schema<K: Kind>() -> &'static Value {
    static SCHEMAS: OnceLock<parking_lot::RwLock<std::collections::HashMap<&'static str, &'static Value>>> =
        OnceLock::new();
    let schemas = SCHEMAS.get_or_init(Default::default);
    if let Some(schema) = schemas.read().get(K::NAMES.plural) {
        return schema;
    }
    // There are as many as there are kinds; they are kept for ever.
    let schema: &'static Value = Box::leak(Box::new(openapi::schema_of::<K>()));
    schemas.write().entry(K::NAMES.plural).or_insert(schema)
}

/// Paths of the fields that a kind does not have.
pub(super) fn unknown_fields<K: Kind>(value: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    find_unknown(value, schema::<K>(), "", &mut unknown);
    unknown
}

fn find_unknown(value: &Value, schema: &Value, path: &str, unknown: &mut Vec<String>) {
    if unknown.len() >= MAX_TOLD {
        return;
    }
    match value {
        Value::Object(map) => {
            if let Some(schema) = schema.get("additionalProperties") {
                map.iter().for_each(|(name, value)| find_unknown(value, schema, &format!("{path}.{name}"), unknown));
                return;
            }
            let Some(properties) = schema.get("properties") else { return };
            for (name, value) in map {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match properties.get(name) {
                    Some(schema) => find_unknown(value, schema, &path, unknown),
                    None => unknown.push(path),
                }
            }
        }
        Value::Array(items) => {
            let Some(schema) = schema.get("items") else { return };
            for (index, item) in items.iter().enumerate() {
                find_unknown(item, schema, &format!("{path}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}

/// Reads any JSON and notes the fields that are there twice; the last one counts.
pub(super) struct Duplicates<'a> {
    path: String,
    found: &'a mut Vec<String>,
}

impl<'a> Duplicates<'a> {
    pub(super) fn new(found: &'a mut Vec<String>) -> Duplicates<'a> {
        Duplicates { path: String::new(), found }
    }
}

impl<'de> DeserializeSeed<'de> for Duplicates<'_> {
    type Value = Value;
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Duplicates<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let path = format!("{}[{}]", self.path, list.len());
            match items.next_element_seed(Duplicates { path, found: self.found })? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            let path = if self.path.is_empty() { name.clone() } else { format!("{}.{name}", self.path) };
            let value = entries.next_value_seed(Duplicates { path: path.clone(), found: self.found })?;
            if map.insert(name, value).is_some() && self.found.len() < MAX_TOLD {
                self.found.push(path);
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use lyra_types::resources::Application;
    use serde_json::json;

    use super::super::content::read_json;
    use super::*;

    #[test]
    fn unknown_and_double_fields_are_found_with_their_paths() {
        let value = json!({"apiVersion": "lyra.dev/v1", "kind": "Application", "bogus": 1,
            "metadata": {"name": "a", "labels": {"any": "x"}, "shoes": 2},
            "spec": {"configData": {"any": "x"}, "containers": [{"name": "a", "nmae": "b", "ports": [{"prot": 1}]}],
                "scalingPolicy": {"max": 1}}});
        assert_eq!(
            unknown_fields::<Application>(&value),
            [
                "bogus",
                "metadata.shoes",
                "spec.containers[0].nmae",
                "spec.containers[0].ports[0].prot",
                "spec.scalingPolicy.max"
            ]
        );
        let (value, double) = read_json(br#"{"a": 1, "b": [{"c": 1, "c": 2}], "a": 3.5}"#).unwrap();
        assert_eq!((value, double), (json!({"a": 3.5, "b": [{"c": 2}]}), vec!["b[0].c".to_owned(), "a".to_owned()]));
    }

    #[test]
    fn what_does_not_fit_is_told_by_its_path() {
        let value =
            json!({"metadata": {"name": "a", "creationTimestamp": null}, "spec": {"scalingPolicy": {"burst": "x"}}});
        let status = object::<Application>(value).unwrap_err();
        assert_eq!((status.code, status.details.causes[0].field.as_str()), (422, "spec.scalingPolicy.burst"));
        let other = json!({"apiVersion": "v1", "kind": "Pod"});
        assert_eq!(object::<Application>(other).unwrap_err().code, 400);
        assert_eq!(object::<Application>(json!([])).unwrap_err().code, 400);
    }
}
