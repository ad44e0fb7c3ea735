//! The runtime `python`.

use lyra_types::Runtime;

use super::process::{Sandboxed, event_of};
use crate::conformance::Deed;

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

pub async fn subject() -> Sandboxed {
    Sandboxed::new(Runtime::Python, 1, 64, |program| Deed::code(SOURCE, event_of(program))).await
}
