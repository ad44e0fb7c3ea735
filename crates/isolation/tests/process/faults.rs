//! What hostile or broken functions do: each ends in its own error, and the next call works.

use std::time::Duration;

use lyra_types::{Code, Error, Runtime};

use super::{Fixture, Function, Settings};

const SOURCE: &str = r#"
import os, signal, socket, sys, threading, time
def handler(event, context):
    if event == "exit": os._exit(0)
    if event == "sys.exit": sys.exit(0)
    if event == "abort": os.abort()
    if event == "close":
        for fd in range(3, 256):
            try: os.close(fd)
            except OSError: pass
        time.sleep(600)
    if event == "garbage":
        for fd in range(3, 256):
            try: os.write(fd, b"\xff" * 64)
            except OSError: pass
        time.sleep(600)
    if event == "flood":
        while True: os.write(1, b"x" * 65535 + b"\n")
    if event == "loop":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True: pass
    if event == "memory":
        hoard = []
        while True: hoard.append(bytearray(1 << 20))
    if event == "fork":
        while True:
            try: os.fork()
            except OSError: time.sleep(0.01)
    if event == "large": return "x" * (4 << 20)
    if event == "files":
        opened = []
        try:
            while True: opened.append(open("/dev/null"))
        except OSError as error: return [error.errno, len(opened) > 100]
    if event == "disk":
        try:
            with open("/tmp/big", "wb") as file:
                while True: file.write(b"x" * (1 << 20))
        except OSError as error:
            os.unlink("/tmp/big")
            return error.errno
    return "ok"
"#;

async fn deployed(fixture: &Fixture) -> Function {
    let settings = Settings::of(Runtime::Python).memory_mb(128).timeout(Duration::from_secs(3));
    fixture.deploy(SOURCE.as_bytes(), settings).await
}

/// The error that an event leads to, after which a new instance serves.
async fn error_of(function: &Function, event: &str) -> Error {
    let mut instance = function.start().await;
    let error = function.call_on(&mut *instance, &format!("\"{event}\"")).await.expect_err(event);
    assert!(!instance.is_reusable(), "{event}: {error}");
    drop(instance);
    assert_eq!(function.call("1").await.expect("the next call works"), "\"ok\"");
    error
}

#[tokio::test]
async fn an_exit_in_the_middle_of_a_call_is_a_crash() {
    let fixture = Fixture::new().await;
    let function = deployed(&fixture).await;
    for (event, sign) in [("exit", "status 0"), ("sys.exit", "status 0"), ("abort", "SIGABRT")] {
        let error = error_of(&function, event).await;
        assert_eq!(error.code, Code::InstanceCrashed, "{event}: {error}");
        assert!(error.detail.contains(sign), "{event}: {error}");
    }
}

#[tokio::test]
async fn a_closed_or_abused_connection_is_a_crash() {
    let fixture = Fixture::new().await;
    let function = deployed(&fixture).await;
    for event in ["close", "garbage"] {
        let error = error_of(&function, event).await;
        assert_eq!(error.code, Code::InstanceCrashed, "{event}: {error}");
    }
}

#[tokio::test]
async fn endless_work_ends_at_the_deadline() {
    let fixture = Fixture::new().await;
    let function = deployed(&fixture).await;
    for event in ["flood", "loop"] {
        let error = error_of(&function, event).await;
        assert_eq!(error.code, Code::Timeout, "{event}: {error}");
    }
}

#[tokio::test]
async fn a_fork_bomb_ends_at_the_deadline_or_when_its_copies_have_used_the_memory_up() {
    let fixture = Fixture::new().await;
    let function = deployed(&fixture).await;
    let error = error_of(&function, "fork").await;
    assert!(matches!(error.code, Code::Timeout | Code::OutOfMemory), "{error}");
}

#[tokio::test]
async fn a_memory_bomb_ends_at_the_limit() {
    let fixture = Fixture::new().await;
    let function = deployed(&fixture).await;
    let error = error_of(&function, "memory").await;
    assert_eq!(error.code, Code::OutOfMemory, "{error}");
    assert!(error.detail.contains("128 MiB"), "{error}");
}

#[tokio::test]
async fn what_can_be_refused_is_refused_and_the_instance_goes_on() {
    let fixture = Fixture::with(|config| config.settings.tmp_bytes = 16 << 20).await;
    let function = deployed(&fixture).await;
    let mut instance = function.start().await;
    let error = function.call_on(&mut *instance, "\"large\"").await.expect_err("is too large");
    assert_eq!(error.code, Code::ResultTooLarge, "{error}");
    let mut instance = function.start().await;
    assert_eq!(function.call_on(&mut *instance, "\"files\"").await.expect("answers"), "[24,true]");
    let errno = function.call_on(&mut *instance, "\"disk\"").await.expect("answers");
    assert!(["27", "28"].contains(&&*errno), "no space, or a file too large: {errno}");
    assert_eq!(function.call_on(&mut *instance, "1").await.expect("answers"), "\"ok\"");
}

#[tokio::test]
async fn an_idle_instance_that_dies_is_known_to_be_dead() {
    let fixture = Fixture::new().await;
    let source = "import os, threading\ndef handler(e, c):\n    threading.Timer(0.01, lambda: os._exit(0)).start()";
    let function = fixture.python(source).await;
    let mut instance = function.start().await;
    function.call_on(&mut *instance, "1").await.expect("answers");
    while instance.is_reusable() {
        tokio::task::yield_now().await;
    }
    assert!(!instance.probe().await);
}

#[tokio::test]
async fn a_hibernated_instance_goes_on_where_it_stood() {
    let fixture = Fixture::new().await;
    let function = fixture.python("n = 0\ndef handler(e, c):\n    global n\n    n += 1\n    return n").await;
    let mut instance = function.start().await;
    assert_eq!(function.call_on(&mut *instance, "1").await.expect("answers"), "1");
    assert!(instance.hibernate().await);
    assert!(instance.wake().await);
    assert_eq!(function.call_on(&mut *instance, "1").await.expect("answers"), "2");
    assert!(instance.usage().memory > 1 << 20, "{:?}", instance.usage());
}

#[tokio::test]
async fn a_cell_brings_nothing_from_its_past_to_a_function() {
    let fixture = Fixture::new().await;
    let source = "import os, sys\ndef handler(e, c):\n    return [sorted(os.listdir('/tmp')), sorted(k for k in os.environ if not k.startswith(('AWS_', 'LAMBDA_'))), sys.argv]";
    let function = fixture.python(source).await;
    let first = function.call("1").await.expect("answers");
    while fixture.processes.waiting().cells == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(function.call("1").await.expect("answers"), first);
    assert_eq!(first, r#"[[],["HOME","LANG","LYRA_TENANT","PATH","TMPDIR","TZ","_HANDLER"],["main.py"]]"#);
}
