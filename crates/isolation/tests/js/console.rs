//! What `console` writes.

use lyra_types::Code;
use lyra_types::log::Level;
use serde_json::json;

use super::{Js, run};

async fn lines(body: &str) -> Vec<String> {
    let js = Js::new();
    let function = js.deploy(&format!("export default async () => {{ {body} }}")).await;
    function.call("null").await.expect(body);
    function.lines.texts()
}

async fn line(arguments: &str) -> String {
    let mut lines = lines(&format!("console.log({arguments})")).await;
    assert_eq!(lines.len(), 1);
    lines.remove(0)
}

#[tokio::test]
async fn each_method_has_its_level() {
    let js = Js::new();
    let function = js
        .deploy("export default () => { console.log('a'); console.info('b'); console.debug('c'); console.warn('d'); console.error('e'); console.trace('f') }")
        .await;
    function.call("null").await.expect("runs");
    let mut lines = function.lines.take();
    let (level, trace) = lines.pop().expect("a trace");
    assert_eq!(level, Level::Error);
    assert!(trace.starts_with("Trace: f\n") && trace.contains("function.js:1:"), "{trace}");
    let expected =
        [(Level::Info, "a"), (Level::Info, "b"), (Level::Debug, "c"), (Level::Warn, "d"), (Level::Error, "e")];
    assert_eq!(lines, expected.map(|(level, text)| (level, text.to_owned())));
}

#[tokio::test]
async fn values_look_as_in_node() {
    for (arguments, expected) in [
        ("'a', 1, true, null, undefined, 10n, Symbol('s')", "a 1 true null undefined 10n Symbol(s)"),
        ("-0, NaN", "-0 NaN"),
        ("{ a: 1, 'b-c': 'x', [Symbol('k')]: [1, 'two'] }", "{ a: 1, 'b-c': 'x', [Symbol(k)]: [ 1, 'two' ] }"),
        ("[], {}, [[]]", "[] {} [ [] ]"),
        ("[1, , , 4]", "[ 1, <2 empty items>, 4 ]"),
        ("new Map([['a', { b: 1 }]]), new Set([1])", "Map(1) { 'a' => { b: 1 } } Set(1) { 1 }"),
        ("new Date(0), /a+/g", "1970-01-01T00:00:00.000Z /a+/g"),
        ("() => 1, function f() {}, class A {}", "[Function (anonymous)] [Function: f] [Function: A]"),
        ("new (class Point { x = 1 })()", "Point { x: 1 }"),
        (
            "new Uint8Array([1, 2]), new ArrayBuffer(2)",
            "Uint8Array(2) [ 1, 2 ] ArrayBuffer { [Uint8Contents]: <00 00>, byteLength: 2 }",
        ),
        ("Promise.resolve(1), new Promise(() => {})", "Promise { 1 } Promise { <pending> }"),
        ("Object.create(null)", "[Object: null prototype] {}"),
        ("{ get a() { throw 1 }, set b(x) {} }", "{ a: [Getter], b: [Setter] }"),
        ("(() => { const a = { n: 1 }; a.self = a; return a })()", "{ n: 1, self: [Circular] }"),
        ("{ a: { b: { c: { d: { e: { f: 1 } } } } } }", "{ a: { b: { c: { d: { e: [Object] } } } } }"),
        ("new String('x'), new Number(1)", "[String: 'x'] [Number: 1]"),
        ("new Proxy({}, { get() { throw 1 } })", "[Proxy]"),
        (
            "'%s is %d, %i, %f, %j, %o %%', 'x', '4.5', '4.5', '4.5', {a:1}, [1], 'rest'",
            "x is 4.5, 4, 4.5, {\"a\":1}, [ 1 ] % rest",
        ),
        ("'100%', 1", "100% 1"),
        ("'%x %s'", "%x %s"),
        ("['it\\'s']", "[ \"it's\" ]"),
    ] {
        assert_eq!(line(arguments).await, expected, "{arguments}");
    }
}

#[tokio::test]
async fn errors_are_shown_with_their_stack() {
    let text = line("new TypeError('bad', { cause: 'why' })").await;
    assert!(text.starts_with("TypeError: bad\n    at default (function.js:1:"), "{text}");
    assert!(text.contains("[cause]: 'why'"), "{text}");
}

#[tokio::test]
async fn lines_are_bounded() {
    for arguments in [
        "'x'.repeat(1e7)",
        "new Array(1e6).fill('x'.repeat(100))",
        "Object.fromEntries(Array.from({ length: 1e5 }, (_, i) => ['k' + i, i]))",
        "'%s', 'ü'.repeat(1e6)",
        "new Error('x'.repeat(1e6))",
        "(() => { let a = []; for (let i = 0; i < 1e5; i++) a = [a]; return a })()",
        "Array.from({ length: 100 }, () => Array.from({ length: 100 }, () => Array.from({ length: 100 }, () => ({}))))",
    ] {
        let text = line(arguments).await;
        assert!(text.len() <= lyra_isolation::MAX_LOG_LINE, "{arguments}: {}", text.len());
        assert!(!text.is_empty());
    }
}

#[tokio::test]
async fn the_rest_of_console_is_there() {
    let lines = lines("console.group('g'); console.log('in'); console.groupEnd(); console.count(); console.count(); console.assert(true, 'no'); console.assert(false, 'yes'); console.dir({ a: 1 }); console.time('t'); console.timeEnd('t')").await;
    assert_eq!(lines[..6], ["g", "  in", "default: 1", "default: 2", "Assertion failed: yes", "{ a: 1 }"]);
    assert!(lines[6].starts_with("t: ") && lines[6].ends_with("ms"), "{lines:?}");
}

#[tokio::test]
async fn unhandled_rejections_are_logged() {
    let js = Js::new();
    let function = js.deploy("export default async () => { Promise.reject(new Error('lost')); Promise.reject(1).catch(() => {}); return 1 }").await;
    assert_eq!(function.call("null").await.expect("runs"), json!(1));
    let lines = function.lines.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0].0, Level::Warn);
    assert!(lines[0].1.starts_with("unhandled promise rejection: Error: lost"), "{lines:?}");

    let function = js.deploy("export default async () => { throw new Error('handled by the platform') }").await;
    function.call("null").await.expect_err("throws");
    assert!(function.lines.take().is_empty());
}

#[tokio::test]
async fn a_million_lines_cost_only_their_time() {
    let source = "export default () => { for (let i = 0; i < 1e6; i++) console.log(i); return 'done' }";
    let js = Js::new();
    let function = js.deploy(source).await;
    assert_eq!(function.call("null").await.expect("runs"), json!("done"));
    assert_eq!(function.lines.take().len(), 1_000_000);
}

#[tokio::test]
async fn replaced_built_ins_do_not_break_logging() {
    let source = "export default () => {
        Array.prototype.map = Array.prototype.join = Array.prototype.push = String.prototype.slice = JSON.stringify = () => { throw new Error('replaced') };
        Array.prototype[Symbol.iterator] = null; Map.prototype.get = Object.keys = Reflect.ownKeys = null;
        console.log('still', { works: [1, 'two'] }); return 1 }";
    let js = Js::new();
    let function = js.deploy(source).await;
    assert_eq!(function.call("null").await.expect("runs"), json!(1));
    assert_eq!(function.lines.texts(), ["still { works: [ 1, 'two' ] }"]);
}

#[tokio::test]
async fn nothing_is_logged_while_deploying() {
    let result = run("console.log('deploying'); export default () => 1", "null").await;
    assert_eq!(result.map_err(|e| e.code), Ok::<_, Code>(json!(1)));
}
