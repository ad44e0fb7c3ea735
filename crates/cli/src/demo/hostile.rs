//! Step: functions that misbehave, and others that don't notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lyra_types::Code;
use lyra_types::api::DeployRequest;
use lyra_types::name::Qualifier;
use serde_json::json;
use tokio::time::Instant;

use super::example;
use super::numbers::Latencies;
use super::tour::{Tour, js, name};
use crate::table::millis;

/// The deadline of the function that misbehaves.
const DEADLINE: Duration = Duration::from_millis(500);

/// An endless loop and a memory bomb, while another function is called.
pub async fn contained(tour: &mut Tour<'_>) -> Result<()> {
    tour.stage.step(
        "A function that misbehaves",
        "An endless loop, and one that eats memory: each ends at its own limit, and other functions don't notice.",
    );
    let request = DeployRequest { timeout_ms: Some(500), memory_mb: Some(64), ..js(example::HOSTILE) };
    let command = "lyra deploy examples/js-hostile --name hostile --timeout 500ms --memory 64";
    tour.deploy(command, "hostile", request, 1).await?;

    let alone = neighbour(tour, |calls, _| calls >= 200).await?;
    let ended = Arc::new(AtomicBool::new(false));
    let (client, event, over) = (tour.client.clone(), r#"{"how":"loop"}"#, Arc::clone(&ended));
    let function = name("hostile")?;
    tour.stage.command("lyra invoke hostile -d '{\"how\":\"loop\"}'");
    tour.stage.count_calls(1);
    let looping = lyra_kit::tasks::spawn("demo loop", async move {
        let outcome = client.invoke(&function, &Qualifier::Live, event, Some(Duration::from_secs(30))).await;
        over.store(true, Ordering::Relaxed);
        outcome
    });
    let begin = tour.stage.now();
    let meanwhile =
        neighbour(tour, |_, since| ended.load(Ordering::Relaxed) || since.elapsed() > DEADLINE * 20).await?;
    let took = tour.stage.now() - begin;
    let error = match looping.await? {
        Ok(_) => anyhow::bail!("an endless loop has ended with a result"),
        Err(error) => error.api().cloned().with_context(|| format!("calling hostile: {error}"))?,
    };
    ensure!(error.code == Code::Timeout, "the loop ended with {}: {}", error.code, error.detail);
    ensure!(took >= DEADLINE.mul_f64(0.9), "the loop ended after {}, before its deadline", millis(took));
    tour.stage.answer(&format!("{}: {}", error.code, error.detail));
    tour.stage.answer(&format!("stopped after {}; meanwhile hello answered {} calls", millis(took), meanwhile.count()));
    tour.stage.answer(&format!("hello alone:           {}", alone.summary()));
    tour.stage.answer(&format!("hello beside the loop: {}", meanwhile.summary()));
    ensure!(meanwhile.count() > 0, "no call of hello was answered beside the loop");

    tour.fail_and_show("hostile", r#"{"how":"memory"}"#, Code::OutOfMemory).await?;
    tour.invoke_and_show("hostile", r#"{"how":"nicely"}"#, &json!("behaves")).await?;
    tour.stage.holds("each ended with an error of its own; the same function answers again at once");
    tour.stage.end().await;
    Ok(())
}

/// Calls `hello` until `enough(calls, begin)`.
async fn neighbour(tour: &mut Tour<'_>, enough: impl Fn(usize, Instant) -> bool) -> Result<Latencies> {
    let begin = tour.stage.now();
    let mut taken = Vec::new();
    while !enough(taken.len(), begin) {
        let call = tour.stage.now();
        tour.invoke("hello", r#"{"name":"Ada"}"#).await.context("calling hello")?;
        taken.push(tour.stage.now() - call);
    }
    Ok(Latencies::new(taken))
}
