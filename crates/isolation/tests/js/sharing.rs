//! What instances share, and what they must not: memory, places, processor.

use std::sync::Arc;
use std::time::Duration;

use lyra_isolation::Isolation;
use lyra_types::{Code, InstanceId};
use serde_json::json;

use super::{Function, Js, Settings, soon};

/// Resident memory of this process, in MiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("reads");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).expect("a number").parse::<usize>().expect("a number") >> 10
}

#[tokio::test]
async fn a_new_instance_sees_nothing_of_the_one_before_in_its_place() {
    let js = Js::with(|config| config.max_instances = 2);
    let secret = js.deploy("const keep = []; export default (n) => { globalThis.mark = 1; for (let i = 0; i < n; i++) keep.push('TOPSECRET-' + i + '-'.repeat(40)); return keep.length }").await;
    // Looks for the marker in all memory that it can get, new and grown.
    let spy = js.deploy("export default () => {
        const found = [];
        if (typeof mark !== 'undefined') found.push('global');
        for (let i = 0; i < 24; i++) { const b = new Uint8Array(new ArrayBuffer(1 << 20)); for (let j = 0; j < b.length; j += 4096) if (b[j] !== 0) { found.push('bytes'); break } }
        return found }").await;
    for n in [10, 1_000, 50_000, 10, 200_000] {
        assert_eq!(secret.call(&n.to_string()).await.expect("runs"), json!(n));
        assert_eq!(spy.call("null").await.expect("runs"), json!([]));
        assert_eq!(secret.call("1").await.expect("runs"), json!(1));
    }
}

#[tokio::test]
async fn memory_comes_back_after_bombs() {
    let js = Js::new();
    let settings = Settings { memory_mb: 256, ..Settings::default() };
    let bomb = js
        .deploy_with(
            "export default () => { const a = []; for (;;) a.push(new Uint8Array(1 << 20).fill(1)) }",
            settings,
        )
        .await;
    let bomb = Arc::new(bomb.expect("deploys"));
    bomb.call("null").await.expect_err("explodes");
    let before = resident();
    for _ in 0..3 {
        let all = (0..4).map(|_| {
            let bomb = Arc::clone(&bomb);
            lyra_kit::tasks::spawn("bomb", async move { bomb.call("null").await })
        });
        for outcome in futures::future::join_all(all).await {
            assert_eq!(outcome.expect("joins").expect_err("explodes").code, Code::OutOfMemory);
        }
    }
    let after = resident();
    assert!(after < before + 100, "{before} MiB before, {after} MiB after");
    assert_eq!(js.wasm.engine().memory_in_use(), 0);
}

#[tokio::test]
async fn stacks_come_back_after_deep_recursion() {
    let js = Js::new();
    let deep = js.deploy("export default async () => { const f = () => f() + 1; try { f() } catch {} await new Promise((r) => setTimeout(r, 50)) }");
    let deep = Arc::new(deep.await);
    deep.call("null").await.expect("recurses");
    let before = resident();
    for _ in 0..2 {
        let all = (0..60).map(|_| {
            let deep = Arc::clone(&deep);
            lyra_kit::tasks::spawn("deep", async move { deep.call("null").await })
        });
        for outcome in futures::future::join_all(all).await {
            outcome.expect("joins").expect("recurses");
        }
    }
    let after = resident();
    assert!(after < before + 150, "{before} MiB before, {after} MiB after");
}

#[tokio::test]
async fn the_budget_for_all_instances_holds() {
    let js = Js::with(|config| config.memory_budget = 64 << 20);
    let settings = Settings { memory_mb: 128, ..Settings::default() };
    let hungry = js
        .deploy_with(
            "export default () => { const a = []; for (;;) a.push(new Uint8Array(1 << 20).fill(1)) }",
            settings,
        )
        .await;
    let error = hungry.expect("deploys").call("null").await.expect_err("is refused");
    assert_eq!(error.code, Code::Overloaded, "the worker, not the function, ran out: {error:?}");
    assert!(error.retry_after.is_some());
    assert_eq!(js.wasm.engine().memory_in_use(), 0);
}

#[tokio::test]
async fn there_are_only_so_many_places() {
    let js = Js::with(|config| config.max_instances = 3);
    let function = js.deploy("() => 1").await;
    let mut live = Vec::new();
    for _ in 0..3 {
        live.push(function.start().await);
    }
    let error =
        function.template.start(InstanceId::from_parts(1, 1), &function.version).await.err().expect("is refused");
    assert_eq!(error.code, Code::Overloaded, "{error:?}");
    assert!(error.retry_after.is_some());
    live.pop();
    assert_eq!(function.call("null").await.expect("has a place"), json!(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_calls_are_served_while_others_compute_for_ever() {
    let js = Js::new();
    let hog = Arc::new(
        js.deploy_with("export default () => { for (;;); }", Settings { timeout_ms: 600_000, ..Settings::default() })
            .await
            .expect("deploys"),
    );
    let short = Arc::new(js.deploy("export default (n) => n + 1").await);
    let hogs: Vec<_> = (0..20)
        .map(|_| {
            let hog = Arc::clone(&hog);
            lyra_kit::tasks::spawn("hog", async move { hog.call("null").await })
        })
        .collect();
    for n in 0..50 {
        let event = n.to_string();
        let (result, timer) = tokio::join!(
            soon(short.call(&event)),
            tokio::time::timeout(Duration::from_secs(50), tokio::time::sleep(Duration::from_millis(1)))
        );
        assert_eq!(result.expect("runs"), json!(n + 1));
        timer.expect("the runtime's timers run");
    }
    // Cancelling is dropping the call: each stops at its next slice and leaves its place.
    for hog in &hogs {
        hog.abort();
    }
    for hog in hogs {
        assert!(soon(hog).await.expect_err("was aborted").is_cancelled());
    }
    assert_eq!(js.wasm.engine().memory_in_use(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_computations_all_make_progress() {
    let js = Js::new();
    let busy: Arc<Function> = Arc::new(
        js.deploy("export default (n) => { let x = 0; for (let i = 0; i < 3e6; i++) x = (x + i) % 7; return n }").await,
    );
    let all = (0..16).map(|n| {
        let busy = Arc::clone(&busy);
        lyra_kit::tasks::spawn("busy", async move { busy.call(&n.to_string()).await })
    });
    for (n, outcome) in soon(futures::future::join_all(all)).await.into_iter().enumerate() {
        assert_eq!(outcome.expect("joins").expect("runs"), json!(n));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_wait_hold_no_thread() {
    let js = Js::new();
    let sleeper = Arc::new(
        js.deploy("export default async (n) => { await new Promise((r) => setTimeout(r, 100)); return n }").await,
    );
    let all = (0..60).map(|n| {
        let sleeper = Arc::clone(&sleeper);
        lyra_kit::tasks::spawn("sleeper", async move { sleeper.call(&n.to_string()).await })
    });
    for (n, outcome) in soon(futures::future::join_all(all)).await.into_iter().enumerate() {
        assert_eq!(outcome.expect("joins").expect("runs"), json!(n));
    }
}

#[tokio::test]
async fn a_dropped_call_leaves_an_instance_that_is_not_used_again() {
    let js = Js::new();
    let function = js.deploy("export default () => new Promise((r) => setTimeout(r, 1e6))").await;
    let mut sandbox = function.start().await;
    let waiting = function.call_in(sandbox.as_mut(), "null");
    assert!(tokio::time::timeout(Duration::from_millis(20), waiting).await.is_err());
    assert!(!sandbox.is_reusable());
    drop(sandbox);
    assert_eq!(js.wasm.engine().memory_in_use(), 0);
}

#[tokio::test]
async fn functions_of_the_same_code_share_an_image_and_others_do_not() {
    let js = Js::new();
    let (a, b) = (js.deploy("() => 1").await, js.deploy("() => 2").await);
    assert_eq!((a.call("null").await.expect("runs"), b.call("null").await.expect("runs")), (json!(1), json!(2)));
    let images = || {
        std::fs::read_dir(js.dir())
            .expect("lists")
            .flatten()
            .filter(|f| f.path().extension().is_some_and(|e| e == "js"))
            .count()
    };
    assert_eq!(images(), 2);
    js.deploy("() => 1").await;
    assert_eq!(images(), 2);
    assert!(js.wasm.load(&super::code("() => 3", &Settings::default()).key).await.expect("looks").is_none());
}
