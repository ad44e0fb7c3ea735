//! Step: a new version for some of the calls, and back.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use lyra_types::AliasName;
use lyra_types::api::{AliasRequest, DeployRequest};

use super::example;
use super::tour::{Tour, js, name};
use crate::function::show::weights;

/// Calls that are counted.
const CALLS: u64 = 1_000;

/// Versions that answered, with how often.
async fn count(tour: &mut Tour<'_>, calls: u64) -> Result<BTreeMap<u64, u64>> {
    let mut counts = BTreeMap::new();
    for _ in 0..calls {
        let invocation = tour.invoke("hello", r#"{"name":"Ada"}"#).await?;
        let version = invocation.call.version.context("an answer does not name its version")?;
        *counts.entry(version).or_default() += 1;
    }
    Ok(counts)
}

/// A weighted alias, counted, and a rollback.
pub async fn split_and_back(tour: &mut Tour<'_>) -> Result<()> {
    tour.stage.step(
        "A careful rollout",
        "A new version, which nobody calls yet; then a tenth of the calls; then back, in one command.",
    );
    let source = example::HELLO.replace("Hello, ", "Good day, ");
    let request = DeployRequest { promote: Some(false), ..js(&source) };
    tour.deploy("lyra deploy examples/js-hello --name hello --no-promote", "hello", request, 2).await?;
    ensure!(count(tour, 20).await?.keys().eq([&1]), "version 2 is called before it was promoted");

    tour.stage.command("lyra fn alias hello live 1:90,2:10");
    let split = AliasRequest { weights: Some([(1, 90), (2, 10)].into()), version: None };
    let alias = tour.client.put_alias(&name("hello")?, &AliasName::live(), &split).await?;
    tour.stage.answer(&format!("live: {}", weights(&alias.weights)));
    let counts = count(tour, CALLS).await?;
    let (first, second) = (counts.get(&1).copied().unwrap_or(0), counts.get(&2).copied().unwrap_or(0));
    tour.stage.answer(&format!("{CALLS} calls: {first} by version 1, {second} by version 2"));
    // 100 are expected, with a standard deviation of 9.5: five of them hold but once in two million tours.
    ensure!(first + second == CALLS && (52..=148).contains(&second), "{counts:?} is no split of 90 to 10");

    tour.stage.command("lyra fn rollback hello");
    let alias = tour.client.rollback(&name("hello")?).await?;
    tour.stage.answer(&format!("live: {}", weights(&alias.weights)));
    ensure!(count(tour, 50).await?.keys().eq([&1]), "version 2 is called after the rollback");
    tour.stage.holds("no call was lost on the way there and back");
    tour.stage.end().await;
    Ok(())
}
