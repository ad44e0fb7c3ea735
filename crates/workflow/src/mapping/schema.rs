//! The JSON Schema of a type mapping, for editors and other tools.
//!
//! It says the form; what it can't say (that a type is mapped once, that a URL can be called) is for
//! [`Mapping::parse`](super::Mapping::parse).

use serde_json::{Value, json};

use super::headers::{MAX_HEADERS, MAX_TEXT};
use super::parse::{MAX_RESOURCES, MAX_TIMEOUT_SECONDS, MAX_TYPE_LEN, MAX_TYPES};
use crate::enact::demo;

const NAME: &str = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?";

/// The schema, of JSON Schema 2020-12.
pub fn schema() -> Value {
    let resource = |kind: &str, about: &str, properties: Value, required: Value| {
        json!({
            "title": kind,
            "description": about,
            "type": "object",
            "additionalProperties": false,
            "required": if required.as_array().is_some_and(Vec::is_empty) { json!(["type"]) } else { json!(["type", "properties"]) },
            "properties": {
                "type": {"const": kind},
                "transmission": {
                    "description": "How values get there and back.",
                    "type": "object",
                    "additionalProperties": false,
                    "properties": {
                        "referencesAbove": {"type": ["integer", "null"], "minimum": 0, "description": "Function and Serverless: inputs above so many bytes go by URL."},
                        "outputs": {"enum": ["home", "in_place", null], "description": "Where large outputs are taken to."},
                    },
                },
                "implementationId": {"description": "Accepted for files of Apollo; it has no meaning."},
                "properties": {
                    "type": "object",
                    "additionalProperties": false,
                    "required": required,
                    "properties": properties,
                },
            },
        })
    };
    let function = json!({
        "name": {"type": "string", "description": "NAME, NAME@VERSION or NAME@ALIAS", "pattern": format!("^{NAME}(@{NAME})?$")},
        "job": {"type": "boolean", "default": false, "description": "As a durable job rather than a call."},
    });
    let serverless = json!({
        "Uri": {"type": "string", "format": "uri", "pattern": "^https?://", "description": "Takes a POST of a JSON object and answers with one."},
        "TimeoutInSeconds": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": MAX_TIMEOUT_SECONDS, "default": 30},
        "headers": {
            "type": ["object", "null"],
            "maxProperties": MAX_HEADERS,
            "description": "Headers beside Lyra's own: texts, or secrets of the tenant by name.",
            "additionalProperties": {"oneOf": [
                {"type": "string", "maxLength": MAX_TEXT},
                {
                    "type": "object",
                    "additionalProperties": false,
                    "required": ["secret"],
                    "properties": {
                        "secret": {"type": "string", "description": "Name of the secret.", "pattern": format!("^{NAME}$")},
                        "prefix": {"type": ["string", "null"], "maxLength": MAX_TEXT, "description": "What stands before its value."},
                    },
                },
            ]},
        },
    });
    let workflow = json!({
        "name": {"type": "string", "description": "NAME or NAME@VERSION", "pattern": format!("^{NAME}(@[1-9][0-9]*)?$")},
    });
    let cut = json!({
        "url": {"type": "string", "pattern": "^https?://[^/]+/?$", "description": "Address of the other Lyra, http://HOST:PORT."},
        "token": {"type": ["string", "null"], "description": "Name of a token in the settings of the workflow role."},
    });
    let own = json!({"type": "string", "minLength": 1, "maxLength": MAX_TYPE_LEN, "pattern": "^(?!lyra:)|^lyra:cut/."});
    let demo_about = format!("Built in: {}.", demo::TYPES.join(", "));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Type mapping",
        "description": "Which resources a function type of a workflow may be enacted on.",
        "type": "array",
        "maxItems": MAX_TYPES,
        "items": {
            "type": "object",
            "additionalProperties": false,
            "required": ["functionType", "resources"],
            "properties": {
                "functionType": own,
                "resources": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": MAX_RESOURCES,
                    "items": {"oneOf": [
                        resource("Function", "A Lyra function of the same tenant.", function, json!(["name"])),
                        resource("Serverless", "A URL, of any provider.", serverless, json!(["Uri"])),
                        resource("Demo", &demo_about, json!({}), json!([])),
                        resource("Workflow", "Another workflow of the same tenant.", workflow, json!(["name"])),
                        resource("Cut", "A part of this workflow, on another Lyra.", cut, json!(["url"])),
                    ]},
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::parse::KINDS;
    use super::*;

    #[test]
    fn the_schema_is_the_one_of_the_reference() {
        let reference = include_str!("../../../../docs/reference/type-mapping.schema.json");
        let reference: Value = serde_json::from_str(reference).expect("the reference is JSON");
        assert_eq!(schema(), reference, "docs/reference/type-mapping.schema.json is to say this");
    }

    #[test]
    fn the_schema_has_every_kind_of_resource() {
        let schema = schema();
        let kinds = schema["items"]["properties"]["resources"]["items"]["oneOf"].as_array().expect("kinds");
        let named: Vec<&str> = kinds.iter().filter_map(|kind| kind["properties"]["type"]["const"].as_str()).collect();
        assert_eq!(named, KINDS);
        assert!(kinds.iter().all(|kind| kind["properties"]["properties"]["additionalProperties"] == false));
    }
}
