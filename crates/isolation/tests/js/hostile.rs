//! Code that tries to break the platform: replaced built-ins, prototype tricks, getters that throw.

use lyra_types::Code;
use serde_json::json;

use super::{Js, Settings, run, run_with};

/// Code that replaces all it can reach.
const REPLACE_ALL: &str = "
    const Trap = globalThis.RangeError;
    const owners = [globalThis, JSON, Promise, Promise.prototype, Object, Object.prototype, Array, Array.prototype,
        Function.prototype, String.prototype, Reflect, Math, Error, Error.prototype, Map.prototype, Symbol];
    const kept = { Reflect, JSON, Promise, Object, Array, Function, String, Math, Error, Map };
    const { ownKeys, defineProperty, has } = Reflect;
    for (let i = 0; i < owners.length; i++) {
        const keys = ownKeys(owners[i]);
        for (let j = 0; j < keys.length; j++) {
            if (i === 0 && has(kept, keys[j])) continue;
            try { defineProperty(owners[i], keys[j], { __proto__: null, get() { throw new Trap('trap') }, set() { throw new Trap('trap') }, configurable: true }) } catch {}
        }
    }";

#[tokio::test]
async fn replaced_built_ins_change_nothing_for_the_platform() {
    for (body, expected) in [
        ("JSON.stringify = JSON.parse = () => 'fake'; return { real: true }", json!({ "real": true })),
        ("Promise.resolve = Promise.reject = null; globalThis.Promise = null; return 6", json!(6)),
        (
            "Object.prototype.polluted = 1; Array.prototype[5] = 'x'; return [[1, 2], { a: 1 }]",
            json!([[1, 2], { "a": 1 }]),
        ),
        ("Object.defineProperty(Object.prototype, 'then', { value: 5 }); return { a: 1 }", json!({ "a": 1 })),
        ("Function.prototype.call = Function.prototype.apply = null; return 7", json!(7)),
        ("Object.defineProperty(Object.prototype, '0', { set() { throw 1 } }); return [1]", json!([1])),
        ("delete globalThis.JSON; delete globalThis.Object; return { b: [2] }", json!({ "b": [2] })),
        ("globalThis.undefined2 = 1; Symbol.iterator; String.prototype.toString = null; return 'text'", json!("text")),
    ] {
        let source = format!("export default async () => {{ {body} }}");
        assert_eq!(run(&source, "null").await.expect(body), expected, "{body}");
    }
    let then = "export default () => { Promise.prototype.then = () => { throw 1 }; return Promise.resolve(5) }";
    assert_eq!(run(then, "null").await.expect("runs"), json!(5));
}

#[tokio::test]
async fn code_that_replaces_everything_still_ends_in_an_answer() {
    let ok = format!("export default () => {{ {REPLACE_ALL} return 'done' }}");
    assert_eq!(run(&ok, "null").await.expect("runs"), json!("done"));
    for body in [
        "throw new TypeError('x')",
        "throw { a: 1 }",
        "console.log({ a: [1] }); return setTimeout",
        "return new URL('http://a/')",
    ] {
        let source = format!(
            "const TypeError = globalThis.TypeError, URL = globalThis.URL; export default () => {{ {REPLACE_ALL} {body} }}"
        );
        let error = run(&source, "null").await.err().map(|error| error.code);
        assert!(matches!(error, None | Some(Code::FunctionError | Code::InvalidResult)), "{body}: {error:?}");
    }
    let deployed = format!("{REPLACE_ALL}\nexport default () => 'deployed'");
    assert_eq!(run(&deployed, "null").await.expect("runs"), json!("deployed"));
}

#[tokio::test]
async fn the_next_instance_sees_nothing_of_it() {
    let js = Js::new();
    let source = format!(
        "export default (hostile) => {{ if (hostile) {{ {REPLACE_ALL} }} return {{ list: [1, 2].map((x) => x * 2), text: JSON.stringify({{ a: 1 }}) }} }}"
    );
    let function = js.deploy(&source).await;
    for _ in 0..3 {
        // What the hostile call gives does not matter.
        let _ = function.call("true").await;
        assert_eq!(function.call("false").await.expect("runs"), json!({ "list": [2, 4], "text": "{\"a\":1}" }));
    }
}

#[tokio::test]
async fn errors_with_hostile_properties_are_still_reported() {
    for (expression, name, message) in [
        (
            "{ get message() { throw 1 }, get name() { throw 2 }, get stack() { throw 3 } }",
            "Error",
            "{ message: [Getter], name: [Getter], stack: [Getter] }",
        ),
        (
            "new Proxy({}, { get() { throw 1 }, has() { throw 1 }, ownKeys() { throw 1 }, getPrototypeOf() { throw 1 } })",
            "Error",
            "[Proxy]",
        ),
        ("{ name: 1, message: {}, stack: [] }", "Error", "{ name: 1, message: {}, stack: [] }"),
        ("Object.defineProperty(new Error('m'), 'message', { get() { throw 1 } })", "Error", "Error"),
        ("(() => { const e = new Error('m'); Object.setPrototypeOf(e, null); return e })()", "Error", "m"),
        ("{ toString() { throw 1 }, [Symbol.toPrimitive]() { throw 2 } }", "Error", ""),
    ] {
        let error =
            run(&format!("export default () => {{ throw ({expression}) }}"), "null").await.expect_err(expression);
        assert_eq!(error.code, Code::FunctionError, "{expression}");
        let thrown = error.thrown.expect("says what");
        assert_eq!(thrown.name, name, "{expression}");
        assert!(thrown.message.contains(message), "{expression}: {}", thrown.message);
    }
}

#[tokio::test]
async fn hostile_stack_hooks_are_harmless() {
    for body in [
        "Error.prepareStackTrace = () => { throw 1 }; throw new Error('a')",
        "Error.prepareStackTrace = () => ({ evil: true }); throw new Error('a')",
        "Error.stackTraceLimit = { valueOf() { throw 1 } }; throw new Error('a')",
        "Error.stackTraceLimit = 1e9; throw new Error('a')",
    ] {
        let error = run(&format!("export default () => {{ {body} }}"), "null").await.expect_err(body);
        assert_eq!(error.thrown.map(|t| t.message).as_deref(), Some("a"), "{body}");
    }
    let error = run_with(
        "Error.prepareStackTrace = () => { for (;;); }; export default () => { throw new Error('a') }",
        "null",
        Settings { timeout_ms: 200, ..Settings::default() },
    )
    .await;
    assert_eq!(error.expect_err("spins").code, Code::Timeout);
}

#[tokio::test]
async fn natives_do_not_trust_their_arguments() {
    let source = "export default () => {
        const seen = [];
        const attempt = (f) => { try { seen.push(typeof f()) } catch (e) { seen.push(e.name) } };
        const buffer = new ArrayBuffer(8, { maxByteLength: 64 }), view = new Uint8Array(buffer);
        buffer.resize(0);
        attempt(() => new TextDecoder().decode(view));
        attempt(() => crypto.getRandomValues(view));
        attempt(() => structuredClone(view));
        attempt(() => new TextDecoder().decode(new Proxy(new Uint8Array(4), {})));
        attempt(() => new TextDecoder({ toString() { throw new RangeError('x') } }));
        attempt(() => URL.prototype.href);
        attempt(() => Object.getOwnPropertyDescriptor(URL.prototype, 'href').get.call({}));
        attempt(() => TextDecoder.prototype.decode.call({}, new Uint8Array(1)));
        attempt(() => crypto.getRandomValues.call(null, new Uint8Array(1)));
        attempt(() => setTimeout.call(null, () => {}));
        attempt(() => Reflect.construct(setTimeout, [() => {}]));
        const detached = new ArrayBuffer(8), gone = new Uint8Array(detached); detached.transfer();
        attempt(() => new TextDecoder().decode(gone)); attempt(() => structuredClone(detached)); attempt(() => crypto.getRandomValues(gone));
        return seen.length }";
    assert_eq!(run(source, "null").await.expect("runs"), json!(14));
}

#[tokio::test]
async fn events_do_not_pollute_prototypes() {
    let source = "export default (event) => [({}).x, event.__proto__.x, Object.keys(event)]";
    let result = run(source, r#"{"__proto__":{"x":1},"constructor":{"prototype":{"y":2}}}"#).await.expect("runs");
    assert_eq!(result, json!([null, 1, ["__proto__", "constructor"]]));
}
