//! The words of the language: constructs, types, operators, and the fields of each object. The reader takes no other,
//! and the schema for editors is made of these.

/// An object of a document.
#[derive(Debug)]
pub(crate) struct Shape {
    /// What it is, for messages.
    pub(crate) what: &'static str,
    /// Its fields.
    pub(crate) fields: &'static [&'static str],
    /// Those that must be there.
    pub(crate) required: &'static [&'static str],
}

/// The constructs.
pub(crate) const CONSTRUCTS: &[&str] =
    &["function", "if", "while", "parallelFor", "for", "sequence", "parallel", "switch"];

/// The types of data.
pub(crate) const TYPES: &[&str] = &["number", "string", "boolean", "object", "collection", "array"];

/// The operators of comparisons.
pub(crate) const OPERATORS: &[&str] = &["==", "!=", "<", ">", "<=", ">=", "contains", "startsWith", "endsWith"];

pub(crate) const WORKFLOW: Shape = Shape {
    what: "a workflow",
    fields: &["name", "dataIns", "workflowBody", "dataOuts", "subFCs", "cuts", "description"],
    required: &["name", "workflowBody"],
};

pub(crate) const SUB_CHOREOGRAPHY: Shape = Shape {
    what: "a sub-choreography",
    fields: &["name", "dataIns", "subFCBody", "dataOuts", "description"],
    required: &["name", "subFCBody"],
};

pub(crate) const PORT: Shape = Shape {
    what: "a dataIn of a sub-choreography",
    fields: &["name", "type", "source", "description"],
    required: &["name", "type"],
};

pub(crate) const CUT: Shape =
    Shape { what: "a cut", fields: &["name", "members", "url"], required: &["name", "members"] };

pub(crate) const FUNCTION: Shape = Shape {
    what: "a function",
    fields: &["name", "type", "dataIns", "dataOuts", "properties", "constraints", "deployment", "description"],
    required: &["name", "type"],
};

pub(crate) const IF: Shape = Shape {
    what: "an if",
    fields: &["name", "dataIns", "condition", "then", "else", "dataOuts", "properties", "constraints", "description"],
    required: &["name", "condition", "then"],
};

pub(crate) const WHILE: Shape = Shape {
    what: "a while",
    fields: &[
        "name",
        "dataIns",
        "dataLoops",
        "loopBody",
        "condition",
        "dataOuts",
        "properties",
        "constraints",
        "description",
    ],
    required: &["name", "loopBody", "condition"],
};

pub(crate) const PARALLEL_FOR: Shape = Shape {
    what: "a parallelFor",
    fields: &[
        "name",
        "dataIns",
        "iterators",
        "loopCounter",
        "loopBody",
        "dataOuts",
        "properties",
        "constraints",
        "description",
    ],
    required: &["name", "loopBody"],
};

pub(crate) const FOR: Shape = Shape {
    what: "a for",
    fields: &[
        "name",
        "dataIns",
        "loopCounter",
        "dataLoops",
        "loopBody",
        "dataOuts",
        "properties",
        "constraints",
        "description",
    ],
    required: &["name", "loopCounter", "loopBody"],
};

pub(crate) const SEQUENCE: Shape = Shape {
    what: "a sequence",
    fields: &["name", "dataIns", "sequenceBody", "dataOuts", "properties", "constraints", "description"],
    required: &["name", "sequenceBody"],
};

pub(crate) const PARALLEL: Shape = Shape {
    what: "a parallel",
    fields: &["name", "dataIns", "parallelBody", "dataOuts", "properties", "constraints", "description"],
    required: &["name", "parallelBody"],
};

pub(crate) const SECTION: Shape =
    Shape { what: "an entry of parallelBody", fields: &["section"], required: &["section"] };

pub(crate) const SWITCH: Shape = Shape {
    what: "a switch",
    fields: &[
        "name",
        "dataIns",
        "dataEval",
        "cases",
        "default",
        "dataOuts",
        "properties",
        "constraints",
        "description",
    ],
    required: &["name", "dataEval", "cases"],
};

pub(crate) const CASE: Shape =
    Shape { what: "a case", fields: &["value", "break", "functions"], required: &["value", "functions"] };

pub(crate) const DATA_IN: Shape = Shape {
    what: "a dataIn",
    fields: &["name", "type", "source", "value", "passing", "properties", "constraints", "description"],
    required: &["name", "type"],
};

pub(crate) const DATA_OUT_OF_COMPOUND: Shape = Shape {
    what: "a dataOut",
    fields: &["name", "type", "source", "properties", "constraints", "description"],
    required: &["name", "type", "source"],
};

pub(crate) const DATA_OUT_OF_FUNCTION: Shape = Shape {
    what: "a dataOut of a function",
    fields: &["name", "type", "properties", "constraints", "description"],
    required: &["name", "type"],
};

pub(crate) const PROPERTY: Shape =
    Shape { what: "a property", fields: &["name", "value"], required: &["name", "value"] };

pub(crate) const CONSTRAINT: Shape =
    Shape { what: "a constraint", fields: &["name", "value"], required: &["name", "value"] };

pub(crate) const CONDITION: Shape =
    Shape { what: "a condition", fields: &["combinedWith", "conditions"], required: &["conditions"] };

pub(crate) const COMPARISON: Shape = Shape {
    what: "a comparison",
    fields: &["data1", "data2", "type", "operator", "negation", "combinedWith"],
    required: &["data1", "data2", "operator"],
};

pub(crate) const DATA_LOOP: Shape = Shape {
    what: "a dataLoop",
    fields: &["name", "type", "initSource", "loopSource", "value"],
    required: &["name", "type", "loopSource"],
};

pub(crate) const LOOP_COUNTER: Shape =
    Shape { what: "a loopCounter", fields: &["name", "type", "from", "to", "step"], required: &["from", "to"] };

pub(crate) const DATA_EVAL: Shape =
    Shape { what: "a dataEval", fields: &["name", "type", "source"], required: &["type", "source"] };
