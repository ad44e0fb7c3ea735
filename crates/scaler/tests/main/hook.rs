//! The hook: what a program is told, and what becomes of its answer.

use std::time::Duration;

use lyra_kit::Clock;
use lyra_scaler::Hook;
use lyra_scaler::backends::{Backend, Change, HookBackend};
use lyra_wire::registry::MemberState;
use lyra_wire::scaler::{Load, WorkerLoad};

use super::doubles::worker;
use super::program;

fn change(from: u32, to: u32, going: &[&str]) -> Change {
    Change { from, to, reason: "queue", going: going.iter().map(|name| (*name).to_owned()).collect() }
}

fn load(names: &[&str]) -> Load {
    Load { workers: names.iter().map(|name| worker(name)).collect(), ..Load::default() }
}

fn backend(command: Vec<String>, timeout: Duration) -> HookBackend {
    HookBackend::new(Hook { command, timeout, ..Hook::default() }, Clock::system())
}

#[tokio::test]
async fn a_program_is_told_by_variables_and_by_json() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let text = "#!/bin/sh\necho \"$1 $LYRA_SCALER_DESIRED $LYRA_SCALER_CURRENT $LYRA_SCALER_DIRECTION \
                $LYRA_SCALER_REASON $LYRA_SCALER_GOING\" > \"$2\"\ncat >> \"$2\"\n";
    let path = program(dir.path(), "hook", text).display().to_string();
    let command = vec![path, "word".to_owned(), out.display().to_string()];
    backend(command, super::LONG).apply(&change(4, 2, &["w3", "w4"])).await.unwrap();
    let told = std::fs::read_to_string(&out).unwrap();
    let (variables, json) = told.split_once('\n').unwrap();
    assert_eq!(variables, "word 2 4 down queue w3,w4");
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    let expected = serde_json::json!({
        "desired": 2, "current": 4, "direction": "down", "reason": "queue", "going": ["w3", "w4"]
    });
    assert_eq!(json, expected);
}

#[tokio::test]
async fn a_program_that_fails_or_hangs_has_done_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = program(dir.path(), "hook", "#!/bin/sh\nexit 3\n").display().to_string();
    let failing = backend(vec![path], super::LONG);
    let said = failing.apply(&change(1, 2, &[])).await.unwrap_err().to_string();
    assert!(said.contains('3'), "{said}");
    assert_eq!(failing.current(&load(&["w1"])).await.unwrap(), 1, "what it did not do counts for nothing");
    let hanging = backend(vec!["sleep".to_owned(), "1000".to_owned()], Duration::from_millis(100));
    let said = hanging.apply(&change(1, 2, &[])).await.unwrap_err().to_string();
    assert!(said.contains("killed"), "{said}");
    let missing = backend(vec!["/nonexistent/hook".to_owned()], super::LONG);
    assert!(missing.apply(&change(1, 2, &[])).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_for_counts_until_it_is_there_or_has_had_its_time() {
    let hook = backend(vec!["true".to_owned()], super::LONG);
    tokio::time::resume();
    hook.apply(&change(1, 4, &[])).await.unwrap();
    tokio::time::pause();
    assert_eq!(hook.current(&load(&["w1"])).await.unwrap(), 4);
    tokio::time::advance(Duration::from_secs(600)).await;
    assert_eq!(hook.current(&load(&["w1", "w2"])).await.unwrap(), 2);
}

#[tokio::test]
async fn the_workers_whose_end_costs_least_go() {
    let hook = backend(vec!["true".to_owned()], super::LONG);
    let mut load = load(&["w1", "w2", "w3"]);
    load.workers[2].running = 5;
    load.workers.push(WorkerLoad { state: MemberState::Lost, ..worker("w0") });
    assert_eq!(hook.going(&load, 3, 1), ["w2", "w1"]);
}
