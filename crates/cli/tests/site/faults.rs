//! One part is lost, frozen, cut off or slow.

use std::time::Duration;

use anyhow::Result;
use lyra_testkit::Layout;
use lyra_testkit::hosts::Link;

use crate::scene::Scene;

/// Enough to have calls and jobs under way at every moment, and to leave two processors time.
const CALLS: f64 = 80.0;
const JOBS: f64 = 20.0;

async fn begin(layout: Layout) -> Result<Scene> {
    Scene::begin(layout, CALLS, JOBS).await
}

#[tokio::test]
async fn a_lost_worker_costs_the_calls_that_it_had_and_no_job() -> Result<()> {
    let mut scene = begin(Layout::default()).await?;
    scene.site.kill("w1").await?;
    scene.site.until_worker("g1", "w1", "lost").await?;
    scene.go_on().await?;
    scene.deploy().await?;
    scene.site.restart("w1").await?;
    scene.site.until_worker("g1", "w1", "ready").await?;
    scene.end(&["worker_lost"]).await?;
    Ok(())
}

#[tokio::test]
async fn a_frozen_worker_costs_the_calls_that_it_had_and_is_back_when_it_goes_on() -> Result<()> {
    let mut scene = begin(Layout::default()).await?;
    scene.site.freeze("w1").await?;
    scene.site.until_worker("g1", "w1", "lost").await?;
    scene.go_on().await?;
    scene.site.thaw("w1").await?;
    scene.site.until_worker("g1", "w1", "ready").await?;
    scene.end(&["worker_lost"]).await?;
    Ok(())
}

#[tokio::test]
async fn a_worker_that_is_cut_off_from_control_only_costs_no_call() -> Result<()> {
    let mut scene = begin(Layout::default()).await?;
    scene.site.network().between("w1", "c1", Link::cut())?;
    scene.site.until_worker("g1", "w1", "lost").await?;
    scene.go_on().await?;
    scene.deploy().await?;
    scene.site.network().heal();
    scene.site.until_worker("g1", "w1", "ready").await?;
    scene.end(&[]).await?;
    Ok(())
}

#[tokio::test]
async fn a_member_of_etcd_that_is_lost_costs_nothing() -> Result<()> {
    let mut scene = begin(Layout::default()).await?;
    for member in ["e1", "e2"] {
        scene.site.kill(member).await?;
        scene.deploy().await?;
        scene.go_on().await?;
        scene.site.restart(member).await?;
    }
    scene.end(&[]).await?;
    Ok(())
}

#[tokio::test]
async fn without_nats_calls_go_on_and_jobs_when_it_is_back() -> Result<()> {
    let mut scene = begin(Layout::default()).await?;
    scene.site.kill("nats").await?;
    scene.go_on().await?;
    let accepted = scene.jobs();
    scene.site.restart("nats").await?;
    while scene.jobs() < accepted + 20 {
        scene.go_on().await?;
    }
    scene.end(&[]).await?;
    Ok(())
}

#[tokio::test]
async fn a_slow_control_costs_no_call_and_deploys_take_their_time() -> Result<()> {
    let mut scene = begin(Layout::default()).await?;
    scene.site.network().around("c1", Link::delayed(Duration::from_millis(250)))?;
    scene.go_on().await?;
    scene.deploy().await?;
    scene.go_on().await?;
    scene.end(&[]).await?;
    Ok(())
}

#[tokio::test]
async fn a_lossy_network_between_gateway_and_workers_costs_no_call() -> Result<()> {
    let scene = begin(Layout::default()).await?;
    for worker in ["w1", "w2"] {
        scene.site.network().between("g1", worker, Link::lossy(0.02))?;
    }
    scene.go_on().await?;
    scene.go_on().await?;
    scene.end(&[]).await?;
    Ok(())
}

#[tokio::test]
async fn a_lost_gateway_costs_its_connections_and_clients_go_to_the_other() -> Result<()> {
    let mut scene = begin(Layout { gateways: 2, ..Layout::default() }).await?;
    scene.site.kill("g2").await?;
    scene.go_on().await?;
    scene.deploy().await?;
    scene.site.restart("g2").await?;
    // Calls that it had may have run: the connection broke before an answer was there.
    scene.end(&["broken"]).await?;
    Ok(())
}

#[tokio::test]
async fn without_control_calls_go_on_and_nothing_acknowledged_is_lost() -> Result<()> {
    let mut scene = begin(Layout::default()).await?;
    scene.site.kill("c1").await?;
    scene.go_on().await?;
    scene.site.restart("c1").await?;
    scene.site.until_answered("g1").await?;
    scene.deploy().await?;
    scene.end(&[]).await?;
    Ok(())
}
