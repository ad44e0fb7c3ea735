//! Steps: what stays: log lines, and everything over a restart.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lyra_client::{Answer, LogFilter};
use lyra_types::api::LogView;
use lyra_types::job::JobStatus;
use serde_json::json;

use super::tour::{Tour, name};
use crate::function::show::weights;
use crate::table::millis;

async fn lines_of_the_order(tour: &Tour<'_>) -> Result<Vec<Answer<LogView>>> {
    let filter = LogFilter { invocation: tour.order_call, ..LogFilter::default() };
    let lines = tour.client.logs(Some(&name("order-total")?), &filter).await?;
    let messages: Vec<&str> = lines.iter().map(|line| line.message.as_str()).collect();
    let expected = ["order A-1: checking, version 1", "order A-1: 1 lines, 360 cents net"];
    ensure!(messages == expected, "its lines are {messages:?}");
    Ok(lines)
}

/// What one call wrote, out of hundreds.
pub async fn logs_of_a_call(tour: &mut Tour<'_>) -> Result<()> {
    tour.stage.step("Logs of one call", "Every line knows the call that wrote it; its id came with the answer.");
    let id = tour.order_call.context("there is no such call")?;
    tour.stage.command(&format!("lyra logs order-total --invocation {id}"));
    for line in lines_of_the_order(tour).await? {
        tour.stage.answer(&format!("{} {:<5} {}", line.time, line.level.as_str(), line.message));
    }
    tour.stage.holds("its two lines, and no other's");
    tour.stage.end().await;
    Ok(())
}

/// A restart loses nothing.
pub async fn restart(tour: &mut Tour<'_>) -> Result<()> {
    tour.stage.step("Stop, and start again", "The same data directory: what was acknowledged is there.");
    tour.stage.command("kill -TERM $LYRA_PID; lyra up …");
    let begin = tour.stage.now();
    tour.node.stop().await?;
    tour.node.start().await?;
    tour.client.ready().await?;
    tour.stage.answer(&format!("drained, stopped, started and ready in {}", millis(tour.stage.now() - begin)));

    tour.stage.command("lyra fn ls");
    let functions = tour.client.functions(100).await?;
    for function in &functions.items {
        let (newest, live) = (function.version, weights(&function.live));
        tour.stage.answer(&format!("{:<12} version {newest}, live {live}", function.name));
    }
    let names: Vec<&str> = functions.items.iter().map(|function| function.name.as_str()).collect();
    // Those of languages that are not on every machine.
    let names: Vec<&str> = names.into_iter().filter(|name| !name.ends_with("-inside")).collect();
    ensure!(
        names == ["add-counts", "batch", "count-words", "hello", "hostile", "order-total", "web"],
        "the functions are {names:?}"
    );
    let hello = tour.client.function(&name("hello")?).await?;
    ensure!(hello.version == 2 && hello.live.keys().eq([&1]), "hello is not as it was");

    let (done, dead) = (tour.done_job.context("no job")?, tour.dead_job.context("no job")?);
    let done = tour.client.job(done, Duration::ZERO).await?;
    ensure!(done.status == JobStatus::Succeeded, "a job that succeeded is {}", done.status);
    let dead = tour.client.job(dead, Duration::ZERO).await?;
    ensure!(dead.status == JobStatus::Dead, "the dead job is {}", dead.status);
    lines_of_the_order(tour).await?;
    let first = tour.invoke_and_show("hello", r#"{"name":"Ada"}"#, &json!({"message": "Hello, Ada!"})).await?;
    ensure!(first.call.version == Some(1), "answered by version {:?}", first.call.version);
    super::workflows::approved_after_the_restart(tour).await?;
    tour.stage
        .holds("functions, versions, the rollback, jobs, the dead letter, the waiting run and the logs are all there");
    tour.stage.end().await;
    Ok(())
}
