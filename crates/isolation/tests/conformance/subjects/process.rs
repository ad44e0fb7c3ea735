//! What all runtimes of the process back end have in common as subjects.

use std::path::{Path, PathBuf};

use lyra_isolation::process::Processes;

use crate::process::{Fixture, guest};

/// First processes that the launcher makes ahead; each has its cgroup.
const BLANKS: usize = 4;

/// The back end, with one started interpreter that waits for a function of each language that is asked for.
pub struct Back {
    fixture: Fixture,
    /// Interpreters that wait when all is as it is to be.
    cells: usize,
}

impl Back {
    /// `cells`: interpreters of the runtime that wait.
    pub async fn new(cells: usize) -> Back {
        Back { fixture: Fixture::with(|config| config.settings.cells = 1).await, cells }
    }

    pub fn processes(&self) -> &Processes {
        &self.fixture.processes
    }

    /// Whether all that is made ahead is there, and no instance. Once a function of the runtime was asked for.
    pub fn is_at_rest(&self) -> bool {
        let groups = self.cgroups();
        self.processes().waiting().cells == self.cells && (groups == BLANKS + self.cells || groups == 0)
    }

    /// Directories in one of the trees; those in the others come and go with them.
    pub fn cgroups(&self) -> usize {
        let trees = groups_of(&self.fixture.dir.path().join("launch"));
        let below = |tree: &PathBuf| {
            std::fs::read_dir(tree).map_or(0, |list| list.flatten().filter(|entry| entry.path().is_dir()).count())
        };
        trees.iter().map(below).max().unwrap_or(0)
    }

    pub fn files(&self) -> usize {
        count(self.fixture.dir.path())
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
pub fn guest(deed: &str) -> crate::conformance::Deed {
    let env = [("DEED".to_owned(), deed.to_owned())].into();
    crate::conformance::Deed::Code { code: guest::native().into(), event: "\"ping\"".into(), env }
}
