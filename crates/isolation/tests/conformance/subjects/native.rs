//! The runtime `native`.

use lyra_isolation::Isolation;
use lyra_types::Runtime;

use super::process::{Back, guest};
use crate::conformance::{Deed, Program, Subject};

pub struct Programs(Back);

impl Programs {
    pub async fn new() -> Programs {
        // Its programs need no interpreter.
        Programs(Back::new(0).await)
    }
}

impl Subject for Programs {
    fn isolation(&self) -> &dyn Isolation {
        self.0.processes()
    }

    fn runtime(&self) -> Runtime {
        Runtime::Native
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
