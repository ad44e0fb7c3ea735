//! The runtime `python`.

use lyra_isolation::Isolation;
use lyra_types::Runtime;

use super::process::Back;
use crate::conformance::{Deed, Program, Subject};

pub struct Functions(Back);

impl Functions {
    pub async fn new() -> Functions {
        Functions(Back::new(1).await)
    }
}

const SOURCE: &str = r#"
import os, time
calls = 0
def hoard():
    all = []
    while True: all.append(bytearray(1 << 20))
def forever():
    while True: pass
def fail(): raise LookupError("as asked")
def count():
    global calls
    calls += 1
    return calls
deeds = {"count": count, "wait": lambda: time.sleep(0.02), "forever": forever, "hoard": hoard, "crash": os.abort,
         "fail": fail, "large": lambda: "x" * (2 << 20), "lines": lambda: print("a line")}
def handler(event, context):
    return deeds[event]() if event in deeds else event
"#;

impl Subject for Functions {
    fn isolation(&self) -> &dyn Isolation {
        self.0.processes()
    }

    fn runtime(&self) -> Runtime {
        Runtime::Python
    }

    fn program(&self, program: Program) -> Deed {
        let event = match program {
            Program::Echo => "\"ping\"",
            Program::Count => "\"count\"",
            Program::Wait => "\"wait\"",
            Program::Forever => "\"forever\"",
            Program::Hoard => "\"hoard\"",
            Program::Crash => "\"crash\"",
            Program::Fail => "\"fail\"",
            Program::Large => "\"large\"",
            Program::Lines => "\"lines\"",
        };
        Deed::code(SOURCE, event)
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
