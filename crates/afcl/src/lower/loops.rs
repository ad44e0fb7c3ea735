//! Declares `while`, `parallelFor` and 1.0's `for`.
//!
//! A `for` may have no iteration, a loop of the graph always has one. So the body of a `for` stands in a branch of its
//! own, taken while the counter has not arrived, and the loop ends with the first iteration that does not take it; a
//! multiplexer for each value hands on what the body made of it, or what it was.

use std::collections::{HashMap, HashSet};

use super::collection::Distribution;
use super::connect::{Job, Last, Next};
use super::names::{Port, Side};
use super::order::Ends;
use super::wires::{Carried, Finish, Lazy, Reading, State, UNKNOWN, Wire, reference};
use super::{Context, Lowering, Place};
use crate::diagnostic::{DiagnosticCode as Code, Located};
use crate::document::{Construct, DataIn, DataLoop, DataOut, Kind, LoopCounter, quote};
use crate::graph::{Condition, DataId, DataKind, DataType, Over, ScopeId, ScopeKind, TaskId, TaskKind};

impl<'d> Lowering<'d, '_> {
    pub(super) fn declare_while(&mut self, construct: &'d Construct, context: Context, depth: usize) -> Ends {
        let Kind::While { condition, body, loops, one_zero } = &construct.kind else { return Ends::default() };
        self.check_settings(construct, &[]);
        let producer = self.register_construct(construct, context);
        let name = self.full_name(construct, context);
        let scope = self.add_scope(&name, context.scope, ScopeKind::Loop { end: TaskId(u32::MAX) });
        let inner = Context { compound: Some(producer), scope, place: Place::Body, ..context };
        let after = Context { place: Place::Outputs, ..inner };
        let outputs: HashMap<&str, &DataOut> =
            construct.data_outs.iter().map(|output| (output.name.value.as_str(), output)).collect();
        for input in &construct.data_ins {
            match outputs.get(input.name.value.as_str()).map(|output| (output, output.sources.as_slice())) {
                _ if *one_zero => self.set_input(construct, input, producer, context),
                Some((output, [next])) if output.data_type == input.data_type => {
                    self.check_no_passing(input);
                    let lazy = self.add_lazy(Lazy::Carried(Carried {
                        name: format!("{name}/{}", input.name.value),
                        at: input.name.at,
                        data_type: input.data_type,
                        scope,
                        outer: context,
                        initial: &input.feed,
                        constraints: &input.constraints,
                        inner: after,
                        next,
                    }));
                    self.set_port(producer, Side::Inside, &input.name, lazy);
                }
                Some((output, [_])) => {
                    let message = format!("the dataIn {} of this name has another type", quote(&input.name.value));
                    self.findings.error(output.name.at, Code::TypeMismatch, message);
                    self.set_port(producer, Side::Inside, &input.name, Port::Broken);
                }
                Some(_) => self.set_port(producer, Side::Inside, &input.name, Port::Broken),
                None => self.set_port(producer, Side::Inside, &input.name, Port::NotCarried(input.name.at)),
            }
        }
        for data_loop in loops {
            self.set_while_loop(data_loop, producer, &name, context, after);
        }
        let counter = self.add_lazy(Lazy::Counter { scope, name: &construct.name.value });
        self.set_built_in(producer, "counter", counter);
        let ends = self.declare_body(body, inner, depth + 1);
        let kind = TaskKind::While(Condition { terms: Vec::new() });
        let end = self.add_helper(format!("{name}--whileEnd"), scope, kind, construct.name.at);
        self.set_loop_end(scope, end);
        let context_of_end = Context { place: Place::Condition, ..inner };
        self.jobs.push(Job::Compare { task: end, context: context_of_end, owner: name, comparisons: condition });
        self.set_loop_outputs(construct, producer, context, after, Finish::Final(scope));
        Ends { heads: ends.heads, tails: Vec::new(), scopes: vec![scope] }
    }

    fn set_loop_end(&mut self, scope: ScopeId, end: TaskId) {
        self.graph.scopes[scope.0 as usize].kind = ScopeKind::Loop { end };
    }

    /// A value of 1.0's `dataLoops`: in the body what it was before the iteration, behind it what it is after.
    fn set_while_loop(&mut self, data_loop: &'d DataLoop, producer: usize, name: &str, outer: Context, after: Context) {
        let lazy = self.add_lazy(Lazy::Carried(Carried {
            name: format!("{name}/{}", data_loop.name.value),
            at: data_loop.name.at,
            data_type: data_loop.data_type,
            scope: after.scope,
            outer,
            initial: &data_loop.initial,
            constraints: &[],
            inner: after,
            next: &data_loop.next,
        }));
        self.set_port(producer, Side::Inside, &data_loop.name, lazy);
        let next = self.wire_of_source(
            after,
            after.scope,
            format!("{name}/{}", data_loop.name.value),
            data_loop,
            Finish::Same,
        );
        self.set_port(producer, Side::Next, &data_loop.name, next);
    }

    fn wire_of_source(
        &mut self,
        context: Context,
        scope: ScopeId,
        name: String,
        of: &'d DataLoop,
        finish: Finish,
    ) -> Port {
        self.add_wire(Wire {
            context,
            scope,
            name,
            at: of.name.at,
            feed: Reading::Source(&of.next),
            data_type: of.data_type,
            constraints: &[],
            finish,
            state: State::Unread,
            warn: false,
        })
    }

    /// Outputs of a loop: what is behind the last iteration.
    fn set_loop_outputs(
        &mut self,
        construct: &'d Construct,
        producer: usize,
        outer: Context,
        after: Context,
        finish: Finish,
    ) {
        let inputs: HashSet<&str> = construct.data_ins.iter().map(|input| input.name.value.as_str()).collect();
        for output in &construct.data_outs {
            self.check_plain_output(output);
            let [source] = output.sources.as_slice() else {
                let message = format!("the output {} takes one source", quote(&output.name.value));
                self.findings.error(output.name.at, Code::WrongShape, message);
                self.set_port(producer, Side::Outside, &output.name, Port::Broken);
                continue;
            };
            let wire = |finish, scope| Wire {
                context: after,
                scope,
                name: format!("{}/{}", construct.name.value, output.name.value),
                at: output.name.at,
                feed: Reading::Source(source),
                data_type: output.data_type,
                constraints: &[],
                finish,
                state: State::Unread,
                warn: false,
            };
            let port = self.add_wire(wire(finish, outer.scope));
            self.set_port(producer, Side::Outside, &output.name, port);
            if !inputs.contains(output.name.value.as_str()) {
                let port = self.add_wire(wire(Finish::Same, after.scope));
                self.set_port(producer, Side::Condition, &output.name, port);
            }
        }
    }

    pub(super) fn declare_for(&mut self, construct: &'d Construct, context: Context, depth: usize) -> Ends {
        let Kind::For { counter, loops, body } = &construct.kind else { return Ends::default() };
        self.check_settings(construct, &[]);
        let producer = self.register_construct(construct, context);
        self.set_inputs(construct, producer, context);
        let name = self.full_name(construct, context);
        let scope = self.add_scope(&name, context.scope, ScopeKind::Loop { end: TaskId(u32::MAX) });
        let count = self.add_counter(counter, scope, &name, producer, context);
        let (more, decision) = self.add_condition(&format!("{name}--more"), scope, construct);
        let branch = self.add_scope(&name, scope, ScopeKind::Branch { decision, taken_when: true });
        let inner = Context { compound: Some(producer), scope: branch, place: Place::Body, ..context };
        let after = Context { place: Place::Outputs, ..inner };
        for data_loop in loops {
            self.set_for_loop(data_loop, producer, &name, context, after, (scope, decision));
        }
        self.declare_body(body, inner, depth + 1);
        let kind = TaskKind::While(Condition { terms: Vec::new() });
        let end = self.add_helper(format!("{name}--whileEnd"), scope, kind, construct.name.at);
        self.set_loop_end(scope, end);
        self.jobs.push(Job::Count { more, end, decision, count, context, counter });
        let finish = Finish::Last(Last { scope, body: branch, decision });
        self.set_loop_outputs(construct, producer, context, after, finish);
        Ends { heads: vec![more], tails: Vec::new(), scopes: vec![scope] }
    }

    fn set_for_loop(
        &mut self,
        data_loop: &'d DataLoop,
        producer: usize,
        name: &str,
        outer: Context,
        after: Context,
        (scope, decision): (ScopeId, DataId),
    ) {
        let full = format!("{name}/{}", data_loop.name.value);
        let kind = DataKind::Carried { initial: UNKNOWN, next: UNKNOWN };
        let before = self.add_data(full.clone(), scope, kind, data_loop.data_type);
        let task_name = format!("{name}--Multiplexer--{}", data_loop.name.value);
        let task = self.add_helper(task_name, scope, TaskKind::Multiplexer, data_loop.name.at);
        let next = self.add_result(task, "value", format!("{full}--next"), data_loop.data_type);
        let then = super::connect::Side::Read(after, &data_loop.next);
        let otherwise = super::connect::Side::Data(before);
        self.jobs.push(Job::Multiplex { task, decision, then, otherwise, data_type: data_loop.data_type });
        let initial = &data_loop.initial;
        self.jobs.push(Job::Initial {
            data: before,
            context: outer,
            initial,
            data_type: data_loop.data_type,
            next: Next(next),
        });
        self.set_port(producer, Side::Inside, &data_loop.name, Port::Data(before));
        self.set_port(producer, Side::Next, &data_loop.name, Port::Data(next));
    }

    /// The counter of a loop of 1.0.
    fn add_counter(
        &mut self,
        counter: &'d LoopCounter,
        scope: ScopeId,
        name: &str,
        producer: usize,
        outer: Context,
    ) -> DataId {
        let kind = DataKind::Counter { start: None, step: None };
        let data = self.add_data(format!("{name}/{}", counter.name), scope, kind, DataType::Number);
        self.jobs.push(Job::Counter { data, context: outer, counter });
        self.set_built_in(producer, &counter.name, Port::Data(data));
        data
    }

    pub(super) fn declare_parallel_for(&mut self, construct: &'d Construct, context: Context, depth: usize) -> Ends {
        let Kind::ParallelFor { iterators, counter, body } = &construct.kind else { return Ends::default() };
        self.check_settings(construct, &["concurrency"]);
        let producer = self.register_construct(construct, context);
        let name = self.full_name(construct, context);
        let concurrency = self.concurrency(construct);
        let placeholder = TaskKind::Distribution { scope: ScopeId::WORKFLOW, over: Over::Elements };
        let task = self.add_helper(format!("{name}--Distribution"), context.scope, placeholder, construct.name.at);
        let kind = ScopeKind::Iterations { distribution: task, concurrency };
        let scope = self.add_scope(&name, context.scope, kind);
        let named = self.pieces(construct, iterators);
        let is_wrong = named.is_none();
        let pieces = named.unwrap_or_default();
        let over = match (pieces.is_empty(), counter, iterators.as_slice()) {
            _ if is_wrong => Over::Count,
            (false, ..) => Over::Elements,
            (true, Some(_), []) => Over::Range,
            (true, None, [count]) => {
                self.jobs.push(Job::Times { task, context, count });
                Over::Count
            }
            _ => {
                let message = "a parallelFor needs `iterators`: names of its dataIns, or one whole number, or one source \
                               of a number; or a `loopCounter`, or a `distribution` of a dataIn";
                self.findings.error(construct.name.at, Code::InvalidIterators, message);
                Over::Count
            }
        };
        self.task_mut(task).kind = TaskKind::Distribution { scope, over };
        let numbers: HashMap<*const DataIn, usize> =
            pieces.iter().enumerate().map(|(index, (piece, _))| (std::ptr::from_ref(*piece), index)).collect();
        for input in &construct.data_ins {
            match numbers.get(&std::ptr::from_ref(input)).copied() {
                None => self.set_input(construct, input, producer, context),
                Some(index) => {
                    self.check_no_passing(input);
                    let iterator = u32::try_from(index).expect("a document has fewer dataIns than bytes");
                    let data_name = format!("{name}/{}", input.name.value);
                    let data = self.add_data(data_name, scope, DataKind::Element { iterator }, input.data_type);
                    self.set_port(producer, Side::Inside, &input.name, Port::Data(data));
                }
            }
        }
        if !pieces.is_empty() {
            self.jobs.push(Job::Distribute { task, context, pieces });
        }
        if let Some(counter) = counter {
            self.add_counter(counter, scope, &name, producer, context);
            if over == Over::Range {
                self.jobs.push(Job::Range { task, context, counter });
            }
        }
        let inner = Context { compound: Some(producer), scope, place: Place::Body, ..context };
        self.declare_body(body, inner, depth + 1);
        self.declare_collected(construct, producer, task, inner);
        Ends { heads: vec![task], tails: Vec::new(), scopes: vec![scope] }
    }

    /// Outputs of a parallelFor: arrays of what each iteration made.
    fn declare_collected(&mut self, construct: &'d Construct, producer: usize, distribution: TaskId, inner: Context) {
        let around = self.graph.task(distribution).scope;
        let name = self.full_name(construct, inner);
        for output in &construct.data_outs {
            self.check_plain_output(output);
            if !matches!(output.data_type, DataType::Collection | DataType::Array) {
                let message = format!("the output {} of a parallelFor is a `collection`", quote(&output.name.value));
                self.findings.error(output.name.at, Code::TypeMismatch, message);
            }
            let kind = TaskKind::Aggregation { scope: inner.scope };
            let task_name = format!("{name}--Aggregation--{}", output.name.value);
            let task = self.add_helper(task_name, around, kind, output.name.at);
            let data = self.add_result(task, "value", format!("{name}/{}", output.name.value), output.data_type);
            self.set_port(producer, Side::Outside, &output.name, Port::Data(data));
            let context = Context { place: Place::Outputs, ..inner };
            match output.sources.as_slice() {
                [source] => self.jobs.push(Job::Aggregate { task, context, source }),
                _ => {
                    let message = format!("the output {} takes one source", quote(&output.name.value));
                    self.findings.error(output.name.at, Code::WrongShape, message);
                }
            }
        }
    }

    /// The inputs whose elements a parallelFor iterates over; none where its iterators are wrong.
    fn pieces(
        &mut self,
        construct: &'d Construct,
        iterators: &'d [Located<String>],
    ) -> Option<Vec<(&'d DataIn, Distribution)>> {
        let mut is_right = true;
        let mut pieces: Vec<(&DataIn, Distribution)> = Vec::new();
        for input in &construct.data_ins {
            match self.distribution(&input.constraints) {
                None | Some((Distribution::Whole, _)) => {}
                Some((distribution, _)) => pieces.push((input, distribution)),
            }
        }
        let by_name: HashMap<&str, &DataIn> =
            construct.data_ins.iter().map(|input| (input.name.value.as_str(), input)).collect();
        let mut named: HashSet<&str> = pieces.iter().map(|(piece, _)| piece.name.value.as_str()).collect();
        for iterator in iterators {
            match by_name.get(iterator.value.as_str()) {
                Some(_) if !named.insert(&iterator.value) => {
                    is_right = false;
                    let message = format!("the iterator {} is there twice", quote(&iterator.value));
                    self.findings.error(iterator.at, Code::InvalidIterators, message);
                }
                Some(input) => pieces.push((input, Distribution::Block(1))),
                None => {
                    let is_count = iterator.value.trim().parse::<i64>().is_ok() || reference(&iterator.value).is_some();
                    if !is_count || iterators.len() > 1 {
                        is_right = false;
                        let message = format!(
                            "the iterator {} is no dataIn of the parallelFor; a number of iterations stands alone",
                            quote(&iterator.value)
                        );
                        self.findings.error(iterator.at, Code::InvalidIterators, message);
                    }
                }
            }
        }
        is_right.then_some(pieces)
    }
}
