//! The control that leads is lost, cut off from the stores, or comes back from the dead.

use std::time::Duration;

use anyhow::Result;
use lyra_testkit::Layout;
use lyra_testkit::hosts::Link;

use crate::scene::Scene;

async fn begin() -> Result<Scene> {
    let leader_lease = Duration::from_secs(6);
    Scene::begin(Layout { controls: 2, leader_lease, ..Layout::default() }, 80.0, 20.0).await
}

#[tokio::test]
async fn a_lost_leader_costs_no_call_and_no_job_and_a_standby_takes_over() -> Result<()> {
    let mut scene = begin().await?;
    let (first, epoch) = scene.site.leader("").await?;
    scene.site.kill(&first).await?;
    let (second, later) = scene.site.leader(&first).await?;
    assert!(later > epoch, "{second} leads with epoch {later} after {epoch}");
    scene.deploy().await?;
    scene.go_on().await?;
    scene.site.restart(&first).await?;
    assert_eq!(scene.site.leader("").await?, (second, later), "who comes back stands by");
    scene.end(&[]).await?;
    Ok(())
}

#[tokio::test]
async fn a_leader_that_is_cut_off_from_the_stores_leads_no_more_though_clients_reach_it() -> Result<()> {
    let mut scene = begin().await?;
    let (first, epoch) = scene.site.leader("").await?;
    for engine in ["e1", "e2", "e3", "nats"] {
        scene.site.network().between(&first, engine, Link::cut())?;
    }
    let (second, later) = scene.site.leader(&first).await?;
    assert!(later > epoch, "{second} leads with epoch {later} after {epoch}");
    scene.go_on().await?;
    scene.site.network().heal();
    scene.site.until_answered("g1").await?;
    scene.deploy().await?;
    assert_eq!(scene.site.leader("").await?, (second, later), "the former leader stands by");
    scene.end(&[]).await?;
    Ok(())
}

#[tokio::test]
async fn a_leader_that_comes_back_from_the_dead_finds_itself_a_standby() -> Result<()> {
    let mut scene = begin().await?;
    let (first, epoch) = scene.site.leader("").await?;
    scene.site.freeze(&first).await?;
    let (second, later) = scene.site.leader(&first).await?;
    assert!(later > epoch, "{second} leads with epoch {later} after {epoch}");
    scene.go_on().await?;
    // It believes to lead for as long as it takes to find out; jobs that it had must not end twice.
    scene.site.thaw(&first).await?;
    scene.site.until_answered("g1").await?;
    scene.go_on().await?;
    assert_eq!(scene.site.leader("").await?, (second, later), "the former leader stands by");
    scene.end(&[]).await?;
    Ok(())
}
