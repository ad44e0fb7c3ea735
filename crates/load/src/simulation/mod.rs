//! Runs a trace through the real worker under virtual time.
//!
//! One thread, tokio's paused clock, the kit's virtual wall clock and seeded randomness: between two events no time
//! passes for real, and the order of events depends on nothing but the trace, the policy and the seed. The clock
//! ticks in milliseconds, so nothing shorter is seen.

mod policy;
pub(crate) mod surroundings;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lyra_isolation::simulated::Simulated;
use lyra_kit::{Clock, Ids, Random, Tasks, telemetry};
use lyra_types::function::limit;
use lyra_types::{Error as LyraError, FunctionName, FunctionVersion, InvocationId, Runtime, TenantName, Timestamp};
use lyra_wire::worker::{Call, Prepare};
use lyra_wire::{Operated, Worker};
use lyra_worker::{Deps, Service};
use parking_lot::Mutex;
use tokio::time::Instant;

pub use policy::Policy;

use crate::Error;
use crate::report::{Records, Report};
use crate::trace::{Arrival, Function, Trace};
use surroundings::{Blobs, Logs};

/// What a simulated worker is like, apart from its policies.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// Memory for instances, in MiB.
    pub memory_mb: u64,
    /// Calls that run at once.
    pub max_running: usize,
    /// The same seed gives the same report.
    pub seed: u64,
}

impl Default for Machine {
    fn default() -> Machine {
        Machine { memory_mb: 16 << 10, max_running: 1_000, seed: 1 }
    }
}

/// Longest time that calls are waited for after the last one came; more than any of them may take.
const LAST_CALLS: Duration = Duration::from_secs(2 * 3_600);
/// When simulated days begin: 1 January 2026, so that reports and ids do not depend on today.
const BEGIN: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// Runs the trace and reports.
///
/// # Errors
/// When a function of the trace can't be deployed.
pub fn simulate(trace: &Trace, machine: &Machine, policy: &Policy) -> Result<Report, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.map_err(|error| Error::Runtime(error.to_string()))?;
    runtime.block_on(run(trace, machine, policy))
}

struct World {
    worker: Service,
    backend: Arc<Simulated>,
    clock: Clock,
}

impl World {
    fn new(machine: &Machine, policy: &Policy) -> World {
        let clock = Clock::simulated(BEGIN);
        let random = Random::seeded(machine.seed);
        let backend = Arc::new(Simulated::new(clock.clone(), random.clone()));
        let config = policy.config(machine);
        let deps = Deps {
            backends: vec![backend.clone()],
            blobs: Arc::new(Blobs),
            logs: Arc::new(Logs),
            ids: Ids::new(clock.clone(), random),
            clock: clock.clone(),
            metrics: telemetry::Metrics::new(),
        };
        World { worker: Service::new(config, deps), backend, clock }
    }

    async fn deploy(&self, number: u64, function: &Function) -> Result<Arc<FunctionVersion>, Error> {
        let refused = |source| Error::Refused { name: function.name.clone(), source };
        let code = format!(
            r#"{{"start_ms":{},"exec_ms":{},"memory_mb":{}}}"#,
            function.start_ms.round(),
            function.exec_ms.round(),
            function.memory_mb
        );
        let code = Bytes::from(code);
        let version = version(number, function, &code).map_err(refused)?;
        self.worker.prepare(Prepare::of(&version, code)).await.map_err(refused)?;
        Ok(Arc::new(version))
    }
}

pub(crate) fn version(number: u64, function: &Function, code: &Bytes) -> Result<FunctionVersion, LyraError> {
    Ok(FunctionVersion {
        // Names in traces follow no rule, and nothing but what tells them apart matters here.
        tenant: TenantName::new(&tenant_name(&function.tenant))?,
        generation: number,
        code_size: code.len() as u64,
        memory_mb: function.memory_mb.max(1),
        timeout_ms: limit::MAX_TIMEOUT_MS,
        max_instances: 0,
        max_attempts: 1,
        created_at: BEGIN,
        ..FunctionVersion::new(
            FunctionName::new(&format!("f{number}"))?,
            Runtime::Simulated,
            lyra_store::blobs::digest(code),
        )
    })
}

/// A valid name for an owner, the same for the same owner.
fn tenant_name(owner: &str) -> String {
    format!("t{}", &lyra_store::blobs::digest(owner.as_bytes()).0[..16])
}

async fn run(trace: &Trace, machine: &Machine, policy: &Policy) -> Result<Report, Error> {
    let world = World::new(machine, policy);
    let mut versions = Vec::with_capacity(trace.functions.len());
    for (number, function) in (1u64..).zip(&trace.functions) {
        versions.push(world.deploy(number, function).await?);
    }
    world.worker.start();
    let records = Arc::new(Mutex::new(Records::new(trace.functions.len(), trace.arrivals.len())));
    let calls = Tasks::new();
    let began = world.clock.instant();
    for (number, arrival) in (1u64..).zip(&trace.arrivals) {
        let due = began + Duration::from_millis(arrival.at_ms);
        let wait = due - world.clock.instant();
        if !wait.is_zero() {
            world.clock.sleep(wait).await;
        }
        let request = request(number, arrival, &versions[arrival.function as usize]);
        let (worker, clock, records, arrival) = (world.worker.clone(), world.clock.clone(), records.clone(), *arrival);
        calls.spawn("simulated-call", async move {
            let reply = worker.invoke(request).await;
            let latency = clock.instant() - due;
            records.lock().add(&arrival, &reply, latency);
        });
    }
    if !calls.stop(LAST_CALLS).await {
        return Err(Error::Runtime("calls did not end".to_owned()));
    }
    let length = elapsed(began, &world.clock);
    let figures = world.backend.figures();
    let drained = world.worker.drain(Duration::from_secs(1)).await;
    drained.map_err(|error| Error::Runtime(error.to_string()))?;
    let records = std::mem::take(&mut *records.lock());
    Ok(records.report(policy, machine, length, figures))
}

fn elapsed(began: Instant, clock: &Clock) -> Duration {
    clock.instant() - began
}

fn request(number: u64, arrival: &Arrival, version: &Arc<FunctionVersion>) -> Call {
    let now = u64::try_from(BEGIN.millis()).unwrap_or(0) + arrival.at_ms;
    Call {
        id: InvocationId::from_parts(now, u128::from(number)),
        version: version.clone(),
        event: Bytes::from(format!(r#"{{"exec_ms":{}}}"#, arrival.exec_ms)),
        timeout: None,
        account: Default::default(),
        trace: None,
    }
}
