//! Timers.

use lyra_types::Code;
use serde_json::json;

use super::{Js, Settings, run_with, thrown, value};

#[tokio::test]
async fn timers_run_in_order_with_their_arguments() {
    let result = value("
        const seen = [];
        setTimeout((a, b) => seen.push(a + b), 3, 'x', 'y');
        setTimeout(() => seen.push('late'), 6); setTimeout(() => seen.push('soon'), 0); setTimeout(() => seen.push('soon too'), 0);
        queueMicrotask(() => seen.push('micro'));
        const gone = setTimeout(() => seen.push('never'), 1); clearTimeout(gone); clearTimeout(undefined); clearTimeout(99999);
        await new Promise((resolve) => setTimeout(resolve, 10));
        return [seen, typeof gone]").await;
    assert_eq!(result, json!([["micro", "soon", "soon too", "xy", "late"], "number"]));
}

#[tokio::test]
async fn intervals_repeat_until_they_are_cleared() {
    let result = value("
        let n = 0;
        await new Promise((resolve) => { const id = setInterval(() => { if (++n === 3) { clearInterval(id); resolve() } }, 1) });
        await new Promise((resolve) => setTimeout(resolve, 5));
        return n").await;
    assert_eq!(result, json!(3));
}

#[tokio::test]
async fn odd_delays_and_callbacks() {
    let result = value("
        const seen = [];
        for (const delay of [-5, NaN, 'x', null, undefined, Infinity, 2 ** 40, '1']) await new Promise((resolve) => setTimeout(resolve, delay));
        for (const callback of [undefined, 'code', {}]) try { setTimeout(callback) } catch (e) { seen.push(e.name) }
        try { setTimeout(() => 1, { valueOf() { throw new RangeError() } }) } catch (e) { seen.push(e.name) }
        return seen").await;
    assert_eq!(result, json!(["TypeError", "TypeError", "TypeError", "RangeError"]));
}

#[tokio::test]
async fn what_a_callback_throws_ends_the_call() {
    let error = thrown("export default () => new Promise((resolve) => { setTimeout(() => { throw new RangeError('in a timer') }, 1); setTimeout(resolve, 50) })").await;
    assert_eq!((error.name.as_str(), error.message.as_str()), ("RangeError", "in a timer"));
    let error = thrown("export default () => new Promise(() => { queueMicrotask(() => { throw 'in a job' }) })").await;
    assert_eq!(error.message, "in a job");
}

#[tokio::test]
async fn a_wait_ends_at_the_deadline() {
    let settings = Settings { timeout_ms: 100, ..Settings::default() };
    let error =
        run_with("export default () => new Promise((resolve) => setTimeout(resolve, 1e6))", "null", settings).await;
    let error = error.expect_err("is too slow");
    assert_eq!((error.code, error.detail.as_str()), (Code::Timeout, "the function did not end within 100 ms"));
}

#[tokio::test]
async fn a_finished_call_leaves_no_timer_behind() {
    let js = Js::new();
    let function = js.deploy("let ticks = 0; export default async (wait) => { setInterval(() => { ticks++ }, 1); setTimeout(() => { throw new Error('from before') }, 1); if (wait) await new Promise((r) => setTimeout(r, 0)); return ticks }").await;
    let mut sandbox = function.start().await;
    for _ in 0..3 {
        assert_eq!(function.call_in(sandbox.as_mut(), "false").await.expect("runs"), json!(0));
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    }
    assert_eq!(function.call_in(sandbox.as_mut(), "true").await.expect("runs"), json!(0));
}

#[tokio::test]
async fn ten_thousand_timers_are_fine() {
    let result = value("
        let n = 0;
        await Promise.all(Array.from({ length: 10000 }, (_, i) => new Promise((resolve) => setTimeout(() => { n++; resolve() }, (i * 7919) % 20))));
        return n").await;
    assert_eq!(result, json!(10_000));
}
