//! Declares `if` and 1.0's `switch`.
//!
//! A switch is one condition for each case, none of which waits for another: a case runs where the value is its own or
//! that of a case before it from which nothing breaks off. Values differ, so at most one case matches; `default` runs
//! where none does, or where the cases before it run on into it.

use serde_json::Value;

use super::connect::{Job, Side as MuxSide};
use super::names::{Port, Side};
use super::order::Ends;
use super::{Context, Lowering, Place};
use crate::diagnostic::DiagnosticCode as Code;
use crate::document::{Case, Construct, DataOut, Kind, quote};
use crate::graph::{Combine, Condition, DataId, DataKind, DataType, Member, ScopeId, ScopeKind, TaskId, TaskKind};

impl<'d> Lowering<'d, '_> {
    /// Adds a condition and what it decides.
    pub(super) fn add_condition(&mut self, name: &str, scope: ScopeId, of: &Construct) -> (TaskId, DataId) {
        let kind = TaskKind::Condition(Condition { terms: Vec::new() });
        let task = self.add_helper(name.to_owned(), scope, kind, of.name.at);
        let data_name = format!("{name}--decisionVariable");
        let data = self.add_data(data_name, scope, DataKind::Decision { task }, DataType::Boolean);
        let member = Member { name: "decision".to_owned(), data_type: DataType::Boolean, data };
        self.task_mut(task).outputs.push(member);
        (task, data)
    }

    pub(super) fn declare_if(&mut self, construct: &'d Construct, context: Context, depth: usize) -> Ends {
        let Kind::If { condition, then, otherwise } = &construct.kind else { return Ends::default() };
        self.check_settings(construct, &[]);
        let producer = self.register_construct(construct, context);
        self.set_inputs(construct, producer, context);
        let name = self.full_name(construct, context);
        let (task, decision) = self.add_condition(&name, context.scope, construct);
        let inner = Context { compound: Some(producer), place: Place::Body, ..context };
        self.jobs.push(Job::Compare { task, context: inner, owner: name.clone(), comparisons: condition });
        let mut scopes = Vec::new();
        for (taken_when, body) in [(true, then), (false, otherwise)] {
            let scope = match body.is_empty() {
                true => context.scope,
                false => self.add_scope(&name, context.scope, ScopeKind::Branch { decision, taken_when }),
            };
            self.declare_body(body, Context { scope, ..inner }, depth + 1);
            scopes.push(scope);
        }
        for output in &construct.data_outs {
            self.check_plain_output(output);
            let [first, second] = output.sources.as_slice() else {
                let message = format!(
                    "the output {} of an if needs two sources, `THEN/PORT,ELSE/PORT`: one for each side, in this order",
                    quote(&output.name.value)
                );
                self.findings.error(output.name.at, Code::IncompletePair, message);
                self.set_port(producer, Side::Outside, &output.name, Port::Broken);
                continue;
            };
            let at = |scope| Context { scope, place: Place::Outputs, ..inner };
            let sides = (MuxSide::Read(at(scopes[0]), first), MuxSide::Read(at(scopes[1]), second));
            let task_name = format!("{}|or|{}", first.value, second.value);
            let data_name = format!("{name}/{}", output.name.value);
            let data = self.add_multiplexer(task_name, data_name, context.scope, decision, sides, output);
            self.set_port(producer, Side::Outside, &output.name, Port::Data(data));
        }
        scopes.retain(|scope| *scope != context.scope);
        Ends { heads: vec![task], tails: Vec::new(), scopes }
    }

    /// Adds a multiplexer, whose sides are read later.
    pub(super) fn add_multiplexer(
        &mut self,
        task_name: String,
        data_name: String,
        scope: ScopeId,
        decision: DataId,
        (then, otherwise): (MuxSide<'d>, MuxSide<'d>),
        output: &DataOut,
    ) -> DataId {
        let task = self.add_helper(task_name, scope, TaskKind::Multiplexer, output.name.at);
        let data = self.add_result(task, "value", data_name, output.data_type);
        self.jobs.push(Job::Multiplex { task, decision, then, otherwise, data_type: output.data_type });
        data
    }

    /// Outputs of compounds take no constraints, but of `parallel`.
    pub(super) fn check_plain_output(&mut self, output: &'d DataOut) {
        for constraint in &output.constraints {
            self.unknown_constraint(constraint, "this dataOut", &[]);
        }
    }

    pub(super) fn declare_switch(&mut self, construct: &'d Construct, context: Context, depth: usize) -> Ends {
        let Kind::Switch { eval, cases, default } = &construct.kind else { return Ends::default() };
        self.check_settings(construct, &[]);
        let producer = self.register_construct(construct, context);
        self.set_inputs(construct, producer, context);
        self.check_cases(cases);
        let name = self.full_name(construct, context);
        let inner = Context { compound: Some(producer), place: Place::Body, ..context };
        let mut ends = Ends::default();
        let mut sides = Vec::new();
        let mut running = Vec::new();
        for case in cases {
            running.push(&case.value);
            let task_name = format!("{name}--case--{}", shown(&case.value.value));
            let (task, decision) = self.add_condition(&task_name, context.scope, construct);
            let terms = running.iter().map(|value| (*value, false)).collect();
            let owner = name.clone();
            self.jobs.push(Job::Match { task, context: inner, owner, eval, terms, combine: Combine::Or });
            let scope = self.add_scope(&name, context.scope, ScopeKind::Branch { decision, taken_when: true });
            self.declare_body(&case.functions, Context { scope, ..inner }, depth + 1);
            ends.heads.push(task);
            ends.scopes.push(scope);
            sides.push((decision, scope));
            if case.breaks {
                running.clear();
            }
        }
        if let Some(default) = default {
            let (task, decision) = self.add_condition(&format!("{name}--default"), context.scope, construct);
            let left = cases.len() - running.len();
            let terms = cases[..left].iter().map(|case| (&case.value, true)).collect();
            let owner = name.clone();
            self.jobs.push(Job::Match { task, context: inner, owner, eval, terms, combine: Combine::And });
            let scope = self.add_scope(&name, context.scope, ScopeKind::Branch { decision, taken_when: true });
            self.declare_body(default, Context { scope, ..inner }, depth + 1);
            ends.heads.push(task);
            ends.scopes.push(scope);
            sides.push((decision, scope));
        }
        for output in &construct.data_outs {
            self.check_plain_output(output);
            let data = self.switch_output(&name, inner, output, &sides, default.is_some());
            self.set_port(producer, Side::Outside, &output.name, data.map_or(Port::Broken, Port::Data));
        }
        ends
    }

    /// One output of a switch: a chain of multiplexers, the last side that ran first.
    fn switch_output(
        &mut self,
        name: &str,
        inner: Context,
        output: &'d DataOut,
        sides: &[(DataId, ScopeId)],
        has_default: bool,
    ) -> Option<DataId> {
        let given = output.sources.len();
        let has_fallback = !has_default && given == sides.len() + 1;
        if given != sides.len() && !has_fallback {
            let message = format!(
                "the output {} of a switch needs {} sources: one for each case in order, then one for default",
                quote(&output.name.value),
                sides.len()
            );
            self.findings.error(output.name.at, Code::IncompletePair, message);
            return None;
        }
        let mut before = match output.sources.last() {
            Some(last) if has_fallback => MuxSide::Read(Context { place: Place::Outputs, ..inner }, last),
            _ => MuxSide::Data(self.null()),
        };
        let mut result = None;
        for (index, ((decision, scope), source)) in sides.iter().zip(&output.sources).enumerate() {
            let is_last = index + 1 == sides.len();
            let data_name = match is_last {
                true => format!("{name}/{}", output.name.value),
                false => format!("{name}--{index}/{}", output.name.value),
            };
            let context = Context { scope: *scope, place: Place::Outputs, ..inner };
            let pair = (MuxSide::Read(context, source), before);
            let task_name = format!("{name}--Multiplexer--{index}--{}", output.name.value);
            let data = self.add_multiplexer(task_name, data_name, inner.scope, *decision, pair, output);
            before = MuxSide::Data(data);
            result = Some(data);
        }
        result
    }

    fn check_cases(&mut self, cases: &'d [Case]) {
        let mut known = std::collections::HashSet::new();
        for case in cases {
            if !known.insert(shown(&case.value.value)) {
                let message = format!("there are two cases {}", quote(&shown(&case.value.value)));
                self.findings.error(case.value.at, Code::DuplicateName, message);
            }
        }
    }
}

/// The value of a case, as it stands in names.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
