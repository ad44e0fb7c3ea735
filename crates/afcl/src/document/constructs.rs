//! Reads functions and compounds.

use super::fields::{Fields, json, quote, unknown};
use super::parts::{condition, data_eval, data_ins, data_loops, data_outs, loop_counter, settings};
use super::tree::{Content, Node};
use super::vocabulary::{
    CASE, CONSTRUCTS, FOR, FUNCTION, IF, PARALLEL, PARALLEL_FOR, SECTION, SEQUENCE, SWITCH, WHILE,
};
use super::{Case, Construct, Kind};
use crate::diagnostic::{DiagnosticCode as Code, Findings};
use crate::limits::MAX_NESTING;

/// The functions of a body, of which there must be at least one.
pub(crate) fn body(fields: &Fields<'_, '_>, field: &str, depth: usize, findings: &mut Findings) -> Vec<Construct> {
    let Some(node) = fields.need(field, findings) else { return Vec::new() };
    constructs(node, field, depth, findings)
}

fn constructs(node: &Node<'_>, field: &str, depth: usize, findings: &mut Findings) -> Vec<Construct> {
    let Content::List(items) = &node.content else {
        let message = format!("`{field}` must be a list of functions and compounds, not {}", node.shape());
        findings.fatal(node.at, Code::WrongShape, message);
        return Vec::new();
    };
    if items.is_empty() {
        findings.fatal(node.at, Code::MissingField, format!("`{field}` needs at least one function"));
    }
    items.iter().filter_map(|item| construct(item, depth, findings)).collect()
}

fn construct(node: &Node<'_>, depth: usize, findings: &mut Findings) -> Option<Construct> {
    if depth > MAX_NESTING {
        let message = format!("compounds are nested deeper than {MAX_NESTING}");
        findings.fatal(node.at, Code::TooLarge, message);
        return None;
    }
    let entry = match &node.content {
        Content::Map(entries) if entries.len() == 1 => &entries[0],
        _ => {
            let message = "must be an object with one field: the construct, such as `function` or `if`";
            findings.fatal(node.at, Code::WrongShape, message);
            return None;
        }
    };
    let (keyword, value) = (&entry.0, &entry.1);
    match keyword.value.as_ref() {
        "function" => function(value, findings),
        "if" => branch(value, depth, findings),
        "while" => repeat(value, depth, findings),
        "parallelFor" => parallel_for(value, depth, findings),
        "for" => counted(value, depth, findings),
        "sequence" => sequence(value, depth, findings),
        "parallel" => parallel(value, depth, findings),
        "switch" => switch(value, depth, findings),
        other => {
            let hint = unknown(other, CONSTRUCTS).replace("it has", "there are");
            findings.fatal(keyword.at, Code::UnknownConstruct, format!("there is no construct {}{hint}", quote(other)));
            None
        }
    }
}

/// What all constructs have, put around `kind`.
fn finish(fields: &Fields<'_, '_>, kind: Option<Kind>, findings: &mut Findings) -> Option<Construct> {
    let name = fields.name(findings);
    let data_ins = data_ins(fields, findings);
    let is_function = matches!(kind, Some(Kind::Function { .. }));
    let data_outs = data_outs(fields, !is_function, findings);
    let properties = settings(fields, "properties", findings);
    let constraints = settings(fields, "constraints", findings);
    Some(Construct { name: name?, data_ins, data_outs, properties, constraints, kind: kind? })
}

fn function(node: &Node<'_>, findings: &mut Findings) -> Option<Construct> {
    let fields = Fields::open(node, &FUNCTION, findings)?;
    let kind = fields.text("type", findings).map(|function_type| Kind::Function { function_type });
    finish(&fields, kind, findings)
}

fn branch(node: &Node<'_>, depth: usize, findings: &mut Findings) -> Option<Construct> {
    let fields = Fields::open(node, &IF, findings)?;
    let condition = condition(&fields, findings);
    let then = body(&fields, "then", depth + 1, findings);
    let otherwise = match fields.get("else") {
        Some(node) => constructs(node, "else", depth + 1, findings),
        None => Vec::new(),
    };
    let kind = condition.map(|(condition, _)| Kind::If { condition, then, otherwise });
    finish(&fields, kind, findings)
}

fn repeat(node: &Node<'_>, depth: usize, findings: &mut Findings) -> Option<Construct> {
    let fields = Fields::open(node, &WHILE, findings)?;
    let condition = condition(&fields, findings);
    let body = body(&fields, "loopBody", depth + 1, findings);
    let loops = data_loops(&fields, findings);
    let kind = condition.map(|(condition, object)| {
        let one_zero = object || fields.has("dataLoops");
        Kind::While { condition, body, loops, one_zero }
    });
    finish(&fields, kind, findings)
}

fn parallel_for(node: &Node<'_>, depth: usize, findings: &mut Findings) -> Option<Construct> {
    let fields = Fields::open(node, &PARALLEL_FOR, findings)?;
    let nodes = fields.list("iterators", findings);
    let iterators = nodes.iter().filter_map(|node| super::fields::text(node, "iterators", findings)).collect();
    let counter = fields.get("loopCounter").map(|node| loop_counter(node, findings));
    let body = body(&fields, "loopBody", depth + 1, findings);
    let kind = match counter {
        Some(None) => None,
        Some(Some(counter)) => Some(Kind::ParallelFor { iterators, counter: Some(counter), body }),
        None => Some(Kind::ParallelFor { iterators, counter: None, body }),
    };
    finish(&fields, kind, findings)
}

fn counted(node: &Node<'_>, depth: usize, findings: &mut Findings) -> Option<Construct> {
    let fields = Fields::open(node, &FOR, findings)?;
    let counter = fields.need("loopCounter", findings).and_then(|node| loop_counter(node, findings));
    let loops = data_loops(&fields, findings);
    let body = body(&fields, "loopBody", depth + 1, findings);
    let kind = counter.map(|counter| Kind::For { counter, loops, body });
    finish(&fields, kind, findings)
}

fn sequence(node: &Node<'_>, depth: usize, findings: &mut Findings) -> Option<Construct> {
    let fields = Fields::open(node, &SEQUENCE, findings)?;
    let body = body(&fields, "sequenceBody", depth + 1, findings);
    finish(&fields, Some(Kind::Sequence { body }), findings)
}

fn parallel(node: &Node<'_>, depth: usize, findings: &mut Findings) -> Option<Construct> {
    let fields = Fields::open(node, &PARALLEL, findings)?;
    fields.need("parallelBody", findings);
    let nodes = fields.list("parallelBody", findings);
    let each = |node: &Node<'_>| {
        let fields = Fields::open(node, &SECTION, findings)?;
        Some(body(&fields, "section", depth + 1, findings))
    };
    let sections = nodes.iter().filter_map(each).collect();
    finish(&fields, Some(Kind::Parallel { sections }), findings)
}

fn switch(node: &Node<'_>, depth: usize, findings: &mut Findings) -> Option<Construct> {
    let fields = Fields::open(node, &SWITCH, findings)?;
    let eval = data_eval(&fields, findings);
    fields.need("cases", findings);
    let nodes = fields.list("cases", findings);
    let each = |node: &Node<'_>| {
        let fields = Fields::open(node, &CASE, findings)?;
        let value = fields.need("value", findings).and_then(|value| json(value, findings));
        let breaks = fields.truth("break", findings);
        let functions = body(&fields, "functions", depth + 1, findings);
        Some(Case { value: value?, breaks, functions })
    };
    let cases = nodes.iter().filter_map(each).collect();
    let default = fields.get("default").map(|node| constructs(node, "default", depth + 1, findings));
    let kind = eval.map(|eval| Kind::Switch { eval, cases, default });
    finish(&fields, kind, findings)
}
