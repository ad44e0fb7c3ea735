//! Programs: event on stdin, result on stdout.

use std::collections::BTreeMap;

use lyra_types::Code;
use lyra_types::log::Level;

use super::{Fixture, Settings, WORDS};

/// A program with a memory and `write(fd, from, size)`.
fn program(rest: &str) -> String {
    program_with("", rest)
}

/// The same with more imports.
fn program_with(imports: &str, rest: &str) -> String {
    format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
            {imports}
            (memory (export "memory") 2)
            (func $write (param $fd i32) (param $from i32) (param $size i32)
                (i32.store (i32.const 0) (local.get $from))
                (i32.store (i32.const 4) (local.get $size))
                (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
            {rest})"#
    )
}

#[tokio::test]
async fn the_event_is_stdin_and_the_result_is_stdout() {
    let fixture = Fixture::new();
    let words = fixture.deploy(WORDS, Settings::default()).await;
    let result = words.call(r#"{"text":"to be or not to be"}"#).await.expect("runs");
    assert_eq!(&result[..], br#"{"words":6,"distinct":4,"longest":"not"}"#);
    assert!(words.lines.all().is_empty());
    fixture.all_memory_returned().await;
}

#[tokio::test]
async fn a_status_other_than_0_is_an_error_with_the_end_of_stderr() {
    let fixture = Fixture::new();
    let words = fixture.deploy(WORDS, Settings::default()).await;
    let error = words.call("{}").await.expect_err("fails");
    assert_eq!(error.code, Code::FunctionError);
    let thrown = error.thrown.expect("says what");
    assert_eq!(thrown.name, "ExitCode");
    // A component can only say that it failed; the number is lost on the way.
    assert!(thrown.message.starts_with("the program ended with status "), "{}", thrown.message);
    assert!(thrown.message.contains("the event is not of the form"), "{}", thrown.message);
    assert!(thrown.stack.contains("the event is not of the form"));
    assert!(words.lines.all().iter().all(|(level, _)| *level == Level::Error));
    assert!(words.lines.has("the event is not of the form"));

    let core = program(r#"(func (export "_start") (call $exit (i32.const 42)))"#);
    let error = fixture.command(&core, Settings::default()).await.call("").await.expect_err("fails");
    assert_eq!(error.thrown.expect("says what").message, "the program ended with status 42");
}

#[tokio::test]
async fn status_0_is_success_however_it_is_said() {
    let fixture = Fixture::new();
    let text = program(
        r#"(data (i32.const 64) "done")
           (func (export "_start") (call $write (i32.const 1) (i32.const 64) (i32.const 4)) (call $exit (i32.const 0)))"#,
    );
    let result = fixture.command(&text, Settings::default()).await.call("").await.expect("runs");
    assert_eq!(&result[..], b"done");
    let silent = program(r#"(func (export "_start"))"#);
    assert!(fixture.command(&silent, Settings::default()).await.call("").await.expect("runs").is_empty());
}

#[tokio::test]
async fn it_sees_its_name_and_environment_and_nothing_else() {
    let text = program_with(
        r#"(import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
           (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
           (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))"#,
        r#"(func (export "_start")
                (drop (call $args (i32.const 1000) (i32.const 1100)))
                (drop (call $environ (i32.const 1000) (i32.const 1106)))
                (call $write (i32.const 1) (i32.const 1100) (i32.const 10))
                ;; 8: there is no directory 3
                (if (i32.ne (call $prestat (i32.const 3) (i32.const 2000)) (i32.const 8)) (then unreachable)))"#,
    );
    let settings = Settings { env: BTreeMap::from([("A".into(), "b".into())]), ..Settings::default() };
    let result = Fixture::new().command(&text, settings).await.call("").await.expect("runs");
    assert_eq!(&result[..], b"guest\0A=b\0");
}

#[tokio::test]
async fn endless_output_ends_the_program_and_costs_no_memory() {
    let text = program(
        r#"(func (export "_start") (loop $again (call $write (i32.const 1) (i32.const 1024) (i32.const 65536)) (br $again)))"#,
    );
    let fixture = Fixture::new();
    let error = fixture.command(&text, Settings::default()).await.call("").await.expect_err("stopped");
    assert_eq!(error.code, Code::ResultTooLarge);
    assert!(error.detail.contains("1048576 bytes"), "{error}");
    fixture.all_memory_returned().await;
}

#[tokio::test]
async fn a_result_of_exactly_the_limit_is_taken() {
    let text = program(r#"(func (export "_start") (call $write (i32.const 1) (i32.const 64) (i32.const 1000)))"#);
    let fixture = Fixture::new();
    let mut function = fixture.command(&text, Settings::default()).await;
    function.max_result = 1000;
    assert_eq!(function.call("").await.expect("fits").len(), 1000);
    function.max_result = 999;
    assert_eq!(function.call("").await.expect_err("does not").code, Code::ResultTooLarge);
}

#[tokio::test]
async fn lines_of_stderr_are_logs_also_the_last_one_without_an_end() {
    let text = program(
        r#"(data (i32.const 64) "one\ntwo\n\nthree")
           (func (export "_start") (call $write (i32.const 2) (i32.const 64) (i32.const 6))
                                   (call $write (i32.const 2) (i32.const 70) (i32.const 8)))"#,
    );
    let function = Fixture::new().command(&text, Settings::default()).await;
    function.call("").await.expect("runs");
    let expected = ["one", "two", "", "three"].map(|line| (Level::Error, line.to_owned()));
    assert_eq!(function.lines.all(), expected);
}

#[tokio::test]
async fn an_endless_loop_ends_at_the_deadline_and_others_go_on() {
    let fixture = Fixture::new();
    let text = program(r#"(func (export "_start") (loop $again (br $again)))"#);
    let looping = fixture.command(&text, Settings::short()).await;
    let words = fixture.deploy(WORDS, Settings::default()).await;
    let (stopped, result) = tokio::join!(looping.call(""), words.call(r#"{"text":""}"#));
    assert_eq!(stopped.expect_err("stopped").code, Code::Timeout);
    assert_eq!(&result.expect("runs")[..], br#"{"words":0,"distinct":0,"longest":null}"#);
    fixture.all_memory_returned().await;
}

#[tokio::test]
async fn sleeping_programs_hold_no_thread() {
    // One subscription: a relative timeout of the monotonic clock (1), 50 ms.
    let text = program(
        r#"(func (export "_start")
            (i32.store8 (i32.const 64) (i32.const 7))
            (i32.store (i32.const 80) (i32.const 1))
            (i64.store (i32.const 88) (i64.const 50000000))
            (drop (call $poll (i32.const 64) (i32.const 256) (i32.const 1) (i32.const 512)))
            (call $write (i32.const 1) (i32.const 64) (i32.const 1)))"#,
    );
    let fixture = Fixture::new();
    let function = fixture.command(&text, Settings::default()).await;
    // This runtime has one thread: all sleep at the same time, or the deadline of 60 s would not be enough.
    let calls = futures::future::join_all((0..40).map(|_| function.call("")));
    for result in calls.await {
        assert_eq!(&result.expect("wakes")[..], [7]);
    }
}

#[tokio::test]
async fn crashes_have_a_clear_reason() {
    let fixture = Fixture::new();
    for (body, code, says) in [
        ("unreachable", Code::InstanceCrashed, "aborted"),
        ("(drop (i32.load (i32.const -4)))", Code::InstanceCrashed, "out of bounds memory access"),
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", Code::InstanceCrashed, "divide by zero"),
        ("(call $again)", Code::InstanceCrashed, "stack overflow"),
        (
            "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 100)) (i32.const -1)))) unreachable",
            Code::OutOfMemory,
            "more than its 64 MiB",
        ),
    ] {
        let text = program(&format!(r#"(func $again (export "_start") {body})"#));
        let function = fixture.command(&text, Settings::default()).await;
        let error = function.call("").await.expect_err("crashes");
        assert_eq!(error.code, code, "{error}");
        assert!(error.detail.contains(says), "{error}");
        fixture.all_memory_returned().await;
    }
}

#[tokio::test]
async fn dropping_the_call_stops_the_program() {
    let fixture = Fixture::new();
    let text = program(r#"(func (export "_start") (loop $again (br $again)))"#);
    let function = fixture.command(&text, Settings::default()).await;
    {
        let mut call = std::pin::pin!(function.call(""));
        for _ in 0..5 {
            assert!(futures::poll!(&mut call).is_pending());
            tokio::task::yield_now().await;
        }
        assert!(fixture.wasm.engine().memory_in_use() > 0);
    }
    assert_eq!(fixture.wasm.engine().memory_in_use(), 0);
}
