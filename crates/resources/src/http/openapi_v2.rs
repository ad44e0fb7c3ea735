//! The OpenAPI v2 document in protobuf, which `kubectl` before 1.27 asks for and takes in no other form.
//!
//! Messages and field numbers are those of `OpenAPIv2.proto` (gnostic); only what such a client reads is written.

use prost::Message;
use serde_json::Value;

#[derive(Clone, PartialEq, Message)]
struct Document {
    #[prost(string, tag = "1")]
    swagger: String,
    #[prost(message, optional, tag = "2")]
    info: Option<Info>,
    #[prost(message, optional, tag = "8")]
    paths: Option<Paths>,
    #[prost(message, optional, tag = "9")]
    definitions: Option<Schemas>,
}

#[derive(Clone, PartialEq, Message)]
struct Info {
    #[prost(string, tag = "1")]
    title: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Paths {
    #[prost(message, repeated, tag = "2")]
    path: Vec<NamedPath>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedPath {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Path>,
}

#[derive(Clone, PartialEq, Message)]
struct Path {
    #[prost(message, optional, tag = "2")]
    get: Option<Operation>,
    #[prost(message, optional, tag = "3")]
    put: Option<Operation>,
    #[prost(message, optional, tag = "4")]
    post: Option<Operation>,
    #[prost(message, optional, tag = "5")]
    delete: Option<Operation>,
    #[prost(message, optional, tag = "8")]
    patch: Option<Operation>,
}

#[derive(Clone, PartialEq, Message)]
struct Operation {
    #[prost(string, tag = "3")]
    description: String,
    #[prost(message, repeated, tag = "8")]
    parameters: Vec<ParameterItem>,
    #[prost(message, repeated, tag = "13")]
    extensions: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
struct ParameterItem {
    #[prost(message, optional, tag = "1")]
    parameter: Option<Parameter>,
}

#[derive(Clone, PartialEq, Message)]
struct Parameter {
    #[prost(message, optional, tag = "2")]
    non_body: Option<NonBody>,
}

#[derive(Clone, PartialEq, Message)]
struct NonBody {
    #[prost(message, optional, tag = "3")]
    query: Option<QueryParameter>,
    #[prost(message, optional, tag = "4")]
    path: Option<PathParameter>,
}

#[derive(Clone, PartialEq, Message)]
struct QueryParameter {
    #[prost(string, tag = "2")]
    place: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "6")]
    r#type: String,
}

#[derive(Clone, PartialEq, Message)]
struct PathParameter {
    #[prost(bool, tag = "1")]
    required: bool,
    #[prost(string, tag = "2")]
    place: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "5")]
    r#type: String,
}

#[derive(Clone, PartialEq, Message)]
struct Schemas {
    #[prost(message, repeated, tag = "1")]
    additional_properties: Vec<NamedSchema>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedSchema {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct Schema {
    #[prost(string, tag = "1")]
    reference: String,
    #[prost(string, tag = "2")]
    format: String,
    #[prost(string, tag = "4")]
    description: String,
    #[prost(string, repeated, tag = "19")]
    required: Vec<String>,
    #[prost(message, optional, boxed, tag = "21")]
    additional_properties: Option<Box<AdditionalProperties>>,
    #[prost(message, optional, tag = "22")]
    r#type: Option<TypeItem>,
    #[prost(message, optional, tag = "23")]
    items: Option<Items>,
    #[prost(message, optional, tag = "25")]
    properties: Option<Schemas>,
    #[prost(message, repeated, tag = "31")]
    extensions: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
struct AdditionalProperties {
    #[prost(message, optional, boxed, tag = "1")]
    schema: Option<Box<Schema>>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeItem {
    #[prost(string, repeated, tag = "1")]
    value: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Items {
    #[prost(message, repeated, tag = "1")]
    schema: Vec<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedAny {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "2")]
    yaml: String,
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Fields of a map, by name.
fn fields<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value.get(key).and_then(Value::as_object).into_iter().flatten()
}

/// What begins with `x-`: JSON is YAML.
fn extensions(value: &Value) -> Vec<NamedAny> {
    let extension = |(name, value): (&String, &Value)| NamedAny {
        name: name.clone(),
        value: Some(Any { yaml: value.to_string() }),
    };
    value.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-")).map(extension).collect()
}

fn schemas(value: &Value, key: &str) -> Option<Schemas> {
    let additional_properties: Vec<NamedSchema> = fields(value, key)
        .map(|(name, value)| NamedSchema { name: name.clone(), value: Some(schema(value)) })
        .collect();
    (!additional_properties.is_empty()).then_some(Schemas { additional_properties })
}

fn schema(value: &Value) -> Schema {
    let inner = value.get("additionalProperties").filter(|inner| inner.is_object());
    let required = value.get("required").and_then(Value::as_array).into_iter().flatten();
    Schema {
        reference: text(value, "$ref"),
        format: text(value, "format"),
        description: text(value, "description"),
        required: required.filter_map(Value::as_str).map(str::to_owned).collect(),
        additional_properties: inner
            .map(|inner| Box::new(AdditionalProperties { schema: Some(Box::new(schema(inner))) })),
        r#type: value.get("type").and_then(Value::as_str).map(|name| TypeItem { value: vec![name.to_owned()] }),
        items: value.get("items").map(|items| Items { schema: vec![schema(items)] }),
        properties: schemas(value, "properties"),
        extensions: extensions(value),
    }
}

fn operation(value: &Value) -> Operation {
    let parameter = |value: &Value| {
        let (place, name, r#type) = (text(value, "in"), text(value, "name"), text(value, "type"));
        let non_body = match place.as_str() {
            "path" => NonBody { path: Some(PathParameter { required: true, place, name, r#type }), query: None },
            _ => NonBody { query: Some(QueryParameter { place, name, r#type }), path: None },
        };
        ParameterItem { parameter: Some(Parameter { non_body: Some(non_body) }) }
    };
    Operation {
        description: text(value, "description"),
        parameters: value.get("parameters").and_then(Value::as_array).into_iter().flatten().map(parameter).collect(),
        extensions: extensions(value),
    }
}

/// The document in protobuf.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    let path = |(name, value): (&String, &Value)| {
        let of = |verb: &str| value.get(verb).map(operation);
        let path = Path { get: of("get"), put: of("put"), post: of("post"), delete: of("delete"), patch: of("patch") };
        NamedPath { name: name.clone(), value: Some(path) }
    };
    let info = &document["info"];
    Document {
        swagger: text(document, "swagger"),
        info: Some(Info { title: text(info, "title"), version: text(info, "version") }),
        paths: Some(Paths { path: fields(document, "paths").map(path).collect() }),
        definitions: schemas(document, "definitions"),
    }
    .encode_to_vec()
}
