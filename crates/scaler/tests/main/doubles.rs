//! A control that hands out one lease and shows the load that a test wants, and workers that can be emptied.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use lyra_types::api::{AliasRequest, DeployRequest, Drained, Page, ScalerDecision, ScalerOrders};
use lyra_types::job::Job;
use lyra_types::{Alias, AliasName, Code, Error, FunctionName, FunctionVersion, InstanceId, JobId, Result, TenantName};
use lyra_wire::control::{
    Changed, ControlProcess, Deployed, Finished, JobQuery, PageQuery, Precondition, RawCode, Route, RouteEvent, Submit,
    Submitted,
};
use lyra_wire::registry::MemberState;
use lyra_wire::resources::{ResourceAnswer, ResourceRequest};
use lyra_wire::scaler::{Load, ScalerAnswer, ScalerTurn, WorkerLoad};
use lyra_wire::sessions::SessionEvent;
use lyra_wire::worker::{
    Call, Health, HttpCall, HttpReply, InstanceCommand, InstanceStatus, Prepare, Prepared, Reply, Status,
};
use lyra_wire::{Control, Operated, Worker};
use parking_lot::Mutex;
use tokio::sync::Notify;

fn unasked<T>() -> Result<T> {
    Err(Error::new(Code::Unavailable, "nobody asks for this here"))
}

/// What a control would know.
#[derive(Default)]
pub struct Known {
    pub leader: Option<u64>,
    pub orders: ScalerOrders,
    pub load: Load,
    pub turns: Vec<ScalerTurn>,
    pub away: bool,
}

/// A control for scalers.
#[derive(Default)]
pub struct Played(pub Mutex<Known>);

impl Played {
    pub fn with_workers(names: &[&str]) -> Arc<Played> {
        let workers = names.iter().map(|name| worker(name)).collect();
        let load = Load { workers, ..Load::default() };
        Arc::new(Played(Mutex::new(Known { load, ..Known::default() })))
    }

    pub fn decided(&self) -> Vec<ScalerDecision> {
        let mut all: Vec<ScalerDecision> = Vec::new();
        for decision in self.0.lock().turns.iter().flat_map(|turn| turn.decided.clone()) {
            if !all.contains(&decision) {
                all.push(decision);
            }
        }
        all
    }

    pub fn set(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.0.lock());
    }
}

pub fn worker(name: &str) -> WorkerLoad {
    let (name, address) = (name.to_owned(), format!("{name}:1"));
    WorkerLoad { name, address, state: MemberState::Ready, running: 0, queued: 0, utilisation: 0.0 }
}

/// A worker that is empty when it is told so.
#[derive(Default)]
pub struct Emptied {
    /// Workers that were told to end their work, and those that were taken back.
    pub told: Mutex<Vec<(String, &'static str)>>,
    pub may_end: Mutex<BTreeMap<String, Arc<Notify>>>,
    pub unreachable: Mutex<bool>,
}

pub struct One(pub String, pub Arc<Emptied>);

#[async_trait]
impl Operated for One {
    async fn status(&self) -> Result<Status> {
        unasked()
    }
    async fn instances(&self) -> Result<Vec<InstanceStatus>> {
        unasked()
    }
    async fn health(&self) -> Result<Health> {
        unasked()
    }
    async fn cordon(&self) -> Result<()> {
        unasked()
    }
    async fn uncordon(&self) -> Result<()> {
        self.1.told.lock().push((self.0.clone(), "uncordon"));
        Ok(())
    }
    async fn drain(&self, limit: Duration) -> Result<Drained> {
        if *self.1.unreachable.lock() {
            return unasked();
        }
        self.1.told.lock().push((self.0.clone(), "drain"));
        let may_end = self.1.may_end.lock().get(&self.0).cloned();
        let ended = match may_end {
            Some(may_end) => tokio::time::timeout(limit, may_end.notified()).await.is_ok(),
            None => true,
        };
        self.1.told.lock().push((self.0.clone(), "drained"));
        Ok(Drained { ended, left: usize::from(!ended), evacuated: 0 })
    }
    async fn instruct(&self, _: InstanceId, _: InstanceCommand) -> Result<()> {
        unasked()
    }
    async fn clean(&self) -> Result<usize> {
        unasked()
    }
}

#[async_trait]
impl Worker for One {
    async fn prepare(&self, _: Prepare) -> Result<Prepared> {
        unasked()
    }
    async fn prewarm(&self, _: Arc<FunctionVersion>, _: u32) -> Result<()> {
        unasked()
    }
    async fn forget(&self, _: u64, _: Option<u64>) -> Result<()> {
        unasked()
    }
    async fn invoke(&self, call: Call) -> Reply {
        let report = lyra_types::invocation::Report::new(call.id, call.version.version);
        Reply { report, outcome: unasked() }
    }
    async fn serve(&self, call: HttpCall) -> HttpReply {
        HttpReply { report: lyra_types::invocation::Report::new(call.id, call.version.version), outcome: unasked() }
    }
}

#[async_trait]
impl Control for Played {
    async fn scaler_turn(&self, turn: ScalerTurn) -> Result<ScalerAnswer> {
        let mut known = self.0.lock();
        if known.away {
            return unasked();
        }
        if known.leader == Some(turn.process) && turn.leaves {
            known.leader = None;
        }
        let leads = !turn.leaves && *known.leader.get_or_insert(turn.process) == turn.process;
        let answer = ScalerAnswer {
            leads,
            leader: known.leader.map(|leader| leader.to_string()),
            orders: known.orders,
            load: known.load.clone(),
        };
        known.turns.push(turn);
        Ok(answer)
    }

    async fn deploy(
        &self,
        _: &TenantName,
        _: &FunctionName,
        _: DeployRequest,
        _: Precondition,
    ) -> Result<Changed<Deployed>> {
        unasked()
    }
    async fn deploy_code(
        &self,
        _: &TenantName,
        _: &FunctionName,
        _: RawCode,
        _: Precondition,
    ) -> Result<Changed<Deployed>> {
        unasked()
    }
    async fn function(&self, _: &TenantName, _: &FunctionName) -> Result<Arc<Route>> {
        unasked()
    }
    async fn functions(&self, _: &TenantName, _: PageQuery) -> Result<Page<Arc<Route>>> {
        unasked()
    }
    async fn delete_function(&self, _: &TenantName, _: &FunctionName) -> Result<Changed<()>> {
        unasked()
    }
    async fn put_alias(
        &self,
        _: &TenantName,
        _: &FunctionName,
        _: &AliasName,
        _: AliasRequest,
    ) -> Result<Changed<Alias>> {
        unasked()
    }
    async fn delete_alias(&self, _: &TenantName, _: &FunctionName, _: &AliasName) -> Result<Changed<()>> {
        unasked()
    }
    async fn rollback(&self, _: &TenantName, _: &FunctionName) -> Result<Changed<Alias>> {
        unasked()
    }
    async fn watch_routes(&self) -> Result<BoxStream<'static, Result<(u64, RouteEvent)>>> {
        unasked()
    }
    async fn watch_sessions(&self) -> Result<BoxStream<'static, Result<SessionEvent>>> {
        unasked()
    }
    async fn resources(&self, _: ResourceRequest) -> Result<BoxStream<'static, Result<ResourceAnswer>>> {
        unasked()
    }
    async fn processes(&self) -> Result<Vec<ControlProcess>> {
        unasked()
    }
    async fn submit(&self, _: Submit) -> Result<Submitted> {
        unasked()
    }
    async fn job(&self, _: &TenantName, _: JobId, _: Duration) -> Result<Finished> {
        unasked()
    }
    async fn jobs(&self, _: &TenantName, _: JobQuery) -> Result<Page<Job>> {
        unasked()
    }
    async fn cancel_job(&self, _: &TenantName, _: JobId, _: Duration) -> Result<Job> {
        unasked()
    }
    async fn redrive(&self, _: &TenantName, _: JobId) -> Result<Job> {
        unasked()
    }
    async fn redrive_all(&self, _: &TenantName) -> Result<u64> {
        unasked()
    }
    async fn purge_dead(&self, _: &TenantName, _: Option<JobId>) -> Result<u64> {
        unasked()
    }
}
