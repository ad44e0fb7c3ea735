//! Sessions on several hosts: what stays open, what ends and when, and that no session is ever in two places.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lyra_testkit::hosts::Link;
use lyra_testkit::traffic::Visits;
use lyra_testkit::{Layout, Rooms, Site};
use lyra_types::resources::{Application, ApplicationSession, SessionStatus};

/// Instances that stand ready.
const STANDING: u32 = 4;
/// How long a visitor stays who comes and goes.
const SHORT: Duration = Duration::from_secs(2);
/// Longer than any of these tests: these visitors leave at the end.
const LONG: Duration = Duration::from_secs(600);
/// Longest wait for what is to come about.
const PATIENCE: Duration = Duration::from_secs(90);

async fn begin(controls: usize, workers: usize) -> Result<(Site, Rooms)> {
    let site = Site::start(Layout { controls, workers, ..Layout::default() }).await?;
    let rooms = site.rooms(STANDING).await?;
    Ok((site, rooms))
}

/// Open sessions.
async fn open(site: &Site) -> Result<BTreeSet<String>> {
    let all = site.client("g1")?.objects::<ApplicationSession>("", 500).await?.items;
    let is_open =
        |of: &ApplicationSession| matches!(of.status.session_status, SessionStatus::Available | SessionStatus::InUse);
    Ok(all.into_iter().map(|of| of.value).filter(is_open).map(|of| of.metadata.name).collect())
}

/// Visitors who stay, once so many of them have come; more come until this ends.
async fn stay(site: &Site, sessions: u64) -> Result<Visits> {
    let visits = site.visit(1.0, LONG)?;
    visits.go_on(sessions).await?;
    Ok(visits)
}

#[tokio::test]
async fn a_leader_that_is_killed_while_sessions_are_opened_costs_none_and_opening_goes_on() -> Result<()> {
    let (mut site, rooms) = begin(2, 2).await?;
    let visits = site.visit(5.0, SHORT)?;
    visits.go_on(10).await?;
    for _ in 0..2 {
        let (first, epoch) = site.leader("").await?;
        site.kill(&first).await?;
        visits.go_on(10).await?;
        let (second, later) = site.leader(&first).await?;
        ensure!(later > epoch, "{second} leads with epoch {later} after {epoch}");
        site.restart(&first).await?;
    }
    visits.go_on(10).await?;
    site.check_rooms(rooms, visits, false).await?;
    Ok(())
}

#[tokio::test]
async fn connections_to_sessions_stay_up_while_the_process_of_their_worker_is_killed() -> Result<()> {
    let (mut site, rooms) = begin(1, 2).await?;
    let visits = stay(&site, 6).await?;
    for worker in ["w1", "w2"] {
        site.kill(worker).await?;
        site.until_worker("g1", worker, "lost").await?;
        site.restart(worker).await?;
        site.until_worker("g1", worker, "ready").await?;
        visits.go_on(2).await?;
    }
    site.check_rooms(rooms, visits, false).await?;
    Ok(())
}

#[tokio::test]
async fn a_host_that_is_cut_off_costs_the_sessions_it_had_and_others_take_the_next_ones() -> Result<()> {
    let (site, rooms) = begin(1, 2).await?;
    let visits = site.visit(0.4, LONG)?;
    visits.go_on(6).await?;
    let before = open(&site).await?;
    site.network().around("w1", Link::cut())?;
    site.until_worker("g1", "w1", "lost").await?;
    let ended = async {
        loop {
            let ended = before.difference(&open(&site).await?).count();
            if ended > 0 {
                return anyhow::Ok(ended);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let ended = tokio::time::timeout(PATIENCE, ended).await.context("no session of the lost host ends")??;
    // They are spread over both hosts.
    ensure!(ended < before.len(), "the sessions of both hosts have ended");
    visits.go_on(2).await?;
    site.until_standing(STANDING).await?;
    // What the host had runs on there, and is cleared away when it is back.
    site.network().heal();
    site.until_worker("g1", "w1", "ready").await?;
    visits.go_on(2).await?;
    let visited = site.check_rooms(rooms, visits, true).await?;
    ensure!(visited.ended.contains_key("WorkerLost"), "{:?}", visited.ended);
    Ok(())
}

#[tokio::test]
async fn after_a_restart_of_all_control_processes_every_application_and_session_is_there() -> Result<()> {
    let (mut site, rooms) = begin(2, 1).await?;
    let visits = stay(&site, 3).await?;
    // Two wait for what comes later only.
    let (lyra, client) = (site.commands(), site.client("g1")?);
    let manifest = std::fs::read_to_string(site.directory().join("rooms.yaml"))?;
    let later = manifest.replace("\"rooms\"", "\"later\"");
    std::fs::write(site.directory().join("later.yaml"), later)?;
    lyra.run(["app", "apply", "-f", "later.yaml"]).await?.ok()?;
    for name in ["one", "two"] {
        let mut object = ApplicationSession::default();
        (object.metadata.name, object.spec.application_name) = (name.to_owned(), "later".to_owned());
        object.spec.open_timeout_seconds = 600;
        client.create_object(&object).await?;
    }
    for control in ["c1", "c2"] {
        site.kill(control).await?;
    }
    for control in ["c1", "c2"] {
        site.restart(control).await?;
    }
    site.until_answered("g1").await?;
    for application in ["rooms", "later"] {
        client.object::<Application>(application).await?;
    }
    for name in ["one", "two"] {
        let status = client.object::<ApplicationSession>(name).await?.value.status.session_status;
        ensure!(matches!(status, SessionStatus::Unset | SessionStatus::Pending), "{name} is {status:?}");
    }
    visits.go_on(2).await?;
    lyra.run(["deploy", "rooms", "--name", "later", "--runtime", "http"]).await?.ok()?;
    for name in ["one", "two"] {
        let open =
            |of: Option<&ApplicationSession>| of.is_some_and(|of| of.status.session_status == SessionStatus::Available);
        let opened = client.wait_object::<ApplicationSession>(name, PATIENCE, open).await;
        opened.with_context(|| format!("{name} waited from before the restart"))?;
    }
    lyra.run(["app", "rm", "later", "--wait", "60s"]).await?.ok()?;
    site.check_rooms(rooms, visits, false).await?;
    Ok(())
}

#[tokio::test]
async fn messages_between_workers_and_control_that_are_late_or_lost_cost_no_session() -> Result<()> {
    let (mut site, rooms) = begin(2, 2).await?;
    let slow = Link { delay: Duration::from_millis(100), loss: 0.05, ..Link::default() };
    for worker in ["w1", "w2"] {
        for control in ["c1", "c2"] {
            site.network().between(worker, control, slow)?;
        }
    }
    let visits = site.visit(3.0, SHORT)?;
    visits.go_on(20).await?;
    // The former leader's commands may be on their way still when the next one's are.
    let (first, _) = site.leader("").await?;
    site.freeze(&first).await?;
    site.leader(&first).await?;
    visits.go_on(10).await?;
    site.thaw(&first).await?;
    visits.go_on(10).await?;
    site.network().heal();
    site.check_rooms(rooms, visits, false).await?;
    Ok(())
}
