//! Follows names that stand for other data to the datum itself.

use super::connect::{Job, Last};
use super::names::Port;
use super::{Context, Lowering};
use crate::diagnostic::{DiagnosticCode as Code, Located, Position};
use crate::document::{Feed, Setting, quote};
use crate::graph::{DataId, DataKind, DataType, Member, ScopeId, TaskKind};

/// A name for other data: an input of a compound, an output of one, an input that is passed on.
pub(super) struct Wire<'d> {
    /// Where it reads.
    pub(super) context: Context,
    /// The scope in which it may be read.
    pub(super) scope: ScopeId,
    /// Its name, for messages and traces.
    pub(super) name: String,
    pub(super) at: Position,
    pub(super) feed: Reading<'d>,
    pub(super) data_type: DataType,
    pub(super) constraints: &'d [Setting],
    pub(super) finish: Finish,
    pub(super) state: State,
    /// Whether somebody is told when nobody reads it.
    pub(super) warn: bool,
}

/// What is read.
#[derive(Clone, Copy)]
pub(super) enum Reading<'d> {
    Feed(&'d Feed),
    Source(&'d Located<String>),
}

/// What is made of the datum at the end of a wire.
#[derive(Clone, Copy)]
pub(super) enum Finish {
    /// Nothing.
    Same,
    /// What it was in the last iteration of this loop.
    Final(ScopeId),
    /// What it was in the last iteration of a `for` that took place, `null` where none did.
    Last(Last),
}

#[derive(Clone, Copy)]
pub(super) enum State {
    Unread,
    Following,
    Done(Option<DataId>),
}

/// A datum that is made when it is read first.
pub(super) enum Lazy<'d> {
    /// The counter of a while.
    Counter { scope: ScopeId, name: &'d str },
    /// A value that goes from one iteration to the next.
    Carried(Carried<'d>),
    /// Made.
    Made(DataId),
}

/// A value that goes from one iteration to the next.
pub(super) struct Carried<'d> {
    pub(super) name: String,
    pub(super) at: Position,
    pub(super) data_type: DataType,
    pub(super) scope: ScopeId,
    pub(super) outer: Context,
    pub(super) initial: &'d Feed,
    pub(super) constraints: &'d [Setting],
    pub(super) inner: Context,
    pub(super) next: &'d Located<String>,
}

/// The datum that a number stands for until its own is known; it is in no graph that leaves this crate.
pub(super) const UNKNOWN: DataId = DataId(u32::MAX);

/// How deep arguments of constraints may stand behind one another.
const MAX_FOLLOWING: usize = 64;

/// A source as `producer/port`, or none where it is a constant: without an inner `/`, or between double quotes.
pub(super) fn reference(source: &str) -> Option<(&str, &str)> {
    if source.starts_with('"') {
        return None;
    }
    let (producer, port) = source.split_once('/')?;
    (!producer.is_empty() && !port.is_empty()).then_some((producer, port))
}

impl<'d> Lowering<'d, '_> {
    pub(super) fn add_wire(&mut self, wire: Wire<'d>) -> Port {
        self.wires.push(wire);
        Port::Wire(self.wires.len() - 1)
    }

    pub(super) fn add_lazy(&mut self, lazy: Lazy<'d>) -> Port {
        self.lazies.push(lazy);
        Port::Lazy(self.lazies.len() - 1)
    }

    /// The datum that an input reads, which is of the type `want`.
    pub(super) fn read(&mut self, context: Context, feed: Reading<'_>, want: DataType, owner: &str) -> Option<DataId> {
        let (at, data) = self.read_any(context, feed, want, owner)?;
        self.check_type(at, data, want).then_some(data)
    }

    /// The same, whatever type it is of.
    pub(super) fn read_any(
        &mut self,
        context: Context,
        feed: Reading<'_>,
        want: DataType,
        owner: &str,
    ) -> Option<(Position, DataId)> {
        let source = match feed {
            Reading::Feed(Feed::Value(value)) => {
                return Some((value.at, self.constant_value(value, want, owner)?));
            }
            Reading::Feed(Feed::Source(source)) | Reading::Source(source) => source,
        };
        let Some((producer, port)) = reference(&source.value) else {
            return Some((source.at, self.constant_text(source, want, owner)?));
        };
        let data = match self.look(context, source.at, producer, port)? {
            Port::Data(data) => data,
            Port::Lazy(lazy) => self.make(lazy),
            Port::Wire(wire) => {
                let scope = self.wires[wire].scope;
                if !self.check_visible(source.at, context.scope, scope, &source.value) {
                    return None;
                }
                self.follow(wire)?
            }
            Port::NotCarried(_) | Port::Broken => return None,
        };
        if !self.check_visible(source.at, context.scope, self.graph.datum(data).scope, &source.value) {
            return None;
        }
        self.read[data.0 as usize] = true;
        Some((source.at, data))
    }

    /// The same with constraints on a collection applied.
    pub(super) fn read_with(
        &mut self,
        context: Context,
        feed: Reading<'d>,
        want: DataType,
        owner: &str,
        constraints: &'d [Setting],
    ) -> Option<DataId> {
        if constraints.is_empty() {
            return self.read(context, feed, want, owner);
        }
        let (at, data) = self.read_any(context, feed, DataType::Collection, owner)?;
        self.constrain(context, at, data, want, constraints)
    }

    /// Whether the datum may be read as `want`; an error is reported where not.
    pub(super) fn check_type(&mut self, at: Position, data: DataId, want: DataType) -> bool {
        let have = self.type_of(data);
        // A collection read as a number is the index of its last element.
        if have == want || (have == DataType::Collection && want == DataType::Number) {
            return true;
        }
        let name = quote(&self.graph.datum(data).name);
        let message = format!("{name} is of type `{}`, read here as `{}`", type_name(have), type_name(want));
        self.findings.error(at, Code::TypeMismatch, message);
        false
    }

    fn make(&mut self, lazy: usize) -> DataId {
        let made = match &self.lazies[lazy] {
            Lazy::Made(data) => return *data,
            Lazy::Counter { scope, name } => {
                let (scope, name) = (*scope, format!("{name}/counter"));
                self.add_data(name, scope, DataKind::Counter { start: None, step: None }, DataType::Number)
            }
            Lazy::Carried(carried) => {
                let (scope, name, data_type) = (carried.scope, carried.name.clone(), carried.data_type);
                self.add_data(name, scope, DataKind::Carried { initial: UNKNOWN, next: UNKNOWN }, data_type)
            }
        };
        if let Lazy::Carried(carried) = std::mem::replace(&mut self.lazies[lazy], Lazy::Made(made)) {
            self.jobs.push(Job::Carried { data: made, carried });
        }
        made
    }

    /// The datum at the end of a wire. Wires behind wires are followed without recursion: a document decides how many
    /// there are.
    fn follow(&mut self, first: usize) -> Option<DataId> {
        if let State::Done(data) = self.wires[first].state {
            return data;
        }
        let mut chain = Vec::new();
        let mut next = first;
        let mut found = loop {
            match self.wires[next].state {
                State::Done(data) => break data,
                State::Following => {
                    let message = format!("{} stands for itself", quote(&self.wires[next].name));
                    self.findings.error(self.wires[next].at, Code::Cycle, message);
                    break None;
                }
                State::Unread => {
                    self.wires[next].state = State::Following;
                    chain.push(next);
                }
            }
            match self.wire_behind(next) {
                Some(behind) => next = behind,
                None => break self.end_of(next),
            }
        };
        for wire in chain.into_iter().rev() {
            found = found.and_then(|data| self.finish(wire, data));
            self.wires[wire].state = State::Done(found);
        }
        found
    }

    /// The wire that a wire reads directly, if it does.
    fn wire_behind(&mut self, wire: usize) -> Option<usize> {
        let Wire { context, feed, .. } = self.wires[wire];
        let source = match feed {
            Reading::Feed(Feed::Source(source)) | Reading::Source(source) => source,
            Reading::Feed(Feed::Value(_)) => return None,
        };
        let (producer, port) = reference(&source.value)?;
        let Some(Port::Wire(behind)) = self.peek(context, producer, port) else { return None };
        let scope = self.wires[behind].scope;
        self.graph.is_within(context.scope, scope).then_some(behind)
    }

    /// The datum of the last wire of a chain.
    fn end_of(&mut self, wire: usize) -> Option<DataId> {
        let Wire { context, feed, data_type, constraints, .. } = self.wires[wire];
        let want = if constraints.is_empty() { data_type } else { DataType::Collection };
        self.read_any(context, feed, want, "Constant").map(|(_, data)| data)
    }

    /// Makes of the datum that a wire reads what the wire stands for.
    fn finish(&mut self, wire: usize, data: DataId) -> Option<DataId> {
        let Wire { context, at, data_type, constraints, finish, .. } = self.wires[wire];
        let data = match constraints {
            [] => self.check_type(at, data, data_type).then_some(data)?,
            constraints => {
                if self.following >= MAX_FOLLOWING {
                    let message = "arguments of constraints stand too deep behind one another";
                    self.findings.error(at, Code::TooLarge, message);
                    return None;
                }
                self.following += 1;
                let data = self.constrain(context, at, data, data_type, constraints);
                self.following -= 1;
                data?
            }
        };
        self.read[data.0 as usize] = true;
        let scope = self.graph.datum(data).scope;
        match finish {
            Finish::Final(of) if scope == of => Some(self.add_final(wire, of, data)),
            Finish::Last(last) if scope == last.body || scope == last.scope => {
                // What a multiplexer handed on is right after the iteration that does not take place, too.
                let handed_on = scope == last.scope && matches!(self.graph.datum(data).kind, DataKind::Computed { .. });
                let data = if handed_on { data } else { self.add_last(wire, last, data) };
                Some(self.add_final(wire, last.scope, data))
            }
            // Nothing of the loop: it is there outside as well.
            _ => Some(data),
        }
    }

    fn add_final(&mut self, wire: usize, scope: ScopeId, of: DataId) -> DataId {
        let around = self.graph.scope(scope).parent.expect("a loop stands in a scope");
        let Wire { data_type, .. } = self.wires[wire];
        let name = self.wires[wire].name.clone();
        self.add_data(name, around, DataKind::Final { scope, of }, data_type)
    }

    /// Hands what the body of a `for` made to the next iteration, the one after the last included, in which the body
    /// does not run any more.
    fn add_last(&mut self, wire: usize, last: Last, made: DataId) -> DataId {
        let Wire { at, data_type, .. } = self.wires[wire];
        let name = self.wires[wire].name.clone();
        let nothing = self.null();
        let kind = DataKind::Carried { initial: nothing, next: UNKNOWN };
        let before = self.add_data(format!("{name}--before"), last.scope, kind, data_type);
        let task = self.add_helper(format!("{name}--Multiplexer"), last.scope, TaskKind::Multiplexer, at);
        let next = self.add_result(task, "value", format!("{name}--next"), data_type);
        self.task_mut(task).inputs = vec![
            Member { name: "decision".to_owned(), data_type: DataType::Boolean, data: last.decision },
            Member { name: "then".to_owned(), data_type, data: made },
            Member { name: "else".to_owned(), data_type, data: before },
        ];
        self.graph.data[before.0 as usize].kind = DataKind::Carried { initial: nothing, next };
        next
    }

    /// Reports what nobody reads: an error where it is an input of the workflow.
    pub(super) fn report_unread(&mut self) {
        for wire in &self.wires {
            if wire.warn && matches!(wire.state, State::Unread) {
                let message = format!("nobody reads {}", quote(&wire.name));
                self.findings.warn(wire.at, Code::UnreadData, message);
            }
        }
        for (index, input) in self.document.data_ins.iter().enumerate() {
            // The inputs of the workflow are its first data.
            if self.read.get(index) == Some(&false) {
                let message = format!(
                    "disconnected data: nobody reads the input {}; read it or remove it",
                    quote(&input.name.value)
                );
                self.findings.error(input.name.at, Code::DisconnectedData, message);
            }
        }
    }
}

/// The name of a type in documents.
pub(super) fn type_name(data_type: DataType) -> &'static str {
    match data_type {
        DataType::Number => "number",
        DataType::String => "string",
        DataType::Boolean => "boolean",
        DataType::Object => "object",
        DataType::Collection => "collection",
        DataType::Array => "array",
    }
}
