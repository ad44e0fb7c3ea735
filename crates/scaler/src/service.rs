//! The scaler's turns: tell, look, decide, order.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use lyra_kit::{Clock, Random, Tasks, telemetry};
use lyra_types::api::{ScalerDecision, ScalerLook};
use lyra_types::{Code, Error, Result};
use lyra_wire::registry::MemberState;
use lyra_wire::scaler::{LEASES, Load, ScalerAnswer, ScalerReport, ScalerTurn};
use lyra_wire::{Control, Operated};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::Config;
use crate::backends::{self, Backend, BackendError, Surroundings};
use crate::decide::{Bounds, Decider, Direction, Sample, Seasons};
use crate::metrics::Metrics;
use crate::order::{Order, Orders};
use crate::waits::Waits;

/// Turns in the time of one lease.
const TURNS: u32 = 3;
/// Shortest lease: a control process may be a few seconds late.
const SHORTEST: Duration = Duration::from_secs(10);
/// Decisions that wait to be told; the oldest are forgotten beyond.
const UNTOLD: usize = 50;
/// Longest wait for the last word to control.
const LAST_WORD: Duration = Duration::from_secs(2);
/// Longest wait for workers to be taken back.
const LAST: Duration = Duration::from_secs(4);
/// How often what was learnt is written down.
const WRITE: Duration = Duration::from_secs(600);

/// How a worker of that name is reached at that address.
pub type Reach = Arc<dyn Fn(&str, &str) -> Result<Arc<dyn Operated>> + Send + Sync>;

/// What the scaler needs of others.
#[derive(Clone)]
pub struct Deps {
    /// Says who leads and what there is to do.
    pub control: Arc<dyn Control>,
    /// The way to workers.
    pub reach: Reach,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// Where metrics are registered.
    pub metrics: telemetry::Metrics,
    /// The scaler's name, for people and for its workers.
    pub name: String,
    /// Addresses of the control processes, for workers that are made here.
    pub controls: Vec<String>,
    /// Where it keeps what is its own.
    pub dir: PathBuf,
    /// This program, for workers that are made here.
    pub program: PathBuf,
}

/// The scaler.
pub struct Service {
    inner: Arc<Inner>,
    tasks: Tasks,
}

struct Inner {
    config: Config,
    deps: Deps,
    backend: Arc<dyn Backend>,
    metrics: Arc<Metrics>,
    orders: Orders,
    /// Tells this start from every other.
    process: u64,
    state: Mutex<State>,
}

/// What one turn leaves for the next.
struct State {
    decider: Decider,
    waits: Waits,
    report: Option<ScalerReport>,
    untold: Vec<ScalerDecision>,
    led: bool,
    /// Until when it leads by its own clock, counted from before it asked.
    leads_until: Instant,
    written: Instant,
    /// What the back end waits for was said.
    waiting: bool,
}

impl Service {
    /// Opens the back end; nothing is decided before [`Service::start`].
    ///
    /// # Errors
    /// [`Code::InvalidField`] for settings that can't work.
    pub fn new(config: Config, deps: Deps) -> BoxFuture<'static, Result<Service>> {
        Box::pin(async move {
            let refused = |reason: String| Error::field(Code::InvalidField, "scaler", reason);
            config.check().map_err(refused)?;
            let surroundings = Surroundings {
                program: deps.program.clone(),
                dir: deps.dir.clone(),
                name: deps.name.clone(),
                control: deps.controls.clone(),
                clock: deps.clock.clone(),
                random: deps.random.clone(),
            };
            let opened = backends::open(&config, surroundings).await;
            let backend = opened.map_err(|error| refused(error.to_string()))?;
            Ok(Service::with_backend(config, deps, backend).await)
        })
    }

    /// The same over a back end that is there.
    pub fn with_backend(config: Config, deps: Deps, backend: Arc<dyn Backend>) -> BoxFuture<'static, Service> {
        Box::pin(async move {
            let metrics = Arc::new(Metrics::new(&deps.metrics));
            let orders = Orders::new(Arc::clone(&backend), Arc::clone(&deps.reach), config.drain, Arc::clone(&metrics));
            let state = State {
                decider: Decider::new(config.clone(), read_seasons(&deps.dir).await),
                waits: Waits::default(),
                report: None,
                untold: Vec::new(),
                led: false,
                leads_until: deps.clock.instant(),
                written: deps.clock.instant(),
                waiting: false,
            };
            let process = deps.random.u64();
            let inner = Inner { config, deps, backend, metrics, orders, process, state: Mutex::new(state) };
            Service { inner: Arc::new(inner), tasks: Tasks::new() }
        })
    }

    /// Name of its back end.
    pub fn backend(&self) -> &'static str {
        self.inner.backend.name()
    }

    /// Begins to take turns.
    pub fn start(&self) {
        let (inner, stopping) = (Arc::clone(&self.inner), self.tasks.stopping());
        // Not dropped: workers that were being emptied are taken back first.
        self.tasks.spawn("scaler-orders", async move { inner.orders.carry_out(stopping).await });
        let inner = Arc::clone(&self.inner);
        // Each turn begins a while after the one before has ended, also after one that failed.
        self.tasks.spawn_cancellable("scaler-turns", async move {
            loop {
                inner.turn().await;
                inner.deps.clock.sleep(inner.config.every).await;
            }
        });
    }

    /// Gives up what is under way and the lead, and lets the back end end.
    pub fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.inner.orders.give_up();
            let leave = async {
                let turn = ScalerTurn { leaves: true, ..self.inner.saying() };
                if self.inner.state.lock().led
                    && let Err(error) = self.inner.deps.control.scaler_turn(turn).await
                {
                    tracing::debug!(%error, "another scaler leads when the lease is over");
                }
            };
            let _ = tokio::time::timeout(LAST_WORD, leave).await;
            self.tasks.stop(LAST).await;
            self.inner.write_seasons().await;
            self.inner.backend.close().await;
        })
    }
}

impl Inner {
    fn lease(&self) -> Duration {
        (self.config.every * TURNS).max(SHORTEST).clamp(LEASES.0, LEASES.1)
    }

    fn saying(&self) -> ScalerTurn {
        let state = self.state.lock();
        ScalerTurn {
            name: self.deps.name.clone(),
            process: self.process,
            lease: self.lease(),
            leaves: false,
            report: state.report.clone(),
            decided: state.untold.clone(),
        }
    }

    async fn turn(&self) {
        let asked = self.deps.clock.instant();
        let said = self.saying();
        let told = said.decided.len();
        let answer = self.deps.control.scaler_turn(said).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.metrics.leads.set(0);
                tracing::warn!(%error, "control can't be asked; the workers stay as they are");
                if !self.holds() {
                    self.orders.give_up();
                }
                return;
            }
        };
        {
            let mut state = self.state.lock();
            if answer.leads {
                state.leads_until = asked + self.lease();
                let told = told.min(state.untold.len());
                state.untold.drain(..told);
            }
            if state.led != answer.leads {
                let leader = answer.leader.as_deref().unwrap_or_default();
                tracing::info!(leads = answer.leads, leader, "who leads the scalers has changed");
                state.led = answer.leads;
            }
        }
        self.metrics.leads.set(i64::from(answer.leads));
        if !answer.leads {
            return self.orders.give_up();
        }
        self.lead(answer).await;
        if self.deps.clock.instant().duration_since(self.state.lock().written) >= WRITE {
            self.write_seasons().await;
        }
    }

    /// Whether the lease holds.
    fn holds(&self) -> bool {
        self.deps.clock.instant() < self.state.lock().leads_until
    }

    /// What the one that leads does.
    async fn lead(&self, answer: ScalerAnswer) {
        let current = match self.backend.current(&answer.load).await {
            Ok(current) => current,
            Err(error) => return self.fault(&error),
        };
        self.state.lock().waiting = false;
        let bounds = self.config.bounds().ordered(answer.orders.min, answer.orders.max);
        let workers = self.orders.pending().unwrap_or(current);
        let look = self.look(&answer.load, workers);
        self.show(&look);
        let desired = if answer.orders.paused {
            self.orders.give_up();
            current
        } else {
            self.decide(look, bounds, &answer.load, current)
        };
        self.metrics.desired.set(i64::from(desired));
        self.state.lock().report = Some(self.report(bounds, desired, look, self.orders.fault()));
    }

    /// Decides, and has it done; returns how many workers there shall be.
    fn decide(&self, look: ScalerLook, bounds: Bounds, load: &Load, current: u32) -> u32 {
        let sample = Sample { time: self.deps.clock.now(), look };
        let mut state = self.state.lock();
        let decision = state.decider.decide(sample, bounds);
        let (direction, reason) = (decision.direction(), decision.reason.as_str());
        self.metrics.decisions.with_label_values(&[direction.as_str(), reason]).inc();
        if direction == Direction::None {
            tracing::debug!(workers = look.workers, queued = look.queued, running = look.running, reason, "no change");
            return decision.to;
        }
        let dry_run = self.config.dry_run;
        tracing::info!(
            from = look.workers,
            to = decision.to,
            reason,
            dry_run,
            queued = look.queued,
            running = look.running,
            ready = look.ready,
            wait_ms = look.wait_ms,
            "decided"
        );
        state.untold.push(decision.told(dry_run));
        if state.untold.len() > UNTOLD {
            state.untold.remove(0);
        }
        drop(state);
        if !dry_run && self.holds() {
            self.orders.give(Order { from: current, to: decision.to, reason, load: load.clone() });
        }
        decision.to
    }

    fn look(&self, load: &Load, workers: u32) -> ScalerLook {
        let ready = || load.workers.iter().filter(|worker| worker.state == MemberState::Ready);
        // What is lost has nothing; what is cordoned has something to do still.
        let alive = || load.workers.iter().filter(|worker| worker.state != MemberState::Lost);
        let queued = load.queued + alive().map(|worker| worker.queued).sum::<u64>();
        let count = u32::try_from(ready().count()).unwrap_or(u32::MAX);
        let used: f64 = ready().map(|worker| worker.utilisation).sum();
        ScalerLook {
            queued,
            running: alive().map(|worker| worker.running).sum(),
            workers,
            ready: count,
            wait_ms: self.state.lock().waits.look(self.deps.clock.instant(), queued, load.ended),
            utilisation: if count == 0 { 0.0 } else { used / f64::from(count) },
        }
    }

    fn show(&self, look: &ScalerLook) {
        self.metrics.queued.set(i64::try_from(look.queued).unwrap_or(i64::MAX));
        self.metrics.workers.with_label_values(&["present"]).set(i64::from(look.workers));
        self.metrics.workers.with_label_values(&["ready"]).set(i64::from(look.ready));
    }

    fn report(&self, bounds: Bounds, desired: u32, look: ScalerLook, fault: Option<String>) -> ScalerReport {
        ScalerReport {
            mode: self.config.mode.as_str().to_owned(),
            backend: self.backend.name().to_owned(),
            dry_run: self.config.dry_run,
            min: bounds.min,
            max: bounds.max,
            desired,
            look,
            fault,
        }
    }

    /// The back end can't say how many workers there are: nothing is decided.
    fn fault(&self, error: &BackendError) {
        let (waits, reason) = (matches!(error, BackendError::NotReady(_)), error.to_string());
        let mut state = self.state.lock();
        match waits && std::mem::replace(&mut state.waiting, waits) {
            true => tracing::debug!(reason, "the back end is not ready"),
            false if waits => tracing::info!(reason, "the back end is not ready; it is asked again and again"),
            false => tracing::warn!(reason, "the back end can't be asked; the workers stay as they are"),
        }
        let (look, desired) = state.report.as_ref().map(|report| (report.look, report.desired)).unwrap_or_default();
        state.report = Some(self.report(self.config.bounds(), desired, look, Some(reason)));
    }

    async fn write_seasons(&self) {
        let seasons = {
            let mut state = self.state.lock();
            state.written = self.deps.clock.instant();
            state.decider.seasons().clone()
        };
        let dir = self.deps.dir.clone();
        let write = move || {
            std::fs::create_dir_all(&dir)?;
            let fresh = dir.join(format!("{SEASONS}.new"));
            std::fs::write(&fresh, serde_json::to_vec(&seasons).map_err(std::io::Error::other)?)?;
            std::fs::rename(fresh, dir.join(SEASONS))
        };
        if let Ok(Err(error)) = lyra_kit::tasks::blocking(write).await {
            tracing::warn!(%error, "what was learnt of the hours of the week can't be written down");
        }
    }
}

/// The file of what was learnt.
const SEASONS: &str = "seasons.json";

/// What was learnt before. A file that can't be read any more is as none.
async fn read_seasons(dir: &std::path::Path) -> Seasons {
    let path = dir.join(SEASONS);
    let read = lyra_kit::tasks::blocking(move || std::fs::read(path)).await;
    let bytes = read.ok().and_then(std::io::Result::ok).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}
