//! What the worker itself costs: calls of simulated functions that take no time at all, in this process, from
//! `Worker::invoke` to its answer, by so many clients that each send the next call when the answer is there.
//!
//! Beside it the floor: the same loop around a worker that only answers, so that what the measuring costs is known.
//! Over RPC, both are served on a runtime of their own and called over a connection of this machine, so that the floor is
//! a bare server of the same transport.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_isolation::simulated::Simulated;
use lyra_kit::{Clock, Ids, Random, telemetry};
use lyra_types::function::Contract;
use lyra_types::invocation::Report;
use lyra_types::{Error as LyraError, FunctionVersion, InvocationId};
use lyra_wire::Worker;
use lyra_wire::worker::{Call, Drained, Health, HttpCall, HttpReply, InstanceStatus, Prepare, Prepared, Reply, Status};
use lyra_worker::{Config, Deps, Service};
use serde::Serialize;

use crate::Error;
use crate::latency::Latencies;
use crate::served::Served;
use crate::simulation::surroundings::{Blobs, Logs};
use crate::simulation::version;
use crate::trace::Function;

/// What was measured with one number of clients.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Overhead {
    /// `worker`, or `floor`.
    pub system: &'static str,
    /// Clients.
    pub clients: usize,
    /// Calls.
    pub calls: u64,
    /// Calls a second, of all clients together.
    pub rps: f64,
    /// Median, in µs.
    pub p50_us: f64,
    /// 99th percentile, in µs.
    pub p99_us: f64,
    /// 99.9th percentile, in µs.
    pub p999_us: f64,
}

/// How the worker is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// By a call of a method.
    InProcess,
    /// Over gRPC, on a connection of this machine.
    Rpc,
}

/// Measures worker and floor with each number of clients for so long. Run it on the runtime that is of interest.
///
/// # Errors
/// When a call fails.
pub async fn measure(clients: &[usize], duration: Duration, reach: Reach) -> Result<Vec<Overhead>, Error> {
    let clock = Clock::system();
    let function =
        Function { name: "no-op".to_owned(), tenant: "default".to_owned(), start_ms: 0.0, exec_ms: 0.0, memory_mb: 16 };
    let code = Bytes::from_static(b"{}");
    let refused = |source| Error::Refused { name: "no-op".to_owned(), source };
    let version = Arc::new(version(1, &function, &code).map_err(refused)?);
    let worker = service(&clock);
    worker.prepare(Prepare::of(&version, code)).await.map_err(refused)?;
    let (worker, floor): (Arc<dyn Worker>, Arc<dyn Worker>) = (Arc::new(worker), Arc::new(Floor));
    let served = match reach {
        Reach::InProcess => Vec::new(),
        Reach::Rpc => vec![Served::start(worker.clone())?, Served::start(floor.clone())?],
    };
    let systems = match served.as_slice() {
        [far_worker, far_floor] => [("worker", far_worker.client(&clock)?), ("floor", far_floor.client(&clock)?)],
        _ => [("worker", worker), ("floor", floor)],
    };
    let mut all = Vec::new();
    for clients in clients {
        for (system, worker) in &systems {
            // A short round first: code and instances are there when it counts.
            round(worker, &version, *clients, &clock, duration / 10).await?;
            let latencies = round(worker, &version, *clients, &clock, duration).await?;
            all.push(Overhead {
                system,
                clients: *clients,
                calls: latencies.count(),
                rps: latencies.count() as f64 / duration.as_secs_f64(),
                p50_us: latencies.us(0.5),
                p99_us: latencies.us(0.99),
                p999_us: latencies.us(0.999),
            });
        }
    }
    Ok(all)
}

fn service(clock: &Clock) -> Service {
    let random = Random::system();
    let deps = Deps {
        backends: vec![Arc::new(Simulated::new(clock.clone(), random.clone()))],
        blobs: Arc::new(Blobs),
        logs: Arc::new(Logs),
        clock: clock.clone(),
        ids: Ids::new(clock.clone(), random),
        metrics: telemetry::Metrics::new(),
    };
    Service::new(Config::default(), deps)
}

async fn round(
    worker: &Arc<dyn Worker>,
    version: &Arc<FunctionVersion>,
    clients: usize,
    clock: &Clock,
    duration: Duration,
) -> Result<Latencies, Error> {
    let until = clock.instant() + duration;
    let clients: Vec<_> = (0..clients)
        .map(|client| {
            let (worker, version, clock) = (worker.clone(), version.clone(), clock.clone());
            lyra_kit::tasks::spawn("overhead-client", async move {
                let mut latencies = Latencies::new();
                let mut began = clock.instant();
                let mut number = (client as u128) << 64;
                while began < until {
                    number += 1;
                    let event = Bytes::from_static(b"{}");
                    let id = InvocationId::from_parts(0, number);
                    let reply = worker.invoke(Call { id, version: version.clone(), event, timeout: None }).await;
                    reply.outcome?;
                    latencies.add(clock.instant() - began);
                    // Else a client would keep its thread until the end, and the others would never run.
                    tokio::task::yield_now().await;
                    began = clock.instant();
                }
                Ok::<_, LyraError>(latencies)
            })
        })
        .collect();
    let mut all = Latencies::new();
    for client in clients {
        let ended = client.await.map_err(|error| Error::Runtime(error.to_string()))?;
        all.merge(&ended.map_err(|error| Error::Runtime(error.to_string()))?);
    }
    Ok(all)
}

/// A worker that only answers.
struct Floor;

#[async_trait]
impl Worker for Floor {
    async fn prepare(&self, _: Prepare) -> Result<Prepared, LyraError> {
        Ok(Prepared { contract: Contract::Handler })
    }
    async fn prewarm(&self, _: Arc<FunctionVersion>, _: u32) -> Result<(), LyraError> {
        Ok(())
    }
    async fn forget(&self, _: u64, _: Option<u64>) -> Result<(), LyraError> {
        Ok(())
    }
    async fn invoke(&self, call: Call) -> Reply {
        let report = Report::new(call.id, call.version.version);
        Reply { report, outcome: Ok(Bytes::from_static(b"null")) }
    }
    async fn serve(&self, call: HttpCall) -> HttpReply {
        let report = Report::new(call.id, call.version.version);
        HttpReply { report, outcome: Err(LyraError::internal("the floor answers calls only")) }
    }
    async fn status(&self) -> Result<Status, LyraError> {
        Ok(Status::default())
    }
    async fn instances(&self) -> Result<Vec<InstanceStatus>, LyraError> {
        Ok(Vec::new())
    }
    async fn health(&self) -> Result<Health, LyraError> {
        Ok(Health::default())
    }
    async fn cordon(&self) -> Result<(), LyraError> {
        Ok(())
    }
    async fn uncordon(&self) -> Result<(), LyraError> {
        Ok(())
    }
    async fn drain(&self, _: Duration) -> Result<Drained, LyraError> {
        Ok(Drained::default())
    }
    async fn clean(&self) -> Result<usize, LyraError> {
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn measures_worker_and_floor() {
        for reach in [Reach::InProcess, Reach::Rpc] {
            let all = measure(&[2], Duration::from_millis(50), reach).await.expect("measures");
            assert_eq!(all.iter().map(|one| one.system).collect::<Vec<_>>(), ["worker", "floor"]);
            assert!(all.iter().all(|one| one.calls > 0 && one.p99_us >= one.p50_us));
        }
    }
}
