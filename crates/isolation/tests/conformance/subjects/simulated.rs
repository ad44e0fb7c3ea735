//! The runtime `simulated`: every program is a set of parameters.

use lyra_isolation::Isolation;
use lyra_isolation::simulated::Simulated;
use lyra_kit::{Clock, Random};
use lyra_types::Runtime;

use crate::conformance::{Deed, Program, Subject};

pub struct Parameters(Simulated);

impl Parameters {
    pub fn new() -> Parameters {
        Parameters(Simulated::new(Clock::system(), Random::seeded(1)))
    }
}

impl Subject for Parameters {
    fn isolation(&self) -> &dyn Isolation {
        &self.0
    }

    fn runtime(&self) -> Runtime {
        Runtime::Simulated
    }

    fn program(&self, program: Program) -> Deed {
        let (code, event) = match program {
            Program::Echo => (r#"{"memory_mb": 32, "answer": "event"}"#, r#""ping""#),
            Program::Count => (r#"{"memory_mb": 32, "hibernated_mb": 2, "wake_ms": 1, "answer": "calls"}"#, "null"),
            Program::Wait => (r#"{"start_ms": 5, "exec_ms": {"min": 15, "max": 25}}"#, "null"),
            Program::Forever => (r#"{"memory_mb": 32, "exec_ms": 86400000}"#, "null"),
            Program::Hoard => (r#"{"memory_mb": 32}"#, r#"{"memory_mb": 65}"#),
            Program::Crash => (r#"{"memory_mb": 32, "exec_ms": 5, "crash_rate": 1}"#, "null"),
            Program::Fail => (r#"{"failure_rate": 1}"#, "null"),
            Program::Large => (r#"{"result_bytes": 1048577}"#, "null"),
            Program::Lines => (r#"{"log_lines": 1}"#, "null"),
        };
        Deed::code(code, event)
    }

    fn memory(&self) -> u64 {
        self.0.figures().memory_mb << 20
    }
}
