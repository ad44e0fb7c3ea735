//! The enactment graph: what is left of a document when every name is resolved.
//!
//! Tasks and data, as in Apollo's bipartite graph (Smirnov, Pourmohseni, Fahringer, HiPS 2021), but never rewritten
//! while a run goes on. Loops are *scopes*: a task stands in one scope, and an instance of it is the task with a path,
//! one index for each [`ScopeKind::Iterations`] and [`ScopeKind::Loop`] scope around it, outermost first. A datum
//! has instances in the same way, and who reads it from deeper inside takes the instance at its own path, cut to the
//! datum's depth.
//!
//! What a run does with it:
//! - A scope is *entered*: the workflow's when the run starts; a branch when its condition has been decided its way;
//!   each iteration of a parallelFor when its [`TaskKind::Distribution`] has run; the first iteration of a loop
//!   together with the scope around it, a further one when [`TaskKind::While`] has decided for it.
//! - A task of an entered scope runs when all its inputs are there: at once when it has none.
//! - A scope is *complete* when every task in it and every scope entered from it is. A branch that is not
//!   taken is complete at once and never entered. [`TaskKind::While`] runs when all else in its iteration is complete.
//! - The run ends well when its scope is complete; its result is read from [`Graph::outputs`].
//!
//! A graph can be sent to another machine: it is a plain value, and [`Graph::validate`] says whether one that came
//! from outside keeps the rules above.

mod cut;
pub mod draw;
pub mod optimise;
pub(crate) mod order;
mod part;
mod settings;
mod validate;

use lyra_types::Error;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use cut::{CUT_TYPE, cut};
pub(crate) use cut::{overlap as cuts_overlap, refusal as cut_refusal};
pub use settings::{Catch, Memo, Retry, Settings};

/// Number of a task: its place in [`Graph::tasks`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub u32);

/// Number of a datum: its place in [`Graph::data`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DataId(pub u32);

/// Number of a scope: its place in [`Graph::scopes`]; 0 is the workflow itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ScopeId(pub u32);

impl ScopeId {
    /// The scope of the workflow itself.
    pub const WORKFLOW: ScopeId = ScopeId(0);
}

/// A workflow, ready to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Graph {
    /// Name of the workflow in its document.
    pub name: String,
    /// All scopes; a scope's parent stands before it.
    pub scopes: Vec<Scope>,
    /// All tasks, in the order of the document, helpers beside what they help.
    pub tasks: Vec<Task>,
    /// All data.
    pub data: Vec<Data>,
    /// What the run's result is made of.
    pub outputs: Vec<Member>,
    /// Parts that run on another Lyra.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cuts: Vec<Cut>,
}

/// Where tasks stand: the workflow, a branch, a body of a loop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// The compound's name in the document; of the workflow scope: the workflow's.
    pub name: String,
    /// The scope around; none for the workflow.
    pub parent: Option<ScopeId>,
    /// What it is.
    pub kind: ScopeKind,
}

/// What a scope is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ScopeKind {
    /// The workflow itself.
    Workflow,
    /// One side of an `if`.
    Branch {
        /// The [`DataKind::Decision`] that says which side is taken; stands in the parent's scope.
        decision: DataId,
        /// The value with which this side is taken.
        taken_when: bool,
    },
    /// The body of a parallelFor: one instance for each element.
    Iterations {
        /// The task, in the parent's scope, that says how many there are.
        distribution: TaskId,
        /// Most iterations that are under way at a time, from 1 (constraint `concurrency`).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        concurrency: Option<u32>,
    },
    /// The body of a while: one instance after the other.
    Loop {
        /// The task, in this scope, that says whether there is another iteration.
        end: TaskId,
    },
}

/// A task: a function to call, or a helper that the engine computes itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Its name; unique. Of a helper: as Apollo's traces have it, `pf--Distribution`, `pf--Aggregation--out`, …
    pub name: String,
    /// Where it stands.
    pub scope: ScopeId,
    /// What it does.
    pub kind: TaskKind,
    /// What it reads, in the order of the document.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Member>,
    /// What it makes: data of kind [`DataKind::Output`], [`DataKind::Decision`] or [`DataKind::Computed`] of this task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<Member>,
    /// Tasks of this scope, or of one around it, that must have ended first: the order that AFCL 1.0's `sequence` asks
    /// for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<TaskId>,
    /// Scopes, children of this task's scope or of one around it, that must be complete first. A branch not taken is
    /// complete; a parallelFor is when all its iterations are; a loop when it has ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after_scopes: Vec<ScopeId>,
}

/// A named datum: one member of a task's input object, output object, or of the run's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Name of the member.
    pub name: String,
    /// Type that was declared; values are not held to it.
    #[serde(rename = "type")]
    pub data_type: DataType,
    /// The datum.
    pub data: DataId,
}

/// AFCL's types of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataType {
    /// A number.
    Number,
    /// A text.
    String,
    /// True or false.
    Boolean,
    /// A JSON object.
    Object,
    /// An array that can be distributed.
    Collection,
    /// An array.
    Array,
}

/// What a task does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TaskKind {
    /// Calls a function. Its input is one object of exactly its inputs; its output is an object with each of its
    /// outputs, others are ignored.
    Function {
        /// The function type, which the type mapping binds to resources; or one of Lyra's own, `lyra:delay` and
        /// `lyra:callback`, which no mapping may name.
        function_type: String,
        /// How it is called.
        #[serde(default)]
        settings: Settings,
    },
    /// Decides an `if`: its one output is a [`DataKind::Decision`].
    Condition(Condition),
    /// Decides whether a loop goes on; stands in the loop's scope, has no output.
    While(Condition),
    /// One output of an `if`. Inputs: `decision`, then `then` and, where there is one, `else`; runs as soon as the
    /// decision and the chosen side are there. Its output is that side.
    Multiplexer,
    /// Begins a parallelFor; no output, but its scope's [`DataKind::Element`]s.
    Distribution {
        /// The body.
        scope: ScopeId,
        /// What is counted.
        over: Over,
    },
    /// Collects one output of a parallelFor. Its one input stands in the body's scope, at whose depth it is read once
    /// for each iteration; its output is the array of them, in the order of the iterations.
    Aggregation {
        /// The body.
        scope: ScopeId,
    },
    /// A constraint on a collection. Inputs: `data`, then an `argument` for each number that is no constant.
    CollectionOperation(Operation),
    /// Puts its inputs, in their order, into one array, its output (AFCL 1.0's constraint `aggregation`).
    Gather(Gather),
}

/// How [`TaskKind::Gather`] puts its inputs into one array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gather {
    /// Each value is one element.
    Values,
    /// The elements of each input that is an array; any other value is one element.
    Elements,
}

/// What a parallelFor iterates over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Over {
    /// The arrays of the inputs, of one length, in step.
    Elements,
    /// As often as the one input, a whole number from 0, says.
    Count,
    /// The numbers from the first input to the second, which is left out, in steps of the third (AFCL 1.0's
    /// `loopCounter`).
    Range,
}

/// Comparisons, folded from the left without precedence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// The comparisons, at least one. The n-th reads the task's inputs 2n and 2n + 1.
    pub terms: Vec<Term>,
}

/// One comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Term {
    /// What is compared: a number, string, boolean or object.
    #[serde(rename = "type")]
    pub data_type: DataType,
    /// How.
    pub operator: Operator,
    /// Whether this one comparison is turned around.
    pub negated: bool,
    /// How the result so far is combined with the *next* term.
    pub combined_with: Combine,
}

/// How two terms are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Combine {
    /// Both.
    And,
    /// Either.
    Or,
}

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operator {
    /// Equal; numbers within 1e-9.
    #[serde(rename = "==")]
    Equal,
    /// Not equal.
    #[serde(rename = "!=")]
    NotEqual,
    /// Less (numbers).
    #[serde(rename = "<")]
    Less,
    /// Greater (numbers).
    #[serde(rename = ">")]
    Greater,
    /// Less or equal (numbers).
    #[serde(rename = "<=")]
    LessOrEqual,
    /// Greater or equal (numbers).
    #[serde(rename = ">=")]
    GreaterOrEqual,
    /// The first text contains the second.
    #[serde(rename = "contains")]
    Contains,
    /// The first text starts with the second.
    #[serde(rename = "startsWith")]
    StartsWith,
    /// The first text ends with the second.
    #[serde(rename = "endsWith")]
    EndsWith,
}

/// A constraint on a collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Operation {
    /// `element-index`: one element, or a flat array of those that a list of indices and ranges names.
    ElementIndex(Vec<Pick>),
    /// `block`: windows of `size` elements that overlap.
    Block {
        /// Elements of a window, from 2 (from 1 where lowered from `BLOCK(1)`).
        size: Number,
        /// Elements that a window has in common with the next, below `size`.
        overlap: Number,
    },
    /// `split`: that many chunks.
    Split(Number),
    /// `replicate`: each element that many times, in place.
    Replicate(Number),
}

/// A number in an operation: written down, or the value of the task's input with that index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Number {
    /// Written in the document.
    Constant(i64),
    /// Read from this input of the task.
    Input(u32),
}

/// Which elements `element-index` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Pick {
    /// One.
    At(Number),
    /// From start to end, the end included.
    Range {
        /// First index; 0 where left out.
        start: Option<Number>,
        /// Last index; the last element's where left out.
        end: Option<Number>,
        /// Step; 1 where left out.
        stride: Option<Number>,
    },
}

/// A datum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Its name in traces: `producer/port`, `Constant/5`, `if--decisionVariable`, `a/x|or|b/y`.
    pub name: String,
    /// The scope it belongs to: where its instances live.
    pub scope: ScopeId,
    /// Where its value comes from.
    pub kind: DataKind,
}

/// Where a datum's value comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DataKind {
    /// A member of the run's input; belongs to the workflow's scope.
    Input {
        /// The key in the input.
        key: String,
    },
    /// Written in the document; belongs to the workflow's scope.
    Constant(Value),
    /// A declared output of a function.
    Output {
        /// The function.
        task: TaskId,
    },
    /// What a [`TaskKind::Condition`] decided, a boolean.
    Decision {
        /// The condition.
        task: TaskId,
    },
    /// What a multiplexer, an aggregation or a collection operation makes.
    Computed {
        /// The helper.
        task: TaskId,
    },
    /// The element of one iteration of a parallelFor; belongs to its body.
    Element {
        /// Which of the distribution's inputs it is an element of.
        iterator: u32,
    },
    /// The number of the iteration; belongs to the body of a parallelFor or while.
    Counter {
        /// Its value in the first iteration, a datum from around the body; without: 0 in a parallelFor, 1 in a while.
        start: Option<DataId>,
        /// How much it grows with each iteration; without: 1.
        step: Option<DataId>,
    },
    /// A value that goes from one iteration of a loop to the next; belongs to the loop's body.
    Carried {
        /// Its value in the first iteration; belongs to a scope around the loop.
        initial: DataId,
        /// Its value in each further one: what this datum, of the loop's body, was in the iteration before.
        next: DataId,
    },
    /// A value of the last iteration of a loop; belongs to the scope around the loop.
    Final {
        /// The loop's scope.
        scope: ScopeId,
        /// The datum, of the loop's body.
        of: DataId,
    },
}

/// A part of a workflow that runs on another Lyra: a convex set of tasks, see [`Graph::validate`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// Name; unique among the cuts.
    pub name: String,
    /// The functions and compounds in it, by their names in the document; all of one scope.
    pub members: Vec<String>,
    /// The address of the other Lyra, `http://HOST:PORT`; none where the type mapping says it (type `lyra:cut/NAME`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

impl Graph {
    /// The task of this number.
    pub fn task(&self, id: TaskId) -> &Task {
        &self.tasks[id.0 as usize]
    }

    /// The datum of this number.
    pub fn datum(&self, id: DataId) -> &Data {
        &self.data[id.0 as usize]
    }

    /// The scope of this number.
    pub fn scope(&self, id: ScopeId) -> &Scope {
        &self.scopes[id.0 as usize]
    }

    /// How many indices a path has in this scope: one for each parallelFor and while around and including it.
    pub fn depth(&self, scope: ScopeId) -> usize {
        let mut depth = 0;
        let mut at = Some(scope);
        while let Some(id) = at {
            let scope = self.scope(id);
            depth += usize::from(scope.kind.is_indexed());
            at = scope.parent;
        }
        depth
    }

    /// Whether `inner` is `outer` or stands inside of it.
    pub fn is_within(&self, inner: ScopeId, outer: ScopeId) -> bool {
        let mut at = Some(inner);
        while let Some(id) = at {
            if id == outer {
                return true;
            }
            at = self.scope(id).parent;
        }
        false
    }

    /// Whether the graph keeps its own rules: numbers in range, parents first, data read from where they can be seen,
    /// no task that waits for itself, depth and size within the limits.
    ///
    /// # Errors
    /// `invalid_field` with what is wrong. A graph that this crate made never has any.
    pub fn validate(&self) -> Result<(), Error> {
        validate::validate(self)
    }
}

/// Tasks, data and scopes are numbered with 32 bits.
pub(crate) fn index_of(place: usize) -> u32 {
    u32::try_from(place).expect("the limits keep tasks, data and scopes far below 2^32")
}

impl TaskKind {
    /// Whether it calls a function; all others are the engine's own.
    pub fn is_function(&self) -> bool {
        matches!(self, TaskKind::Function { .. })
    }
}

impl ScopeKind {
    /// Whether its instances have an index.
    pub fn is_indexed(&self) -> bool {
        matches!(self, ScopeKind::Iterations { .. } | ScopeKind::Loop { .. })
    }
}
