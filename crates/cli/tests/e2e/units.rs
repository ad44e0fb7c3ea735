//! The files in `deploy/`: what they start is a command that `lyra` understands, with settings that they name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lyra_testkit::{Cli, binary};

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(path)
}

/// The arguments after the program of a unit's `ExecStart`, with the variables of its example of an environment file.
fn arguments(role: &str) -> Result<Vec<String>> {
    let unit = std::fs::read_to_string(deploy(&format!("systemd/lyra-{role}.service")))?;
    let settings = std::fs::read_to_string(deploy(&format!("systemd/{role}.env")))?;
    let settings: BTreeMap<&str, &str> =
        settings.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('=')).collect();
    let unit = unit.replace("\\\n", " ");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/lyra "));
    let each = start.context("an ExecStart")?.split_whitespace().map(|word| {
        let Some(name) = word.strip_prefix("${").and_then(|word| word.strip_suffix('}')) else {
            return Ok(word.to_owned());
        };
        let value = settings.get(name).with_context(|| format!("{role}.env has no {name}"))?;
        ensure!(!value.is_empty(), "{role}.env has no value of {name}");
        Ok((*value).to_owned())
    });
    each.collect()
}

/// Whether the flags are known and their values can be read: then the help is shown.
async fn is_understood(arguments: &[String]) -> Result<()> {
    let shown = Cli::new(binary()?).run(arguments.iter().map(String::as_str).chain(["--help"])).await?.ok()?;
    ensure!(shown.contains("lyra node"), "{shown}");
    Ok(())
}

#[tokio::test]
async fn units_start_what_lyra_understands() -> Result<()> {
    for role in ["control", "worker", "gateway"] {
        let arguments = arguments(role)?;
        is_understood(&arguments).await.with_context(|| format!("{arguments:?}"))?;
        let unknown: Vec<_> = arguments.iter().cloned().chain(["--no-such-flag".to_owned()]).collect();
        assert!(is_understood(&unknown).await.is_err(), "an unknown flag is found out");
    }
    Ok(())
}

#[tokio::test]
async fn the_compose_file_starts_what_lyra_understands() -> Result<()> {
    let file = std::fs::read_to_string(deploy("compose/compose.yaml"))?;
    let mut starts = 0;
    let mut lines = file.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim() != "command: >-" {
            continue;
        }
        let mut arguments = Vec::new();
        while let Some(line) = lines.next_if(|line| line.starts_with("      ")) {
            arguments.extend(line.split_whitespace().map(str::to_owned));
        }
        is_understood(&arguments).await.with_context(|| format!("{arguments:?}"))?;
        starts += 1;
    }
    assert_eq!(starts, 5, "a control, two workers, two gateways");
    Ok(())
}
