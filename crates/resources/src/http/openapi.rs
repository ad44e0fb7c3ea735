//! OpenAPI documents: what `kubectl explain` shows and `kubectl apply` checks by. Made of the types' doc comments.

use std::sync::OnceLock;

use http::Response;
use lyra_types::resources::{Application, ApplicationSession, ObjectMeta};
use serde_json::{Map, Value, json};

use super::answer::{self, Body};
use super::{Request, decode, openapi_v2};
use crate::Status;
use crate::kind::{Kind, Names};
use crate::kinds::schema_of as schema_of_type;
use crate::patch::PatchType;

/// The document of the group.
const DOCUMENT: &str = "apis/lyra.dev/v1";

/// Answers a request for an OpenAPI document.
pub(super) fn answer(path: &str, request: &Request<'_>) -> Result<Response<Body>, Status> {
    static INDEX: OnceLock<Value> = OnceLock::new();
    static V3: OnceLock<Value> = OnceLock::new();
    static V2: OnceLock<Value> = OnceLock::new();
    match path.trim_matches('/') {
        "openapi/v3" => {
            let index = INDEX.get_or_init(|| {
                let url = format!("/openapi/v3/{DOCUMENT}?hash={}", env!("CARGO_PKG_VERSION"));
                json!({"paths": {DOCUMENT: {"serverRelativeURL": url}}})
            });
            Ok(answer::json(200, &request.accept, index))
        }
        "openapi/v3/apis/lyra.dev/v1" => Ok(answer::json(200, &request.accept, V3.get_or_init(v3))),
        "openapi/v2" => {
            let document = V2.get_or_init(v2);
            if request.accept.openapi_protobuf {
                let media = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
                return Ok(answer::with(200, media, answer::body(openapi_v2::encode(document))));
            }
            Ok(answer::json(200, &request.accept, document))
        }
        _ => Err(Status::no_such_path()),
    }
}

/// The schema of an object of a kind, complete in itself.
pub(super) fn schema_of<K: Kind>() -> Value {
    let (mut spec, mut status) = K::schemas();
    let mut metadata = schema_of_type::<ObjectMeta>();
    metadata["description"] = "Standard object's metadata: name, namespace, labels and so on.".into();
    for (schema, path) in [(&mut spec, "spec"), (&mut status, "status"), (&mut metadata, "metadata")] {
        mark_lists(schema, path, K::KEYED_LISTS);
    }
    spec["description"] = "What is wanted.".into();
    status["description"] = "What is. Written by the platform; what a client writes here is ignored.".into();
    let text = |description: &str| json!({"type": "string", "description": description});
    json!({
        "type": "object",
        "description": K::NAMES.description,
        "properties": {
            "apiVersion": text("Group and version of the object: lyra.dev/v1."),
            "kind": text("Kind of the object."),
            "metadata": metadata,
            "spec": spec,
            "status": status,
        },
        "required": ["spec"],
        "x-kubernetes-group-version-kind": gvk(&K::NAMES, K::NAMES.kind),
    })
}

/// Says which lists have keys.
fn mark_lists(schema: &mut Value, path: &str, keyed: &[(&str, &[&str])]) {
    if schema.get("items").is_some() {
        if let Some((_, keys)) = keyed.iter().find(|(known, _)| *known == path) {
            schema["x-kubernetes-list-type"] = "map".into();
            schema["x-kubernetes-list-map-keys"] = json!(keys);
            // What `kubectl apply` makes its strategic merge patches by.
            schema["x-kubernetes-patch-strategy"] = "merge".into();
            schema["x-kubernetes-patch-merge-key"] = json!(keys[0]);
        }
        return mark_lists(&mut schema["items"], path, keyed);
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for (name, schema) in properties {
            mark_lists(schema, &format!("{path}.{name}"), keyed);
        }
    }
}

fn gvk(names: &Names, kind: &str) -> Value {
    json!([{"group": names.group, "version": names.version, "kind": kind}])
}

fn component(kind: &str) -> String {
    format!("dev.lyra.v1.{kind}")
}

/// Schemas of a kind and of its list.
fn add_schemas<K: Kind>(schemas: &mut Map<String, Value>, reference: &str) {
    let names = K::NAMES;
    schemas.insert(component(names.kind), decode::schema::<K>().clone());
    let list = json!({
        "type": "object",
        "description": format!("{} is a list of {}.", names.list_kind, names.kind),
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "items": {"type": "array", "items": {"$ref": format!("{reference}{}", component(names.kind))}},
        },
        "x-kubernetes-group-version-kind": gvk(&names, names.list_kind),
    });
    schemas.insert(component(names.list_kind), list);
}

fn schemas(reference: &str) -> Value {
    let mut schemas = Map::new();
    add_schemas::<Application>(&mut schemas, reference);
    add_schemas::<ApplicationSession>(&mut schemas, reference);
    Value::Object(schemas)
}

/// Parameters that every writing request has: clients look for them before they rely on the server to check.
const WRITE_PARAMETERS: [(&str, &str); 4] =
    [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")];

fn paths(parameter: fn(&str, &str, &str) -> Value) -> Value {
    let mut paths = Map::new();
    for names in [Application::NAMES, ApplicationSession::NAMES] {
        let operation = |action: &str, path: &[&str], query: &[(&str, &str)]| {
            let path = path.iter().map(|name| parameter("path", name, "string"));
            let query = query.iter().map(|(name, r#type)| parameter("query", name, r#type));
            json!({
                "description": format!("{action} {}", names.kind),
                "x-kubernetes-action": action,
                "x-kubernetes-group-version-kind": {"group": names.group, "version": names.version, "kind": names.kind},
                "parameters": path.chain(query).collect::<Vec<_>>(),
                "responses": {"200": {"description": "OK"}},
            })
        };
        let list = [
            ("labelSelector", "string"),
            ("fieldSelector", "string"),
            ("limit", "integer"),
            ("continue", "string"),
            ("resourceVersion", "string"),
            ("resourceVersionMatch", "string"),
            ("timeoutSeconds", "integer"),
            ("watch", "boolean"),
            ("allowWatchBookmarks", "boolean"),
            ("sendInitialEvents", "boolean"),
        ];
        let root = format!("/apis/{}/{}", names.group, names.version);
        let collection = format!("{root}/namespaces/{{namespace}}/{}", names.plural);
        paths.insert(format!("{root}/{}", names.plural), json!({"get": operation("list", &[], &list)}));
        let one = ["namespace", "name"];
        paths.insert(
            collection.clone(),
            json!({
                "get": operation("list", &one[..1], &list),
                "post": operation("post", &one[..1], &WRITE_PARAMETERS[..3]),
                "delete": operation("deletecollection", &one[..1], &list),
            }),
        );
        let mut patch = operation("patch", &one, &WRITE_PARAMETERS);
        let media: Map<String, Value> =
            PatchType::MEDIA_TYPES.iter().map(|(media, _)| ((*media).to_owned(), json!({}))).collect();
        patch["consumes"] = media.keys().cloned().collect();
        patch["requestBody"] = json!({"content": media});
        let object = json!({
            "get": operation("get", &one, &[("resourceVersion", "string")]),
            "put": operation("put", &one, &WRITE_PARAMETERS[..3]),
            "patch": patch,
            "delete": operation("delete", &one, &[("dryRun", "string"), ("gracePeriodSeconds", "integer"),
                ("propagationPolicy", "string")]),
        });
        let mut status = object.clone();
        status.as_object_mut().map(|status| status.remove("delete"));
        paths.insert(format!("{collection}/{{name}}"), object);
        paths.insert(format!("{collection}/{{name}}/status"), status);
    }
    Value::Object(paths)
}

fn info() -> Value {
    json!({"title": "Lyra: applications and sessions", "version": env!("CARGO_PKG_VERSION")})
}

fn v3() -> Value {
    let parameter = |place: &str, name: &str, r#type: &str| json!({"name": name, "in": place, "required": place == "path", "schema": {"type": r#type}});
    json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths(parameter),
        "components": {"schemas": schemas("#/components/schemas/")},
    })
}

fn v2() -> Value {
    let parameter = |place: &str, name: &str, r#type: &str| json!({"name": name, "in": place, "required": place == "path", "type": r#type});
    let mut definitions = schemas("#/definitions/");
    without_choices(&mut definitions);
    json!({"swagger": "2.0", "info": info(), "paths": paths(parameter), "definitions": definitions})
}

/// Version 2 knows no `anyOf`: a number or a string is of no type there.
fn without_choices(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.remove("anyOf");
            map.values_mut().for_each(without_choices);
        }
        Value::Array(items) => items.iter_mut().for_each(without_choices),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields without a description, and what version 3.0 does not know.
    fn faults(schema: &Value, path: &str, faults: &mut Vec<String>) {
        if let Some(Value::Object(properties)) = schema.get("properties") {
            for (name, field) in properties {
                let path = format!("{path}.{name}");
                if field.get("description").is_none() {
                    faults.push(format!("{path} has no description"));
                }
                self::faults(field, &path, faults);
            }
        }
        for key in ["$ref", "oneOf", "allOf", "const", "$defs", "definitions", "nullable"] {
            if schema.get(key).is_some() {
                faults.push(format!("{path} has {key}"));
            }
        }
        if schema.get("type").is_some_and(|r#type| !r#type.is_string()) {
            faults.push(format!("{path} is of more than one type"));
        }
        for key in ["items", "additionalProperties"] {
            if let Some(schema) = schema.get(key) {
                self::faults(schema, &format!("{path}[]"), faults);
            }
        }
    }

    #[test]
    fn every_field_is_described_in_words_that_openapi_3_knows() {
        for (schema, kind) in
            [(schema_of::<Application>(), "application"), (schema_of::<ApplicationSession>(), "session")]
        {
            let mut found = Vec::new();
            faults(&schema, kind, &mut found);
            assert_eq!(found, Vec::<String>::new());
        }
        let schema = schema_of::<ApplicationSession>();
        let states = &schema["properties"]["status"]["properties"]["sessionStatus"];
        assert_eq!(
            states["enum"],
            json!(["", "Pending", "Starting", "Available", "InUse", "Closing", "Closed", "Timeout"])
        );
        let containers = &schema_of::<Application>()["properties"]["spec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
        assert!(
            containers["items"]["properties"]["livenessProbe"]["properties"]["httpGet"]["properties"]["port"]
                .is_object()
        );
    }
}
