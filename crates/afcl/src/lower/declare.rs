//! Declares functions, what stands in order or side by side, and calls of sub-choreographies.

use std::collections::{HashMap, HashSet};

use super::connect::Job;
use super::names::{Port, Side};
use super::order::Ends;
use super::wires::{Finish, Reading, State, Wire};
use super::{Context, Frame, Lowering, Place};
use crate::diagnostic::DiagnosticCode as Code;
use crate::document::{Construct, DataIn, DataOut, Feed, Kind, quote};
use crate::graph::{DataKind, DataType, Gather, Member, ScopeId, TaskKind};
use crate::limits::MAX_NESTING;

impl<'d> Lowering<'d, '_> {
    /// Declares the whole document.
    pub(super) fn declare_document(&mut self) {
        let document = self.document;
        for sub in &document.sub {
            if self.sub.insert(&sub.name.value, sub).is_some() {
                let message = format!("there are two sub-choreographies {}", quote(&sub.name.value));
                self.findings.error(sub.name.at, Code::DuplicateName, message);
            }
        }
        self.frames.push(Frame { prefix: String::new() });
        let workflow = self.register(0, &document.name, "workflow", None);
        for input in &document.data_ins {
            let key = match &input.feed {
                Feed::Source(source) => source.value.clone(),
                Feed::Value(value) => {
                    let message = "an input of the workflow takes its `source`, a key of the run's input";
                    self.findings.error(value.at, Code::MissingField, message);
                    continue;
                }
            };
            if input.passing {
                let message = "an input of the workflow is not passed on; it is read where it is needed";
                self.findings.error(input.name.at, Code::WrongShape, message);
            }
            for constraint in &input.constraints {
                self.unknown_constraint(constraint, "an input of the workflow", &[]);
            }
            let name = format!("{}/{}", document.name.value, input.name.value);
            let data = self.add_data(name, ScopeId::WORKFLOW, DataKind::Input { key }, input.data_type);
            self.set_port(workflow, Side::Outside, &input.name, Port::Data(data));
        }
        let context = Context { frame: 0, compound: None, scope: ScopeId::WORKFLOW, place: Place::Body };
        self.declare_body(&document.body, context, 1);
        for sub in &document.sub {
            if !self.called.contains(&sub.name.value.as_str()) {
                let message = format!("nobody calls the sub-choreography {}", quote(&sub.name.value));
                self.findings.warn(sub.name.at, Code::UnreadData, message);
            }
        }
    }

    /// Declares what stands side by side.
    pub(super) fn declare_body(&mut self, body: &'d [Construct], context: Context, depth: usize) -> Ends {
        let mut ends = Ends::default();
        for construct in body {
            ends.join(self.declare(construct, context, depth));
        }
        ends
    }

    fn declare(&mut self, construct: &'d Construct, context: Context, depth: usize) -> Ends {
        if self.full {
            return Ends::default();
        }
        if depth > MAX_NESTING {
            let message = format!("compounds and calls of sub-choreographies are nested deeper than {MAX_NESTING}");
            self.findings.fatal(construct.name.at, Code::TooLarge, message);
            self.full = true;
            return Ends::default();
        }
        match &construct.kind {
            Kind::Function { function_type } => match self.sub.contains_key(function_type.value.as_str()) {
                true => self.declare_call(construct, &function_type.value, context, depth),
                false => self.declare_function(construct, &function_type.value, context),
            },
            Kind::If { .. } => self.declare_if(construct, context, depth),
            Kind::Switch { .. } => self.declare_switch(construct, context, depth),
            Kind::While { .. } => self.declare_while(construct, context, depth),
            Kind::For { .. } => self.declare_for(construct, context, depth),
            Kind::ParallelFor { .. } => self.declare_parallel_for(construct, context, depth),
            Kind::Sequence { body } => self.declare_sequence(construct, body, context, depth),
            Kind::Parallel { sections } => self.declare_parallel(construct, sections, context, depth),
        }
    }

    /// The name of a construct in the graph.
    pub(super) fn full_name(&self, construct: &Construct, context: Context) -> String {
        format!("{}{}", self.frames[context.frame].prefix, construct.name.value)
    }

    pub(super) fn register_construct(&mut self, construct: &'d Construct, context: Context) -> usize {
        self.register(context.frame, &construct.name, construct.kind.keyword(), context.compound)
    }

    fn declare_function(&mut self, function: &'d Construct, function_type: &str, context: Context) -> Ends {
        let producer = self.register_construct(function, context);
        self.check_own_function(function, function_type);
        let settings = self.settings(function);
        let name = self.full_name(function, context);
        if self.taken.insert(name.clone(), 1).is_some() && self.has_name(context.frame, producer) {
            let message = format!("the name {} is one that the engine gives to its own tasks", quote(&name));
            self.findings.error(function.name.at, Code::DuplicateName, message);
        }
        let kind = TaskKind::Function { function_type: function_type.to_owned(), settings };
        let task = self.add_task(name, context.scope, kind, function.name.at);
        let mut inputs: Vec<&str> = function.data_ins.iter().map(|input| input.name.value.as_str()).collect();
        inputs.sort_unstable();
        let mut passed = HashSet::new();
        for input in function.data_ins.iter().filter(|input| input.passing) {
            passed.insert(input.name.value.as_str());
            let name = format!("{}/{}", function.name.value, input.name.value);
            let port = self.wire_of_input(context, input, name, false);
            self.set_port(producer, Side::Outside, &input.name, port);
        }
        for pair in inputs.windows(2).filter(|pair| pair[0] == pair[1]) {
            let message = format!("the dataIn {} is there twice", quote(pair[0]));
            self.findings.error(function.name.at, Code::DuplicateName, message);
        }
        for output in &function.data_outs {
            for constraint in &output.constraints {
                self.unknown_constraint(constraint, "a dataOut of a function", &[]);
            }
            if passed.contains(output.name.value.as_str()) {
                continue;
            }
            let name = format!("{}{}/{}", self.frames[context.frame].prefix, function.name.value, output.name.value);
            let data = self.add_data(name, context.scope, DataKind::Output { task }, output.data_type);
            let member = Member { name: output.name.value.clone(), data_type: output.data_type, data };
            self.task_mut(task).outputs.push(member);
            self.set_port(producer, Side::Outside, &output.name, Port::Data(data));
        }
        self.jobs.push(Job::Function { task, context, function });
        Ends::of_task(task)
    }

    /// The functions that Lyra has itself.
    fn check_own_function(&mut self, function: &'d Construct, function_type: &str) {
        let Some(own) = function_type.strip_prefix("lyra:") else { return };
        let message = match own {
            "delay" => {
                let seconds = |input: &DataIn| input.name.value == "seconds" && input.data_type == DataType::Number;
                let inputs: HashSet<&str> = function.data_ins.iter().map(|input| input.name.value.as_str()).collect();
                if !function.data_ins.iter().any(seconds) {
                    "a `lyra:delay` needs a dataIn `seconds` of type `number`"
                } else if !function.data_outs.iter().all(|output| inputs.contains(output.name.value.as_str())) {
                    "a `lyra:delay` hands on what it gets: its dataOuts are named as dataIns of it"
                } else {
                    return;
                }
            }
            "callback" => return,
            _ => "Lyra's own functions are `lyra:delay` and `lyra:callback`",
        };
        self.findings.error(function.name.at, Code::InvalidFunction, message);
    }

    /// An input of a compound, as what stands in it sees it.
    pub(super) fn wire_of_input(&mut self, context: Context, input: &'d DataIn, name: String, warn: bool) -> Port {
        self.add_wire(Wire {
            context,
            scope: context.scope,
            name,
            at: input.name.at,
            feed: Reading::Feed(&input.feed),
            data_type: input.data_type,
            constraints: &input.constraints,
            finish: Finish::Same,
            state: State::Unread,
            warn,
        })
    }

    /// Gives those in a compound its inputs.
    pub(super) fn set_inputs(&mut self, compound: &'d Construct, producer: usize, context: Context) {
        for input in &compound.data_ins {
            self.set_input(compound, input, producer, context);
        }
    }

    pub(super) fn set_input(&mut self, compound: &'d Construct, input: &'d DataIn, producer: usize, context: Context) {
        self.check_no_passing(input);
        let name = format!("{}/{}", compound.name.value, input.name.value);
        let port = self.wire_of_input(context, input, name, true);
        self.set_port(producer, Side::Inside, &input.name, port);
    }

    pub(super) fn check_no_passing(&mut self, input: &DataIn) {
        if input.passing {
            let message = "only a function passes an input on; a compound's outputs have sources";
            self.findings.error(input.name.at, Code::WrongShape, message);
        }
    }

    fn declare_sequence(
        &mut self,
        sequence: &'d Construct,
        body: &'d [Construct],
        context: Context,
        depth: usize,
    ) -> Ends {
        self.check_settings(sequence, &[]);
        let producer = self.register_construct(sequence, context);
        self.set_inputs(sequence, producer, context);
        let inner = Context { compound: Some(producer), place: Place::Body, ..context };
        let mut first = None;
        let mut last: Option<Ends> = None;
        for construct in body {
            let ends = self.declare(construct, inner, depth + 1);
            if let Some(before) = &last {
                self.add_order(before, &ends, construct.name.at);
            }
            first.get_or_insert_with(|| ends.heads.clone());
            last = Some(ends);
        }
        self.set_passed_outputs(sequence, producer, inner);
        self.note_parts(sequence, context, context.frame, body);
        let last = last.unwrap_or_default();
        Ends { heads: first.unwrap_or_default(), ..last }
    }

    fn declare_parallel(
        &mut self,
        parallel: &'d Construct,
        sections: &'d [Vec<Construct>],
        context: Context,
        depth: usize,
    ) -> Ends {
        self.check_settings(parallel, &[]);
        let producer = self.register_construct(parallel, context);
        self.set_inputs(parallel, producer, context);
        let inner = Context { compound: Some(producer), place: Place::Body, ..context };
        let mut ends = Ends::default();
        for section in sections {
            ends.join(self.declare_body(section, inner, depth + 1));
        }
        self.set_passed_outputs(parallel, producer, inner);
        self.note_parts(parallel, context, context.frame, sections.iter().flatten());
        ends
    }

    /// Outputs of a compound that is no scope: other names for what is in it, or arrays of that.
    fn set_passed_outputs(&mut self, compound: &'d Construct, producer: usize, inner: Context) {
        let context = Context { place: Place::Outputs, ..inner };
        for output in &compound.data_outs {
            let join = self.aggregation(compound, output);
            let name = format!("{}/{}", compound.name.value, output.name.value);
            match (output.sources.as_slice(), join) {
                ([source], None) => {
                    let port = self.add_wire(Wire {
                        context,
                        scope: context.scope,
                        name,
                        at: output.name.at,
                        feed: Reading::Source(source),
                        data_type: output.data_type,
                        constraints: &[],
                        finish: Finish::Same,
                        state: State::Unread,
                        warn: false,
                    });
                    self.set_port(producer, Side::Outside, &output.name, port);
                }
                (_, join) if matches!(compound.kind, Kind::Parallel { .. }) => {
                    let prefix = self.full_name(compound, context);
                    let kind = TaskKind::Gather(join.unwrap_or(Gather::Values));
                    let task_name = format!("{prefix}--Gather--{}", output.name.value);
                    let task = self.add_helper(task_name, context.scope, kind, output.name.at);
                    let data_name = format!("{prefix}/{}", output.name.value);
                    let data = self.add_result(task, "value", data_name, output.data_type);
                    self.set_port(producer, Side::Outside, &output.name, Port::Data(data));
                    self.jobs.push(Job::Gather { task, context, output });
                }
                _ => {
                    let message = format!("the output {} takes one source", quote(&output.name.value));
                    self.findings.error(output.name.at, Code::WrongShape, message);
                    self.set_port(producer, Side::Outside, &output.name, Port::Broken);
                }
            }
        }
    }

    /// How a `parallel` puts the sources of one output together, where it says so.
    fn aggregation(&mut self, compound: &'d Construct, output: &'d DataOut) -> Option<Gather> {
        let mut join = None;
        for constraint in &output.constraints {
            match (constraint.name.value.as_str(), &compound.kind) {
                ("aggregation", Kind::Parallel { .. }) => match constraint.value.value.as_str() {
                    Some(",") => join = Some(Gather::Values),
                    Some("+" | "*") => join = Some(Gather::Elements),
                    _ => {
                        let message = "the constraint `aggregation` takes `,`, `+` or `*`";
                        self.findings.error(constraint.value.at, Code::InvalidConstraint, message);
                    }
                },
                (_, Kind::Parallel { .. }) => {
                    self.unknown_constraint(constraint, "a dataOut of a parallel", &["aggregation"]);
                }
                _ => self.unknown_constraint(constraint, "this dataOut", &[]),
            }
        }
        if join.is_some() && !matches!(output.data_type, DataType::Collection | DataType::Array) {
            let message = "an aggregation gives a `collection`, which the dataOut's type must say";
            self.findings.error(output.name.at, Code::TypeMismatch, message);
        }
        join
    }

    /// Declares what a call of a sub-choreography stands for.
    fn declare_call(&mut self, call: &'d Construct, name: &'d str, context: Context, depth: usize) -> Ends {
        let sub = self.sub[name];
        let producer = self.register_construct(call, context);
        self.check_settings(call, &[]);
        if self.calls.contains(&name) {
            let message = format!("the sub-choreography {} calls itself", quote(name));
            self.findings.error(call.name.at, Code::Recursion, message);
            return Ends::default();
        }
        if !self.called.contains(&name) {
            self.called.push(name);
        }
        let frame = self.frames.len();
        self.frames.push(Frame { prefix: format!("{}.", self.full_name(call, context)) });
        let owner = self.register(frame, &sub.name, "sub-choreography", None);
        let given: HashMap<&str, &DataIn> =
            call.data_ins.iter().map(|input| (input.name.value.as_str(), input)).collect();
        for port in &sub.data_ins {
            let Some(input) = given.get(port.name.value.as_str()) else {
                let message = format!("the call needs the dataIn {} of the sub-choreography", quote(&port.name.value));
                self.findings.error(call.name.at, Code::UnknownPort, message);
                self.set_port(owner, Side::Outside, &port.name, Port::Broken);
                continue;
            };
            if input.data_type != port.data_type {
                let message = format!("the sub-choreography declares {} with another type", quote(&port.name.value));
                self.findings.error(input.name.at, Code::TypeMismatch, message);
            }
            self.check_no_passing(input);
            let name = format!("{}/{}", call.name.value, input.name.value);
            let wire = self.wire_of_input(context, input, name, true);
            self.set_port(owner, Side::Outside, &port.name, wire);
        }
        let taken: HashSet<&str> = sub.data_ins.iter().map(|port| port.name.value.as_str()).collect();
        for input in &call.data_ins {
            if !taken.contains(input.name.value.as_str()) {
                let message = format!("the sub-choreography has no dataIn {}", quote(&input.name.value));
                self.findings.error(input.name.at, Code::UnknownPort, message);
            }
        }
        self.calls.push(name);
        let inner = Context { frame, compound: None, scope: context.scope, place: Place::Body };
        let ends = self.declare_body(&sub.body, inner, depth + 1);
        self.calls.pop();
        let made: HashMap<&str, &DataOut> =
            sub.data_outs.iter().map(|output| (output.name.value.as_str(), output)).collect();
        for output in &call.data_outs {
            let Some(inner_output) = made.get(output.name.value.as_str()) else {
                let message = format!("the sub-choreography has no dataOut {}", quote(&output.name.value));
                self.findings.error(output.name.at, Code::UnknownPort, message);
                self.set_port(producer, Side::Outside, &output.name, Port::Broken);
                continue;
            };
            let [source] = inner_output.sources.as_slice() else {
                self.findings.error(inner_output.name.at, Code::WrongShape, "this output takes one source");
                self.set_port(producer, Side::Outside, &output.name, Port::Broken);
                continue;
            };
            let port = self.add_wire(Wire {
                context: inner,
                scope: context.scope,
                name: format!("{}/{}", call.name.value, output.name.value),
                at: inner_output.name.at,
                feed: Reading::Source(source),
                data_type: output.data_type,
                constraints: &[],
                finish: Finish::Same,
                state: State::Unread,
                warn: false,
            });
            self.set_port(producer, Side::Outside, &output.name, port);
        }
        self.note_parts(call, context, frame, &sub.body);
        ends
    }

    /// Notes what a construct without a trace in the graph consists of, for cuts that name it.
    fn note_parts(
        &mut self,
        construct: &'d Construct,
        context: Context,
        frame: usize,
        parts: impl IntoIterator<Item = &'d Construct>,
    ) {
        let inner = Context { frame, ..context };
        let names = parts.into_iter().map(|part| self.full_name(part, inner)).collect();
        self.parts.insert(self.full_name(construct, context), names);
    }
}
