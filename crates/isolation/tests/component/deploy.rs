//! What can be deployed, and what is refused with which reason.

use super::{Fixture, HELLO, HOSTILE, Settings, WORDS, code};
use lyra_isolation::Isolation;
use lyra_types::function::Contract;
use lyra_types::{Code, Error};

async fn refused(wasm: &[u8]) -> String {
    let error = Fixture::new().wasm.prepare(&code(wasm, &Settings::default())).await.expect_err("refused");
    assert_eq!(error.code, Code::InvalidCode, "{error}");
    assert_eq!(error.errors.len(), 1);
    assert_eq!(error.errors[0].field, "code.wasm");
    error.errors[0].reason.clone()
}

async fn refused_text(text: &str) -> String {
    refused(&wat::parse_str(text).expect("valid text")).await
}

#[tokio::test]
async fn the_contract_is_found_in_the_exports() {
    let fixture = Fixture::new();
    let core = wat::parse_str(r#"(module (memory (export "memory") 1) (func (export "_start")))"#).unwrap();
    for (wasm, contract) in [(HELLO, Contract::Http), (WORDS, Contract::Command), (&core[..], Contract::Command)] {
        let code = code(wasm, &Settings::default());
        assert!(fixture.wasm.load(&code.key).await.unwrap().is_none(), "not there before");
        assert_eq!(fixture.wasm.prepare(&code).await, Ok(contract));
        assert_eq!(fixture.wasm.prepare(&code).await, Ok(contract), "again is the same");
        assert_eq!(fixture.wasm.load(&code.key).await.unwrap().expect("there").contract(), contract);
    }
}

#[tokio::test]
async fn what_is_not_webassembly_is_refused_by_what_it_is() {
    assert!(refused(b"export default 1").await.contains("is text; expected a WebAssembly component or core module"));
    assert!(refused(b"").await.contains("is empty"));
    assert!(refused(b"PK\x03\x04zip").await.contains("zip archive"));
}

#[tokio::test]
async fn damaged_code_is_refused_with_the_place() {
    let mut cut = HELLO.to_vec();
    cut.truncate(HELLO.len() / 2);
    let reason = refused(&cut).await;
    assert!(reason.contains("section range"), "{reason}");
    let mut flipped = HELLO.to_vec();
    flipped[8] ^= 0x55;
    let reason = refused(&flipped).await;
    assert!(reason.contains("at offset "), "{reason}");
    let invalid = wat::parse_str(r#"(module (func (export "_start") i32.add))"#).expect("assembles");
    let reason = refused(&invalid).await;
    assert!(reason.contains("at offset ") && reason.contains("type mismatch"), "{reason}");
}

#[tokio::test]
async fn unknown_imports_are_refused_with_their_names() {
    let reason = refused_text(
        r#"(module (import "env" "one" (func)) (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
           (import "wasi_snapshot_preview1" "no_such" (func)) (memory (export "memory") 1) (func (export "_start")))"#,
    )
    .await;
    assert!(reason.contains("imports env.one, wasi_snapshot_preview1.no_such,"), "{reason}");
    let reason = refused_text(
        r#"(component (import "wasi:keyvalue/store@0.2.0" (instance)) (import "wasi:http/types@0.3.0" (instance)))"#,
    )
    .await;
    assert!(reason.contains("imports wasi:keyvalue/store@0.2.0, wasi:http/types@0.3.0,"), "{reason}");
    let reason = refused_text(
        r#"(component (import "wasi:random/random@0.2.0" (instance (export "dice" (func))))
           (instance (export "wasi:cli/run@0.2.0")))"#,
    )
    .await;
    assert!(reason.contains("dice"), "{reason}");
    let reason = refused_text(
        r#"(module (import "wasi_snapshot_preview1" "fd_write" (func)) (memory (export "memory") 1) (func (export "_start")))"#,
    )
    .await;
    assert!(reason.contains("fd_write"), "{reason}");
}

#[tokio::test]
async fn code_that_exports_nothing_to_call_is_refused() {
    let reason = refused_text("(component)").await;
    assert!(reason.contains("exports nothing; expected wasi:http/incoming-handler@0.2"), "{reason}");
    let reason = refused_text(r#"(module (func (export "main")))"#).await;
    assert!(reason.contains("does not export `_start`"), "{reason}");
    let reason = refused_text(r#"(module (func (export "_start") (param i32)))"#).await;
    assert!(reason.contains("without parameters"), "{reason}");
    let reason = refused_text(r#"(component (instance (export "wasi:http/incoming-handler@0.2.0")))"#).await;
    assert!(reason.contains("interfaces that it names") && reason.contains("handle"), "{reason}");
}

#[tokio::test]
async fn what_can_not_start_is_refused() {
    let reason = refused_text(r#"(module (memory 2000) (func (export "_start")))"#).await;
    assert!(reason.contains("needs 125 MiB of memory to start; memory_mb is 64"), "{reason}");
    let reason = refused_text(r#"(module (func $init unreachable) (start $init) (func (export "_start")))"#).await;
    assert!(reason.contains("does not start"), "{reason}");
}

#[tokio::test]
async fn a_command_can_not_be_reused() {
    let fixture = Fixture::new();
    for _ in 0..2 {
        let error = fixture.wasm.prepare(&code(WORDS, &Settings::reuse())).await.expect_err("refused");
        assert_eq!((error.code, error.errors[0].field.as_str()), (Code::InvalidField, "reuse"));
        // Also when the image is there already.
        fixture.wasm.prepare(&code(WORDS, &Settings::default())).await.expect("deploys");
    }
    assert_eq!(fixture.wasm.prepare(&code(HOSTILE, &Settings::reuse())).await, Ok(Contract::Http));
}

#[tokio::test]
async fn an_image_outlives_the_back_end() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let config = lyra_isolation::wasm::Config::new(dir.path());
        lyra_isolation::wasm::Wasm::new(&config, lyra_kit::Clock::system(), lyra_kit::Random::system()).unwrap()
    };
    let code = code(HELLO, &Settings::default());
    open().prepare(&code).await.expect("deploys");
    assert!(open().load(&code.key).await.expect("loads").is_some());
}

#[tokio::test]
async fn a_damaged_image_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = lyra_isolation::wasm::Config::new(dir.path());
    let wasm = lyra_isolation::wasm::Wasm::new(&config, lyra_kit::Clock::system(), lyra_kit::Random::system()).unwrap();
    let code = code(HELLO, &Settings::default());
    wasm.prepare(&code).await.expect("deploys");
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|part| part == "http") {
            std::fs::write(path, b"not machine code").unwrap();
        }
    }
    assert!(wasm.load(&code.key).await.expect("is no error").is_none());
    wasm.prepare(&code).await.expect("deploys again");
    assert!(wasm.load(&code.key).await.expect("loads").is_some());
}

#[tokio::test]
async fn too_large_code_is_refused_before_it_is_looked_at() {
    let mut wasm = b"\0asm\x01\0\0\0".to_vec();
    wasm.resize(lyra_types::function::limit::MAX_WASM + 1, 0);
    let error: Error = Fixture::new().wasm.prepare(&code(&wasm, &Settings::default())).await.expect_err("refused");
    assert!(error.detail.contains("at most"), "{error}");
}
