//! The runtimes of the process back end as subjects: they differ in their programs only.

use std::path::{Path, PathBuf};

use lyra_isolation::Isolation;
use lyra_types::Runtime;

use crate::conformance::{Deed, Program, Subject};
use crate::process::{Fixture, guest};

/// First processes that the launcher makes ahead; each has its cgroup.
const BLANKS: usize = 4;

/// A runtime, on a back end with one started interpreter of each language that is asked for.
pub struct Sandboxed {
    fixture: Fixture,
    runtime: Runtime,
    /// How the programs are written for it.
    deed: fn(Program) -> Deed,
    /// Interpreters of the runtime that wait when all is as it is to be.
    cells: usize,
    memory_mb: u32,
}

impl Sandboxed {
    /// `cells`: interpreters of the runtime that wait.
    pub async fn new(runtime: Runtime, cells: usize, memory_mb: u32, deed: fn(Program) -> Deed) -> Sandboxed {
        let fixture = Fixture::with(|config| config.settings.cells = 1).await;
        Sandboxed { fixture, runtime, deed, cells, memory_mb }
    }
}

impl Subject for Sandboxed {
    fn isolation(&self) -> &dyn Isolation {
        &self.fixture.processes
    }

    fn runtime(&self) -> Runtime {
        self.runtime
    }

    fn program(&self, program: Program) -> Deed {
        (self.deed)(program)
    }

    fn memory_mb(&self) -> u32 {
        self.memory_mb
    }

    /// Whether all that is made ahead is there, and no instance. Once a function of the runtime was asked for.
    fn is_at_rest(&self) -> bool {
        let groups = self.cgroups();
        self.fixture.processes.waiting().cells == self.cells && (groups == BLANKS + self.cells || groups == 0)
    }

    /// Instances hold theirs as processes, which are counted.
    fn memory(&self) -> u64 {
        0
    }

    /// Directories in one of the trees; those in the others come and go with them.
    fn cgroups(&self) -> usize {
        let trees = groups_of(&self.fixture.dir.path().join("launch"));
        let below = |tree: &PathBuf| {
            std::fs::read_dir(tree).map_or(0, |list| list.flatten().filter(|entry| entry.path().is_dir()).count())
        };
        trees.iter().map(below).max().unwrap_or(0)
    }

    fn files(&self) -> usize {
        count(self.fixture.dir.path())
    }
}

/// The word by which sources and the guest know a program.
fn word(program: Program) -> &'static str {
    match program {
        Program::Echo => "echo",
        Program::Count => "count",
        Program::Wait => "wait",
        Program::Forever => "forever",
        Program::Hoard => "hoard",
        Program::Crash => "crash",
        Program::Fail => "fail",
        Program::Large => "large",
        Program::Lines => "lines",
    }
}

/// A program as an event of a source that knows all of them.
pub fn event_of(program: Program) -> &'static str {
    match program {
        Program::Echo => "\"ping\"",
        Program::Count => "\"count\"",
        Program::Wait => "\"wait\"",
        Program::Forever => "\"forever\"",
        Program::Hoard => "\"hoard\"",
        Program::Crash => "\"crash\"",
        Program::Fail => "\"fail\"",
        Program::Large => "\"large\"",
        Program::Lines => "\"lines\"",
    }
}

fn groups_of(directory: &Path) -> Vec<PathBuf> {
    crate::launch::groups_of(directory)
}

fn count(directory: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let of = |entry: std::fs::DirEntry| if entry.path().is_dir() { 1 + count(&entry.path()) } else { 1 };
    entries.flatten().map(of).sum()
}

/// The native guest, which does as its environment says.
pub fn of_guest(program: Program) -> Deed {
    let env = [("DEED".to_owned(), word(program).to_owned())].into();
    Deed::Code { code: guest::native().into(), event: "\"ping\"".into(), env }
}
