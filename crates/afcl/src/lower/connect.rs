//! Does the jobs that declaring left: reads what each task reads.

use serde_json::Value;

use super::collection::Distribution;
use super::wires::{Carried, Reading};
use super::{Context, Lowering, Place};
use crate::diagnostic::{DiagnosticCode as Code, Located};
use crate::document::{Comparison, Construct, DataEval, DataIn, DataOut, Feed, LoopCounter, quote};
use crate::graph::{Combine, Condition, DataId, DataKind, DataType, Member, Operator, ScopeId, TaskId, TaskKind, Term};

/// What is left to do for a task or datum.
pub(super) enum Job<'d> {
    /// Read a function's inputs.
    Function { task: TaskId, context: Context, function: &'d Construct },
    /// Read what a condition compares.
    Compare { task: TaskId, context: Context, owner: String, comparisons: &'d [Comparison] },
    /// Compare what a switch looks at with values; with `true` the comparison is turned around.
    Match {
        task: TaskId,
        context: Context,
        owner: String,
        eval: &'d DataEval,
        terms: Vec<(&'d Located<Value>, bool)>,
        combine: Combine,
    },
    /// Read the sides of a multiplexer.
    Multiplex { task: TaskId, decision: DataId, then: Side<'d>, otherwise: Side<'d>, data_type: DataType },
    /// Read what one iteration gives to the array of all.
    Aggregate { task: TaskId, context: Context, source: &'d Located<String> },
    /// Read what a parallel puts together.
    Gather { task: TaskId, context: Context, output: &'d DataOut },
    /// Read the arrays that a parallelFor takes apart.
    Distribute { task: TaskId, context: Context, pieces: Vec<(&'d DataIn, Distribution)> },
    /// Read how often a parallelFor iterates.
    Times { task: TaskId, context: Context, count: &'d Located<String> },
    /// Read from where to where it iterates.
    Range { task: TaskId, context: Context, counter: &'d LoopCounter },
    /// Read where a counter starts and how it grows.
    Counter { data: DataId, context: Context, counter: &'d LoopCounter },
    /// Read what says whether a `for` goes on.
    Count { more: TaskId, end: TaskId, decision: DataId, count: DataId, context: Context, counter: &'d LoopCounter },
    /// Read what a value of a loop is first, and after each iteration.
    Carried { data: DataId, carried: Carried<'d> },
    /// Read what it is first.
    Initial { data: DataId, context: Context, initial: &'d Feed, data_type: DataType, next: Next },
}

/// One side of a multiplexer.
#[derive(Clone, Copy)]
pub(super) enum Side<'d> {
    Read(Context, &'d Located<String>),
    Data(DataId),
}

/// What a value of a loop is after an iteration.
#[derive(Clone, Copy)]
pub(super) struct Next(pub(super) DataId);

/// The last iteration of a `for`.
#[derive(Clone, Copy)]
pub(super) struct Last {
    /// The loop.
    pub(super) scope: ScopeId,
    /// The branch in which its body stands.
    pub(super) body: ScopeId,
    /// Whether that is taken.
    pub(super) decision: DataId,
}

impl<'d> Lowering<'d, '_> {
    /// Does all jobs; doing one may leave another.
    pub(super) fn connect(&mut self) {
        while !self.jobs.is_empty() && !self.full {
            for job in std::mem::take(&mut self.jobs) {
                self.work(job);
            }
        }
    }

    fn work(&mut self, job: Job<'d>) {
        match job {
            Job::Function { task, context, function } => self.connect_function(task, context, function),
            Job::Compare { task, context, owner, comparisons } => self.compare(task, context, &owner, comparisons),
            Job::Match { task, context, owner, eval, terms, combine } => {
                self.match_value(task, context, &owner, eval, &terms, combine);
            }
            Job::Multiplex { task, decision, then, otherwise, data_type } => {
                self.multiplex(task, decision, [("then", then), ("else", otherwise)], data_type);
            }
            Job::Aggregate { task, context, source } => self.aggregate(task, context, source),
            Job::Gather { task, context, output } => {
                for (index, source) in output.sources.iter().enumerate() {
                    self.add_any_input(task, context, &index.to_string(), source);
                }
            }
            Job::Distribute { task, context, pieces } => self.distribute_pieces(task, context, &pieces),
            Job::Times { task, context, count } => {
                if let Some(data) = self.read(context, Reading::Source(count), DataType::Number, "Constant") {
                    self.check_count(count, data);
                    self.add_input(task, "count", DataType::Number, data);
                }
            }
            Job::Range { task, context, counter } => self.range(task, context, counter),
            Job::Counter { data, context, counter } => {
                let start = self.read(context, Reading::Feed(&counter.from), DataType::Number, "Constant");
                let step = counter.step.as_ref();
                let step = step.and_then(|step| self.read(context, Reading::Feed(step), DataType::Number, "Constant"));
                self.graph.data[data.0 as usize].kind = DataKind::Counter { start, step };
            }
            Job::Count { more, end, decision, count, context, counter } => {
                self.count_on(more, count, context, counter);
                let term = Term {
                    data_type: DataType::Boolean,
                    operator: Operator::Equal,
                    negated: false,
                    combined_with: Combine::And,
                };
                let truth = self.truth();
                self.add_input(end, "0", DataType::Boolean, decision);
                self.add_input(end, "1", DataType::Boolean, truth);
                self.task_mut(end).kind = TaskKind::While(Condition { terms: vec![term] });
            }
            Job::Carried { data, carried } => self.carry(data, &carried),
            Job::Initial { data, context, initial, data_type, next: Next(next) } => {
                if let Some(initial) = self.read(context, Reading::Feed(initial), data_type, "Constant") {
                    self.graph.data[data.0 as usize].kind = DataKind::Carried { initial, next };
                }
            }
        }
    }

    fn add_input(&mut self, task: TaskId, name: &str, data_type: DataType, data: DataId) {
        self.task_mut(task).inputs.push(Member { name: name.to_owned(), data_type, data });
    }

    fn connect_function(&mut self, task: TaskId, context: Context, function: &'d Construct) {
        for input in function.data_ins.iter().filter(|input| !input.passing) {
            let feed = Reading::Feed(&input.feed);
            let Some(data) = self.read_with(context, feed, input.data_type, "Constant", &input.constraints) else {
                continue;
            };
            if matches!(self.graph.datum(data).kind, DataKind::Output { task: maker } if maker == task) {
                let message = format!("{} reads what it makes itself", quote(&function.name.value));
                self.findings.error(input.name.at, Code::SelfDependency, message);
            }
            self.add_input(task, &input.name.value, input.data_type, data);
        }
    }

    fn compare(&mut self, task: TaskId, context: Context, owner: &str, comparisons: &'d [Comparison]) {
        let mut terms = Vec::with_capacity(comparisons.len());
        for (index, comparison) in comparisons.iter().enumerate() {
            for (side, feed) in [&comparison.left, &comparison.right].into_iter().enumerate() {
                let data = self.read(context, Reading::Feed(feed), comparison.data_type, owner);
                if let Some(data) = data {
                    self.add_input(task, &(2 * index + side).to_string(), comparison.data_type, data);
                }
            }
            terms.push(Term {
                data_type: comparison.data_type,
                operator: comparison.operator,
                negated: comparison.negated,
                combined_with: comparison.combined_with,
            });
        }
        let condition = Condition { terms };
        let task = self.task_mut(task);
        task.kind = match task.kind {
            TaskKind::While(_) => TaskKind::While(condition),
            _ => TaskKind::Condition(condition),
        };
    }

    fn match_value(
        &mut self,
        task: TaskId,
        context: Context,
        owner: &str,
        eval: &'d DataEval,
        values: &[(&'d Located<Value>, bool)],
        combine: Combine,
    ) {
        let Some(data) = self.read(context, Reading::Feed(&eval.feed), eval.data_type, owner) else { return };
        let term =
            |negated| Term { data_type: eval.data_type, operator: Operator::Equal, negated, combined_with: combine };
        let mut terms = Vec::new();
        for (value, negated) in values {
            let Some(constant) = self.constant_value(value, eval.data_type, owner) else { return };
            terms.push(term(*negated));
            self.add_input(task, &(2 * terms.len() - 2).to_string(), eval.data_type, data);
            self.add_input(task, &(2 * terms.len() - 1).to_string(), eval.data_type, constant);
        }
        if terms.is_empty() {
            // All cases run on into `default`, which so runs whatever the value is.
            terms.push(term(false));
            self.add_input(task, "0", eval.data_type, data);
            self.add_input(task, "1", eval.data_type, data);
        }
        self.task_mut(task).kind = TaskKind::Condition(Condition { terms });
    }

    fn multiplex(&mut self, task: TaskId, decision: DataId, sides: [(&str, Side<'d>); 2], data_type: DataType) {
        self.add_input(task, "decision", DataType::Boolean, decision);
        for (name, side) in sides {
            let data = match side {
                Side::Data(data) => Some(data),
                Side::Read(context, source) => self.read(context, Reading::Source(source), data_type, "Constant"),
            };
            if let Some(data) = data {
                self.add_input(task, name, data_type, data);
            }
        }
    }

    fn aggregate(&mut self, task: TaskId, context: Context, source: &'d Located<String>) {
        let Some(data) = self.add_any_input(task, context, "element", source) else { return };
        if self.graph.datum(data).scope != context.scope {
            let message = format!(
                "{} is the same in each iteration; read it by its own name instead of collecting it",
                quote(&source.value)
            );
            self.findings.error(source.at, Code::LoopInvariant, message);
        }
    }

    /// Reads data of whatever type.
    fn add_any_input(
        &mut self,
        task: TaskId,
        context: Context,
        name: &str,
        source: &'d Located<String>,
    ) -> Option<DataId> {
        let (_, data) = self.read_any(context, Reading::Source(source), DataType::String, "Constant")?;
        let data_type = self.type_of(data);
        self.add_input(task, name, data_type, data);
        Some(data)
    }

    fn distribute_pieces(&mut self, task: TaskId, context: Context, pieces: &[(&'d DataIn, Distribution)]) {
        for (input, distribution) in pieces {
            let feed = Reading::Feed(&input.feed);
            let Some((at, data)) = self.read_any(context, feed, DataType::Collection, "Constant") else { continue };
            let data = self.constrain(context, at, data, DataType::Collection, &input.constraints);
            let data = data.and_then(|data| self.distribute(context.scope, data, *distribution, at));
            if let Some(data) = data.filter(|data| self.check_collection(at, *data)) {
                self.add_input(task, &input.name.value, DataType::Collection, data);
            }
        }
    }

    fn check_count(&mut self, count: &Located<String>, data: DataId) {
        if let DataKind::Constant(value) = &self.graph.datum(data).kind
            && value.as_u64().is_none()
        {
            let message = "a parallelFor iterates a whole number of times, from 0";
            self.findings.error(count.at, Code::InvalidIterators, message);
        }
    }

    fn range(&mut self, task: TaskId, context: Context, counter: &'d LoopCounter) {
        self.check_counter(counter);
        let one = self.number(1);
        for (name, feed) in [("from", Some(&counter.from)), ("to", Some(&counter.to)), ("step", counter.step.as_ref())]
        {
            let data = match feed {
                Some(feed) => self.read(context, Reading::Feed(feed), DataType::Number, "Constant"),
                None => Some(one),
            };
            if let Some(data) = data {
                self.add_input(task, name, DataType::Number, data);
            }
        }
    }

    /// The step where it is written down; 1 where there is none.
    fn constant_step(counter: &LoopCounter) -> Option<f64> {
        match &counter.step {
            None => Some(1.0),
            Some(Feed::Source(text)) => text.value.trim().parse().ok(),
            Some(Feed::Value(value)) => value.value.as_f64(),
        }
    }

    fn check_counter(&mut self, counter: &LoopCounter) {
        if Self::constant_step(counter) == Some(0.0) {
            let message = "a loopCounter needs a `step` other than 0: it would never arrive";
            self.findings.error(counter.at, Code::InvalidCounter, message);
        }
    }

    /// A `for` goes on while its counter has not arrived; where the step is read from data, it must be above 0.
    fn count_on(&mut self, more: TaskId, count: DataId, outer: Context, counter: &'d LoopCounter) {
        self.check_counter(counter);
        let term =
            |operator| Term { data_type: DataType::Number, operator, negated: false, combined_with: Combine::And };
        let mut terms = Vec::new();
        let mut members = Vec::new();
        let operator = match Self::constant_step(counter) {
            Some(..0.0) => Operator::Greater,
            Some(_) => Operator::Less,
            None => {
                let zero = self.number(0);
                let step = counter.step.as_ref().map(Reading::Feed);
                let step = step.and_then(|step| self.read(outer, step, DataType::Number, "Constant"));
                terms.push(term(Operator::Greater));
                members.extend([step, Some(zero)]);
                Operator::Less
            }
        };
        let to = self.read(outer, Reading::Feed(&counter.to), DataType::Number, "Constant");
        terms.push(term(operator));
        members.extend([Some(count), to]);
        for (index, data) in members.into_iter().enumerate() {
            if let Some(data) = data {
                self.add_input(more, &index.to_string(), DataType::Number, data);
            }
        }
        self.task_mut(more).kind = TaskKind::Condition(Condition { terms });
    }

    fn carry(&mut self, data: DataId, carried: &Carried<'d>) {
        let Carried { data_type, scope, outer, initial, constraints, inner, next, .. } = *carried;
        let initial = self.read_with(outer, Reading::Feed(initial), data_type, "Constant", constraints);
        let next = self.read(inner, Reading::Source(next), data_type, "Constant");
        let (Some(initial), Some(next)) = (initial, next) else { return };
        if self.graph.datum(next).scope != scope {
            let message = format!(
                "{} would be {} in each further iteration; its dataOut must name something that the body makes",
                quote(&carried.name),
                quote(&self.graph.datum(next).name)
            );
            self.findings.error(carried.at, Code::LoopInvariant, message);
        }
        self.graph.data[data.0 as usize].kind = DataKind::Carried { initial, next };
    }

    /// Reads what the result of a run is made of.
    pub(super) fn connect_outputs(&mut self) {
        let document = self.document;
        let context = Context { frame: 0, compound: None, scope: ScopeId::WORKFLOW, place: Place::Outputs };
        let mut names = std::collections::HashSet::new();
        for output in &document.data_outs {
            self.check_plain_output(output);
            if !names.insert(&output.name.value) {
                let message = format!("there are two outputs {}", quote(&output.name.value));
                self.findings.error(output.name.at, Code::DuplicateName, message);
            }
            match output.sources.as_slice() {
                [source] if super::wires::reference(&source.value).is_some() => {
                    let data = self.read(context, Reading::Source(source), output.data_type, "Constant");
                    if let Some(data) = data {
                        let (name, data_type) = (output.name.value.clone(), output.data_type);
                        self.graph.outputs.push(Member { name, data_type, data });
                    }
                }
                [source] => {
                    let message = format!("{} is no source; write PRODUCER/PORT", quote(&source.value));
                    self.findings.error(source.at, Code::UnknownSource, message);
                }
                _ => {
                    let message = format!("the output {} takes one source", quote(&output.name.value));
                    self.findings.error(output.name.at, Code::WrongShape, message);
                }
            }
        }
        self.connect();
    }
}
