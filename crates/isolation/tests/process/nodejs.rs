//! The runtime `nodejs`.

use std::time::Duration;

use lyra_types::log::Level;
use lyra_types::{Code, Runtime};

use super::{Fixture, Settings, thrown, zip};

#[tokio::test]
async fn a_handler_gets_its_event_and_its_context_from_a_module_and_from_a_script() {
    let fixture = Fixture::new().await;
    let body = r#"async (event, context) => {
        const left = context.getRemainingTimeInMillis();
        return { event, id: context.awsRequestId, name: context.functionName, version: context.functionVersion, tenant: context.tenant,
            memory: context.memoryLimitMb, left: left > 0 && left <= 60000, same: context.invocationId === context.awsRequestId,
            env: process.env.GREETING, cwd: process.cwd(), keys: Object.keys(process.env).includes('LAMBDA_TASK_ROOT') };
    }"#;
    let expected = r#"{"event":{"a":[1,"ß"]},"id":"inv_00000000010000000000000001","name":"guest","version":"3","tenant":"default","memory":256,"left":true,"same":true,"env":"hi","cwd":"/var/task","keys":true}"#;
    for source in [
        format!("export const handler = {body};"),
        format!("exports.handler = {body};"),
        format!("export default {body}"),
    ] {
        let settings = Settings::of(Runtime::Nodejs).env("GREETING", "hi");
        let function = fixture.deploy(source.as_bytes(), settings).await;
        assert_eq!(function.call(r#"{"a":[1,"ß"]}"#).await.expect("answers"), expected);
    }
}

#[tokio::test]
async fn one_file_of_source_is_called_as_its_handler_says() {
    let fixture = Fixture::new().await;
    for source in ["export const run = (e) => e + 1;", "exports.run = (e) => e + 1;"] {
        let function = fixture.deploy(source.as_bytes(), Settings::of(Runtime::Nodejs).handler("my-app.run")).await;
        assert_eq!(function.call("1").await.expect("answers"), "2");
    }
    let source = b"def run(event, context):\n    return [event, __name__]";
    let function = fixture.deploy(source, Settings::of(Runtime::Python).handler("hello.run")).await;
    assert_eq!(function.call("1").await.expect("answers"), "[1,\"hello\"]");
    // It can't be in two directories.
    let error = fixture.refusal(source, Settings::of(Runtime::Python).handler("pkg/hello.run")).await;
    assert!(error.errors[0].reason.contains("pkg/hello.py"), "{error}");
}

#[tokio::test]
async fn an_instance_keeps_its_state_and_serves_after_errors() {
    let fixture = Fixture::new().await;
    let source = "let n = 0;\nexport const handler = (e) => { n += 1; if (e === 'throw') throw new TypeError('no'); if (e === 'reject') return Promise.reject('plain'); if (e === 'big') return 1n; return n; };";
    let function = fixture.node(source).await;
    let mut one = function.start().await;
    assert_eq!(function.call_on(&mut *one, "").await.expect("answers"), "1");
    let error = function.call_on(&mut *one, "\"throw\"").await.expect_err("throws");
    let what = error.thrown.expect("says what");
    assert_eq!((&*what.name, &*what.message), ("TypeError", "no"));
    assert!(what.stack.contains("index.mjs:2") && !what.stack.contains("bootstrap"), "{}", what.stack);
    assert_eq!(thrown(function.call_on(&mut *one, "\"reject\"").await), ("Error".into(), "plain".into()));
    let error = function.call_on(&mut *one, "\"big\"").await.expect_err("no JSON");
    assert_eq!(error.code, Code::InvalidResult, "{error}");
    assert!(one.is_reusable() && one.probe().await);
    assert_eq!(function.call_on(&mut *one, "1").await.expect("answers"), "5");
    assert_eq!(function.call("1").await.expect("answers"), "1");
    one.stop(Duration::from_secs(20)).await;
}

#[tokio::test]
async fn callbacks_answer_too_and_lines_are_logged() {
    let fixture = Fixture::new().await;
    let source = "exports.handler = (e, c, callback) => { console.log('out'); console.error('err'); setTimeout(() => callback(null, e + 1), 1); };";
    let function = fixture.node(source).await;
    assert_eq!(function.call("1").await.expect("answers"), "2");
    let mut lines = function.lines.all();
    lines.sort();
    assert_eq!(lines, [(Level::Info, "out".to_owned()), (Level::Error, "err".to_owned())]);
}

#[tokio::test]
async fn all_that_a_call_prints_is_in_its_own_log_and_the_next_call_works() {
    let fixture = Fixture::new().await;
    let source = "exports.handler = (n) => { for (let i = 0; i < n; i += 1) { console.log('x'.repeat(100)); console.error('y'); } };";
    let settings = Settings::of(Runtime::Nodejs).memory_mb(128);
    let function = fixture.deploy(source.as_bytes(), settings).await;
    let mut one = function.start().await;
    for lines in [100_000, 10, 100_000] {
        let before = function.lines.all().len();
        function.call_on(&mut *one, &lines.to_string()).await.expect("answers");
        assert_eq!(function.lines.all().len() - before, 2 * lines, "none is left for the next call");
    }
}

#[tokio::test]
async fn an_error_that_nobody_catches_fails_the_call_and_ends_the_instance() {
    let fixture = Fixture::new().await;
    let source = "exports.handler = () => new Promise(() => setTimeout(() => { throw new RangeError('late') }, 1));";
    let function = fixture.node(source).await;
    let mut instance = function.start().await;
    assert_eq!(thrown(function.call_on(&mut *instance, "1").await), ("RangeError".into(), "late".into()));
    assert!(!instance.is_reusable());
}

#[tokio::test]
async fn a_package_brings_its_modules_and_a_handler_anywhere() {
    let fixture = Fixture::new().await;
    let archive = zip(&[
        ("package.json", b"{\"type\":\"module\"}", 0o644),
        ("src/app.js", b"import { double } from 'twice'; export const run = (n) => double(n);", 0o644),
        ("node_modules/twice/package.json", b"{\"main\":\"i.js\"}", 0o644),
        ("node_modules/twice/i.js", b"exports.double = (n) => 2 * n;", 0o644),
    ]);
    let function = fixture.deploy(&archive, Settings::of(Runtime::Nodejs).handler("src/app.run")).await;
    assert_eq!(function.call("21").await.expect("answers"), "42");
}

#[tokio::test]
async fn code_that_can_not_be_loaded_is_refused_with_the_place() {
    let fixture = Fixture::new().await;
    let node = || Settings::of(Runtime::Nodejs);
    for source in ["exports.handler = (e) => {\n  return 1 +;\n}", "export const handler = (e) => {\n  return 1 +;\n}"]
    {
        let error = fixture.refusal(source.as_bytes(), node()).await;
        assert_eq!(error.code, Code::InvalidCode);
        assert_eq!((error.errors[0].line, error.errors[0].column), (Some(2), Some(13)), "{error}");
        assert!(error.detail.contains("SyntaxError"), "{error}");
    }
    let error = fixture.refusal(&zip(&[("app.js", b"", 0o644)]), node()).await;
    assert!(error.detail.contains("no file index.mjs or index.js or index.cjs"), "{error}");
}

#[tokio::test]
async fn a_function_that_is_not_exported_is_told_by_the_first_call() {
    let fixture = Fixture::new().await;
    let function = fixture.node("export const other = 1;").await;
    let (_, message) = thrown(function.call("1").await);
    assert_eq!(message, "index.mjs exports no function named handler");
}
