//! The JSON Schema of documents, for editors: what may stand where, made of the same tables as the reader's.
//!
//! A schema says less than the compiler: which names there are, and which types fit, only [`crate::compile`] knows.

use serde_json::{Map, Value, json};

use crate::document::vocabulary::{self as words, Shape};

/// The schema (draft 2020-12).
pub fn schema() -> Value {
    let definitions: &[(&str, &Shape)] = &[
        ("subFC", &words::SUB_CHOREOGRAPHY),
        ("port", &words::PORT),
        ("cut", &words::CUT),
        ("function", &words::FUNCTION),
        ("if", &words::IF),
        ("while", &words::WHILE),
        ("parallelFor", &words::PARALLEL_FOR),
        ("for", &words::FOR),
        ("sequence", &words::SEQUENCE),
        ("parallel", &words::PARALLEL),
        ("section", &words::SECTION),
        ("switch", &words::SWITCH),
        ("case", &words::CASE),
        ("dataIn", &words::DATA_IN),
        ("dataOut", &words::DATA_OUT_OF_COMPOUND),
        ("functionDataOut", &words::DATA_OUT_OF_FUNCTION),
        ("property", &words::PROPERTY),
        ("constraint", &words::CONSTRAINT),
        ("conditionObject", &words::CONDITION),
        ("comparison", &words::COMPARISON),
        ("dataLoop", &words::DATA_LOOP),
        ("loopCounter", &words::LOOP_COUNTER),
        ("dataEval", &words::DATA_EVAL),
    ];
    let mut defs: Map<String, Value> =
        definitions.iter().map(|(name, shape)| ((*name).to_owned(), object(name, shape))).collect();
    let constructs = words::CONSTRUCTS.iter().map(|name| {
        json!({"type": "object", "properties": {*name: reference(name)}, "required": [name], "additionalProperties": false})
    });
    defs.insert("construct".to_owned(), json!({"oneOf": constructs.collect::<Vec<_>>()}));
    defs.insert("body".to_owned(), json!({"type": "array", "minItems": 1, "items": reference("construct")}));
    let mut root = object("workflow", &words::WORKFLOW);
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!("AFCL workflow");
    root["$defs"] = Value::Object(defs);
    root
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/$defs/{name}")})
}

fn list(name: &str) -> Value {
    json!({"type": "array", "items": reference(name)})
}

fn object(name: &str, shape: &Shape) -> Value {
    let fields: Map<String, Value> =
        shape.fields.iter().map(|field| ((*field).to_owned(), field_schema(name, field))).collect();
    json!({"type": "object", "properties": fields, "required": shape.required, "additionalProperties": false})
}

/// What a field of an object takes. A field has the same meaning in most of them.
fn field_schema(of: &str, field: &str) -> Value {
    let scalar = || json!({"type": ["string", "number", "boolean"]});
    match (of, field) {
        ("function", "type") => {
            json!({"type": "string", "description": "The function type, which the type mapping binds."})
        }
        (_, "name") if of == "property" || of == "constraint" => json!({"type": "string"}),
        (_, "name") => json!({"type": "string", "pattern": "^[^/,]+$"}),
        (_, "type") => json!({"enum": words::TYPES}),
        (_, "operator") => json!({"enum": words::OPERATORS}),
        (_, "negation" | "passing" | "break") => json!({"enum": [true, false, "true", "false"]}),
        (_, "combinedWith") => json!({"enum": ["and", "or"]}),
        ("subFC", "dataIns") => list("port"),
        (_, "dataIns") => list("dataIn"),
        ("function", "dataOuts") => list("functionDataOut"),
        (_, "dataOuts") => list("dataOut"),
        (_, "properties") => list("property"),
        (_, "constraints") => list("constraint"),
        (
            _,
            "workflowBody" | "subFCBody" | "loopBody" | "sequenceBody" | "then" | "else" | "functions" | "default"
            | "section",
        ) => reference("body"),
        (_, "parallelBody") => list("section"),
        (_, "cases") => list("case"),
        (_, "subFCs") => list("subFC"),
        (_, "cuts") => list("cut"),
        (_, "members") => json!({"type": "array", "minItems": 1, "items": {"type": "string"}}),
        (_, "url") => json!({"type": "string", "pattern": "^https?://"}),
        (_, "condition") => json!({"oneOf": [
            {"type": "array", "minItems": 1, "items": reference("comparison")},
            reference("conditionObject"),
        ]}),
        (_, "conditions") => json!({"type": "array", "minItems": 1, "items": reference("comparison")}),
        (_, "dataLoops") => list("dataLoop"),
        (_, "loopCounter") => reference("loopCounter"),
        (_, "dataEval") => reference("dataEval"),
        (_, "iterators") => json!({"type": "array", "items": {"type": ["string", "integer"]}}),
        (_, "value") => json!({}),
        ("dataOut", "source") => {
            json!({"type": "string", "description": "PRODUCER/PORT; of an if both sides: THEN/PORT,ELSE/PORT"})
        }
        (_, "source" | "initSource" | "loopSource" | "data1" | "data2" | "from" | "to" | "step") => scalar(),
        _ => json!({"type": "string"}),
    }
}
