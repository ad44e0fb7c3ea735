//! The typed document: what stands in it, with its place, before any name is resolved.
//!
//! One set of types for both dialects. Neither has a field that says which it is, so there is no switch either: each
//! construct and field means what it means wherever it stands. `read` makes the document from its text; what is
//! missing, unknown or of the wrong shape is found there, what depends on other parts of the document is not.

mod constructs;
mod fields;
mod parts;
mod read;
mod tree;
pub(crate) mod vocabulary;

use serde_json::Value;

use crate::diagnostic::{Located, Position};
use crate::graph::{Combine, DataType, Operator};

pub(crate) use fields::{list, nearest, quote, unknown};
pub(crate) use read::read;
pub(crate) use tree::lenient;

/// A workflow.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) name: Located<String>,
    pub(crate) data_ins: Vec<DataIn>,
    pub(crate) body: Vec<Construct>,
    pub(crate) data_outs: Vec<DataOut>,
    pub(crate) sub: Vec<SubChoreography>,
    pub(crate) cuts: Vec<CutMark>,
}

/// A workflow within the workflow, called as a function whose type is its name (1.0's `subFCs`).
#[derive(Debug)]
pub(crate) struct SubChoreography {
    pub(crate) name: Located<String>,
    pub(crate) data_ins: Vec<Port>,
    pub(crate) body: Vec<Construct>,
    pub(crate) data_outs: Vec<DataOut>,
}

/// A part of the workflow that runs elsewhere.
#[derive(Debug)]
pub(crate) struct CutMark {
    pub(crate) name: Located<String>,
    pub(crate) members: Vec<Located<String>>,
    pub(crate) url: Option<String>,
}

/// A function or a compound.
#[derive(Debug)]
pub(crate) struct Construct {
    pub(crate) name: Located<String>,
    pub(crate) data_ins: Vec<DataIn>,
    pub(crate) data_outs: Vec<DataOut>,
    pub(crate) properties: Vec<Setting>,
    pub(crate) constraints: Vec<Setting>,
    pub(crate) kind: Kind,
}

/// What a construct is.
#[derive(Debug)]
pub(crate) enum Kind {
    Function { function_type: Located<String> },
    If { condition: Vec<Comparison>, then: Vec<Construct>, otherwise: Vec<Construct> },
    While { condition: Vec<Comparison>, body: Vec<Construct>, loops: Vec<DataLoop>, one_zero: bool },
    ParallelFor { iterators: Vec<Located<String>>, counter: Option<LoopCounter>, body: Vec<Construct> },
    For { counter: LoopCounter, loops: Vec<DataLoop>, body: Vec<Construct> },
    Sequence { body: Vec<Construct> },
    Parallel { sections: Vec<Vec<Construct>> },
    Switch { eval: DataEval, cases: Vec<Case>, default: Option<Vec<Construct>> },
}

impl Kind {
    /// Its name in documents.
    pub(crate) fn keyword(&self) -> &'static str {
        match self {
            Kind::Function { .. } => "function",
            Kind::If { .. } => "if",
            Kind::While { .. } => "while",
            Kind::ParallelFor { .. } => "parallelFor",
            Kind::For { .. } => "for",
            Kind::Sequence { .. } => "sequence",
            Kind::Parallel { .. } => "parallel",
            Kind::Switch { .. } => "switch",
        }
    }
}

/// A named input without a source.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) name: Located<String>,
    pub(crate) data_type: DataType,
}

/// A named input.
#[derive(Debug)]
pub(crate) struct DataIn {
    pub(crate) name: Located<String>,
    pub(crate) data_type: DataType,
    pub(crate) feed: Feed,
    pub(crate) passing: bool,
    pub(crate) constraints: Vec<Setting>,
}

/// A named output. Of a function it has no sources; of a compound one, or one for each of its sides.
#[derive(Debug)]
pub(crate) struct DataOut {
    pub(crate) name: Located<String>,
    pub(crate) data_type: DataType,
    pub(crate) sources: Vec<Located<String>>,
    pub(crate) constraints: Vec<Setting>,
}

/// Where the value of an input comes from.
#[derive(Debug)]
pub(crate) enum Feed {
    /// `producer/port`, or else a constant as a text.
    Source(Located<String>),
    /// A constant written as a value (1.0's `value`).
    Value(Located<Value>),
}

/// A property or constraint.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) name: Located<String>,
    pub(crate) value: Located<Value>,
}

/// One comparison of a condition.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) left: Feed,
    pub(crate) right: Feed,
    pub(crate) data_type: DataType,
    pub(crate) operator: Operator,
    pub(crate) negated: bool,
    pub(crate) combined_with: Combine,
}

/// A value that goes from one iteration to the next (1.0's `dataLoops`).
#[derive(Debug)]
pub(crate) struct DataLoop {
    pub(crate) name: Located<String>,
    pub(crate) data_type: DataType,
    pub(crate) initial: Feed,
    pub(crate) next: Located<String>,
}

/// The counter of a loop of 1.0.
#[derive(Debug)]
pub(crate) struct LoopCounter {
    pub(crate) at: Position,
    pub(crate) name: String,
    pub(crate) from: Feed,
    pub(crate) to: Feed,
    pub(crate) step: Option<Feed>,
}

/// What a `switch` looks at.
#[derive(Debug)]
pub(crate) struct DataEval {
    pub(crate) data_type: DataType,
    pub(crate) feed: Feed,
}

/// One case of a `switch`.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) value: Located<Value>,
    pub(crate) breaks: bool,
    pub(crate) functions: Vec<Construct>,
}
