//! Makes workers hold what the plan says: compares what they say they hold with what the solver wants, and sends commands
//! for the difference, for as long as this process leads.
//!
//! It acts on what is there, never on what happened: a command that was lost is sent again, since the difference is still
//! there. Nothing is placed for a while after the process was started, so that workers that are about to join, and hold
//! something already, are not taken for missing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use lyra_kit::Clock;
use lyra_types::function::{VersionKey, label};
use lyra_types::{FunctionVersion, Result, Runtime};
use lyra_wire::registry::{Command, MemberState};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Amounts, Demand, Host, Offer, Placed, Problem, Spread, solve};
use crate::functions::Table;
use crate::leader::Term;
use crate::metrics::Metrics;
use crate::registry::{Registry, Seen};

/// Changes that come within this time are planned for together.
const TOGETHER: Duration = Duration::from_millis(10);
/// Wait before what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// A plan is made at least so often.
const ANYWAY: Duration = Duration::from_secs(30);
/// Longest wait for a worker to have stored a command.
const ANSWER: Duration = Duration::from_secs(10);
/// Commands under way at once.
const AT_ONCE: usize = 256;
/// Instances that move in one plan for the sake of spread alone.
const MOVES: usize = 8;

/// Places instances.
pub(crate) struct Placement {
    registry: Registry,
    table: Arc<Table>,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// When this process may place for the first time.
    settled: Instant,
    /// What was last said of what finds no place.
    unplaced: Mutex<BTreeMap<VersionKey, String>>,
}

/// What a worker is to do.
#[derive(Debug, Clone, PartialEq)]
struct Action {
    worker: String,
    version: VersionKey,
    command: Command,
}

type UnderWay<'a> = FuturesUnordered<BoxFuture<'a, (Action, Result<()>)>>;

impl Placement {
    pub(crate) fn new(registry: Registry, table: Arc<Table>, clock: Clock, metrics: Arc<Metrics>) -> Placement {
        let settled = clock.instant() + registry.config().settle;
        Placement { registry, table, clock, metrics, settled, unplaced: Mutex::default() }
    }

    /// Places until the term is over.
    pub(crate) async fn lead(&self, term: &Term) {
        term.over.run_until_cancelled(self.place(term.epoch)).await;
    }

    async fn place(&self, epoch: u64) {
        tokio::time::sleep_until(self.settled).await;
        let (mut workers, mut routes) = (self.registry.changes(), self.table.changed());
        let mut waiting: VecDeque<Action> = VecDeque::new();
        let mut under_way: UnderWay<'_> = FuturesUnordered::new();
        let mut busy: BTreeSet<(String, VersionKey)> = BTreeSet::new();
        let mut plan_at = self.clock.instant();
        loop {
            if self.clock.instant() >= plan_at {
                workers.mark_unchanged();
                routes.mark_unchanged();
                waiting = self.plan().into();
                plan_at = self.clock.instant() + ANYWAY;
            }
            while under_way.len() < AT_ONCE
                && let Some(action) = waiting.pop_front()
            {
                // What is under way may be what is wanted now, or not: that is seen when it is done.
                if busy.insert((action.worker.clone(), action.version.clone())) {
                    under_way.push(Box::pin(self.carry_out(epoch, action)));
                }
            }
            let soon = |at: Instant, wait| at.min(self.clock.instant() + wait);
            tokio::select! {
                Some((action, outcome)) = under_way.next() => {
                    busy.remove(&(action.worker.clone(), action.version.clone()));
                    let word = outcome.as_ref().map_or_else(|error| error.code.as_str(), |()| "ok");
                    self.metrics.placement_commands.with_label_values(&[word]).inc();
                    if let Err(error) = outcome {
                        tracing::warn!(%error, worker = action.worker, version = %action.version, "a worker does not do as it is told");
                        plan_at = soon(plan_at, AGAIN);
                    }
                }
                Ok(()) = workers.changed() => plan_at = soon(plan_at, TOGETHER),
                Ok(()) = routes.changed() => plan_at = soon(plan_at, TOGETHER),
                () = tokio::time::sleep_until(plan_at) => {}
            }
        }
    }

    async fn carry_out(&self, epoch: u64, action: Action) -> (Action, Result<()>) {
        let outcome = self.registry.command(&action.worker, epoch, action.command.clone(), ANSWER).await;
        (action, outcome)
    }

    /// What is to be done now.
    fn plan(&self) -> Vec<Action> {
        let (seen, wanted) = (self.registry.seen(), wanted(&self.table));
        let problem = Problem {
            hosts: seen.iter().map(host).collect(),
            demands: wanted.iter().map(|(key, version)| demand(key, version)).collect(),
            moves: MOVES,
        };
        let plan = solve(&problem, &standing(&seen, &wanted));
        self.tell_unplaced(
            plan.unplaced.iter().map(|of| (of.key.clone(), format!("{} of it: {}", of.missing, of.reason))),
        );
        actions(&seen, &wanted, &plan.placed, |key| self.table.version(key))
    }

    fn tell_unplaced(&self, unplaced: impl Iterator<Item = (VersionKey, String)>) {
        let now: BTreeMap<VersionKey, String> = unplaced.collect();
        let mut before = self.unplaced.lock();
        for (version, why) in now.iter().filter(|(version, why)| before.get(*version) != Some(why)) {
            tracing::warn!(%version, why, "instances that shall be held up find no place");
        }
        self.metrics.unplaced.set(i64::try_from(now.len()).unwrap_or(i64::MAX));
        *before = now;
    }
}

/// The versions of which instances shall be held up: live ones that ask for it.
fn wanted(table: &Table) -> BTreeMap<VersionKey, Arc<FunctionVersion>> {
    let mut wanted = BTreeMap::new();
    for route in table.all() {
        for number in route.aliases.get("live").into_iter().flat_map(|live| live.weights.keys()) {
            if let Some(version) = route.versions.get(number)
                && (version.min_instances > 0 || has_schedule(version))
            {
                wanted.insert(version.key(), Arc::clone(version));
            }
        }
    }
    wanted
}

fn has_schedule(version: &FunctionVersion) -> bool {
    version.labels.contains_key(label::PREWARM_CRON)
}

/// How many are placed: where there is only a schedule, the one worker that follows it.
fn demand<'a>(key: &'a VersionKey, version: &FunctionVersion) -> Demand<&'a VersionKey> {
    let in_engine = matches!(version.runtime, Runtime::Js | Runtime::Wasm);
    Demand {
        key,
        tenant: version.tenant.clone(),
        runtime: version.runtime,
        isolation: version.isolation.clone(),
        need: Amounts {
            // What is made for one call alone is not charged for while it waits, and nothing that is idle uses processors.
            memory: if in_engine && !version.reuse { 0 } else { version.memory_bytes() as u64 },
            cpu_millis: 0,
            gpus: u64::from(version.gpus),
        },
        instances: version.min_instances.max(1),
        spread: Spread::Hosts,
        // One tenant's words keep nobody else's instances away.
        apart: version.labels.get(label::APART).map(|word| format!("{}/{word}", version.tenant)),
    }
}

fn host(seen: &Seen) -> Host<&VersionKey> {
    let registration = &seen.member.registration;
    let state = &registration.state;
    let offer = |backend: &lyra_types::api::BackendStatus| Offer {
        backend: backend.name.clone(),
        runtimes: backend.runtimes.iter().copied().filter(|runtime| backend.runs(*runtime)).collect(),
    };
    let share = |of: &lyra_types::api::Resource| match of.total {
        Some(total) if total > 0 => of.charged as f64 / total as f64,
        _ => 0.0,
    };
    Host {
        name: registration.name.clone(),
        open: seen.member.state == MemberState::Ready,
        offers: registration.backends.iter().map(offer).collect(),
        capacity: Amounts {
            memory: state.memory.total.unwrap_or(u64::MAX),
            cpu_millis: u64::MAX,
            gpus: state.gpu.total.unwrap_or(0),
        },
        // Instances that calls brought up make room for those that are held up; those of applications do not.
        charged: Amounts { memory: seen.holdings.hosted.values().map(|of| of.memory).sum(), ..Amounts::default() },
        load: share(&state.memory) + share(&state.cpu),
        images: seen.holdings.instances.values().map(|of| &of.version).collect(),
        zone: None,
    }
}

/// Where what is wanted stands already, as workers tell it. One that is lost may come back with what it held, but nobody can
/// count on it.
fn standing<'a>(seen: &[Seen], wanted: &'a BTreeMap<VersionKey, Arc<FunctionVersion>>) -> Placed<&'a VersionKey> {
    let mut standing = Placed::new();
    for worker in seen.iter().filter(|worker| worker.member.state != MemberState::Lost) {
        for hold in worker.holdings.holds.values() {
            let Some((key, version)) = wanted.get_key_value(&hold.version) else { continue };
            // A worker that only follows a schedule is one place.
            let count = if version.min_instances == 0 { 1 } else { hold.instances };
            if count > 0 {
                let at = standing.entry(key).or_default();
                at.insert(worker.member.registration.name.clone(), count);
            }
        }
    }
    standing
}

/// What has to be done so that workers hold what is placed: first what is added, then what goes.
fn actions(
    seen: &[Seen],
    wanted: &BTreeMap<VersionKey, Arc<FunctionVersion>>,
    placed: &Placed<&VersionKey>,
    version: impl Fn(&VersionKey) -> Option<Arc<FunctionVersion>>,
) -> Vec<Action> {
    let (mut added, mut gone) = (Vec::new(), Vec::new());
    let action = |worker: &str, version: &VersionKey, command| Action {
        worker: worker.to_owned(),
        version: version.clone(),
        command,
    };
    let living = seen.iter().filter(|worker| worker.member.state != MemberState::Lost);
    let workers: BTreeMap<&str, &Seen> = living.map(|of| (of.member.registration.name.as_str(), of)).collect();
    for (key, at) in placed {
        let Some(version) = wanted.get(*key) else { continue };
        // One worker follows the schedule: the first by name, on which all agree.
        let follows = at.keys().next().filter(|_| has_schedule(version));
        for (name, &count) in at {
            let Some(worker) = workers.get(name.as_str()) else { continue };
            let schedule = follows == Some(name);
            let instances = if version.min_instances == 0 { 0 } else { count };
            let held = worker.holdings.holds.get(*key);
            if held.is_none_or(|held| (held.instances, held.schedule) != (instances, schedule)) {
                let command = Command::Hold { version: Arc::clone(version), instances, schedule };
                added.push(action(name, key, command));
            }
        }
    }
    for (name, worker) in workers {
        for key in worker.holdings.holds.keys() {
            if placed.get(&key).is_some_and(|at| at.contains_key(name)) {
                continue;
            }
            let command = match version(key) {
                // It may still be called, though another version may be live.
                Some(version) => Command::Hold { version, instances: 0, schedule: false },
                None => Command::Release(key.clone()),
            };
            gone.push(action(name, key, command));
        }
    }
    added.extend(gone);
    added
}

#[cfg(test)]
mod tests {
    use lyra_types::function::Digest;
    use lyra_types::{FunctionName, TenantName};

    use super::*;

    #[test]
    fn functions_of_a_tenant_with_the_same_word_are_held_apart() {
        let apart = |tenant: &str, word: Option<&str>| {
            let function = FunctionName::new("f").unwrap();
            let mut version = FunctionVersion::new(function, Runtime::Js, Digest("0".repeat(64)));
            version.tenant = TenantName::new(tenant).unwrap();
            version.labels.extend(word.map(|word| (label::APART.to_owned(), word.to_owned())));
            demand(&version.key(), &version).apart
        };
        assert_eq!(apart("a", None), None);
        assert_eq!(apart("a", Some("db")), apart("a", Some("db")));
        assert_ne!(apart("a", Some("db")), apart("a", Some("web")));
        assert_ne!(apart("a", Some("db")), apart("b", Some("db")), "nobody keeps another tenant's away");
    }
}
