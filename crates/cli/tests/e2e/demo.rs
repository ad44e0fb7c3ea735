//! `lyra demo` works, says so, and leaves nothing behind.

use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::start::alone;

#[tokio::test]
async fn the_tour_works_from_end_to_end() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let cli = alone().env("TMPDIR", dir.path().to_str().unwrap());
    let output = cli.run(["demo"]).await?.expect(0)?;
    for part in [
        "$ lyra deploy examples/js-hello",
        "Hello, Ada!",
        "--> hello.js:",
        "timeout:",
        "room-2: visit 1",
        "approval-1 succeeded",
        "All 17 steps worked",
    ] {
        assert!(output.stdout.contains(part), "{part} is not in\n{}", output.stdout);
    }
    assert!(!output.stdout.contains('\u{1b}'), "colours without a terminal");
    assert_eq!(output.stderr, "");
    assert_eq!(std::fs::read_dir(dir.path())?.count(), 0, "something was left behind");
    Ok(())
}

#[tokio::test]
async fn programs_get_its_outcome_as_json() -> Result<()> {
    let outcome = alone().run(["demo", "-o", "json"]).await?.json()?;
    assert_eq!(outcome["ok"], true, "{outcome}");
    assert_eq!(outcome["steps"].as_array().map(Vec::len), Some(17));
    Ok(())
}

#[tokio::test]
async fn an_interrupted_tour_leaves_nothing_behind() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut child = alone().env("TMPDIR", dir.path().to_str().unwrap()).command(["demo", "--pause"]);
    let mut child = child.stdin(std::process::Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    while !lines.next_line().await?.expect("the tour begins").contains("takes calls after") {}
    let pid = child.id().expect("it runs").to_string();
    tokio::process::Command::new("sh").args(["-c", "kill -s INT \"$0\"", &pid]).status().await?;
    let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await??;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("stopped by a signal"));
    assert_eq!(std::fs::read_dir(dir.path())?.count(), 0, "something was left behind");
    Ok(())
}
