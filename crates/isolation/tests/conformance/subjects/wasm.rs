//! The runtimes `js` and `wasm`: scripts, HTTP components, and commands.

use std::collections::BTreeMap;

use bytes::Bytes;
use lyra_isolation::Isolation;
use lyra_types::Runtime;

use crate::component::{Fixture, HOSTILE};
use crate::conformance::{Deed, Program, Subject};
use crate::js::Js;

/// JavaScript.
pub struct Script(Js);

impl Script {
    pub fn new() -> Script {
        Script(Js::new())
    }
}

const SCRIPT: &str = "
let calls = 0;
const deeds = {
    echo: ({ value }) => value,
    count: () => ++calls,
    wait: () => new Promise((done) => setTimeout(() => done('awake'), 20)),
    forever: () => { for (;;); },
    hoard: () => { const all = []; for (;;) all.push(new Uint8Array(1 << 20).fill(1)); },
    fail: () => { throw new TypeError('as asked') },
    large: () => 'x'.repeat(2 << 20),
    lines: () => { console.log('a line'); return null },
};
export default (event) => deeds[event.deed](event);
";

impl Subject for Script {
    fn isolation(&self) -> &dyn Isolation {
        &self.0.wasm
    }

    fn runtime(&self) -> Runtime {
        Runtime::Js
    }

    fn program(&self, program: Program) -> Deed {
        let event = match program {
            Program::Echo => r#"{"deed":"echo","value":"ping"}"#,
            Program::Count => r#"{"deed":"count"}"#,
            Program::Wait => r#"{"deed":"wait"}"#,
            Program::Forever => r#"{"deed":"forever"}"#,
            Program::Hoard => r#"{"deed":"hoard"}"#,
            Program::Crash => return Deed::Never("no script can make its interpreter trap"),
            Program::Fail => r#"{"deed":"fail"}"#,
            Program::Large => r#"{"deed":"large"}"#,
            Program::Lines => r#"{"deed":"lines"}"#,
        };
        Deed::code(SCRIPT, event)
    }

    fn memory(&self) -> u64 {
        self.0.wasm.engine().memory_in_use()
    }
}

/// An HTTP component that is called with events.
pub struct Component(Fixture);

impl Component {
    pub fn new() -> Component {
        Component(Fixture::new())
    }
}

impl Subject for Component {
    fn isolation(&self) -> &dyn Isolation {
        &self.0.wasm
    }

    fn runtime(&self) -> Runtime {
        Runtime::Wasm
    }

    fn program(&self, program: Program) -> Deed {
        let path = match program {
            Program::Echo => "/echo",
            Program::Count => "/calls",
            Program::Wait => "/sleep/20",
            Program::Forever => "/loop",
            Program::Hoard => "/memory",
            Program::Crash => "/panic",
            Program::Fail => "/error",
            Program::Large => "/big",
            Program::Lines => "/lines",
        };
        let env = BTreeMap::from([("MISDEED".to_owned(), path.to_owned())]);
        Deed::Code { code: Bytes::from_static(HOSTILE), event: Bytes::from_static(b"\"ping\""), env }
    }

    fn memory(&self) -> u64 {
        self.0.wasm.engine().memory_in_use()
    }
}

/// Programs in the text form of WebAssembly.
pub struct Command(Fixture);

impl Command {
    pub fn new() -> Command {
        Command(Fixture::new())
    }
}

/// A core module with a memory, `$read` (the event, to 64) and `$write`.
fn module(start: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 2)
            (data (i32.const 1024) "1line\n")
            (func $vector (param $from i32) (param $size i32)
                (i32.store (i32.const 0) (local.get $from))
                (i32.store (i32.const 4) (local.get $size)))
            (func $write (param $fd i32) (param $from i32) (param $size i32)
                (call $vector (local.get $from) (local.get $size))
                (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
            (func (export "_start") {start}))"#
    );
    wat::parse_str(text).expect("valid text")
}

impl Subject for Command {
    fn isolation(&self) -> &dyn Isolation {
        &self.0.wasm
    }

    fn runtime(&self) -> Runtime {
        Runtime::Wasm
    }

    fn program(&self, program: Program) -> Deed {
        let start = match program {
            Program::Echo => {
                "(call $vector (i32.const 64) (i32.const 64))
                 (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
                 (call $write (i32.const 1) (i32.const 64) (i32.load (i32.const 8)))"
            }
            Program::Count => "(call $write (i32.const 1) (i32.const 1024) (i32.const 1))",
            // A subscription to the monotonic clock, 20 ms from now.
            Program::Wait => {
                "(i32.store (i32.const 144) (i32.const 1))
                 (i64.store (i32.const 152) (i64.const 20000000))
                 (drop (call $poll (i32.const 128) (i32.const 256) (i32.const 1) (i32.const 8)))"
            }
            Program::Forever => "(loop $again (br $again))",
            Program::Hoard => {
                "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable"
            }
            Program::Crash => "unreachable",
            Program::Fail => "(call $exit (i32.const 3))",
            Program::Large => {
                "(local $left i32) (local.set $left (i32.const 64))
                 (loop $again
                    (call $write (i32.const 1) (i32.const 1024) (i32.const 65536))
                    (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))"
            }
            Program::Lines => "(call $write (i32.const 2) (i32.const 1025) (i32.const 5))",
        };
        Deed::code(module(start), "\"ping\"")
    }

    fn serves_once(&self) -> Option<&'static str> {
        Some("a program ends with its call")
    }

    fn memory(&self) -> u64 {
        self.0.wasm.engine().memory_in_use()
    }
}
