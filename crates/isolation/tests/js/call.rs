//! Calling a handler: arguments, context, results and errors.

use std::collections::BTreeMap;

use lyra_types::Code;
use serde_json::json;

use super::{Js, Settings, run, run_with, thrown, value};

#[tokio::test]
async fn an_array_is_spread_over_the_parameters_of_a_function_expression() {
    assert_eq!(run("async function add(a, b) { return a + b }", "[2,3]").await.expect("runs"), json!(5));
    assert_eq!(run("(a, b, context) => [a, b, context.tenant]", "[2,3]").await.expect("runs"), json!([2, 3, "acme"]));
    assert_eq!(run("(a, b) => [a, typeof b]", "[1]").await.expect("runs"), json!([1, "object"]));
    assert_eq!(run("(list) => list.length", "[2,3]").await.expect("runs"), json!(2));
    assert_eq!(
        run("export default (list, context) => [list, typeof context]", "[2,3]").await.expect("runs"),
        json!([[2, 3], "object"])
    );
    assert_eq!(
        run("function f(a, b) { return [a.x, b.tenant] }", r#"{"x":1}"#).await.expect("runs"),
        json!([1, "acme"])
    );
}

#[tokio::test]
async fn the_context_says_what_runs() {
    let settings = Settings {
        env: BTreeMap::from([("GREETING".into(), "höi \"du\"".into()), ("EMPTY".into(), String::new())]),
        ..Settings::default()
    };
    let source = "export default (event, context) => ({
        ...context, remaining: context.getRemainingTimeInMillis(), same: context.env === context.env, keys: Object.keys(context) })";
    let seen = run_with(source, "null", settings).await.expect("runs");
    assert!(seen["invocationId"].as_str().expect("text").starts_with("inv_"));
    assert_eq!(seen["functionName"], json!("guest"));
    assert_eq!(seen["functionVersion"], json!("7"));
    assert_eq!(seen["tenant"], json!("acme"));
    assert_eq!(seen["memoryLimitMb"], json!(128));
    assert_eq!(seen["env"], json!({ "GREETING": "höi \"du\"", "EMPTY": "" }));
    assert_eq!(seen["same"], json!(true));
    let remaining = seen["remaining"].as_f64().expect("a number");
    assert!((1.0..=60_000.0).contains(&remaining), "{remaining}");
    assert!(seen["deadlineMs"].as_f64().expect("a number") > 1.7e12);
    let keys = ["invocationId", "functionName", "functionVersion", "tenant", "env", "memoryLimitMb", "deadlineMs"];
    assert_eq!(seen["keys"], json!(keys));
}

#[tokio::test]
async fn results_are_json() {
    for (expression, expected) in [
        ("undefined", json!(null)),
        ("null", json!(null)),
        ("'a\\u2028ü€😀\\u0000'", json!("a\u{2028}ü€😀\0")),
        ("NaN", json!(null)),
        ("-0.5", json!(-0.5)),
        ("[undefined, () => 1]", json!([null, null])),
        ("({ a: undefined, b: new Date(0) })", json!({ "b": "1970-01-01T00:00:00.000Z" })),
        ("({ toJSON() { return 7 } })", json!(7)),
        ("new Proxy({ a: 1 }, {})", json!({ "a": 1 })),
        ("Promise.resolve(Promise.resolve(3))", json!(3)),
        ("({ then(resolve) { resolve({ then(r) { r(4) } }) } })", json!(4)),
        ("({ then: 5 })", json!({ "then": 5 })),
        ("new Map([[1, 2]])", json!({})),
        ("new String('x')", json!("x")),
    ] {
        let source = format!("export default () => ({expression})");
        assert_eq!(run(&source, "null").await.expect(expression), expected, "{expression}");
    }

    let js = Js::new();
    let function = js.deploy("export default () => '\\ud800'").await;
    let lone = function.start().await.call(function.context(), bytes::Bytes::new()).await.expect("runs");
    assert_eq!(&lone[..], br#""\ud800""#, "JSON stays UTF-8");
}

#[tokio::test]
async fn results_that_have_no_json_form_are_refused_with_the_reason() {
    for (expression, reason) in [
        ("(() => { const a = {}; a.a = a; return a })()", "circular"),
        ("10n", "BigInt"),
        ("() => 1", "a function has no JSON form"),
        ("Symbol('x')", "no JSON form"),
        ("({ toJSON() { throw new RangeError('not today') } })", "RangeError: not today"),
        ("({ toJSON() { return undefined } })", "no JSON form"),
    ] {
        let error = run(&format!("export default () => ({expression})"), "null").await.expect_err(expression);
        assert_eq!(error.code, Code::InvalidResult, "{expression}: {error:?}");
        assert!(error.detail.contains(reason), "{expression}: {}", error.detail);
    }
}

#[tokio::test]
async fn events_reach_the_handler_whole() {
    let echo = "export default (event) => event";
    let js = Js::new();
    let function = js.deploy(echo).await;
    let large = format!("\"{}\"", "ü".repeat(1 << 20));
    let near = format!("\"{}\"", "x".repeat(4093));
    for event in
        ["null", "0", "\"\"", r#"{"a":[1,2,{"b":null}],"__proto__":{"x":1}}"#, "\"\\u0000\"", &near, &large, " [1] "]
    {
        let expected: serde_json::Value = serde_json::from_str(event).expect("JSON");
        assert_eq!(function.call(event).await.expect("runs"), expected);
    }
    assert_eq!(function.call("").await.expect("runs"), json!(null));
    for bad in ["{", "undefined", "1 2", "'a'", "\u{0}", "{a:1}", "[1,]", "01"] {
        let error = function.call(bad).await.expect_err(bad);
        assert_eq!(error.code, Code::BadRequest, "{bad:?}: {error:?}");
    }
    let deep = format!("{}{}", "[".repeat(500_000), "]".repeat(500_000));
    let error = function.call(&deep).await.expect_err("too deep");
    assert!(matches!(error.code, Code::BadRequest | Code::FunctionError), "{error:?}");
}

#[tokio::test]
async fn what_is_thrown_has_name_message_and_stack() {
    let error = thrown("export default () => inner();\nfunction inner() {\n  throw new TypeError('no') }").await;
    assert_eq!((error.name.as_str(), error.message.as_str()), ("TypeError", "no"));
    let frames: Vec<&str> = error.stack.lines().map(str::trim).collect();
    assert_eq!(frames[0], "at inner (function.js:3:13)", "{frames:?}");
    assert!(frames[1].starts_with("at default (function.js:1:"), "{frames:?}");

    let error = thrown("export default async () => { await null; throw new RangeError('later') }").await;
    assert_eq!((error.name.as_str(), error.message.as_str()), ("RangeError", "later"));
    let error =
        thrown("class Custom extends Error { name = 'Custom' }\nexport default () => { throw new Custom('mine') }")
            .await;
    assert_eq!((error.name.as_str(), error.message.as_str()), ("Custom", "mine"));
    let error = thrown("export default () => Promise.reject(new Error(''))").await;
    assert_eq!((error.name.as_str(), error.message.as_str()), ("Error", ""));
}

#[tokio::test]
async fn anything_can_be_thrown() {
    for (expression, name, message) in [
        ("'text'", "Error", "text"),
        ("42", "Error", "42"),
        ("undefined", "Error", "undefined"),
        ("null", "Error", "null"),
        ("Symbol('s')", "Error", "Symbol(s)"),
        ("({ code: 7 })", "Error", "{ code: 7 }"),
        ("({ name: 'Odd', message: 'yes' })", "Odd", "yes"),
        ("[1, 'a']", "Error", "[ 1, 'a' ]"),
        ("10n", "Error", "10n"),
        ("Object.create(null)", "Error", "[Object: null prototype] {}"),
    ] {
        let error = thrown(&format!("export default () => {{ throw {expression} }}")).await;
        assert_eq!((error.name.as_str(), error.message.as_str()), (name, message), "{expression}");
    }
}

#[tokio::test]
async fn thenables_and_jobs_are_waited_for() {
    assert_eq!(value("let x = 0; queueMicrotask(() => { x = 1 }); await null; return x").await, json!(1));
    assert_eq!(
        value("return await Promise.all([1, Promise.resolve(2), new Promise(r => setTimeout(r, 1, 3))])").await,
        json!([1, 2, 3])
    );
    let source = "let done = false; export default () => { Promise.resolve().then(() => { done = true }); return { get done() { return done } } }";
    assert_eq!(run(source, "null").await.expect("runs"), json!({ "done": true }));
    let error = thrown("export default () => ({ then() { throw new Error('from then') } })").await;
    assert_eq!(error.message, "from then");
}

#[tokio::test]
async fn a_handler_that_can_never_settle_fails_at_once() {
    for source in [
        "export default () => new Promise(() => {})",
        "export default async () => { await new Promise(() => {}) }",
        "export default () => ({ then() {} })",
    ] {
        let error = thrown(source).await;
        assert_eq!(error.name, "Error");
        assert!(error.message.contains("can never settle"), "{}", error.message);
    }
}

#[tokio::test]
async fn an_instance_can_serve_again_and_keeps_its_state_only_then() {
    let js = Js::new();
    let function = js.deploy("let n = 0; export default (event, context) => { if (event === 'fail') throw new Error('x'); context.mark ??= ++n; return [n, context.invocationId, Object.keys(context).length] }").await;
    let mut sandbox = function.start().await;
    for n in 1..=3 {
        let result = function.call_in(sandbox.as_mut(), "1").await.expect("runs");
        assert_eq!(result[0], json!(n));
        assert_eq!(result[2], json!(8), "each call has a context of its own");
        assert!(sandbox.is_reusable());
    }
    function.call_in(sandbox.as_mut(), "\"fail\"").await.expect_err("throws");
    assert!(sandbox.is_reusable(), "throwing leaves nothing broken behind");
    assert_eq!(function.call_in(sandbox.as_mut(), "1").await.expect("runs")[0], json!(4));
    assert_eq!(function.call("1").await.expect("runs")[0], json!(1), "a fresh one knows nothing of it");
}
