//! Simulated functions in memory, and their instances.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_kit::{Clock, Random};
use lyra_types::error::Thrown;
use lyra_types::function::Contract;
use lyra_types::log::Level;
use lyra_types::{Code, Error, FunctionVersion, InstanceId};
use tokio::time::Instant;

use super::hosted::{HostedSimulation, Left};
use super::ledger::{Ledger, Share};
use super::parameters::{Answer, Overrides, Parameters, fixed};
use crate::{Body, CallContext, Grant, Hosted, Hosting, Sandbox, Served, Template, Usage, remaining};

/// A function, ready to be started.
pub(super) struct Function {
    pub(super) parameters: Arc<Parameters>,
    pub(super) ledger: Ledger,
    pub(super) clock: Clock,
    pub(super) random: Random,
    pub(super) left: Arc<Left>,
}

#[async_trait]
impl Template for Function {
    fn contract(&self) -> Contract {
        Contract::Handler
    }

    fn weight(&self) -> usize {
        size_of::<Parameters>() + self.parameters.fixed.len()
    }

    async fn start(&self, _id: InstanceId, _version: &Arc<FunctionVersion>) -> Result<Box<dyn Sandbox>, Error> {
        let share = self.begin().await?;
        Ok(Box::new(Instance {
            parameters: self.parameters.clone(),
            share,
            clock: self.clock.clone(),
            random: self.random.clone(),
            calls: 0,
            busy: Duration::ZERO,
            state: State::Well,
        }))
    }

    async fn host(
        &self,
        id: InstanceId,
        _version: &Arc<FunctionVersion>,
        _grant: &Grant,
        hosting: Hosting,
    ) -> Result<Box<dyn Hosted>, Error> {
        let share = self.begin().await?;
        let (parameters, left) = (Arc::clone(&self.parameters), Arc::clone(&self.left));
        let kit = (self.clock.clone(), self.random.clone());
        Ok(Box::new(HostedSimulation::new(id, hosting, parameters, share, kit, left)))
    }
}

impl Function {
    /// What a start takes.
    async fn begin(&self) -> Result<Share, Error> {
        let parameters = &self.parameters;
        let share = self.ledger.start(parameters.memory_mb);
        let takes = parameters.start_ms.duration(&self.random);
        if !takes.is_zero() {
            self.clock.sleep(takes).await;
        }
        if happens(parameters.start_failure_rate, &self.random) {
            return Err(Error::new(Code::InstanceCrashed, "the instance did not start, as simulated"));
        }
        Ok(share)
    }
}

/// Draws whether something of this rate happens; draws nothing for never and always.
fn happens(rate: f64, random: &Random) -> bool {
    rate >= 1.0 || (rate > 0.0 && random.unit() < rate)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Well,
    /// Fails its next probe.
    Sick,
    /// Takes no more calls.
    Dead,
}

/// One simulated instance.
struct Instance {
    parameters: Arc<Parameters>,
    share: Share,
    clock: Clock,
    random: Random,
    calls: u64,
    busy: Duration,
    state: State,
}

impl Instance {
    /// Runs one call; leaves in `after` what the instance is then.
    async fn run(&mut self, context: &CallContext, event: Bytes, after: &mut State) -> Result<Bytes, Error> {
        let overrides = Overrides::of(&event)?.unwrap_or_default();
        let (parameters, random) = (&*self.parameters, &self.random);
        let limit = context.version.memory_mb;
        if overrides.memory_mb.is_some_and(|memory| memory > limit) {
            *after = State::Dead;
            let detail = format!("the function needs more than its {limit} MiB of memory, as simulated");
            return Err(Error::new(Code::OutOfMemory, detail));
        }
        self.share.resize(overrides.memory_mb.unwrap_or(0).max(self.share.memory_mb()));
        let lines = overrides.log_lines.unwrap_or(parameters.log_lines);
        for line in 1..=lines {
            context.logs.line(Level::Info, &format!("simulated line {line} of {lines}"));
        }
        let mut takes = overrides.exec_ms.unwrap_or(parameters.exec_ms).duration(random);
        let crashes = happens(overrides.crash_rate.unwrap_or(parameters.crash_rate), random);
        if crashes {
            takes = takes.mul_f64(random.unit());
        }
        let in_time = spend(&self.clock, takes, context.deadline).await;
        self.busy += takes.min(context.version.timeout());
        if !in_time || crashes {
            *after = State::Dead;
            return Err(ended_early(in_time, context));
        }
        if happens(overrides.sick_rate.unwrap_or(parameters.sick_rate), random) {
            *after = State::Sick;
        }
        if happens(overrides.failure_rate.unwrap_or(parameters.failure_rate), random) {
            let message = "failed as simulated".to_owned();
            return Err(Error::thrown(Thrown { name: "SimulatedError".into(), message, stack: String::new() }));
        }
        let result = match overrides.answer.unwrap_or(parameters.answer) {
            Answer::Event => event,
            Answer::Calls => self.calls.to_string().into(),
            Answer::Result if overrides.result.is_some() || overrides.result_bytes.is_some() => {
                fixed(overrides.result, overrides.result_bytes)
            }
            Answer::Result => parameters.fixed.clone(),
        };
        if result.len() > context.max_result {
            let detail = format!("the result has more than {} bytes, the limit for results", context.max_result);
            return Err(Error::new(Code::ResultTooLarge, detail));
        }
        Ok(result)
    }
}

/// Spends the time of one call; false when its deadline comes first.
async fn spend(clock: &Clock, takes: Duration, deadline: Instant) -> bool {
    if takes.is_zero() {
        return true;
    }
    let left = remaining(deadline, clock.instant());
    clock.sleep(takes.min(left)).await;
    takes < left
}

fn ended_early(in_time: bool, context: &CallContext) -> Error {
    if in_time {
        return Error::new(Code::InstanceCrashed, "the instance crashed, as simulated");
    }
    let detail = format!("the function did not end within {} ms", context.version.timeout_ms);
    Error::new(Code::Timeout, detail)
}

#[async_trait]
impl Sandbox for Instance {
    async fn call(&mut self, context: CallContext, event: Bytes) -> Result<Bytes, Error> {
        // A call that is given up leaves the instance in the middle of something.
        let mut after = std::mem::replace(&mut self.state, State::Dead);
        if after == State::Dead {
            return Err(Error::new(Code::InstanceCrashed, "the instance is dead"));
        }
        self.calls += 1;
        let outcome = self.run(&context, event, &mut after).await;
        self.state = after;
        outcome
    }

    async fn serve(self: Box<Self>, _: CallContext, _: http::Request<Body>) -> Result<Served, Error> {
        Err(Error::internal("a simulated function takes events, not HTTP requests"))
    }

    fn is_reusable(&self) -> bool {
        self.state != State::Dead
    }

    fn usage(&self) -> Usage {
        Usage { memory: u64::from(self.share.memory_mb()) << 20, cpu: self.busy }
    }

    async fn probe(&mut self) -> bool {
        if self.state == State::Sick {
            self.state = State::Dead;
        }
        self.is_reusable()
    }

    async fn hibernate(&mut self) -> bool {
        self.share.resize(self.parameters.hibernated_mb);
        true
    }

    async fn wake(&mut self) -> bool {
        let takes = self.parameters.wake_ms.duration(&self.random);
        if !takes.is_zero() {
            self.clock.sleep(takes).await;
        }
        self.share.resize(self.parameters.memory_mb);
        self.is_reusable()
    }
}
