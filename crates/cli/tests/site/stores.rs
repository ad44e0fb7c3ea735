//! The stores of a site are lost, in part or as a whole, and come back.

use anyhow::{Result, ensure};
use lyra_testkit::Layout;

use crate::scene::Scene;

/// Version that a site's function has when S3 is lost.
const CODE: &str = "export default () => 'code'";

async fn begin(layout: Layout) -> Result<Scene> {
    Scene::begin(layout, 80.0, 20.0).await
}

#[tokio::test]
async fn of_three_servers_of_nats_one_that_is_lost_costs_nothing() -> Result<()> {
    let mut scene = begin(Layout { nats: 3, ..Layout::default() }).await?;
    for server in ["n1", "n2", "n3"] {
        scene.site.kill(server).await?;
        let accepted = scene.jobs();
        while scene.jobs() < accepted + 20 {
            scene.go_on().await?;
        }
        scene.deploy().await?;
        scene.site.restart(server).await?;
    }
    scene.end(&[]).await?;
    Ok(())
}

#[tokio::test]
async fn without_most_members_of_etcd_calls_go_on_and_changes_fail_until_one_is_back() -> Result<()> {
    let mut scene = begin(Layout { controls: 2, ..Layout::default() }).await?;
    for member in ["e1", "e2"] {
        scene.site.kill(member).await?;
    }
    scene.go_on().await?;
    let lyra = scene.site.commands();
    std::fs::write(scene.site.directory().join("other.js"), CODE)?;
    let refused = lyra.run(["deploy", "other.js"]).await?;
    ensure!(refused.code == 7 || refused.code == 6, "it says that it can't be done now: {refused:?}");
    scene.go_on().await?;
    scene.site.restart("e1").await?;
    scene.site.leader("").await?;
    scene.site.until_answered("g1").await?;
    // Also where it was refused, it may have been done.
    lyra.run(["deploy", "other.js", "--reuse"]).await?.ok()?;
    scene.deploy().await?;
    scene.site.restart("e2").await?;
    scene.end(&[]).await?;
    Ok(())
}

#[tokio::test]
async fn without_s3_what_is_loaded_goes_on_and_the_rest_says_so_until_it_is_back() -> Result<()> {
    let mut scene = begin(Layout::default()).await?;
    let lyra = scene.site.commands();
    std::fs::write(scene.site.directory().join("cold.js"), CODE)?;
    lyra.run(["deploy", "cold.js"]).await?.ok()?;
    // A worker that was not there when it was deployed has not got its code: the only one that is ready then.
    scene.site.roll_bare("w1").await?;
    scene.site.until_ready().await?;
    lyra.run(["worker", "drain", "w2"]).await?.ok()?;
    scene.go_on().await?;
    scene.site.kill("s3").await?;
    scene.go_on().await?;
    let cold = lyra.run(["invoke", "cold"]).await?;
    ensure!(cold.code != 0 && cold.stderr.contains("code"), "it says that its code can't be had: {cold:?}");
    std::fs::write(scene.site.directory().join("new.js"), "export default () => 'new'")?;
    let refused = lyra.run(["deploy", "new.js"]).await?;
    ensure!(refused.code != 0 && refused.stderr.contains("store"), "it says what can't be reached: {refused:?}");
    scene.go_on().await?;
    scene.site.restart("s3").await?;
    ensure!(lyra.run(["invoke", "cold"]).await?.ok()? == "\"code\"\n", "its code is there again");
    lyra.run(["deploy", "new.js"]).await?.ok()?;
    lyra.run(["worker", "uncordon", "w2"]).await?.ok()?;
    scene.deploy().await?;
    scene.end(&[]).await?;
    Ok(())
}
