//! Maintenance under traffic: no call fails, no job is lost.

use anyhow::Result;
use lyra_testkit::Layout;

use crate::scene::{Scene, upgraded};

const CALLS: f64 = 200.0;
const JOBS: f64 = 50.0;

fn layout() -> Layout {
    Layout { controls: 2, workers: 2, gateways: 2, ..Layout::default() }
}

#[tokio::test]
async fn draining_each_worker_in_turn_costs_no_call_and_no_job() -> Result<()> {
    let scene = Scene::begin(layout(), CALLS, JOBS).await?;
    let lyra = scene.site.commands();
    for worker in ["w1", "w2"] {
        lyra.run(["worker", "drain", worker]).await?.ok()?;
        let view = scene.site.client("g1")?.worker(worker).await?.value;
        assert_eq!((view.state.as_str(), view.running, view.idle_instances), ("cordoned", 0, 0));
        scene.go_on().await?;
        lyra.run(["worker", "uncordon", worker]).await?.ok()?;
        for gateway in ["g1", "g2"] {
            scene.site.until_worker(gateway, worker, "ready").await?;
        }
    }
    scene.end(&[]).await?;
    Ok(())
}

#[tokio::test]
async fn upgrading_each_process_in_turn_costs_no_call_and_no_job() -> Result<()> {
    let mut scene = Scene::begin(layout(), CALLS, JOBS).await?;
    let binary = upgraded(&scene.site)?;
    for name in ["w1", "w2", "g1", "g2", "c1", "c2"] {
        scene.site.roll(name, Some(&binary)).await?;
        scene.site.until_ready().await?;
        scene.go_on().await?;
    }
    scene.deploy().await?;
    scene.end(&[]).await?;
    Ok(())
}
