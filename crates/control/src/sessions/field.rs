//! What workers hold for applications, as they tell it: kept up by news, one change at a time, so that nobody has to look at
//! everything when one session changes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

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
#[derive(Debug, Default, Clone, PartialEq, Eq)]
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

    fn count(&mut self, state: InstanceState) {
        match state {
            InstanceState::Creating => self.creating += 1,
            InstanceState::Standby | InstanceState::Hibernated => self.ready += 1,
            InstanceState::Active => self.active += 1,
            InstanceState::Evacuating | InstanceState::Terminating | InstanceState::Failed => self.ending += 1,
            InstanceState::Terminated => {}
        }
    }
}

/// What a change was about.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Identities of applications.
    pub(super) apps: BTreeSet<String>,
    /// Identities of sessions.
    pub(super) sessions: BTreeSet<String>,
    /// A worker that may be given other things than before.
    pub(super) worker: Option<String>,
}

/// All workers by name.
#[derive(Debug, Default)]
pub(super) struct Field {
    pub(super) nodes: BTreeMap<String, Node>,
    /// Instances of each application: its identity, then worker and instance.
    instances: HashMap<String, HashSet<(String, InstanceId)>>,
}

impl Node {
    /// Whether it may be given instances and sessions.
    pub(super) fn is_open(&self) -> bool {
        self.state == MemberState::Ready
    }

    /// Whether it can start instances of the version at all.
    pub(super) fn runs(&self, version: &AppVersion) -> bool {
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
                let Some(node) = self.nodes.get_mut(&worker) else { return touched };
                let instances = self.instances.entry(report.app.uid.clone()).or_default();
                if report.state == InstanceState::Terminated {
                    instances.remove(&(worker, report.id));
                    node.hosted.remove(&report.id);
                } else {
                    instances.insert((worker, report.id));
                    node.hosted.insert(report.id, report);
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
                if let Some(node) = self.nodes.get_mut(&worker) {
                    match stand.instances {
                        0 => drop(node.stands.remove(&stand.app)),
                        count => drop(node.stands.insert(stand.app, count)),
                    }
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
            self.instances.entry(of.app.uid.clone()).or_default().insert((name.clone(), of.id));
            touched.apps.insert(of.app.uid.clone());
        }
        touched.apps.extend(holdings.stands.keys().map(|of| of.uid.clone()));
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
                instances.remove(&(name.to_owned(), of.id));
            }
            touched.apps.insert(of.app.uid);
        }
        touched.sessions.extend(node.sessions.into_keys());
    }

    /// What a worker says of a session.
    pub(super) fn session(&self, worker: &str, uid: &str) -> Option<&SessionReport> {
        self.nodes.get(worker)?.sessions.get(uid)
    }

    /// The worker that has a session; one where it has not ended before others.
    pub(super) fn worker_of(&self, uid: &str) -> Option<&str> {
        let has = |(name, node): (&'_ String, &'_ Node)| {
            node.sessions.get(uid).map(|of| (of.phase == SessionPhase::Closed, name.clone()))
        };
        let (_, name) = self.nodes.iter().filter_map(has).min()?;
        self.nodes.get_key_value(&name).map(|(name, _)| name.as_str())
    }

    /// Instances of an application by version and worker.
    pub(super) fn tally(&self, uid: &str) -> BTreeMap<u64, BTreeMap<&str, Tally>> {
        let mut tally: BTreeMap<u64, BTreeMap<&str, Tally>> = BTreeMap::new();
        for (worker, id) in self.instances.get(uid).into_iter().flatten() {
            let Some((name, node)) = self.nodes.get_key_value(worker) else { continue };
            let Some(of) = node.hosted.get(id).filter(|_| node.state != MemberState::Lost) else { continue };
            tally.entry(of.app.version).or_default().entry(name.as_str()).or_default().count(of.state);
        }
        tally
    }

    /// An application has no instances any more.
    pub(super) fn is_empty_of(&self, uid: &str) -> bool {
        self.instances.get(uid).is_none_or(HashSet::is_empty)
    }

    /// Nothing of the application is to be known any more.
    pub(super) fn forget(&mut self, uid: &str) {
        if self.is_empty_of(uid) {
            self.instances.remove(uid);
        }
    }
}
