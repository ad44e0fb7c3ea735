//! From a document to its graph: names are resolved, types compared, compounds become scopes and helper tasks.
//!
//! In two passes. The first, *declaring*, walks the constructs and makes scopes, tasks and what they make, and leaves
//! for each of them a *job*. The second, *connecting*, does the jobs: by then every name is known, so that the order
//! in the document does not matter. A name that only stands for other data (an input of a compound, an output of a
//! loop) is a *wire*, followed when somebody reads it and not before: what nobody reads is not part of the graph.
//!
//! Sub-choreographies are declared once for each call, each in a *frame* of names of its own.

mod arrange;
mod branches;
mod collection;
mod connect;
mod constant;
mod cuts;
mod declare;
mod loops;
mod names;
mod order;
mod settings;
mod wires;

use std::collections::HashMap;

use crate::diagnostic::{DiagnosticCode as Code, Findings, Position};
use crate::document::{Document, SubChoreography};
use crate::graph::{
    Data, DataId, DataKind, DataType, Graph, Member, Scope, ScopeId, ScopeKind, Task, TaskId, TaskKind, index_of,
};
use crate::limits::{MAX_DATA, MAX_TASKS};

use connect::Job;
use names::Names;
use order::Order;
use wires::{Lazy, Wire};

/// Lowers a document; what is wrong with it goes to `findings`, and the graph is of use only where there is no error.
pub(crate) fn lower(document: &Document, findings: &mut Findings) -> Option<Graph> {
    let mut lowering = Lowering::new(document, findings);
    lowering.declare_document();
    lowering.connect();
    lowering.connect_outputs();
    lowering.report_unread();
    lowering.put_in_order();
    lowering.mark_cuts();
    if lowering.findings.has_errors() {
        return None;
    }
    lowering.arrange();
    lowering.report_cycles();
    lowering.check_cuts();
    (!lowering.findings.has_errors()).then_some(lowering.graph)
}

/// Where something stands that reads data.
#[derive(Debug, Clone, Copy)]
struct Context {
    /// The names it sees.
    frame: usize,
    /// The compound directly around it.
    compound: Option<usize>,
    /// The scope it stands in.
    scope: ScopeId,
    /// Which part of the compound it is.
    place: Place,
}

/// Which part of a compound reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Its body.
    Body,
    /// The condition of a while.
    Condition,
    /// Its outputs.
    Outputs,
}

/// A set of names: the workflow's, or those of one call of a sub-choreography.
struct Frame {
    /// What stands before the names of its tasks.
    prefix: String,
}

struct Lowering<'d, 'f> {
    document: &'d Document,
    findings: &'f mut Findings,
    graph: Graph,
    /// The type of each datum.
    types: Vec<DataType>,
    /// Whether somebody reads it.
    read: Vec<bool>,
    /// Where each task stands in the document.
    places: Vec<Position>,
    frames: Vec<Frame>,
    names: Names<'d>,
    wires: Vec<Wire<'d>>,
    lazies: Vec<Lazy<'d>>,
    jobs: Vec<Job<'d>>,
    orders: Vec<Order>,
    constants: HashMap<(String, DataType, String), DataId>,
    operations: HashMap<(ScopeId, Vec<DataId>, String), DataId>,
    /// Names of tasks that are given away, and how often.
    taken: HashMap<String, u32>,
    sub: HashMap<&'d str, &'d SubChoreography>,
    /// The sub-choreographies that are being declared, outermost first.
    calls: Vec<&'d str>,
    /// Those that were called at all.
    called: Vec<&'d str>,
    /// Members of cuts: what a construct that has no name in the graph consists of.
    parts: HashMap<String, Vec<String>>,
    /// How deep wires are being followed through arguments of constraints.
    following: usize,
    full: bool,
}

impl<'d, 'f> Lowering<'d, 'f> {
    fn new(document: &'d Document, findings: &'f mut Findings) -> Lowering<'d, 'f> {
        let name = document.name.value.clone();
        let workflow = Scope { name: name.clone(), parent: None, kind: ScopeKind::Workflow };
        Lowering {
            document,
            findings,
            graph: Graph {
                name,
                scopes: vec![workflow],
                tasks: Vec::new(),
                data: Vec::new(),
                outputs: Vec::new(),
                cuts: Vec::new(),
            },
            types: Vec::new(),
            read: Vec::new(),
            places: Vec::new(),
            frames: Vec::new(),
            names: Names::default(),
            wires: Vec::new(),
            lazies: Vec::new(),
            jobs: Vec::new(),
            orders: Vec::new(),
            constants: HashMap::new(),
            operations: HashMap::new(),
            taken: HashMap::new(),
            sub: HashMap::new(),
            calls: Vec::new(),
            called: Vec::new(),
            parts: HashMap::new(),
            following: 0,
            full: false,
        }
    }

    fn add_scope(&mut self, name: &str, parent: ScopeId, kind: ScopeKind) -> ScopeId {
        let id = ScopeId(index_of(self.graph.scopes.len()));
        self.graph.scopes.push(Scope { name: name.to_owned(), parent: Some(parent), kind });
        id
    }

    /// Adds a task of the engine's own, whose name gives way where it is taken.
    fn add_helper(&mut self, name: String, scope: ScopeId, kind: TaskKind, at: Position) -> TaskId {
        let name = self.free_name(name);
        self.add_task(name, scope, kind, at)
    }

    fn free_name(&mut self, name: String) -> String {
        let Some(count) = self.taken.get_mut(&name) else {
            self.taken.insert(name.clone(), 1);
            return name;
        };
        *count += 1;
        let next = format!("{name} ({count})");
        self.free_name(next)
    }

    fn add_task(&mut self, name: String, scope: ScopeId, kind: TaskKind, at: Position) -> TaskId {
        if self.graph.tasks.len() >= MAX_TASKS && !self.full {
            self.full = true;
            let message = format!("the workflow unfolds to more than {MAX_TASKS} tasks");
            self.findings.fatal(at, Code::TooLarge, message);
        }
        let id = TaskId(index_of(self.graph.tasks.len()));
        self.graph.tasks.push(Task {
            name,
            scope,
            kind,
            inputs: Vec::new(),
            outputs: Vec::new(),
            after: Vec::new(),
            after_scopes: Vec::new(),
        });
        self.places.push(at);
        id
    }

    fn add_data(&mut self, name: String, scope: ScopeId, kind: DataKind, data_type: DataType) -> DataId {
        if self.graph.data.len() >= MAX_DATA && !self.full {
            self.full = true;
            let message = format!("the workflow unfolds to more than {MAX_DATA} data");
            self.findings.fatal(self.document.name.at, Code::TooLarge, message);
        }
        let id = DataId(index_of(self.graph.data.len()));
        self.graph.data.push(Data { name, scope, kind });
        self.types.push(data_type);
        self.read.push(false);
        id
    }

    /// Adds the one thing that a helper makes.
    fn add_result(&mut self, task: TaskId, member: &str, name: String, data_type: DataType) -> DataId {
        let scope = self.graph.task(task).scope;
        let data = self.add_data(name, scope, DataKind::Computed { task }, data_type);
        self.task_mut(task).outputs.push(Member { name: member.to_owned(), data_type, data });
        data
    }

    fn task_mut(&mut self, id: TaskId) -> &mut Task {
        &mut self.graph.tasks[id.0 as usize]
    }

    fn type_of(&self, data: DataId) -> DataType {
        self.types[data.0 as usize]
    }
}
