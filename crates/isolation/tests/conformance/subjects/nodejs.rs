//! The runtime `nodejs`.

use lyra_types::Runtime;

use super::process::{Sandboxed, event_of};
use crate::conformance::Deed;

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

pub async fn subject() -> Sandboxed {
    // The interpreter alone takes more than half of what suffices for the others.
    Sandboxed::new(Runtime::Nodejs, 1, 128, |program| Deed::code(SOURCE, event_of(program))).await
}
