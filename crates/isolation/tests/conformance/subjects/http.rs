//! The runtime `http`.

use lyra_isolation::Isolation;
use lyra_types::Runtime;

use super::process::{Back, guest};
use crate::conformance::{Deed, Program, Subject};

pub struct Servers(Back);

impl Servers {
    pub async fn new() -> Servers {
        // Its programs need no interpreter.
        Servers(Back::new(0).await)
    }
}

impl Subject for Servers {
    fn isolation(&self) -> &dyn Isolation {
        self.0.processes()
    }

    fn runtime(&self) -> Runtime {
        Runtime::Http
    }

    fn program(&self, program: Program) -> Deed {
        guest(match program {
            Program::Echo => "echo",
            Program::Count => "count",
            Program::Wait => "wait",
            Program::Forever => "forever",
            Program::Hoard => "hoard",
            Program::Crash => "crash",
            Program::Fail => "fail",
            Program::Large => "large",
            Program::Lines => "lines",
        })
    }

    fn is_at_rest(&self) -> bool {
        self.0.is_at_rest()
    }

    /// Instances hold theirs as processes, which are counted.
    fn memory(&self) -> u64 {
        0
    }

    fn cgroups(&self) -> usize {
        self.0.cgroups()
    }

    fn files(&self) -> usize {
        self.0.files()
    }
}
