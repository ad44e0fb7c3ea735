//! Reads what constructs consist of: inputs, outputs, conditions, counters, properties and constraints.

use super::fields::{Fields, json, quote, text, unknown};
use super::tree::{Content, Node};
use super::vocabulary::{
    COMPARISON, CONDITION, CONSTRAINT, DATA_EVAL, DATA_IN, DATA_LOOP, DATA_OUT_OF_COMPOUND, DATA_OUT_OF_FUNCTION,
    LOOP_COUNTER, OPERATORS, PROPERTY, TYPES,
};
use super::{Comparison, DataEval, DataIn, DataLoop, DataOut, Feed, LoopCounter, Setting};
use crate::diagnostic::{DiagnosticCode as Code, Findings, Located};
use crate::graph::{Combine, DataType, Operator};

/// The type in the field `type`.
pub(crate) fn data_type(fields: &Fields<'_, '_>, findings: &mut Findings) -> Option<DataType> {
    let name = fields.text("type", findings)?;
    let found = match name.value.as_str() {
        "number" => DataType::Number,
        "string" => DataType::String,
        "boolean" => DataType::Boolean,
        "object" => DataType::Object,
        "collection" => DataType::Collection,
        "array" => DataType::Array,
        other => {
            let hint = match other {
                "bool" => "; did you mean `boolean`?".to_owned(),
                "file" => "; hand on an address, as a `string`".to_owned(),
                "int" | "integer" | "float" | "double" => "; did you mean `number`?".to_owned(),
                _ => unknown(other, TYPES).replace("it has", "there are"),
            };
            findings.fatal(name.at, Code::UnknownType, format!("there is no type {}{hint}", quote(other)));
            return None;
        }
    };
    Some(found)
}

/// The source in `source`, or the constant in `value`.
fn feed(fields: &Fields<'_, '_>, source: &str, findings: &mut Findings) -> Option<Feed> {
    match (fields.get(source), fields.get("value")) {
        (Some(_), Some(value)) => {
            let message = format!("`value` stands beside `{source}`; one of the two says what is read");
            findings.error(value.at, Code::WrongShape, message);
            None
        }
        (None, Some(value)) => json(value, findings).map(Feed::Value),
        _ => fields.text(source, findings).map(Feed::Source),
    }
}

/// Inputs, from the field `dataIns`.
pub(crate) fn data_ins(fields: &Fields<'_, '_>, findings: &mut Findings) -> Vec<DataIn> {
    let nodes = fields.list("dataIns", findings);
    nodes.iter().filter_map(|node| data_in(node, findings)).collect()
}

fn data_in(node: &Node<'_>, findings: &mut Findings) -> Option<DataIn> {
    let fields = Fields::open(node, &DATA_IN, findings)?;
    let (name, data_type) = (fields.name(findings), data_type(&fields, findings));
    let feed = feed(&fields, "source", findings);
    let passing = fields.truth("passing", findings);
    without_effect(&settings(&fields, "properties", findings), findings);
    let constraints = settings(&fields, "constraints", findings);
    Some(DataIn { name: name?, data_type: data_type?, feed: feed?, passing, constraints })
}

/// Outputs, from the field `dataOuts`; `with_source` where they belong to a compound.
pub(crate) fn data_outs(fields: &Fields<'_, '_>, with_source: bool, findings: &mut Findings) -> Vec<DataOut> {
    let nodes = fields.list("dataOuts", findings);
    nodes.iter().filter_map(|node| data_out(node, with_source, findings)).collect()
}

fn data_out(node: &Node<'_>, with_source: bool, findings: &mut Findings) -> Option<DataOut> {
    let shape = if with_source { &DATA_OUT_OF_COMPOUND } else { &DATA_OUT_OF_FUNCTION };
    let fields = Fields::open(node, shape, findings)?;
    let (name, data_type) = (fields.name(findings), data_type(&fields, findings));
    let sources = match with_source {
        true => fields.text("source", findings).map(|source| split(&source)),
        false => Some(Vec::new()),
    };
    without_effect(&settings(&fields, "properties", findings), findings);
    let constraints = settings(&fields, "constraints", findings);
    Some(DataOut { name: name?, data_type: data_type?, sources: sources?, constraints })
}

/// Splits `a/x,b/y`; a comma between double quotes belongs to a constant.
fn split(source: &Located<String>) -> Vec<Located<String>> {
    let mut quoted = false;
    let parts = source.value.split(|c: char| {
        quoted ^= c == '"';
        c == ',' && !quoted
    });
    parts.map(|part| Located { at: source.at, value: part.trim().to_owned() }).collect()
}

fn without_effect(properties: &[Setting], findings: &mut Findings) {
    for property in properties {
        let message = format!("the property {} of data has no effect", quote(&property.name.value));
        findings.warn(property.name.at, Code::NoEffect, message);
    }
}

/// Properties or constraints: a list of names and values.
pub(crate) fn settings(fields: &Fields<'_, '_>, field: &str, findings: &mut Findings) -> Vec<Setting> {
    let nodes = fields.list(field, findings);
    let each = |node: &Node<'_>| {
        let shape = if field == "properties" { &PROPERTY } else { &CONSTRAINT };
        let fields = Fields::open(node, shape, findings)?;
        let name = fields.text("name", findings);
        let value = fields.need("value", findings).and_then(|value| json(value, findings));
        Some(Setting { name: name?, value: value? })
    };
    nodes.iter().filter_map(each).collect()
}

/// A condition: a list of comparisons as in 1.1, or an object with one combinator for all as in 1.0. Returns whether
/// it was the latter.
pub(crate) fn condition(fields: &Fields<'_, '_>, findings: &mut Findings) -> Option<(Vec<Comparison>, bool)> {
    let node = fields.need("condition", findings)?;
    let (items, combine, one_zero) = match &node.content {
        Content::List(items) => (items.as_slice(), None, false),
        Content::Map(_) => {
            let inner = Fields::open(node, &CONDITION, findings)?;
            let combine = inner.get("combinedWith").map(|node| combined(node, findings));
            (inner.list("conditions", findings), Some(combine.unwrap_or(Combine::And)), true)
        }
        Content::Scalar { .. } => {
            let message = "`condition` must be a list of comparisons (`data1`, `operator`, `data2`, `type`)";
            findings.fatal(node.at, Code::WrongShape, message);
            return None;
        }
    };
    if items.is_empty() {
        findings.fatal(node.at, Code::MissingField, "a condition needs at least one comparison");
        return None;
    }
    let comparisons: Vec<Comparison> = items.iter().filter_map(|node| comparison(node, combine, findings)).collect();
    (comparisons.len() == items.len()).then_some((comparisons, one_zero))
}

fn combined(node: &Node<'_>, findings: &mut Findings) -> Combine {
    match &node.content {
        Content::Scalar { text, .. } if text.eq_ignore_ascii_case("and") => Combine::And,
        Content::Scalar { text, .. } if text.eq_ignore_ascii_case("or") => Combine::Or,
        _ => {
            findings.error(node.at, Code::WrongShape, "`combinedWith` must be `and` or `or`");
            Combine::And
        }
    }
}

fn comparison(node: &Node<'_>, combine: Option<Combine>, findings: &mut Findings) -> Option<Comparison> {
    let fields = Fields::open(node, &COMPARISON, findings)?;
    let left = fields.text("data1", findings);
    let right = fields.text("data2", findings);
    let operator = operator(&fields, findings);
    // 1.0's comparisons have no type: those that order are of numbers, those that look into a text of texts.
    let data_type = match (fields.has("type"), combine, operator) {
        (false, Some(_), Some(Operator::Contains | Operator::StartsWith | Operator::EndsWith)) => {
            Some(DataType::String)
        }
        (false, Some(_), _) => Some(DataType::Number),
        _ => data_type(&fields, findings),
    };
    let negated = fields.truth("negation", findings);
    let own = fields.get("combinedWith").map(|node| combined(node, findings));
    let (left, right, data_type, operator) = (left?, right?, data_type?, operator?);
    check_operator(operator, data_type, node, findings);
    Some(Comparison {
        left: Feed::Source(left),
        right: Feed::Source(right),
        data_type,
        operator,
        negated,
        combined_with: own.or(combine).unwrap_or(Combine::And),
    })
}

fn operator(fields: &Fields<'_, '_>, findings: &mut Findings) -> Option<Operator> {
    let name = fields.text("operator", findings)?;
    Some(match name.value.as_str() {
        "==" => Operator::Equal,
        "!=" => Operator::NotEqual,
        "<" => Operator::Less,
        ">" => Operator::Greater,
        "<=" => Operator::LessOrEqual,
        ">=" => Operator::GreaterOrEqual,
        "contains" => Operator::Contains,
        "startsWith" => Operator::StartsWith,
        "endsWith" => Operator::EndsWith,
        other => {
            let hint = match other {
                "=<" => "; write `<=`".to_owned(),
                "=>" => "; write `>=`".to_owned(),
                "=" => "; write `==`".to_owned(),
                _ => unknown(other, OPERATORS).replace("it has", "there are"),
            };
            findings.fatal(name.at, Code::UnknownOperator, format!("there is no operator {}{hint}", quote(other)));
            return None;
        }
    })
}

fn check_operator(operator: Operator, data_type: DataType, node: &Node<'_>, findings: &mut Findings) {
    use Operator::{Contains, EndsWith, Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual, StartsWith};
    let goes = match data_type {
        DataType::Number => matches!(operator, Equal | NotEqual | Less | Greater | LessOrEqual | GreaterOrEqual),
        DataType::String => matches!(operator, Equal | NotEqual | Contains | StartsWith | EndsWith),
        DataType::Boolean | DataType::Object => matches!(operator, Equal | NotEqual),
        DataType::Collection | DataType::Array => {
            let message = "a collection can't be compared; as a `number` it is the index of its last element";
            findings.error(node.at, Code::OperatorType, message);
            return;
        }
    };
    if !goes {
        let message = "this operator does not go with this type: numbers take == != < > <= >=, strings == != contains \
                       startsWith endsWith, booleans and objects == !=";
        findings.error(node.at, Code::OperatorType, message);
    }
}

/// 1.0's `dataLoops`.
pub(crate) fn data_loops(fields: &Fields<'_, '_>, findings: &mut Findings) -> Vec<DataLoop> {
    let nodes = fields.list("dataLoops", findings);
    let each = |node: &Node<'_>| {
        let fields = Fields::open(node, &DATA_LOOP, findings)?;
        let (name, data_type) = (fields.name(findings), data_type(&fields, findings));
        let initial = feed(&fields, "initSource", findings);
        let next = fields.text("loopSource", findings);
        Some(DataLoop { name: name?, data_type: data_type?, initial: initial?, next: next? })
    };
    nodes.iter().filter_map(each).collect()
}

/// 1.0's `loopCounter`.
pub(crate) fn loop_counter(node: &Node<'_>, findings: &mut Findings) -> Option<LoopCounter> {
    let fields = Fields::open(node, &LOOP_COUNTER, findings)?;
    let name = match fields.has("name") {
        true => fields.name(findings)?.value,
        false => "counter".to_owned(),
    };
    if fields.has("type") && data_type(&fields, findings)? != DataType::Number {
        findings.error(node.at, Code::TypeMismatch, "a loopCounter is a `number`");
    }
    let from = fields.text("from", findings).map(Feed::Source);
    let to = fields.text("to", findings).map(Feed::Source);
    let step = fields.get("step").and_then(|node| text(node, "step", findings)).map(Feed::Source);
    Some(LoopCounter { at: node.at, name, from: from?, to: to?, step })
}

/// 1.0's `dataEval`.
pub(crate) fn data_eval(fields: &Fields<'_, '_>, findings: &mut Findings) -> Option<DataEval> {
    let node = fields.need("dataEval", findings)?;
    let fields = Fields::open(node, &DATA_EVAL, findings)?;
    let data_type = data_type(&fields, findings);
    let feed = fields.text("source", findings).map(Feed::Source);
    let data_type = data_type?;
    if matches!(data_type, DataType::Collection | DataType::Array) {
        findings.error(node.at, Code::OperatorType, "a collection can't be compared with the cases");
    }
    Some(DataEval { data_type, feed: feed? })
}
