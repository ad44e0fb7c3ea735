//! A look at one application: which sessions get an instance where, and how many instances stand. Its versions are the
//! business of [`make`](super::make).

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lyra_resources::{Key, Stored};
use lyra_types::Result;
use lyra_types::resources::{Application, DeploymentAction, DeploymentStatus, Time};
use lyra_wire::registry::MemberState;
use lyra_wire::sessions::{AppKey, AppVersion, OpenSession, SessionCommand, SessionKey};

use super::app::App;
use super::leading::{AGAIN, Bound, Done, Leading, Opening, Wake};
use super::report::{FAILING, failing};
use super::scaling::{self, Pool};
use super::spread::{Candidate, spread};
use super::status::Reason;

/// Wait before a worker that would not have a session is asked again.
const REFUSED: Duration = Duration::from_millis(500);

impl Leading {
    /// An application's object is new, has changed or is gone.
    pub(super) fn application_changed(&mut self, key: &Key) {
        let object = self.of.api.applications().get_key(key);
        let uid = object.as_ref().map(|object| object.metadata.uid.clone());
        let known = self.names.get(key).cloned();
        if let Some(known) = known.filter(|known| uid.as_ref() != Some(known)) {
            self.names.remove(key);
            if let Some(app) = self.apps.remove(&known) {
                self.clear(&app, &known);
            }
            let sessions = self.sessions.iter().filter(|(_, of)| of.app.as_ref() == Some(&known));
            self.dirty_sessions.extend(sessions.map(|(uid, _)| uid.clone()));
            self.dirty_apps.insert(known);
        }
        let (Some(object), Some(uid)) = (object, uid) else { return };
        self.names.insert(key.clone(), uid.clone());
        match self.apps.get_mut(&uid) {
            Some(app) => app.update(object),
            None => self.begin_with(key, &uid, object),
        }
        self.dirty_apps.insert(uid);
    }

    fn begin_with(&mut self, key: &Key, uid: &str, object: Arc<Stored<Application>>) {
        let mut app = App::new(key.clone(), object);
        for (worker, node) in &self.field.nodes {
            for (of, count) in node.stands.iter().filter(|(of, _)| of.uid == uid && of.version == app.current) {
                debug_assert_eq!(of.uid, uid);
                app.targets.insert(worker.clone(), *count);
            }
        }
        self.apps.insert(uid.to_owned(), app);
        // Sessions that came before their application.
        let name =
            |of: &super::leading::Session| of.key.tenant == key.tenant && *of.object.spec.application_name == *key.name;
        let waiting = self.sessions.iter().filter(|(_, of)| of.app.is_none() && name(of));
        self.dirty_sessions.extend(waiting.map(|(uid, _)| uid.clone()));
    }

    /// Looks at an application.
    pub(super) fn pass(&mut self, uid: &str) {
        let Some(app) = self.apps.get(uid) else { return self.dismiss_stranger(uid) };
        if app.versions.is_none() {
            return self.load(uid);
        }
        if app.is_deleted() {
            self.tear_down(uid);
        } else {
            self.bring_up(uid);
            self.configure(uid);
            self.settle(uid);
            let opens = self.bind(uid);
            if !opens.is_empty() {
                self.share_quota(uid);
            }
            self.scale(uid);
            opens.iter().for_each(|session| self.send_open(session));
        }
        self.stand(uid);
        self.write_application(uid);
    }

    /// An application that has no object: workers hold nothing of it any more.
    fn dismiss_stranger(&mut self, uid: &str) {
        let mut stands: Vec<(String, AppKey)> = Vec::new();
        for (worker, node) in self.field.nodes.iter().filter(|(_, node)| node.state != MemberState::Lost) {
            stands.extend(node.stands.keys().filter(|of| of.uid == uid).map(|of| (worker.clone(), of.clone())));
        }
        for (worker, key) in stands {
            self.command(&worker, SessionCommand::Dismiss(key), |_| Done::Nothing);
        }
        self.field.forget(uid);
    }

    /// Tells workers of a changed configuration.
    fn configure(&mut self, uid: &str) {
        let Some(app) = self.apps.get_mut(uid).filter(|app| !app.is_configured) else { return };
        app.is_configured = true;
        let holders = self.field.holders(uid).into_iter();
        let news: Vec<String> = holders.filter(|name| !app.configured.contains(*name)).map(ToOwned::to_owned).collect();
        let (config, tenant) = (Arc::clone(&app.config), app.key.tenant.clone());
        app.configured.extend(news.iter().cloned());
        for worker in news {
            let (of, at, config) = (uid.to_owned(), worker.clone(), Arc::clone(&config));
            let command =
                SessionCommand::Configure { tenant: tenant.clone(), uid: uid.to_owned(), config: Arc::clone(&config) };
            self.command(&worker, command, |outcome| Done::Configured(of, at, config, outcome));
        }
    }

    /// Gives waiting sessions their instances, as far as there may be some; returns those that were given one.
    fn bind(&mut self, uid: &str) -> Vec<String> {
        let (now, knows_all) = (self.now(), self.knows_all());
        let mut given = Vec::new();
        let Some(app) = self.apps.get(uid) else { return given };
        if app.waiting.is_empty() {
            return given;
        }
        let Some(version) = app.version().map(|of| Arc::clone(&of.version)) else {
            let reason = match &app.fault {
                Some(fault) => Reason::new(fault.reason, fault.message.clone()),
                None => Reason::new("VersionNotReady", "the application's first version is not ready yet"),
            };
            self.explain(uid, &reason);
            return given;
        };
        if let Some(fault) = self.of.lacks_secret(app) {
            self.explain(uid, &Reason::new(fault.reason, fault.message));
            return given;
        }
        let waiting: Vec<(u64, String)> = app.waiting.iter().cloned().collect();
        let maximum = app.object.spec.scaling_policy.maximum_instance;
        let mut ready = self.ready(uid, &version);
        // Most sessions find an instance that stands ready.
        let mut cold = None;
        let mut blocked = None;
        let mut later = None;
        for (created, session) in waiting {
            let Some(of) = self.sessions.get(&session) else { continue };
            // One from before this term may be on a worker that has not said so yet.
            if created <= self.epoch && !knows_all {
                continue;
            }
            if let Some(at) = of.not_before.filter(|at| now < *at) {
                later = Some(later.map_or(at, |known: tokio::time::Instant| known.min(at)));
                continue;
            }
            let Some(app) = self.apps.get(uid) else { return given };
            if app.allocated() >= maximum {
                let message = format!("all {maximum} instances have a session; close one, or raise maximumInstance");
                blocked = Some(Reason::new("Busy", message));
                break;
            }
            let standing = best_ready(&mut ready, &of.refused);
            let worker = match standing {
                Some(worker) => Some((worker, true)),
                // What stands may be about to be ready; another one is started only where there is room for it.
                None if app.allocated() + app.standing() < maximum => {
                    let cold = cold.get_or_insert_with(|| self.cold(uid, &version));
                    best_cold(cold, &of.refused).map(|worker| (worker, false))
                }
                None => {
                    blocked = Some(match &app.failing {
                        Some((count, why)) => Reason::new(FAILING, failing(*count, why)),
                        None => {
                            let waits = "the session waits for an instance that is being started";
                            Reason::new("InstancesStarting", waits)
                        }
                    });
                    break;
                }
            };
            match worker {
                Some((worker, takes_standing)) => {
                    self.give(uid, &session, worker, version.key.version, takes_standing);
                    given.push(session);
                }
                None => self.refuse(&version, &session, uid, now),
            }
        }
        if let Some(reason) = blocked {
            self.explain(uid, &reason);
        }
        // The timer that was set with it may have been an earlier one's.
        if let Some(at) = later {
            self.at(at, Wake::App(uid.to_owned()));
        }
        given
    }

    /// No worker would have the session: all are asked again in a while.
    fn refuse(&mut self, version: &AppVersion, session: &str, uid: &str, now: tokio::time::Instant) {
        let why = self.field.why_none(version);
        let Some(of) = self.sessions.get_mut(session) else { return };
        if of.refused.is_empty() {
            of.reason = Reason::new("Unschedulable", why);
            self.dirty_sessions.insert(session.to_owned());
        }
        of.refused.clear();
        of.not_before = Some(now + REFUSED);
        self.at(now + REFUSED, Wake::App(uid.to_owned()));
    }

    /// Says of all sessions that wait why they do.
    fn explain(&mut self, uid: &str, reason: &Reason) {
        let Some(app) = self.apps.get(uid) else { return };
        for (_, session) in &app.waiting {
            if let Some(of) = self.sessions.get_mut(session).filter(|of| of.reason != *reason) {
                of.reason = reason.clone();
                self.dirty_sessions.insert(session.clone());
            }
        }
    }

    fn give(&mut self, uid: &str, session: &str, worker: String, version: u64, takes_standing: bool) {
        let (Some(app), Some(of)) = (self.apps.get_mut(uid), self.sessions.get_mut(session)) else { return };
        app.waiting.remove(&(of.object.created(), session.to_owned()));
        app.bound.insert(session.to_owned(), version);
        app.fresh.insert(session.to_owned());
        if takes_standing && let Some(target) = app.targets.get_mut(&worker) {
            *target = target.saturating_sub(1);
        }
        of.bound = Some(Bound { worker, version, opening: Opening::Sent, takes_standing });
        of.not_before = None;
    }

    /// Forgets of the sessions that were given an instance those whose worker has shown it.
    fn settle(&mut self, uid: &str) {
        let Some(app) = self.apps.get_mut(uid) else { return };
        let (sessions, bound) = (&self.sessions, &app.bound);
        app.fresh.retain(|session| {
            let of = sessions.get(session).and_then(|of| of.bound.as_ref()).filter(|_| bound.contains_key(session));
            of.is_some_and(|of| of.takes_standing || of.opening != Opening::Accepted)
        });
    }

    /// What sessions of the application were bound to whose worker has not shown it yet.
    fn fresh(&self, uid: &str) -> impl Iterator<Item = &Bound> {
        let fresh = self.apps.get(uid).into_iter().flat_map(|app| &app.fresh);
        fresh.filter_map(|session| self.sessions.get(session)?.bound.as_ref())
    }

    /// Workers with standing instances that are ready and not given away.
    fn ready(&self, uid: &str, version: &AppVersion) -> Vec<Ready> {
        let here = self.field.tally_of(uid, version.key.version);
        let mut ready: Vec<Ready> = here
            .filter(|(_, of)| of.ready > 0)
            .filter_map(|(worker, of)| {
                let node = self.field.nodes.get(worker).filter(|node| node.is_open())?;
                let (worker, fullness) = (worker.to_owned(), node.fullness());
                Some(Ready { worker, count: of.ready, instances: of.all(), fullness })
            })
            .collect();
        for bound in self.fresh(uid).filter(|of| of.takes_standing) {
            if let Some(of) = ready.iter_mut().find(|of| of.worker == bound.worker) {
                of.count = of.count.saturating_sub(1);
            }
        }
        ready
    }

    /// Workers that could start an instance for a session.
    fn cold(&self, uid: &str, version: &AppVersion) -> Vec<Cold> {
        let here = |name: &str| self.field.count_at(uid, version.key.version, name);
        let able = self.field.nodes.iter().filter(|(_, node)| node.is_open() && node.runs(version));
        let mut cold: Vec<Cold> = able
            .map(|(name, node)| Cold {
                worker: name.clone(),
                room: node.room(version),
                instances: here(name),
                fullness: node.fullness(),
            })
            .collect();
        // Those that were told of a session have not told of its instance yet, which they start for it.
        for bound in self.fresh(uid).filter(|of| of.opening == Opening::Sent && !of.takes_standing) {
            if let Some(of) = cold.iter_mut().find(|of| of.worker == bound.worker) {
                of.take();
            }
        }
        cold
    }

    /// Says how many instances stand where.
    fn scale(&mut self, uid: &str) {
        let Some(app) = self.apps.get(uid) else { return };
        let Some(version) = app.version().map(|of| Arc::clone(&of.version)) else { return };
        if self.of.lacks_secret(app).is_some() {
            // None could be started, and those that stand serve nobody any more.
            return self.apps.get_mut(uid).map_or((), |app| app.targets.clear());
        }
        let pool = Pool {
            allocated: app.allocated(),
            waiting: u32::try_from(app.waiting.len()).unwrap_or(u32::MAX),
            standing: app.standing(),
            ready: self.ready(uid, &version).iter().map(|of| of.count).sum(),
        };
        let wanted = scaling::standing(&app.object.spec.scaling_policy, pool).min(self.left_of_quota(uid, app));
        let holds =
            |name: &String| self.field.nodes.get(name).is_some_and(|node| node.is_open() && node.runs(&version));
        if wanted == pool.standing && app.targets.keys().all(holds) {
            return;
        }
        let here = |name: &str| self.field.count_at(uid, version.key.version, name);
        let able = self.field.nodes.iter().filter(|(_, node)| node.state != MemberState::Lost && node.runs(&version));
        let candidates: Vec<Candidate<'_>> = able
            .map(|(name, node)| Candidate {
                name,
                open: node.is_open(),
                room: node.room(&version),
                fullness: node.fullness(),
                instances: here(name),
            })
            .collect();
        let targets = spread(wanted, &app.targets, &candidates);
        drop(candidates);
        let time = self.time();
        let Some(app) = self.apps.get_mut(uid) else { return };
        app.targets = targets;
        if wanted != pool.standing {
            let (action, count) = match wanted > pool.standing {
                true => (DeploymentAction::CreateInstance, wanted - pool.standing),
                false => (DeploymentAction::DeleteInstance, pool.standing - wanted),
            };
            let message = format!("{count} standing instances; {wanted} are wanted");
            app.note(action, DeploymentStatus::Success, message, Time::from(time));
            // The rest of what the burst holds back.
            let at = self.now() + AGAIN;
            self.at(at, Wake::App(uid.to_owned()));
        }
    }

    /// How many instances of the application may stand beside what else its tenant has.
    fn left_of_quota(&self, uid: &str, app: &App) -> u32 {
        let Some(most) = self.of.quotas.sessions(&app.key.tenant) else { return u32::MAX };
        let others = self.apps.iter().filter(|(of, other)| *of != uid && other.key.tenant == app.key.tenant);
        let taken: u32 = others.map(|(_, other)| other.allocated() + other.standing()).sum();
        most.saturating_sub(taken.saturating_add(app.allocated()))
    }

    /// Sessions of the application have come or gone: what may stand for the tenant's others is another now.
    pub(super) fn share_quota(&mut self, uid: &str) {
        let Some(tenant) = self.apps.get(uid).map(|app| &app.key.tenant) else { return };
        if self.of.quotas.sessions(tenant).is_none() {
            return;
        }
        let others = self.apps.iter().filter(|(of, other)| *of != uid && other.key.tenant == *tenant);
        self.dirty_apps.extend(others.map(|(of, _)| of.clone()));
    }

    /// Tells workers how many instances stand, where they hold another number.
    fn stand(&mut self, uid: &str) {
        let Some(app) = self.apps.get(uid) else { return };
        let current = app.version().filter(|_| !app.is_deleted()).map(|of| Arc::clone(&of.version));
        let number = current.as_ref().map_or(0, |of| of.key.version);
        let mut commands: Vec<(String, u64, SessionCommand)> = Vec::new();
        let mut workers: BTreeSet<&str> = self.field.standing(uid).collect();
        workers.extend(app.targets.keys().map(String::as_str));
        for worker in workers {
            let Some(node) = self.field.nodes.get(worker).filter(|node| node.state != MemberState::Lost) else {
                continue;
            };
            let free = |version: u64| !app.commands.contains_key(&(worker.to_owned(), version));
            let old = node.stands.keys().filter(|of| of.uid == uid && of.version != number && free(of.version));
            commands.extend(old.map(|of| (worker.to_owned(), of.version, SessionCommand::Dismiss(of.clone()))));
            let Some(version) = current.as_ref().filter(|_| free(number)) else { continue };
            let wanted = app.targets.get(worker).copied().unwrap_or(0);
            if node.stands.get(&version.key).copied().unwrap_or(0) != wanted {
                commands.push((
                    worker.to_owned(),
                    number,
                    SessionCommand::Stand(self.configured(app, version), wanted),
                ));
            }
        }
        for (worker, version, command) in commands {
            self.count_command(uid, &worker, version);
            let (of, at) = (uid.to_owned(), worker.clone());
            self.command(&worker, command, move |outcome| Done::Stood(of, at, version, outcome));
        }
    }

    /// The version, with the configuration as it is now.
    fn configured(&self, app: &App, version: &Arc<AppVersion>) -> Arc<AppVersion> {
        if version.config == app.config {
            return Arc::clone(version);
        }
        Arc::new(AppVersion { config: Arc::clone(&app.config), ..(**version).clone() })
    }

    fn count_command(&mut self, uid: &str, worker: &str, version: u64) {
        if let Some(app) = self.apps.get_mut(uid) {
            *app.commands.entry((worker.to_owned(), version)).or_default() += 1;
        }
    }

    pub(super) fn uncount_command(&mut self, uid: &str, worker: &str, version: u64) {
        let Some(app) = self.apps.get_mut(uid) else { return };
        let key = (worker.to_owned(), version);
        if let Some(count) = app.commands.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                app.commands.remove(&key);
            }
        }
    }

    pub(super) fn stood(&mut self, uid: &str, worker: &str, version: u64, outcome: Result<()>) {
        self.uncount_command(uid, worker, version);
        match outcome {
            Ok(()) => drop(self.dirty_apps.insert(uid.to_owned())),
            Err(_) => {
                let at = self.now() + AGAIN;
                self.at(at, Wake::App(uid.to_owned()));
            }
        }
    }

    /// Tells a session's worker to open it.
    pub(super) fn send_open(&mut self, session: &str) {
        let now = self.now();
        let Some(of) = self.sessions.get(session) else { return };
        let (Some(bound), Some(uid)) = (&of.bound, of.app.clone()) else { return };
        let Some(app) = self.apps.get(&uid) else { return };
        let Some(version) = app.versions.as_ref().and_then(|all| all.get(&bound.version)) else { return };
        let spec = &of.object.spec;
        let key = SessionKey { tenant: of.key.tenant.clone(), name: of.key.name.to_string(), uid: session.to_owned() };
        let is_current = bound.version == app.current;
        let open = OpenSession {
            key,
            app: self.configured(app, &version.version),
            data: spec.session_data.clone(),
            timeout: of.deadline.saturating_duration_since(now),
            close_grace: Duration::from_secs(spec.close_grace_period_seconds.into()),
            reuse: !spec.kill_instance_when_session_closed,
            standing: if is_current { app.targets.get(&bound.worker).copied().unwrap_or(0) } else { 0 },
        };
        let (worker, number) = (bound.worker.clone(), bound.version);
        // It says how many stand, too.
        self.count_command(&uid, &worker, number);
        let (session, at) = (session.to_owned(), worker.clone());
        let command = SessionCommand::Open(Box::new(open));
        self.command(&worker, command, move |outcome| Done::Opened(session, (uid, at, number), outcome));
    }
}

/// A worker that could start an instance.
struct Cold {
    worker: String,
    room: u32,
    instances: u32,
    fullness: u64,
}

impl Cold {
    fn take(&mut self) {
        self.room = self.room.saturating_sub(1);
        self.instances += 1;
    }
}

/// The worker that starts an instance best: one that has room, then the one with the fewest of the application.
fn best_cold(cold: &mut [Cold], refused: &BTreeSet<String>) -> Option<String> {
    let able = cold.iter_mut().filter(|of| !refused.contains(&of.worker));
    let best = able.min_by_key(|of| (of.room == 0, of.instances, of.fullness))?;
    best.take();
    Some(best.worker.clone())
}

/// A worker with instances that stand ready.
struct Ready {
    worker: String,
    count: u32,
    /// All instances of the version there, with and without sessions.
    instances: u32,
    fullness: u64,
}

/// Takes a ready instance from the worker that has the most; of several the one with the fewest of the application, so that
/// sessions are spread, too.
fn best_ready(ready: &mut [Ready], refused: &BTreeSet<String>) -> Option<String> {
    let able = ready.iter_mut().filter(|of| of.count > 0 && !refused.contains(&of.worker));
    let best = able.min_by_key(|of| (Reverse(of.count), of.instances, of.fullness))?;
    best.count -= 1;
    Some(best.worker.clone())
}
