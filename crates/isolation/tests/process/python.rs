//! The runtime `python`.

use std::time::Duration;

use lyra_types::log::Level;
use lyra_types::{Code, Runtime};

use super::{Fixture, Settings, thrown, zip};

#[tokio::test]
async fn a_handler_gets_its_event_and_its_context() {
    let fixture = Fixture::new().await;
    let source = r#"
import os
def handler(event, context):
    left = context.get_remaining_time_in_millis()
    return {"event": event, "id": context.aws_request_id, "name": context.function_name, "version": context.function_version,
            "tenant": context.tenant, "memory": context.memory_limit_mb, "left": 0 < left <= 60000, "same": context.invocation_id == context.aws_request_id,
            "env": os.environ["GREETING"], "root": os.environ["LAMBDA_TASK_ROOT"], "cwd": os.getcwd(), "é": "ü"}
"#;
    let settings = Settings::of(Runtime::Python).env("GREETING", "hi");
    let function = fixture.deploy(source.as_bytes(), settings).await;
    let result = function.call(r#"{"a":[1,"ß"]}"#).await.expect("answers");
    assert_eq!(
        result,
        r#"{"event":{"a":[1,"ß"]},"id":"inv_00000000010000000000000001","name":"guest","version":"3","tenant":"default","memory":256,"left":true,"same":true,"env":"hi","root":"/var/task","cwd":"/var/task","é":"ü"}"#
    );
}

#[tokio::test]
async fn an_instance_keeps_its_state_between_calls_and_others_have_their_own() {
    let fixture = Fixture::new().await;
    let function = fixture.python("n = 0\ndef handler(e, c):\n    global n\n    n += 1\n    return n").await;
    let mut one = function.start().await;
    assert_eq!(function.call_on(&mut *one, "").await.expect("answers"), "1");
    assert_eq!(function.call_on(&mut *one, "null").await.expect("answers"), "2");
    assert!(one.is_reusable() && one.probe().await);
    assert_eq!(function.call_on(&mut *one, "null").await.expect("answers"), "3");
    assert_eq!(function.call("null").await.expect("answers"), "1");
    one.stop(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn what_is_thrown_is_told_with_its_stack_and_the_instance_goes_on() {
    let fixture = Fixture::new().await;
    let function = fixture.python("def handler(e, c):\n    raise KeyError('x') if e else ValueError('bad')").await;
    let mut instance = function.start().await;
    let error = function.call_on(&mut *instance, "false").await.expect_err("throws");
    assert_eq!(error.code, Code::FunctionError);
    let what = error.thrown.expect("says what");
    assert_eq!((&*what.name, &*what.message), ("ValueError", "bad"));
    assert!(what.stack.contains("main.py\", line 2") && !what.stack.contains("bootstrap"), "{}", what.stack);
    assert!(instance.is_reusable());
    assert_eq!(thrown(function.call_on(&mut *instance, "true").await), ("KeyError".into(), "'x'".into()));
}

#[tokio::test]
async fn coroutines_are_awaited_on_one_loop() {
    let fixture = Fixture::new().await;
    let source = "import asyncio\nlock = None\nasync def handler(e, c):\n    global lock\n    lock = lock or asyncio.Lock()\n    async with lock:\n        await asyncio.sleep(0)\n    return await asyncio.gather(*[asyncio.sleep(0, n) for n in e])";
    let function = fixture.python(source).await;
    let mut instance = function.start().await;
    for _ in 0..2 {
        assert_eq!(function.call_on(&mut *instance, "[1,2]").await.expect("answers"), "[1,2]");
    }
}

#[tokio::test]
async fn results_that_are_no_json_are_refused() {
    let fixture = Fixture::new().await;
    let function = fixture.python("def handler(e, c):\n    return {1, 2} if e else float('nan')").await;
    let mut instance = function.start().await;
    for event in ["true", "false"] {
        let error = function.call_on(&mut *instance, event).await.expect_err("no JSON");
        assert_eq!(error.code, Code::InvalidResult, "{error}");
        assert!(instance.is_reusable());
    }
}

#[tokio::test]
async fn what_is_printed_is_in_the_log_before_the_call_ends() {
    let fixture = Fixture::new().await;
    let source = "import sys\nprint('loading')\ndef handler(e, c):\n    print('a\\nb')\n    sys.stderr.write('c')\n    sys.stdout.write('d')";
    let function = fixture.python(source).await;
    assert_eq!(function.call("1").await.expect("answers"), "null");
    let mut lines = function.lines.all();
    lines.sort();
    let expected =
        [(Level::Info, "a"), (Level::Info, "b"), (Level::Info, "d"), (Level::Info, "loading"), (Level::Error, "c")];
    assert_eq!(lines, expected.map(|(level, line)| (level, line.to_owned())));
}

#[tokio::test]
async fn a_package_has_modules_of_its_own_and_a_handler_anywhere() {
    let fixture = Fixture::new().await;
    let archive = zip(&[
        ("app/__init__.py", b"", 0o644),
        (
            "app/api.py",
            b"from helper import double\nclass A:\n    @staticmethod\n    def run(e, c): return double(e)\nrun = A.run",
            0o644,
        ),
        ("helper.py", b"def double(n): return 2 * n", 0o644),
    ]);
    for handler in ["app.api.run", "app/api.run"] {
        let function = fixture.deploy(&archive, Settings::of(Runtime::Python).handler(handler)).await;
        assert_eq!(function.call("21").await.expect("answers"), "42");
    }
}

#[tokio::test]
async fn code_that_can_not_be_loaded_is_refused_with_the_place() {
    let fixture = Fixture::new().await;
    let python = || Settings::of(Runtime::Python);
    let error = fixture.refusal(b"def handler(e, c):\n    return (1 +\n", python()).await;
    assert_eq!(error.code, Code::InvalidCode);
    assert_eq!((error.errors[0].line, error.errors[0].column), (Some(2), Some(12)), "{error}");
    let error = fixture.refusal(b"def other(e, c): pass", python()).await;
    assert!(error.detail.contains("main.py defines nothing named handler"), "{error}");
    let error = fixture.refusal(&zip(&[("app.py", b"", 0o644)]), python()).await;
    assert!(error.detail.contains("no file main.py"), "{error}");
    let error = fixture.refusal(&zip(&[("app.py", b"x", 0o644)]), python().handler("app")).await;
    assert!(error.detail.contains("file.function"), "{error}");
    let error = fixture.refusal(b"PK\x03\x04 broken", python()).await;
    assert!(error.detail.contains("zip"), "{error}");
}

#[tokio::test]
async fn a_module_that_fails_to_load_fails_the_call_and_its_lines_are_logged() {
    let fixture = Fixture::new().await;
    let function = fixture.python("print('before')\nimport no_such_module\ndef handler(e, c): pass").await;
    let mut instance = function.start().await;
    let (name, message) = thrown(function.call_on(&mut *instance, "1").await);
    assert_eq!((&*name, &*message), ("ModuleNotFoundError", "No module named 'no_such_module'"));
    assert!(function.lines.has("before") && !instance.is_reusable());
}
