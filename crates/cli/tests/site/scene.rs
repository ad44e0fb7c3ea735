//! A site with traffic on it, from its start to the check at its end.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use lyra_testkit::traffic::{Plan, Seen, Traffic};
use lyra_testkit::{Checked, Layout, Site};
use lyra_types::FunctionName;

/// The function that traffic calls.
const FUNCTION: &str = "work";
/// Answers that show that the site works.
const ENOUGH: u64 = 60;

pub struct Scene {
    pub site: Site,
    traffic: Traffic,
    versions: u64,
}

impl Scene {
    /// A site with so many calls and jobs a second.
    pub async fn begin(layout: Layout, calls: f64, jobs: f64) -> Result<Scene> {
        let site = Site::start(layout).await?;
        let versions = site.deploy(FUNCTION).await?;
        let clients: Result<Vec<_>> = site.names("gateway").iter().map(|name| site.client(name)).collect();
        let plan = Plan { function: FunctionName::new(FUNCTION)?, calls, jobs };
        let scene = Scene { site, traffic: Traffic::start(clients?, &plan), versions };
        scene.go_on().await?;
        Ok(scene)
    }

    /// Waits until many more calls have had an answer.
    pub async fn go_on(&self) -> Result<()> {
        self.traffic.go_on(ENOUGH).await
    }

    /// Deploys the next version, and asks that it is acknowledged.
    pub async fn deploy(&mut self) -> Result<()> {
        self.versions = self.site.deploy(FUNCTION).await?;
        Ok(())
    }

    /// So many jobs were accepted so far.
    pub fn jobs(&self) -> usize {
        self.traffic.seen().jobs
    }

    /// Heals all links, ends the traffic and checks the site. Calls may have failed with these codes only.
    pub async fn end(self, allowed: &[&str]) -> Result<(Seen, Checked)> {
        self.site.network().heal();
        self.go_on().await?;
        let record = self.traffic.end().await;
        let seen = record.seen();
        let others: Vec<_> = seen.failed.keys().filter(|code| !allowed.contains(&code.as_str())).collect();
        ensure!(others.is_empty(), "calls failed with {others:?}: {seen:?}\n{}", record.failures().join("\n"));
        let checked = self.site.check(FUNCTION, self.versions, &record).await?;
        Ok((seen, checked))
    }
}

/// A copy of a binary, as an upgrade brings one.
pub fn upgraded(site: &Site) -> Result<PathBuf> {
    let copy = site.directory().join("lyra-upgraded");
    std::fs::copy(lyra_testkit::binary()?, &copy)?;
    Ok(copy)
}
