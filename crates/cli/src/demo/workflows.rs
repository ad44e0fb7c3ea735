//! Steps: a workflow over functions, and a run that waits for somebody, over a restart.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lyra_types::api::workflows::{Completion, NewRun, NewWorkflow};
use lyra_types::workflow::RunStatus;
use lyra_types::{RunId, WorkflowName};
use serde_json::{Map, Value, json};

use super::example;
use super::tour::{Tour, js};
use crate::table::millis;

/// Longest until a run has ended.
const LIMIT: Duration = Duration::from_secs(30);

/// The run that waits.
const APPROVAL: &str = "approval-1";

fn object(value: Value) -> Result<Map<String, Value>> {
    value.as_object().cloned().context("an object")
}

/// Counts words with functions side by side, and starts a run that waits for an approval.
pub async fn over_functions(tour: &mut Tour<'_>) -> Result<()> {
    tour.stage.step(
        "A workflow",
        "Functions put together: what needs no other's data runs side by side, and each answer is on disk before the next call.",
    );
    for (name, source) in [("count-words", example::COUNT_WORDS), ("add-counts", example::ADD_COUNTS)] {
        let command = format!("lyra deploy examples/workflows/functions/{name}.js --runtime js");
        tour.deploy(&command, name, js(source), 1).await?;
    }
    deploy(tour, "word-count", example::WORD_COUNT, example::WORD_COUNT_MAPPINGS).await?;
    let lines: Vec<String> = (0..64).map(|n| format!("line {n} of a text that is counted")).collect();
    tour.stage.command("lyra workflow run word-count --wait -d '{\"lines\":[…],\"parts\":16}'");
    let begin = tour.stage.now();
    let run = NewRun { input: object(json!({"lines": lines, "parts": 16}))?, ..NewRun::default() };
    let started = tour.client.start_run(&WorkflowName::new("word-count")?, &run).await?;
    let ended = tour.client.wait_run(&started.id, LIMIT).await?;
    let output = ended.output.clone().context("an output")?;
    ensure!(output["words"] == 448 && output["counts"]["text"] == 64, "it counted {output:?}");
    let took = millis(tour.stage.now() - begin);
    tour.stage.answer(&format!("{} words, by {} calls in {took}", output["words"], ended.tasks.succeeded));

    let definition = "name: approval\nworkflowBody:\n  - function:\n      name: ask\n      type: \"lyra:callback\"\n      dataOuts: [{ name: approved, type: boolean }]\ndataOuts: [{ name: approved, type: boolean, source: ask/approved }]\n";
    deploy(tour, "approval", definition, "[]").await?;
    tour.stage.command(&format!("lyra workflow run approval --id {APPROVAL}"));
    let run = NewRun { id: Some(RunId::new(APPROVAL)?), ..NewRun::default() };
    tour.client.start_run(&WorkflowName::new("approval")?, &run).await?;
    tour.stage.answer("it waits until somebody approves; see below, after the restart");
    tour.stage.holds("the loop ran side by side, and the order of its results is that of the lines");
    tour.stage.end().await;
    Ok(())
}

async fn deploy(tour: &mut Tour<'_>, name: &str, definition: &str, mappings: &str) -> Result<()> {
    tour.stage.command(&format!("lyra workflow deploy {name}.yaml --mappings {name}.mappings.json"));
    let workflow = NewWorkflow {
        name: WorkflowName::new(name)?,
        definition: definition.to_owned(),
        mappings: serde_json::from_str(mappings)?,
        schedule: None,
    };
    let made = tour.client.deploy_workflow(&workflow).await?;
    tour.stage.answer(&format!("{name} version {}", made.version));
    Ok(())
}

/// The run that waits is there after the restart, and ends when it is completed.
pub async fn approved_after_the_restart(tour: &mut Tour<'_>) -> Result<()> {
    let id = RunId::new(APPROVAL)?;
    tour.stage.command(&format!("lyra workflow waiting {APPROVAL}"));
    let waiting = tour.client.waiting(&id).await?;
    let task = waiting.items.first().context("no task waits")?;
    tour.stage.answer(&format!("{} waits since {}", task.task, task.since));
    tour.stage.command("lyra workflow complete cb_… -d '{\"approved\":true}'");
    let completion = Completion::Output(object(json!({"approved": true}))?);
    tour.client.complete_task(task.token.as_deref().context("its token is not shown")?, &completion).await?;
    let ended = tour.client.wait_run(&id, LIMIT).await?;
    ensure!(ended.status == RunStatus::Succeeded, "the run is {}", ended.status);
    tour.stage.answer(&format!("{APPROVAL} {}", ended.status));
    Ok(())
}
