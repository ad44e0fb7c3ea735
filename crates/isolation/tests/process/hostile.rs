//! What hostile or broken programs of the other contracts do, as `faults.rs` has it for Python: each ends in its own
//! error, the next call works.

use std::time::Duration;

use lyra_types::{Code, Error, Runtime};

use super::{Fixture, Settings};

/// Longer than anything takes that works.
const LONG: Duration = Duration::from_secs(60);
/// Short enough to be waited for.
const SHORT: Duration = Duration::from_secs(2);

const BOTH: [Runtime; 2] = [Runtime::Native, Runtime::Http];

/// The error that a deed of the native guest leads to, after which its function serves as before.
async fn error_of(fixture: &Fixture, runtime: Runtime, deed: &str, timeout: Duration) -> Error {
    let function = fixture.native(runtime, deed, timeout).await;
    let mut instance = function.start().await;
    let error = function.call_on(&mut *instance, "1").await.expect_err(deed);
    assert!(!instance.is_reusable(), "{runtime} {deed}: {error}");
    drop(instance);
    let next = fixture.native(runtime, "echo", LONG).await;
    assert_eq!(next.call("\"ping\"").await.expect("the next call works"), "\"ping\"");
    error
}

#[tokio::test]
async fn a_program_that_exits_in_the_middle_of_a_call_has_crashed() {
    let fixture = Fixture::new().await;
    for runtime in BOTH {
        for (deed, sign) in [("exit", "status 0"), ("crash", "SIGABRT")] {
            let error = error_of(&fixture, runtime, deed, LONG).await;
            assert_eq!(error.code, Code::InstanceCrashed, "{runtime} {deed}: {error}");
            assert!(error.detail.contains(sign), "{runtime} {deed}: {error}");
        }
    }
}

#[tokio::test]
async fn bombs_and_floods_end_at_their_limits() {
    let fixture = Fixture::new().await;
    for runtime in BOTH {
        let error = error_of(&fixture, runtime, "hoard", LONG).await;
        assert_eq!(error.code, Code::OutOfMemory, "{runtime}: {error}");
        let error = error_of(&fixture, runtime, "bomb", SHORT).await;
        assert!(matches!(error.code, Code::Timeout | Code::OutOfMemory), "{runtime}: {error}");
        for deed in ["flood", "forever"] {
            let error = error_of(&fixture, runtime, deed, SHORT).await;
            assert_eq!(error.code, Code::Timeout, "{runtime} {deed}: {error}");
        }
    }
}

#[tokio::test]
async fn files_and_the_disk_are_bounded_and_the_instance_goes_on() {
    let fixture = Fixture::with(|config| config.settings.tmp_bytes = 16 << 20).await;
    for runtime in BOTH {
        let files = fixture.native(runtime, "files", LONG).await;
        let mut instance = files.start().await;
        for _ in 0..2 {
            let count: u32 = files.call_on(&mut *instance, "1").await.expect("answers").parse().expect("a number");
            assert!((900..1024).contains(&count), "{runtime}: {count}");
        }
        let disk = fixture.native(runtime, "disk", LONG).await;
        let mut instance = disk.start().await;
        for _ in 0..2 {
            let errno = disk.call_on(&mut *instance, "1").await.expect("answers");
            assert!(["27", "28"].contains(&&*errno), "{runtime}: no space, or a file too large: {errno}");
        }
    }
}

#[tokio::test]
async fn a_program_that_ignores_sigterm_is_killed_when_it_is_stopped() {
    let fixture = Fixture::new().await;
    for runtime in BOTH {
        let function = fixture.native(runtime, "deaf", LONG).await;
        let mut instance = function.start().await;
        assert_eq!(function.call_on(&mut *instance, "1").await.expect("answers"), "1");
        // Ends although the program never does.
        tokio::time::timeout(LONG, instance.stop(Duration::from_millis(100))).await.expect("ends");
    }
    let node = "process.on('SIGTERM', () => {});\nexports.handler = () => 1;\nsetInterval(() => {}, 1000);";
    let function = fixture.node(node).await;
    let mut instance = function.start().await;
    assert_eq!(function.call_on(&mut *instance, "1").await.expect("answers"), "1");
    tokio::time::timeout(LONG, instance.stop(Duration::from_millis(100))).await.expect("ends");
}

#[tokio::test]
async fn a_program_that_breaks_its_answer_off_has_crashed_though_it_lives_on() {
    let fixture = Fixture::new().await;
    let error = error_of(&fixture, Runtime::Native, "break", LONG).await;
    assert_eq!(error.code, Code::InstanceCrashed, "{error}");
    assert!(error.detail.contains("closed its connection to the runtime interface"), "{error}");
    let error = error_of(&fixture, Runtime::Http, "close", LONG).await;
    assert_eq!(error.code, Code::InstanceCrashed, "{error}");
}

#[tokio::test]
async fn a_program_that_stops_asking_for_invocations_fails_its_probe() {
    let fixture = Fixture::new().await;
    let function = fixture.native(Runtime::Native, "leave", LONG).await;
    let mut instance = function.start().await;
    assert_eq!(function.call_on(&mut *instance, "1").await.expect("answers"), "1");
    // It waits for its next invocation, and then does not.
    while instance.probe().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!instance.is_reusable());
}

#[tokio::test]
async fn a_program_may_work_without_a_connection_and_is_told_from_one_that_never_comes_back() {
    let fixture = Fixture::new().await;
    let function = fixture.native(Runtime::Native, "reconnect", LONG).await;
    let mut instance = function.start().await;
    for event in ["1", "2"] {
        assert_eq!(function.call_on(&mut *instance, event).await.expect("answers"), event);
    }
    let error = error_of(&fixture, Runtime::Native, "close", SHORT).await;
    assert_eq!(error.code, Code::Timeout, "{error}");
    assert!(error.detail.contains("had no connection to the runtime interface"), "{error}");
}

#[tokio::test]
async fn hostile_node_functions_end_in_their_own_errors() {
    let fixture = Fixture::new().await;
    let source = "
const fs = require('fs'), { spawn } = require('child_process');
exports.handler = async (event) => {
    if (event === 'exit') process.exit(0);
    if (event === 'close') { for (let fd = 3; fd < 64; fd++) try { fs.closeSync(fd) } catch {} for (;;) await new Promise((done) => setTimeout(done, 1e6)); }
    if (event === 'flood') for (;;) fs.writeSync(1, 'x'.repeat(65535) + '\\n');
    if (event === 'hoard') { const all = []; for (;;) all.push(Buffer.alloc(1 << 20, 1)); }
    if (event === 'bomb') for (;;) { try { spawn('/bin/sleep', ['600']).on('error', () => {}) } catch {} await null; }
    return 'ok';
};";
    let settings = Settings::of(Runtime::Nodejs).memory_mb(192).timeout(Duration::from_secs(4));
    let function = fixture.deploy(source.as_bytes(), settings).await;
    for (event, codes) in [
        ("exit", &[Code::InstanceCrashed][..]),
        ("flood", &[Code::Timeout]),
        ("hoard", &[Code::OutOfMemory]),
        // Node.js itself may give up for want of threads or memory before the deadline ends it.
        ("bomb", &[Code::Timeout, Code::OutOfMemory, Code::InstanceCrashed]),
        // It stops to work without what it polls.
        ("close", &[Code::Timeout, Code::InstanceCrashed]),
    ] {
        let mut instance = function.start().await;
        let error = function.call_on(&mut *instance, &format!("\"{event}\"")).await.expect_err(event);
        assert!(codes.contains(&error.code), "{event}: {error}");
        assert!(!instance.is_reusable(), "{event}: {error}");
        drop(instance);
        assert_eq!(function.call("1").await.expect("the next call works"), "\"ok\"");
    }
}
