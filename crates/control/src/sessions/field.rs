//! What workers hold for applications, as they tell it: kept up by news, one change at a time, so that nobody has to look at
//! everything when one session changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use lyra_types::InstanceId;
use lyra_types::api::BackendStatus;
use lyra_wire::registry::{MemberState, NodeState};
use lyra_wire::sessions::{AppKey, AppVersion, HostedReport, SessionPhase, SessionReport};
use lyra_wire::worker::InstanceState;
use tokio::time::Instant;

use crate::registry::{News, Registry, Seen};

/// A worker.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) state: MemberState,
    /// Since when nothing was heard of it.
    pub(super) lost: Option<Instant>,
    load: NodeState,
    backends: Vec<BackendStatus>,
    pub(super) stands: BTreeMap<AppKey, u32>,
    pub(super) hosted: HashMap<InstanceId, HostedReport>,
    pub(super) sessions: HashMap<String, SessionReport>,
}

/// What of an application is where, by worker.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) creating: u32,
    /// Ready, without a session.
    pub(super) ready: u32,
    pub(super) active: u32,
    pub(super) ending: u32,
}

impl Tally {
    pub(super) fn all(&self) -> u32 {
        self.creating + self.ready + self.active + self.ending
    }

    /// Where instances in this state are counted.
    fn place(&mut self, state: InstanceState) -> Option<&mut u32> {
        match state {
            InstanceState::Creating => Some(&mut self.creating),
            InstanceState::Standby | InstanceState::Hibernated => Some(&mut self.ready),
            InstanceState::Active => Some(&mut self.active),
            InstanceState::Evacuating | InstanceState::Terminating | InstanceState::Failed => Some(&mut self.ending),
            InstanceState::Terminated => None,
        }
    }
}

/// Instances of one application on all workers, lost ones too: counted with each change, since a look at the application
/// must not take longer with each session that it has.
#[derive(Debug, Default)]
struct Instances {
    versions: BTreeMap<u64, BTreeMap<String, Tally>>,
}

impl Instances {
    /// Counts one; whether it is the first of its version on the worker.
    fn add(&mut self, worker: &str, of: &HostedReport) -> bool {
        let workers = self.versions.entry(of.app.version).or_default();
        let is_first = !workers.contains_key(worker);
        if is_first {
            workers.insert(worker.to_owned(), Tally::default());
        }
        if let Some(count) = workers.get_mut(worker).and_then(|tally| tally.place(of.state)) {
            *count += 1;
        }
        is_first
    }

    fn take(&mut self, worker: &str, of: &HostedReport) {
        let Some(workers) = self.versions.get_mut(&of.app.version) else { return };
        let Some(tally) = workers.get_mut(worker) else { return };
        if let Some(count) = tally.place(of.state) {
            *count = count.saturating_sub(1);
        }
        if tally.all() == 0 {
            workers.remove(worker);
        }
        if workers.is_empty() {
            self.versions.remove(&of.app.version);
        }
    }
}

/// What a change was about.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Identities of applications.
    pub(super) apps: BTreeSet<String>,
    /// Of these, the ones that a worker has something of which had nothing before.
    pub(super) spread: BTreeSet<String>,
    /// Identities of sessions.
    pub(super) sessions: BTreeSet<String>,
    /// Applications of which an instance failed, and why.
    pub(super) failed: Vec<(String, String)>,
    /// Applications of which an instance got ready.
    pub(super) ready: BTreeSet<String>,
    /// An instance that stands again, after its session.
    pub(super) returned: Option<Returned>,
    /// A worker that may be given other things than before.
    pub(super) worker: Option<String>,
}

/// An instance that stands again, after its session.
#[derive(Debug)]
pub(super) struct Returned {
    pub(super) app: AppKey,
    pub(super) worker: String,
    /// Identity of the session that it had.
    pub(super) session: String,
}

/// All workers by name.
#[derive(Debug, Default)]
pub(super) struct Field {
    pub(super) nodes: BTreeMap<String, Node>,
    /// Instances of each application, by its identity.
    instances: HashMap<String, Instances>,
    /// Which workers hold how many versions of an application up, by its identity.
    standing: HashMap<String, BTreeMap<String, usize>>,
}

impl Node {
    /// Whether it may be given instances and sessions.
    pub(super) fn is_open(&self) -> bool {
        self.state == MemberState::Ready
    }

    /// Whether it can start instances of the version at all.
    pub(super) fn runs(&self, version: &AppVersion) -> bool {
        self.knows(version) && self.holds(version)
    }

    /// Whether it has as much as an instance asks for, whoever has it now.
    fn holds(&self, version: &AppVersion) -> bool {
        let enough =
            |of: &lyra_types::api::Resource, need: u64| need == 0 || of.total.is_none_or(|total| total >= need);
        enough(&self.load.memory, version.function.memory_bytes() as u64)
            && enough(&self.load.cpu, version.cpu_request.into())
    }

    /// Whether it has a back end that the version can run on.
    fn knows(&self, version: &AppVersion) -> bool {
        let function = &version.function;
        let wanted = |backend: &&BackendStatus| function.isolation == "auto" || backend.name == function.isolation;
        let able =
            |backend: &BackendStatus| backend.unavailable.is_none() && backend.runtimes.contains(&function.runtime);
        self.backends.iter().filter(wanted).any(able)
    }

    /// How many instances of the version it could start with what memory is free.
    pub(super) fn room(&self, version: &AppVersion) -> u32 {
        let need = version.function.memory_bytes() as u64;
        match self.load.memory.total {
            Some(total) if need > 0 => {
                u32::try_from(total.saturating_sub(self.load.memory.charged) / need).unwrap_or(u32::MAX)
            }
            _ => u32::MAX,
        }
    }

    /// How full it is, in thousandths.
    pub(super) fn fullness(&self) -> u64 {
        let share = |of: &lyra_types::api::Resource| match of.total {
            Some(total) if total > 0 => of.charged.saturating_mul(1_000) / total,
            _ => 0,
        };
        share(&self.load.memory).max(share(&self.load.cpu))
    }
}

impl Field {
    /// Takes in everything that is known.
    pub(super) fn load(&mut self, registry: &Registry, now: Instant) -> Touched {
        let mut touched = Touched::default();
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        for name in names {
            self.remove(&name, &mut touched);
        }
        for seen in registry.seen() {
            self.put(&seen, now, &mut touched);
        }
        touched
    }

    /// Takes in a change.
    pub(super) fn hear(&mut self, registry: &Registry, news: News, now: Instant) -> Touched {
        let mut touched = Touched::default();
        match news {
            News::Worker(name) => {
                self.remove(&name, &mut touched);
                if let Some(seen) = registry.seen_of(&name) {
                    self.put(&seen, now, &mut touched);
                }
                touched.worker = Some(name);
            }
            News::State(name) => self.state(registry, name, now, &mut touched),
            News::Hosted(worker, report) => {
                touched.apps.insert(report.app.uid.clone());
                touched.sessions.extend(report.session.clone());
                match (report.state, &report.why) {
                    (InstanceState::Standby | InstanceState::Active, _) => {
                        touched.ready.insert(report.app.uid.clone());
                    }
                    // The last that is said of it, so each counts once.
                    (InstanceState::Terminated, Some(why)) => {
                        touched.failed.push((report.app.uid.clone(), why.clone()))
                    }
                    _ => {}
                }
                let Some(node) = self.nodes.get_mut(&worker) else { return touched };
                let instances = self.instances.entry(report.app.uid.clone()).or_default();
                let before = if report.state == InstanceState::Terminated {
                    node.hosted.remove(&report.id)
                } else {
                    if instances.add(&worker, &report) {
                        touched.spread.insert(report.app.uid.clone());
                    }
                    node.hosted.insert(report.id, report)
                };
                if let Some(before) = before {
                    instances.take(&worker, &before);
                    // It may have the next one already.
                    let lives = |of: &HostedReport| matches!(of.state, InstanceState::Standby | InstanceState::Active);
                    let again = |of: &HostedReport| of.session != before.session && lives(of);
                    if node.hosted.get(&before.id).is_some_and(again)
                        && let Some(session) = before.session
                    {
                        touched.returned = Some(Returned { app: before.app, worker, session });
                    }
                }
            }
            News::Session(worker, report) => {
                touched.sessions.insert(report.key.uid.clone());
                if let Some(node) = self.nodes.get_mut(&worker) {
                    node.sessions.insert(report.key.uid.clone(), *report);
                }
            }
            News::Forgotten(worker, uid) => {
                if let Some(node) = self.nodes.get_mut(&worker) {
                    node.sessions.remove(&uid);
                }
                touched.sessions.insert(uid);
            }
            News::Stand(worker, stand) => {
                touched.apps.insert(stand.app.uid.clone());
                let Some(node) = self.nodes.get_mut(&worker) else { return touched };
                let uid = stand.app.uid.clone();
                let (before, now) = match stand.instances {
                    0 => (node.stands.remove(&stand.app), None),
                    count => (node.stands.insert(stand.app, count), Some(count)),
                };
                match (before, now) {
                    (None, Some(_)) => {
                        self.stands(&worker, &uid);
                        touched.spread.insert(uid);
                    }
                    (Some(_), None) => self.stands_no_more(&worker, &uid),
                    _ => {}
                }
            }
        }
        touched
    }

    fn state(&mut self, registry: &Registry, name: String, now: Instant, touched: &mut Touched) {
        let Some(seen) = registry.seen_of(&name) else {
            self.remove(&name, touched);
            touched.worker = Some(name);
            return;
        };
        let Some(node) = self.nodes.get_mut(&name) else {
            self.put(&seen, now, touched);
            touched.worker = Some(name);
            return;
        };
        let was = node.state;
        node.load = seen.member.registration.state;
        node.state = seen.member.state;
        node.lost = (node.state == MemberState::Lost).then(|| node.lost.unwrap_or(now));
        if was != node.state {
            touched.apps.extend(node.hosted.values().map(|of| of.app.uid.clone()));
            touched.apps.extend(node.stands.keys().map(|of| of.uid.clone()));
            touched.sessions.extend(node.sessions.keys().cloned());
            touched.worker = Some(name);
        }
    }

    fn put(&mut self, seen: &Seen, now: Instant, touched: &mut Touched) {
        let registration = &seen.member.registration;
        let name = registration.name.clone();
        let holdings = &seen.holdings;
        for of in holdings.hosted.values() {
            let _is_first = self.instances.entry(of.app.uid.clone()).or_default().add(&name, of);
            touched.spread.insert(of.app.uid.clone());
            touched.apps.insert(of.app.uid.clone());
        }
        for of in holdings.stands.keys() {
            self.stands(&name, &of.uid);
            touched.spread.insert(of.uid.clone());
            touched.apps.insert(of.uid.clone());
        }
        touched.sessions.extend(holdings.sessions.keys().cloned());
        let node = Node {
            state: seen.member.state,
            lost: (seen.member.state == MemberState::Lost).then_some(now),
            load: registration.state.clone(),
            backends: registration.backends.clone(),
            stands: holdings.stands.clone(),
            hosted: holdings.hosted.iter().map(|(id, of)| (*id, of.clone())).collect(),
            sessions: holdings.sessions.iter().map(|(uid, of)| (uid.clone(), of.clone())).collect(),
        };
        self.nodes.insert(name, node);
    }

    fn remove(&mut self, name: &str, touched: &mut Touched) {
        let Some(node) = self.nodes.remove(name) else { return };
        for of in node.hosted.into_values() {
            if let Some(instances) = self.instances.get_mut(&of.app.uid) {
                instances.take(name, &of);
            }
            touched.apps.insert(of.app.uid);
        }
        for of in node.stands.keys() {
            self.stands_no_more(name, &of.uid);
        }
        touched.sessions.extend(node.sessions.into_keys());
    }

    fn stands(&mut self, worker: &str, uid: &str) {
        let workers = self.standing.entry(uid.to_owned()).or_default();
        *workers.entry(worker.to_owned()).or_default() += 1;
    }

    fn stands_no_more(&mut self, worker: &str, uid: &str) {
        let Some(workers) = self.standing.get_mut(uid) else { return };
        if let Some(count) = workers.get_mut(worker) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                workers.remove(worker);
            }
        }
        if workers.is_empty() {
            self.standing.remove(uid);
        }
    }

    /// A worker that may come back is lost as long.
    fn is_lost(&self, name: &str) -> bool {
        self.nodes.get(name).is_none_or(|node| node.state == MemberState::Lost)
    }

    /// Why no worker takes instances of the version, for people.
    pub(super) fn why_none(&self, version: &AppVersion) -> String {
        let mut able = self.nodes.values().filter(|node| node.is_open() && node.knows(version)).peekable();
        if able.peek().is_none() {
            return "no worker is ready that runs the application".to_owned();
        }
        if able.any(|node| node.holds(version)) {
            return "no worker has room for it now".to_owned();
        }
        let (memory, cpu) = (version.function.memory_mb, f64::from(version.cpu_request) / 1_000.0);
        format!("no worker has as much as an instance asks for: {memory} MiB of memory, {cpu} processors")
    }

    /// Workers, not lost ones, that hold instances of the application up.
    pub(super) fn standing(&self, uid: &str) -> impl Iterator<Item = &str> {
        let workers = self.standing.get(uid).into_iter().flat_map(BTreeMap::keys);
        workers.map(String::as_str).filter(|name| !self.is_lost(name))
    }

    /// Workers, not lost ones, that have anything of the application.
    pub(super) fn holders(&self, uid: &str) -> BTreeSet<&str> {
        let versions = self.instances.get(uid).into_iter().flat_map(|of| of.versions.values());
        let hosting = versions.flat_map(BTreeMap::keys).map(String::as_str).filter(|name| !self.is_lost(name));
        self.standing(uid).chain(hosting).collect()
    }

    /// What a worker says of a session.
    pub(super) fn session(&self, worker: &str, uid: &str) -> Option<&SessionReport> {
        self.nodes.get(worker)?.sessions.get(uid)
    }

    /// The worker that has a session; one where it has not ended before others.
    pub(super) fn worker_of(&self, uid: &str) -> Option<&str> {
        let has = |(name, node): (_, &Node)| node.sessions.get(uid).map(|of| (of.phase == SessionPhase::Closed, name));
        self.nodes.iter().filter_map(has).min().map(|(_, name): (bool, &String)| name.as_str())
    }

    /// Instances of a version of an application by worker, those of lost ones too.
    pub(super) fn tally_of(&self, uid: &str, version: u64) -> impl Iterator<Item = (&str, Tally)> {
        let workers = self.instances.get(uid).and_then(|of| of.versions.get(&version)).into_iter().flatten();
        workers.map(|(name, of)| (name.as_str(), *of))
    }

    /// All instances of a version of an application on a worker.
    pub(super) fn count_at(&self, uid: &str, version: u64, worker: &str) -> u32 {
        let workers = self.instances.get(uid).and_then(|of| of.versions.get(&version));
        workers.and_then(|of| of.get(worker)).map_or(0, Tally::all)
    }

    /// Instances of an application by version and worker.
    pub(super) fn tally(&self, uid: &str) -> BTreeMap<u64, BTreeMap<&str, Tally>> {
        let mut tally: BTreeMap<u64, BTreeMap<&str, Tally>> = BTreeMap::new();
        for (version, workers) in self.instances.get(uid).into_iter().flat_map(|of| &of.versions) {
            for (name, count) in workers.iter().filter(|(name, _)| !self.is_lost(name)) {
                tally.entry(*version).or_default().insert(name, *count);
            }
        }
        tally
    }

    /// An application has no instances any more.
    pub(super) fn is_empty_of(&self, uid: &str) -> bool {
        self.instances.get(uid).is_none_or(|of| of.versions.is_empty())
    }

    /// Nothing of the application is to be known any more.
    pub(super) fn forget(&mut self, uid: &str) {
        if self.is_empty_of(uid) {
            self.instances.remove(uid);
        }
    }
}
