//! A site of many simulated workers in this process, and what a control process takes to keep it: how long it is from a
//! deploy to each of the instances that it asks for, and from a request for a session until it is available.
//!
//! Every worker is the real one over the back end `simulated`, serves gRPC on a port of its own, and talks with control as
//! it would from a machine of its own. What runs here is not what is measured: that is control, a process apart, whose
//! processor time and memory are for the caller to read at the end of each [`Phase`].

mod sessions;
mod starts;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use lyra_kit::Clock;
use lyra_types::api::{CodeInput, DeployRequest};
use lyra_types::{FunctionName, TenantName};
use lyra_wire::Control;
use lyra_wire::control::Precondition;
use lyra_wire::grpc::{RemoteControl, Security};
use serde::Serialize;

use crate::Error;
use crate::latency::Latencies;
use sessions::Sessions;
use starts::Starts;
use worker::SimulatedWorker;

/// Deploys that wait for their instances at once while the site is filled.
const FILLERS: usize = 16;
/// Longest wait for the instances of one deploy.
const PLACED: Duration = Duration::from_secs(120);

/// What to measure.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Addresses of the control processes, `HOST:PORT`.
    pub control: Vec<String>,
    /// An empty directory, for what workers remember of themselves.
    pub directory: PathBuf,
    /// Workers.
    pub workers: usize,
    /// Instances that stand when the placing begins; 0: none are placed.
    pub instances: usize,
    /// Instances of each function.
    pub each: u32,
    /// Sessions that are open when further ones are opened; 0: none are opened.
    pub sessions: usize,
    /// Instances placed, and then sessions opened, in a second; as many end.
    pub rate: f64,
    /// How long each of these goes on.
    pub duration: Duration,
}

/// A part of the measurement, when it has ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Phase {
    /// `joined`; `filled`, `idle`, `placed` of instances; `opened`, `held`, `turned` of sessions.
    pub phase: &'static str,
    /// How long it took.
    pub seconds: f64,
    /// Instances of functions that stand.
    pub instances: usize,
    /// Sessions that are open.
    pub sessions: usize,
    /// Instances that were started, or sessions that were opened, in it.
    pub started: u64,
    /// From the deploy to the start of an instance that it asks for, or from the request for a session until it was available,
    /// in µs: the middle one.
    pub p50_us: f64,
    /// The 99th of a hundred.
    pub p99_us: f64,
    /// The longest.
    pub longest_us: f64,
}

/// The workers, and the functions on them.
struct Site {
    control: RemoteControl,
    workers: Vec<SimulatedWorker>,
    starts: Arc<Starts>,
    clock: Clock,
    tenant: TenantName,
    each: u32,
}

/// Starts the workers, fills them, lets them be for a while, then places instances at the rate; the same with sessions. Tells
/// each phase when it has ended.
///
/// # Errors
/// When control can't be reached, refuses a deploy, or an instance does not come up.
pub async fn measure(settings: &Settings, tell: impl Fn(Phase)) -> Result<(), Error> {
    if settings.workers == 0 || settings.each == 0 || settings.rate.is_nan() || settings.rate <= 0.0 {
        return Err(Error::Setting("workers, instances of a function, and the rate are above 0".to_owned()));
    }
    let clock = Clock::system();
    let began = clock.instant();
    let starts = Arc::new(Starts::new(clock.clone()));
    let control = RemoteControl::new(&settings.control, &Security::Plain).map_err(failed)?;
    let mut workers = Vec::with_capacity(settings.workers);
    for number in 1..=settings.workers {
        workers.push(SimulatedWorker::start(number, &settings.control, &settings.directory, &starts, &clock).await?);
    }
    worker::all_known(&settings.control, settings.workers).await?;
    let site = Site { control, workers, starts, clock, tenant: TenantName::default_tenant(), each: settings.each };
    tell(site.phase("joined", began.elapsed(), &Latencies::new()));

    if settings.instances > 0 {
        site.place_instances(settings, &tell).await?;
    }
    if settings.sessions > 0 {
        site.hold_sessions(settings, &tell).await?;
    }
    for worker in &site.workers {
        worker.stop().await;
    }
    Ok(())
}

fn failed(error: lyra_types::Error) -> Error {
    Error::Runtime(error.to_string())
}

impl Site {
    async fn place_instances(&self, settings: &Settings, tell: &impl Fn(Phase)) -> Result<(), Error> {
        let functions = settings.instances.div_ceil(settings.each as usize);
        let (began, filled) = (self.clock.instant(), self.fill(functions).await?);
        tell(self.phase("filled", began.elapsed(), &filled));
        let began = self.clock.instant();
        self.clock.sleep(settings.duration).await;
        tell(self.phase("idle", began.elapsed(), &Latencies::new()));
        let (began, placed) = (self.clock.instant(), self.churn(functions, settings).await?);
        tell(self.phase("placed", began.elapsed(), &placed));
        Ok(())
    }

    async fn hold_sessions(&self, settings: &Settings, tell: &impl Fn(Phase)) -> Result<(), Error> {
        let Settings { sessions: count, rate, duration, .. } = *settings;
        let sessions = Sessions::new(&self.control, &self.clock, count).await?;
        let (began, opened) = (self.clock.instant(), sessions.fill(count).await?);
        let with_sessions = |phase| Phase { sessions: count, ..phase };
        tell(with_sessions(self.phase("opened", began.elapsed(), &opened)));
        let began = self.clock.instant();
        self.clock.sleep(duration).await;
        tell(with_sessions(self.phase("held", began.elapsed(), &Latencies::new())));
        let (began, turned) = (self.clock.instant(), sessions.turn_over(count, rate, duration).await?);
        tell(with_sessions(self.phase("turned", began.elapsed(), &turned)));
        Ok(())
    }

    /// Deploys so many functions and waits for their instances.
    async fn fill(&self, functions: usize) -> Result<Latencies, Error> {
        let deploys = stream::iter(0..functions).map(|number| self.place(number)).buffer_unordered(FILLERS);
        let add = |mut all: Latencies, one: Latencies| async move {
            all.merge(&one);
            Ok(all)
        };
        deploys.try_fold(Latencies::new(), add).await
    }

    /// Deploys further functions at the rate and deletes as many of the first ones.
    async fn churn(&self, functions: usize, settings: &Settings) -> Result<Latencies, Error> {
        let gap = Duration::from_secs_f64(f64::from(self.each) / settings.rate);
        let deploys = (settings.duration.as_secs_f64() / gap.as_secs_f64()).ceil() as usize;
        let begin = self.clock.instant();
        let one = |number: usize| async move {
            let due = begin + gap.mul_f64(number as f64);
            self.clock.sleep(due.saturating_duration_since(self.clock.instant())).await;
            let placed = self.place(functions + number).await?;
            self.control.delete_function(&self.tenant, &name(number)?).await.map_err(failed)?;
            Ok::<_, Error>(placed)
        };
        let mut all = Latencies::new();
        for placed in futures::future::try_join_all((0..deploys).map(one)).await? {
            all.merge(&placed);
        }
        Ok(all)
    }

    /// Deploys a function and waits for its instances; how long each took.
    async fn place(&self, number: usize) -> Result<Latencies, Error> {
        let request = DeployRequest {
            runtime: "simulated".to_owned(),
            code: CodeInput { source: Some(worker::CODE.to_owned()), ..CodeInput::default() },
            min_instances: Some(self.each),
            max_instances: Some(self.each),
            memory_mb: Some(16),
            ..DeployRequest::default()
        };
        let name = name(number)?;
        let begin = self.clock.instant();
        let deployed = self.control.deploy(&self.tenant, &name, request, Precondition::None).await.map_err(failed)?;
        let started = self.starts.of(deployed.value.route.generation, self.each as usize);
        let started = tokio::time::timeout(PLACED, started).await.map_err(|_| {
            Error::Runtime(format!("the {} instances of {name} are not there after {PLACED:?}", self.each))
        })?;
        let mut latencies = Latencies::new();
        for at in started {
            latencies.add(at.saturating_duration_since(begin));
        }
        Ok(latencies)
    }

    fn phase(&self, phase: &'static str, took: Duration, latencies: &Latencies) -> Phase {
        let us = |share| if latencies.count() == 0 { 0.0 } else { latencies.us(share) };
        Phase {
            phase,
            seconds: took.as_secs_f64(),
            instances: self.workers.iter().map(SimulatedWorker::instances).sum(),
            sessions: 0,
            started: latencies.count(),
            p50_us: us(0.5),
            p99_us: us(0.99),
            longest_us: us(1.0),
        }
    }
}

fn name(number: usize) -> Result<FunctionName, Error> {
    FunctionName::new(&format!("site-{number}")).map_err(failed)
}
