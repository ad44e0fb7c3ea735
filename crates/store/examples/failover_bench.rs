//! How long an office stays empty when the one that holds it is killed, and what a transaction and an accepted change cost.
//!
//! `cargo run --release -p lyra-store --example failover_bench etcd://HOST:PORT [ROUNDS]`
#![expect(clippy::print_stdout, reason = "it prints its measurements")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lyra_kit::Clock;
use lyra_store::objects::{Change, Election, Txn};
use lyra_store::{Access, open_objects};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let address = args.next().ok_or("name an etcd")?;
    let rounds: usize = args.next().map_or(Ok(10), |text| text.parse())?;
    let (clock, objects) = (Clock::system(), open_objects(&address, &Access::default()).await?);
    let mut times = Vec::new();
    for n in 0..500 {
        let start = clock.instant();
        let changes = vec![Change::Put("bench/key".into(), Bytes::from(n.to_string()))];
        objects.txn(Txn { checks: Vec::new(), changes }).await?;
        times.push(start.elapsed());
    }
    show("transaction", times);
    let election = Election::new(Arc::clone(&objects), "bench/leader", Duration::from_secs(2));
    let mut times = Vec::new();
    let mut leader = election.campaign(Bytes::from_static(b"leader")).await?;
    for round in 0..rounds {
        // Somewhere between two renewals.
        clock.sleep(Duration::from_millis(1_000 + 137 * round as u64 % 500)).await;
        let start = clock.instant();
        // Not renewed any more and not given up: as a process that is killed.
        drop(leader);
        leader = election.campaign(Bytes::from_static(b"standby")).await?;
        times.push(start.elapsed());
    }
    leader.resign().await?;
    show("failover", times);
    Ok(())
}

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_secs_f64() * 1_000.0;
    println!("{what:>12}: p50 {:.2} ms, p99 {:.2} ms, most {:.2} ms", at(50), at(99), at(100));
}
