//! `placement`: how many instances the solver places in a second, on 100 workers with 20,000 instances.
//!
//! The solver is called in a program of its own (`crates/control/benches/placement.rs`), so that this one need not be
//! linked with all that control needs.

use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use super::report::Record;

/// From nothing, and with what changes on a site that stands.
pub async fn run() -> anyhow::Result<Vec<Record>> {
    let mut command = Command::new("cargo");
    command.args(["bench", "--quiet", "--package", "lyra-control", "--bench", "placement"]);
    command.current_dir(crate::repository());
    let output = lyra_kit::tasks::blocking(move || command.output()).await?.context("cargo bench")?;
    anyhow::ensure!(output.status.success(), "cargo bench: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    text.lines().map(|line| record(&serde_json::from_str(line).context("what the bench printed")?)).collect()
}

fn record(line: &Value) -> anyhow::Result<Record> {
    let number = |name: &str| line[name].as_f64().with_context(|| format!("no {name}"));
    let case = line["case"].as_str().context("no case")?;
    let mut record = Record::new("placement", case)
        .with("hosts", line["hosts"].clone())
        .with("instances", line["instances"].clone())
        .with("placements", line["placements"].clone())
        .with_number("solve_ms", number("solve_ms")?)
        .with_number("longest_ms", number("longest_ms")?);
    record.rps = Some(number("per_second")?);
    Ok(record)
}
