//! The runtime `nodejs`.

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

const SOURCE: &str = "
let calls = 0;
const deeds = {
    count: () => ++calls,
    wait: () => new Promise((done) => setTimeout(done, 20)),
    forever: () => { for (;;); },
    hoard: () => { const all = []; for (;;) all.push(Buffer.alloc(1 << 20, 1)); },
    crash: () => process.abort(),
    fail: () => { throw new TypeError('as asked') },
    large: () => 'x'.repeat(2 << 20),
    lines: () => console.log('a line'),
};
exports.handler = async (event) => event in deeds ? deeds[event]() : event;
";

impl Subject for Functions {
    fn isolation(&self) -> &dyn Isolation {
        self.0.processes()
    }

    fn runtime(&self) -> Runtime {
        Runtime::Nodejs
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

    /// The interpreter alone takes more than half of what suffices for the others.
    fn memory_mb(&self) -> u32 {
        128
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
