//! Deploys: check, compile, store the code, then make the version, in this order, so that nothing is stored of a
//! deploy that is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use lyra_store::objects::{Change, Pin};
use lyra_types::api::DeployRequest;
use lyra_types::function::{Contract, Digest};
use lyra_types::{
    Alias, AliasName, Code, Error, FunctionName, FunctionVersion, Network, Result, Runtime, TenantName, Timestamp,
};
use lyra_wire::control::{Changed, Deployed, Precondition, RawCode, Route};
use lyra_wire::worker::Prepare;

use super::record::{Meta, Record, put_alias, put_meta, put_version};
use super::request::{Checked, check, raw_code};
use super::{Functions, SHOWN, TRIES, Updated, While, keys};
use crate::quotas::gate::Gate;

impl Functions {
    pub(crate) async fn deploy(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        request: DeployRequest,
        precondition: Precondition,
    ) -> Result<Changed<Deployed>> {
        // Base64 and zip of many megabytes take their time.
        let checked = blocking(move || check(request)).await;
        let outcome = match checked {
            Ok(checked) => self.deploy_checked(tenant, function, checked, precondition).await,
            Err(error) => Err(error),
        };
        self.count_deploy(outcome)
    }

    pub(crate) async fn deploy_code(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        code: RawCode,
        precondition: Precondition,
    ) -> Result<Changed<Deployed>> {
        let newest =
            self.read(tenant, function).await?.and_then(|record| record.route.versions.into_values().next_back());
        let runtime = newest.as_ref().map(|version| version.runtime);
        let outcome = match blocking(move || raw_code(code, runtime)).await {
            Ok((runtime, code)) => {
                let checked = match newest {
                    Some(version) => like(&version, code),
                    None => defaults(runtime, code),
                };
                self.deploy_checked(tenant, function, checked, precondition).await
            }
            Err(error) => Err(error),
        };
        self.count_deploy(outcome)
    }

    fn count_deploy(&self, outcome: Result<Changed<Deployed>>) -> Result<Changed<Deployed>> {
        let word = outcome.as_ref().map_or_else(|error| error.code.as_str(), |_| "ok");
        self.metrics.deploys.with_label_values(&[word]).inc();
        outcome
    }

    async fn deploy_checked(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        checked: Checked,
        precondition: Precondition,
    ) -> Result<Changed<Deployed>> {
        // Looked at again when the version is made; here it spares the work.
        check_precondition(function, self.read(tenant, function).await?.as_ref(), precondition)?;
        self.check_room(tenant, function).await?;
        self.secrets.check(tenant, &checked.secrets).await?;
        let prepare = Prepare {
            runtime: checked.runtime,
            code: checked.code.clone(),
            handler: checked.handler.clone(),
            isolation: checked.isolation.clone(),
            reuse: checked.reuse,
            memory_mb: checked.memory_mb,
            cpu_millis: checked.cpu_millis,
            gpus: checked.gpus,
            labels: checked.labels.clone(),
        };
        let contract = self.worker.prepare(prepare).await?.contract;
        let pin = self.pins.pin(&lyra_store::blobs::digest(&checked.code)).await?;
        let made = self.make(tenant, function, &checked, contract, precondition, &pin).await;
        self.pins.unpin(pin);
        let changed = made?;
        let (deployed, dropped) = changed.value;
        let generation = deployed.route.generation;
        for version in &dropped {
            self.have_forgotten(generation, Some(version.version)).await;
        }
        if !dropped.is_empty() {
            self.drop_unused(dropped.iter().map(|version| version.code.clone()).collect()).await;
        }
        tracing::info!(%tenant, %function, version = deployed.version, "version deployed");
        Ok(Changed { value: deployed, revision: changed.revision })
    }

    /// Stores the code, which `pin` keeps from being deleted, then makes the version.
    async fn make(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        checked: &Checked,
        contract: Contract,
        precondition: Precondition,
        pin: &Pin,
    ) -> Result<Changed<Outcome>> {
        let code = self.blobs.put(checked.code.clone()).await?;
        let now = self.clock.now();
        // 53 bits, so that every JSON reader takes it for what it is.
        let fresh = self.random.u64() >> 11;
        let pinned = self.pinned_if_full(tenant, function).await?;
        let new = New { tenant, function, checked, contract, code, now, fresh };
        for _ in 0..TRIES {
            let gate = self.gate(tenant, function).await?;
            // As they are now: one that was deleted since the deploy began is refused, and who deletes one meanwhile sees this version.
            let named = self.secrets.named(tenant, &checked.secrets).await?;
            let depends = While { there: Some(pin.key()), gate: gate.as_ref(), named: Some(&named) };
            let made = self
                .update_while(depends, tenant, function, |record| {
                    check_precondition(function, record, precondition)?;
                    let (changes, outcome) = new.changes(record, self.config.max_versions, &pinned)?;
                    if let Some(gate) = &gate {
                        self.admit(gate, &outcome.0)?;
                    }
                    Ok((changes, outcome))
                })
                .await?;
            match made {
                Updated::Done(changed) => return Ok(changed),
                Updated::Overtaken => {}
                Updated::Gone => {
                    return Err(Error::new(Code::Unavailable, "storing the code took too long; try again"));
                }
            }
        }
        Err(Error::new(Code::Conflict, "others deploy in this tenant all the time; try again"))
    }

    /// What limits this deploy, once the table shows all that counts.
    async fn gate(&self, tenant: &TenantName, function: &FunctionName) -> Result<Option<Gate>> {
        let gate = Gate::of(&*self.objects, &self.config.quota, tenant, function).await?;
        if let Some(gate) = &gate
            && tokio::time::timeout(SHOWN, self.table.reaches(gate.revision)).await.is_err()
        {
            return Err(Error::new(Code::Unavailable, "the route table is behind; try again"));
        }
        Ok(gate)
    }

    /// Holds what would be stored against the limits.
    fn admit(&self, gate: &Gate, deployed: &Deployed) -> Result<()> {
        let route = &deployed.route;
        let others: Vec<Arc<Route>> =
            self.table.all_of(&route.tenant).into_iter().filter(|other| other.function != route.function).collect();
        let versions = others.iter().flat_map(|other| other.versions.values()).map(|version| &**version);
        let own = route.versions.values().map(|version| &**version);
        gate.admit(others.len() + 1, deployed.created, versions, own)
    }

    /// Refuses a new function where there is no room for one, before any work is done for it.
    async fn check_room(&self, tenant: &TenantName, function: &FunctionName) -> Result<()> {
        if self.table.get(tenant, function).is_some() {
            return Ok(());
        }
        match self.gate(tenant, function).await? {
            Some(gate) => {
                let count = self.table.count_of(tenant) + 1;
                gate.admit(count, true, std::iter::empty(), std::iter::empty())
            }
            None => Ok(()),
        }
    }

    /// Has the worker drop what it holds of versions that are gone. What it still holds harms nobody: no route leads there.
    pub(super) async fn have_forgotten(&self, generation: u64, version: Option<u64>) {
        if let Err(error) = self.worker.forget(generation, version).await {
            tracing::warn!(%error, generation, version, "instances of versions that are gone are left");
        }
    }

    /// Versions that jobs are pinned to, where old versions may have to go.
    async fn pinned_if_full(&self, tenant: &TenantName, function: &FunctionName) -> Result<Vec<u64>> {
        let Some(route) = self.table.get(tenant, function) else { return Ok(Vec::new()) };
        if route.versions.len() < self.config.max_versions {
            return Ok(Vec::new());
        }
        Ok(self.jobs.pinned(tenant.clone(), function.clone(), route.generation).await?)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let outcome = lyra_kit::tasks::blocking(work).await;
    outcome.unwrap_or_else(|error| {
        tracing::error!(%error, "a deploy could not be checked");
        Err(Error::internal("the request could not be checked"))
    })
}

fn check_precondition(function: &FunctionName, record: Option<&Record>, precondition: Precondition) -> Result<()> {
    let newest = record.and_then(|record| record.route.versions.keys().next_back().copied());
    let stale = |detail: String| Err(Error::new(Code::StaleVersion, detail));
    match (precondition, newest) {
        (Precondition::None, _) | (Precondition::Exists, Some(_)) | (Precondition::Absent, None) => Ok(()),
        (Precondition::Newest(wanted), Some(newest)) if wanted == newest => Ok(()),
        (Precondition::Newest(wanted), Some(newest)) => {
            stale(format!("the newest version of {function} is {newest}, not {wanted}"))
        }
        (Precondition::Newest(_) | Precondition::Exists, None) => stale(format!("function {function} does not exist")),
        (Precondition::Absent, Some(newest)) => {
            stale(format!("function {function} exists already; its newest version is {newest}"))
        }
    }
}

/// The settings of `version` with other code.
fn like(version: &FunctionVersion, code: bytes::Bytes) -> Checked {
    Checked {
        runtime: version.runtime,
        handler: version.handler.clone(),
        code,
        memory_mb: version.memory_mb,
        cpu_millis: version.cpu_millis,
        gpus: version.gpus,
        network: version.network,
        timeout_ms: version.timeout_ms,
        env: version.env.clone(),
        secrets: version.secrets.clone(),
        isolation: version.isolation.clone(),
        reuse: version.reuse,
        concurrency: version.concurrency,
        balancing: version.balancing,
        sessions: version.sessions.clone(),
        min_instances: version.min_instances,
        max_instances: version.max_instances,
        max_attempts: version.max_attempts,
        labels: version.labels.clone(),
        promote: true,
    }
}

fn defaults(runtime: Runtime, code: bytes::Bytes) -> Checked {
    use lyra_types::function::limit;
    Checked {
        runtime,
        handler: None,
        code,
        memory_mb: limit::DEFAULT_MEMORY_MB,
        cpu_millis: limit::DEFAULT_CPU_MILLIS,
        gpus: 0,
        network: Network::None,
        timeout_ms: limit::DEFAULT_TIMEOUT_MS,
        env: BTreeMap::new(),
        secrets: Vec::new(),
        isolation: "auto".to_owned(),
        reuse: runtime.default_reuse(),
        concurrency: limit::DEFAULT_CONCURRENCY,
        balancing: None,
        sessions: None,
        min_instances: 0,
        max_instances: limit::DEFAULT_CONCURRENCY,
        max_attempts: limit::DEFAULT_MAX_ATTEMPTS,
        labels: BTreeMap::new(),
        promote: true,
    }
}

/// A version that is ready to be made.
struct New<'a> {
    tenant: &'a TenantName,
    function: &'a FunctionName,
    checked: &'a Checked,
    contract: Contract,
    code: Digest,
    now: Timestamp,
    /// The generation, if the function is new.
    fresh: u64,
}

type Outcome = (Deployed, Vec<Arc<FunctionVersion>>);

impl New<'_> {
    /// The changes that make the version, and the versions that go for it.
    fn changes(&self, record: Option<&Record>, keep: usize, pinned: &[u64]) -> Result<(Vec<Change>, Outcome)> {
        let (tenant, function) = (self.tenant, self.function);
        let mut meta = record.map_or(Meta { generation: self.fresh, created_at: self.now, newest: 0 }, |r| r.meta);
        meta.newest += 1;
        let mut route = record.map_or_else(
            || Route {
                tenant: tenant.clone(),
                function: function.clone(),
                generation: meta.generation,
                created_at: meta.created_at,
                versions: BTreeMap::new(),
                aliases: BTreeMap::new(),
            },
            |record| record.route.clone(),
        );
        let version = Arc::new(self.version(meta));
        let mut changes = vec![put_meta(tenant, function, meta)?, put_version(&version)?];
        route.versions.insert(meta.newest, version);
        if self.checked.promote {
            let live = moved(route.aliases.get("live"), AliasName::live(), [(meta.newest, 1)].into(), self.now);
            changes.push(put_alias(tenant, function, &live)?);
            route.aliases.insert(live.name.clone(), live);
        }
        let mut dropped = Vec::new();
        for number in superfluous(&route, keep, meta.newest, pinned) {
            changes.push(Change::Delete(keys::version(tenant, function, number)));
            dropped.extend(route.versions.remove(&number));
        }
        let deployed = Deployed { route: Arc::new(route), version: meta.newest, created: record.is_none() };
        Ok((changes, (deployed, dropped)))
    }

    fn version(&self, meta: Meta) -> FunctionVersion {
        let checked = self.checked;
        FunctionVersion {
            tenant: self.tenant.clone(),
            function: self.function.clone(),
            version: meta.newest,
            generation: meta.generation,
            runtime: checked.runtime,
            contract: self.contract,
            handler: checked.handler.clone(),
            code: self.code.clone(),
            code_size: checked.code.len() as u64,
            memory_mb: checked.memory_mb,
            cpu_millis: checked.cpu_millis,
            gpus: checked.gpus,
            network: checked.network,
            timeout_ms: checked.timeout_ms,
            env: checked.env.clone(),
            secrets: checked.secrets.clone(),
            isolation: checked.isolation.clone(),
            reuse: checked.reuse,
            concurrency: checked.concurrency,
            balancing: checked.balancing,
            sessions: checked.sessions.clone(),
            min_instances: checked.min_instances,
            max_instances: checked.max_instances,
            max_attempts: checked.max_attempts,
            labels: checked.labels.clone(),
            created_at: self.now,
        }
    }
}

/// The alias with other weights; what it had is kept for a rollback.
pub(super) fn moved(old: Option<&Alias>, name: AliasName, weights: BTreeMap<u64, u32>, now: Timestamp) -> Alias {
    let previous = match old {
        Some(old) if old.weights == weights => old.previous.clone(),
        Some(old) => Some(old.weights.clone()),
        None => None,
    };
    Alias { name, weights, previous, updated_at: now }
}

/// Versions beyond `keep`, oldest first, that nothing points at. The one before the newest is kept, for a rollback.
fn superfluous(route: &Route, keep: usize, newest: u64, pinned: &[u64]) -> Vec<u64> {
    let too_many = route.versions.len().saturating_sub(keep.max(2));
    let used = |number: u64| {
        number == newest
            || pinned.contains(&number)
            || route.aliases.values().any(|alias| {
                alias.weights.contains_key(&number)
                    || alias.previous.as_ref().is_some_and(|previous| previous.contains_key(&number))
            })
    };
    route.versions.keys().copied().filter(|number| !used(*number)).take(too_many).collect()
}
