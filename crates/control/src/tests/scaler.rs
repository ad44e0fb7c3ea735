//! Scalers: which one leads, what operators ask for, and what is remembered.

use std::time::Duration;

use lyra_types::Timestamp;
use lyra_types::api::{ScalerChange, ScalerDecision, ScalerLook};
use lyra_wire::Control;
use lyra_wire::scaler::{ScalerAnswer, ScalerTurn};
use tempfile::tempdir;

use super::{Site, start_of_time};
use crate::Config;

fn turn(process: u64, decided: Vec<ScalerDecision>) -> ScalerTurn {
    let lease = Duration::from_secs(15);
    ScalerTurn { name: format!("s{process}"), process, lease, leaves: false, report: None, decided }
}

fn decision(time: Timestamp, from: u32, to: u32) -> ScalerDecision {
    let (direction, reason) = ("up".to_owned(), "queue".to_owned());
    ScalerDecision { time, direction, reason, from, to, look: ScalerLook::default(), dry_run: false }
}

impl Site {
    async fn turn(&self, turn: ScalerTurn) -> ScalerAnswer {
        self.service.scaler_turn(turn).await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn one_scaler_leads_until_its_lease_is_over() {
    let dir = tempdir().unwrap();
    let site = Site::start(dir.path(), Config::default()).await;
    assert!(site.turn(turn(1, Vec::new())).await.leads);
    let other = site.turn(turn(2, Vec::new())).await;
    assert_eq!((other.leads, other.leader.as_deref()), (false, Some("s1")));
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(site.turn(turn(1, Vec::new())).await.leads, "each turn renews the lease");
        assert!(!site.turn(turn(2, Vec::new())).await.leads);
    }
    tokio::time::sleep(Duration::from_secs(16)).await;
    assert!(site.service.scaler().await.unwrap().leader.is_none(), "nobody was heard of for a lease");
    assert!(site.turn(turn(2, Vec::new())).await.leads);
    assert!(!site.turn(turn(1, Vec::new())).await.leads, "who comes back stands by");
    assert!(!site.turn(ScalerTurn { leaves: true, ..turn(2, Vec::new()) }).await.leads);
    assert!(site.turn(turn(1, Vec::new())).await.leads, "who ends makes room at once");
}

#[tokio::test(start_paused = true)]
async fn what_was_decided_and_ordered_is_there_after_a_restart() {
    let dir = tempdir().unwrap();
    let site = Site::start(dir.path(), Config::default()).await;
    let (first, second) = (decision(start_of_time(), 1, 2), decision(start_of_time() + Duration::from_secs(5), 2, 4));
    site.turn(turn(1, vec![first.clone()])).await;
    // A turn whose answer was lost tells the same again.
    site.turn(turn(1, vec![first.clone(), second.clone()])).await;
    site.turn(turn(2, vec![decision(start_of_time(), 7, 9)])).await;
    let change = ScalerChange { min: Some(2), max: Some(8), paused: Some(true) };
    site.service.steer_scaler(change).await.unwrap();
    site.service.stop().await;
    drop(site);
    let site = Site::start(dir.path(), Config::default()).await;
    let status = site.service.scaler().await.unwrap();
    assert_eq!(status.history, [second, first], "only what the one that leads has decided, newest first");
    let orders = site.turn(turn(1, Vec::new())).await.orders;
    assert_eq!((orders.min, orders.max, orders.paused), (Some(2), Some(8), true));
}

#[tokio::test(start_paused = true)]
async fn the_load_is_what_waits_and_runs() {
    let dir = tempdir().unwrap();
    let site = Site::start(dir.path(), Config::default()).await;
    site.deploy("f", |_| {}).await;
    let id = site.submit("f", "ok").await;
    site.service.job(&super::tenant(), id, Duration::from_secs(60)).await.unwrap();
    let load = site.turn(turn(1, Vec::new())).await.load;
    assert_eq!((load.queued, load.ended), (0, 1));
}
