//! Limits: memory, time, stack, size of results.

use lyra_types::Code;
use serde_json::json;

use super::{Js, Settings, run, run_with, soon, thrown};

fn short() -> Settings {
    Settings { timeout_ms: 200, ..Settings::default() }
}

fn small() -> Settings {
    Settings { memory_mb: 32, ..Settings::default() }
}

#[tokio::test]
async fn endless_loops_end_at_the_deadline() {
    for source in [
        "export default () => { for (;;); }",
        "export default async () => { await null; for (;;); }",
        "export default async () => { await new Promise((r) => setTimeout(r, 1)); for (;;); }",
        "export default () => new Promise(() => { setTimeout(() => { for (;;); }, 1) })",
        "export default () => new Promise(() => { setInterval(() => {}, 1) })",
        "export default () => { const again = () => Promise.resolve().then(again); return again() }",
        "export default () => { const again = () => { queueMicrotask(again) }; again(); return 1 }",
        "export default () => new Promise(() => { const again = () => setTimeout(again, 0); again() })",
        "export default () => /^(a+)+$/.test('a'.repeat(50) + 'b')",
        "export default () => ({ toJSON() { for (;;); } })",
        "export default () => { throw { get message() { for (;;); } } }",
        "export default () => ({ get then() { for (;;); } })",
        "export default () => { for (;;) try { throw 1 } catch {} finally { continue } }",
        "export default function* g() {}; export const x = 1; export { spin as handler }; function spin() { for (;;); }",
    ] {
        let settings = Settings { handler: source.contains("handler }").then(|| "handler".into()), ..short() };
        let error = soon(run_with(source, "null", settings)).await.expect_err(source);
        assert_eq!(error.code, Code::Timeout, "{source}: {error:?}");
    }
}

#[tokio::test]
async fn memory_bombs_end_at_the_limit() {
    for source in [
        "export default () => { const a = []; for (;;) a.push(new Array(1000).fill(1)); }",
        "export default () => { let s = 'x'; for (;;) s = (s + s).toUpperCase(); }",
        "export default () => { const keep = []; for (;;) keep.push(new Uint8Array(1 << 20)); }",
        "export default async () => { const keep = []; for (;;) { keep.push({ a: [1, 2, 3] }); if (keep.length % 1e5 === 0) await null } }",
        "export default () => { const m = new Map(); for (let i = 0; ; i++) m.set(i, {}); }",
        "export default () => new Uint8Array(1e9)",
        "export default () => { const f = () => { const p = new Promise(f2 => f2()); keep.push(p); return p.then(f) }; const keep = []; return f() }",
    ] {
        let error = soon(run_with(source, "null", small())).await.expect_err(source);
        assert_eq!(error.code, Code::OutOfMemory, "{source}: {error:?}");
        assert!(error.detail.contains("32 MiB"), "{}", error.detail);
    }
}

#[tokio::test]
async fn a_function_may_catch_that_it_ran_out_of_memory() {
    let source = "export default () => { try { const a = []; for (;;) a.push(new Array(1000).fill(1)) } catch (e) { return e.name } }";
    let js = Js::new();
    let function = js.deploy_with(source, small()).await.expect("deploys");
    let mut sandbox = function.start().await;
    assert_eq!(function.call_in(sandbox.as_mut(), "null").await.expect("runs"), json!("InternalError"));
    assert!(!sandbox.is_reusable());
}

#[tokio::test]
async fn all_that_the_limit_allows_can_be_used() {
    let source = "export default () => { const a = []; for (let i = 0; i < 100; i++) a.push(new Uint8Array(1 << 20).fill(1)); return a.length }";
    assert_eq!(run(source, "null").await.expect("fits"), json!(100));
}

#[tokio::test]
async fn an_event_that_does_not_fit_is_out_of_memory() {
    let event = format!("[{}1]", "[],".repeat(1_500_000));
    let settings = Settings { memory_mb: 16, ..Settings::default() };
    let error = run_with("export default () => 1", &event, settings).await.expect_err("does not fit");
    assert_eq!(error.code, Code::OutOfMemory, "{error:?}");
}

#[tokio::test]
async fn deep_recursion_is_an_error_and_no_crash() {
    for body in [
        "const f = () => f() + 1; return f()",
        "const f = (...a) => f(...a, 1); return f()",
        "const o = { get x() { return this.x } }; return o.x",
        "const p = new Proxy({}, { get(t, k, r) { return r[k] } }); return p.x",
        "const o = { toString() { return `${this}` } }; return `${o}`",
        "const o = { [Symbol.toPrimitive]() { return +this } }; return +o",
        "const o = { valueOf() { return this + 1 } }; return o + 1",
        "const f = () => [1].map(f); return f()",
        "const f = () => [2, 1].sort(f); return f()",
        "const f = () => 'x'.replace(/x/, f); return f()",
        "const f = () => Reflect.apply(f, null, []); return f()",
        "let f = () => 1; for (let i = 0; i < 1e5; i++) f = f.bind(null); return f()",
        "const f = () => JSON.parse('[1]', f); return f()",
        "const f = () => JSON.stringify({ toJSON: f }); return f()",
        "class A { constructor() { new A() } } return new A()",
        "const f = () => eval('f()'); return f()",
        "function* g() { yield* g() } return [...g()]",
        "const f = () => structuredClone({ get a() { return f() } }); return f()",
        "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; return structuredClone(a)",
        "let a = []; for (let i = 0; i < 1e6; i++) a = [a]; return JSON.stringify(a)",
        "let a = []; for (let i = 0; i < 1e6; i++) a = [a]; return a",
        "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; return a.flat(Infinity)",
        "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; return String(a)",
        "return JSON.parse('['.repeat(1e6) + ']'.repeat(1e6))",
        "return JSON.parse('{\"a\":'.repeat(1e5) + '1' + '}'.repeat(1e5))",
        "return new RegExp('('.repeat(1e5) + ')'.repeat(1e5))",
        "return eval('('.repeat(1e5) + '1' + ')'.repeat(1e5))",
        "return new Function('return ' + '['.repeat(1e5) + ']'.repeat(1e5))()",
        "let p = {}; for (let i = 0; i < 1e5; i++) p = new Proxy(p, {}); return p.x",
        "let o = {}; for (let i = 0; i < 1e5; i++) o = Object.create(o); return o.x ?? new Error('none').name",
        "let e = new Error('x'); for (let i = 0; i < 1e5; i++) e = new Error('y', { cause: e }); throw e",
        "const f = async () => { await f() }; return f()",
        "let s = ''; for (let i = 0; i < 1e6; i++) s = s + 'ab'; let t = ''; for (let i = 0; i < 1e6; i++) t = 'ab' + t; return [s.length, t.length, s === t, s.charAt(5)]",
    ] {
        let source = format!("export default () => {{ {body} }}");
        match soon(run(&source, "null")).await {
            Ok(_) => {}
            Err(error) => {
                let fine =
                    matches!(error.code, Code::FunctionError | Code::InvalidResult | Code::OutOfMemory | Code::Timeout);
                assert!(fine, "{body}: {error:?}");
            }
        }
    }
    assert_eq!(thrown("export default function f() { return f() + 1 }").await.name, "RangeError");
}

#[tokio::test]
async fn recursion_goes_deep_enough_for_real_programs() {
    for (body, least) in [
        ("const f = (n) => { try { return f(n + 1) } catch { return n } }; return f(0)", 2_000),
        ("const f = (n) => { try { return [1].map(() => f(n + 1))[0] } catch { return n } }; return f(0)", 500),
        (
            "let n = 0; const f = (x) => { n++; return x.x }; const o = { get x() { return f(this) } }; try { f(o) } catch {} return n",
            800,
        ),
        ("let n = 0; try { JSON.stringify({ toJSON() { n++; return { a: this } } }) } catch {} return n", 500),
        (
            // Few tries: each one's time grows with the square of the depth.
            "let a = []; let n = 0; try { for (;;) { a = [a]; if (++n % 2000 === 0) JSON.stringify(a) } } catch {} return n",
            1_000,
        ),
        (
            "let n = 100; try { for (;;) { JSON.parse('['.repeat(n) + ']'.repeat(n)); n += 100 } } catch {} return n",
            1_000,
        ),
    ] {
        let depth = run(&format!("export default () => {{ {body} }}"), "null").await.expect(body);
        println!("{depth} {body}");
        assert!(depth.as_i64().expect("a number") >= least, "{body}: {depth}");
    }
}

#[tokio::test]
async fn large_results_are_refused_by_their_size() {
    for source in [
        "export default () => 'x'.repeat(100 << 20)",
        "export default () => ['x'.repeat(20 << 20)]",
        "export default () => new Array(2 << 20).fill(1234)",
        "export default () => 'ü'.repeat(4 << 20)",
    ] {
        let error =
            run_with(source, "null", Settings { memory_mb: 512, ..Settings::default() }).await.expect_err(source);
        assert_eq!(error.code, Code::ResultTooLarge, "{source}: {error:?}");
        assert!(error.detail.contains("6291456 bytes"), "{}", error.detail);
    }
    let most = Settings { max_result: 10, ..Settings::default() };
    assert_eq!(
        run_with("export default () => 'x'.repeat(8)", "null", most.clone()).await.expect("fits"),
        json!("xxxxxxxx")
    );
    let error = run_with("export default () => 'x'.repeat(9)", "null", most).await.expect_err("does not fit");
    assert_eq!(error.code, Code::ResultTooLarge);
}

#[tokio::test]
async fn long_errors_are_cut() {
    let error = thrown("export default () => { const e = new Error('m'.repeat(1e6)); e.name = 'n'.repeat(1e6); e.stack = 's'.repeat(1e6); throw e }").await;
    assert!(error.name.len() <= 256 && error.message.len() <= 16 << 10 && error.stack.len() <= 16 << 10);
}

#[tokio::test]
async fn nothing_is_reused_after_a_timeout() {
    let js = Js::new();
    let function = js.deploy_with("export default () => { for (;;); }", short()).await.expect("deploys");
    let mut sandbox = function.start().await;
    function.call_in(sandbox.as_mut(), "null").await.expect_err("times out");
    assert!(!sandbox.is_reusable());
}
