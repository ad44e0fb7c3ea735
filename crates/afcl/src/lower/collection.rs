//! Constraints on collections: `element-index`, `block`, `split`, `replicate`, in the order in which they stand; and
//! 1.0's `distribution`, which says the same of a parallelFor in other words.
//!
//! Equal operations on the same data are computed once, as far out as they may be: out of loops, but not out of the
//! branch of an `if`, which may never be taken.

use serde_json::Value;

use super::wires::{Reading, reference};
use super::{Context, Lowering};
use crate::diagnostic::{DiagnosticCode as Code, Located, Position};
use crate::document::{Setting, list, quote};
use crate::graph::{DataId, DataType, Member, Number, Operation, Pick, ScopeId, ScopeKind, TaskKind};

/// Constraints on the collection that an input reads.
const ON_COLLECTIONS: &[&str] = &["element-index", "block", "split", "replicate"];

/// What a value of `distribution` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Distribution {
    /// `BLOCK(n)`: so many elements for each iteration; one is the element itself.
    Block(i64),
    /// `REPLICATE(n)`: each element for so many iterations.
    Replicate(i64),
    /// `REPLICATE(*)`: all for all.
    Whole,
}

/// An operation that is being read.
struct Draft {
    inputs: Vec<Member>,
    text: String,
}

impl<'d> Lowering<'d, '_> {
    /// Applies constraints to a datum that an input of type `want` reads.
    pub(super) fn constrain(
        &mut self,
        context: Context,
        at: Position,
        data: DataId,
        want: DataType,
        constraints: &'d [Setting],
    ) -> Option<DataId> {
        let mut current = data;
        let mut applied = false;
        for (index, constraint) in constraints.iter().enumerate() {
            if constraint.name.value == "distribution" {
                continue;
            }
            if !self.check_collection(at, current) {
                return None;
            }
            let rest = &constraints[index + 1..];
            let is_last = rest.iter().all(|constraint| constraint.name.value == "distribution");
            current = self.apply(context, current, if is_last { want } else { DataType::Collection }, constraint)?;
            applied = true;
        }
        match applied {
            true => self.check_type(at, current, want).then_some(current),
            // Only `distribution`: the label is the piece's.
            false => self.check_collection(at, current).then_some(current),
        }
    }

    /// Whether a datum can be taken apart; an error is reported where not.
    pub(super) fn check_collection(&mut self, at: Position, data: DataId) -> bool {
        if matches!(self.type_of(data), DataType::Collection | DataType::Array) {
            return true;
        }
        let name = quote(&self.graph.datum(data).name);
        let message = format!("{name} is no collection, so there is nothing to take from it or to iterate over");
        self.findings.error(at, Code::TypeMismatch, message);
        false
    }

    fn apply(&mut self, context: Context, data: DataId, want: DataType, constraint: &'d Setting) -> Option<DataId> {
        let member = Member { name: "data".to_owned(), data_type: DataType::Collection, data };
        let mut draft = Draft { inputs: vec![member], text: String::new() };
        let operation = self.operation(context, constraint, &mut draft)?;
        self.add_operation(context.scope, operation, draft, want, constraint.name.at)
    }

    /// Cuts what an input reads into the pieces that a distribution asks for.
    pub(super) fn distribute(
        &mut self,
        scope: ScopeId,
        data: DataId,
        distribution: Distribution,
        at: Position,
    ) -> Option<DataId> {
        let (operation, text) = match distribution {
            Distribution::Block(1) | Distribution::Whole | Distribution::Replicate(1) => return Some(data),
            Distribution::Block(n) => {
                (Operation::Block { size: Number::Constant(n), overlap: Number::Constant(0) }, format!("{n},0"))
            }
            Distribution::Replicate(n) => (Operation::Replicate(Number::Constant(n)), n.to_string()),
        };
        let member = Member { name: "data".to_owned(), data_type: DataType::Collection, data };
        self.add_operation(scope, operation, Draft { inputs: vec![member], text }, DataType::Collection, at)
    }

    fn operation(&mut self, context: Context, constraint: &'d Setting, draft: &mut Draft) -> Option<Operation> {
        let name = constraint.name.value.as_str();
        let text = match &constraint.value.value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return self.refuse(constraint, "takes a text or a number"),
        };
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        let bad = |this: &mut Self, message: &str| this.refuse::<Operation>(constraint, message);
        match (name, parts.as_slice()) {
            ("element-index", parts) => {
                let picks =
                    parts.iter().map(|part| self.pick(context, constraint, part, draft)).collect::<Option<_>>()?;
                Some(Operation::ElementIndex(picks))
            }
            ("block", [size, overlap]) => {
                let size = self.argument(context, constraint, size, draft)?;
                draft.text.push(',');
                let overlap = self.argument(context, constraint, overlap, draft)?;
                match (size, overlap) {
                    (Number::Constant(..2), _) => bad(self, "needs a size of at least 2"),
                    (_, Number::Constant(..0)) => bad(self, "needs an overlap of at least 0"),
                    (Number::Constant(size), Number::Constant(overlap)) if overlap >= size => {
                        bad(self, "needs an overlap that is less than the size")
                    }
                    _ => Some(Operation::Block { size, overlap }),
                }
            }
            ("block", _) => bad(self, "takes a size and an overlap, `4,0` for example"),
            ("split" | "replicate", [one]) => match self.argument(context, constraint, one, draft)? {
                Number::Constant(..2) => bad(self, "needs a number of at least 2"),
                number if name == "split" => Some(Operation::Split(number)),
                number => Some(Operation::Replicate(number)),
            },
            ("split" | "replicate", _) => bad(self, "takes one number"),
            _ => {
                let message =
                    format!("there is no constraint {} on a dataIn; there are {}", quote(name), list(ON_COLLECTIONS));
                self.findings.error(constraint.name.at, Code::UnknownConstraint, message);
                None
            }
        }
    }

    /// One entry of `element-index`: an index, or `start:end:stride` of which each part may be left out.
    fn pick(&mut self, context: Context, constraint: &'d Setting, part: &str, draft: &mut Draft) -> Option<Pick> {
        if !draft.text.is_empty() {
            draft.text.push(',');
        }
        if !part.contains(':') {
            return match self.argument(context, constraint, part, draft)? {
                Number::Constant(..0) => self.refuse(constraint, "takes indices from 0"),
                number => Some(Pick::At(number)),
            };
        }
        let pieces: Vec<&str> = part.split(':').map(str::trim).collect();
        if pieces.len() > 3 {
            return self.refuse(constraint, "takes ranges of the form start:end:stride");
        }
        let mut numbers = [None; 3];
        for (index, piece) in pieces.iter().enumerate() {
            if index > 0 {
                draft.text.push(':');
            }
            if !piece.is_empty() {
                numbers[index] = Some(self.argument(context, constraint, piece, draft)?);
            }
        }
        let [start, end, stride] = numbers;
        match (start, end, stride) {
            (Some(Number::Constant(..0)), ..) | (_, Some(Number::Constant(..0)), _) => {
                self.refuse(constraint, "takes indices from 0")
            }
            (_, _, Some(Number::Constant(..1))) => self.refuse(constraint, "takes strides from 1"),
            (Some(Number::Constant(start)), Some(Number::Constant(end)), _) if end < start => {
                self.refuse(constraint, "takes ranges whose end is not before their start")
            }
            _ => Some(Pick::Range { start, end, stride }),
        }
    }

    /// A number, or the input that it is read from.
    fn argument(&mut self, context: Context, constraint: &'d Setting, text: &str, draft: &mut Draft) -> Option<Number> {
        draft.text.push_str(text);
        if reference(text).is_none() {
            return match text.parse() {
                Ok(number) => Some(Number::Constant(number)),
                Err(_) => self.refuse(constraint, "takes whole numbers, or sources that give them"),
            };
        }
        let source = Located { at: constraint.value.at, value: text.to_owned() };
        let data = self.read_argument(context, &source)?;
        let index = u32::try_from(draft.inputs.len()).expect("a constraint has fewer arguments than its text bytes");
        draft.inputs.push(Member { name: "argument".to_owned(), data_type: DataType::Number, data });
        Some(Number::Input(index))
    }

    fn refuse<T>(&mut self, constraint: &Setting, message: &str) -> Option<T> {
        let message = format!("the constraint {} {message}", quote(&constraint.name.value));
        self.findings.error(constraint.value.at, Code::InvalidConstraint, message);
        None
    }

    fn add_operation(
        &mut self,
        reader: ScopeId,
        operation: Operation,
        draft: Draft,
        want: DataType,
        at: Position,
    ) -> Option<DataId> {
        let single = matches!(&operation, Operation::ElementIndex(picks) if matches!(picks.as_slice(), [Pick::At(_)]));
        if !single && !matches!(want, DataType::Collection | DataType::Array | DataType::Number) {
            let message = "this constraint gives a collection, which the dataIn's type must say";
            self.findings.error(at, Code::TypeMismatch, message);
            return None;
        }
        let ids: Vec<DataId> = draft.inputs.iter().map(|member| member.data).collect();
        let scope = self.outermost(reader, &ids);
        let word = match operation {
            Operation::ElementIndex(_) => "ElementIndex",
            Operation::Block { .. } => "Block",
            Operation::Split(_) => "Split",
            Operation::Replicate(_) => "Replicate",
        };
        let key = (scope, ids, format!("{word}--{}", draft.text));
        if let Some(known) = self.operations.get(&key) {
            return Some(*known);
        }
        let data = self.graph.datum(key.1[0]).name.clone();
        let task = self.add_helper(format!("{data}--{}", key.2), scope, TaskKind::CollectionOperation(operation), at);
        let made = self.add_result(task, "value", format!("{data}__{word}__{}", draft.text), want);
        self.task_mut(task).inputs = draft.inputs;
        self.operations.insert(key, made);
        Some(made)
    }

    /// The outermost scope, without leaving a branch, in which all of these can be read.
    fn outermost(&self, reader: ScopeId, inputs: &[DataId]) -> ScopeId {
        let mut scope = reader;
        loop {
            let around = self.graph.scope(scope);
            let leaves_branch = matches!(around.kind, ScopeKind::Branch { .. });
            match around.parent {
                Some(parent) if !leaves_branch => {
                    let sees = |data: &DataId| self.graph.is_within(parent, self.graph.datum(*data).scope);
                    if !inputs.iter().all(sees) {
                        return scope;
                    }
                    scope = parent;
                }
                _ => return scope,
            }
        }
    }

    /// What a dataIn of a parallelFor says about its distribution.
    pub(super) fn distribution(&mut self, constraints: &'d [Setting]) -> Option<(Distribution, Position)> {
        let constraint = constraints.iter().find(|constraint| constraint.name.value == "distribution")?;
        let text = constraint.value.value.as_str().unwrap_or_default().replace(' ', "");
        let inner = |name: &str| text.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')');
        let found = match (inner("BLOCK"), inner("REPLICATE")) {
            (Some(n), _) => n.parse().ok().filter(|n| *n >= 1).map(Distribution::Block),
            (_, Some("*")) => Some(Distribution::Whole),
            (_, Some(n)) => n.parse().ok().filter(|n| *n >= 1).map(Distribution::Replicate),
            _ => None,
        };
        match found {
            Some(found) => Some((found, constraint.value.at)),
            None => self.refuse(constraint, "takes BLOCK(n), REPLICATE(n) or REPLICATE(*), with n from 1"),
        }
    }

    fn read_argument(&mut self, context: Context, source: &Located<String>) -> Option<DataId> {
        self.read(context, Reading::Source(source), DataType::Number, "Constant")
    }
}
