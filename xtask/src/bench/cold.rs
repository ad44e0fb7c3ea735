//! What both cold scenarios share: the first call of each of many versions that have no instance, each beside a warm
//! call on the same connection, and for the peers the time from starting the process to its first answer.

use std::time::Duration;

use hyper::Method;
use lyra_kit::Clock;

use super::client::{Answer, Client};
use super::process::Server;
use super::report::{Record, median, micros, percentile};

/// Starts of a peer.
const PEER_STARTS: usize = 10;
/// Warm calls before the first cold one.
const WARM_UP: usize = 200;

/// A call: method, path, body.
pub struct Call<'a> {
    /// Method.
    pub method: Method,
    /// Path.
    pub path: String,
    /// Body.
    pub body: &'a str,
}

impl Call<'_> {
    async fn send(&self, client: &mut Client) -> anyhow::Result<Answer> {
        client.send(self.method.clone(), &self.path, self.body.to_owned()).await?.ok()
    }
}

/// Calls each of `cold` once; between two of them, `warm`. `p50_us` and `p99_us` of the record are the *added* time:
/// what a first call took longer than the median warm one.
pub async fn first_calls(
    record: Record,
    server: &Server,
    warm: &Call<'_>,
    cold: &[Call<'_>],
    must_be_cold: bool,
) -> anyhow::Result<Record> {
    let mut client = Client::connect(server.address).await?;
    for _ in 0..WARM_UP {
        warm.send(&mut client).await?;
    }
    let (mut warm_us, mut first_us, mut start_us) = (Vec::new(), Vec::new(), Vec::new());
    for call in cold {
        warm_us.push(micros(warm.send(&mut client).await?.took));
        let answer = call.send(&mut client).await?;
        let start = answer.header("lyra-start");
        anyhow::ensure!(!must_be_cold || start == "cold", "the first call of {} says Lyra-Start: {start}", call.path);
        first_us.push(micros(answer.took));
        start_us.extend(answer.phase_us("start"));
    }
    let warm_p50 = median(warm_us);
    let added: Vec<f64> = first_us.iter().map(|us| us - warm_p50).collect();
    let memory = server.memory()?;
    let mut record = record
        .with("calls", cold.len())
        .with_number("warm_p50_us", warm_p50)
        .with_number("first_call_p50_us", median(first_us))
        .with_number("start_phase_p50_us", median(start_us.iter().copied()))
        .with_number("start_phase_p99_us", percentile(start_us, 0.99))
        .with_number("pss_mb", memory.pss_mb);
    record.p50_us = Some(median(added.iter().copied()));
    record.p99_us = Some(percentile(added, 0.99));
    record.rss_mb = Some(memory.rss_mb);
    Ok(record)
}

/// Starts a server again and again; the record has the time from before its process is made to its first answer.
pub async fn process_starts(
    record: Record,
    call: &Call<'_>,
    start: impl Fn() -> anyhow::Result<Server>,
) -> anyhow::Result<Record> {
    let mut took = Vec::new();
    let mut record = record.with("starts", PEER_STARTS);
    for _ in 0..PEER_STARTS {
        let began = Clock::system().instant();
        let server = start()?;
        let mut client = Client::connect(server.address).await?;
        call.send(&mut client).await?;
        took.push(micros(began.elapsed()));
        record.rss_mb = Some(server.memory()?.rss_mb);
        drop(server);
        Clock::system().sleep(Duration::from_millis(50)).await;
    }
    record.p50_us = Some(median(took.iter().copied()));
    record.p99_us = Some(percentile(took, 0.99));
    Ok(record)
}

/// Adds to each of Lyra's records how many times less it takes than the peer.
pub fn against(records: Vec<Record>, peer: &Record) -> Vec<Record> {
    let theirs = peer.p50_us.unwrap_or(0.0);
    let compare = |record: Record| {
        let ours = record.p50_us.unwrap_or(f64::NAN);
        record.against(&peer.system, "p50", theirs / ours)
    };
    records.into_iter().map(compare).collect()
}
