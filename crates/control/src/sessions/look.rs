//! A look at one session: from what its object says, what its worker says and what time it is to what is to be done.

use std::sync::Arc;
use std::time::Duration;

use lyra_resources::Key;
use lyra_types::resources::{ApplicationSession, ApplicationSessionStatus, SessionStatus};
use lyra_types::{Code, Result};
use lyra_wire::registry::MemberState;
use lyra_wire::sessions::{SessionCommand, SessionPhase};

use super::admission::SESSION_FINALIZER;
use super::leading::{AGAIN, Bound, Done, Leading, Opening, Session, Wake, all_follow, is_refusal};
use super::status::{Reason, Stage, next};

/// States that a session passes through in less time than this are not written: a write for each would make it slower.
const PASSING: Duration = Duration::from_millis(100);

impl Leading {
    /// A session's object is new, has changed or is gone.
    pub(super) fn session_changed(&mut self, key: &Key) {
        let object = self.of.api.sessions().get_key(key);
        let known = self.keys.get(key).cloned();
        let uid = object.as_ref().map(|object| object.metadata.uid.clone());
        if let Some(known) = known
            && uid.as_ref() != Some(&known)
        {
            self.session_gone(&known);
        }
        let (Some(object), Some(uid)) = (object, uid) else { return };
        self.dirty_sessions.insert(uid.clone());
        if let Some(session) = self.sessions.get_mut(&uid) {
            session.object = object;
            return;
        }
        let now = self.now();
        let timeout = Duration::from_secs(object.spec.open_timeout_seconds.into());
        let age = self.of.ages.age(key, object.object());
        let application = Key::new(&key.tenant, &object.spec.application_name);
        let app = self.names.get(&application).cloned();
        let config = &self.of.config;
        let mut ports = Vec::new();
        for endpoint in &object.status.access_end_points {
            let port = u16::try_from(endpoint.port).ok();
            let port =
                port.filter(|_| !config.ingress_address.is_empty() && endpoint.ip_address == config.ingress_address);
            let port = port.filter(|port| self.ports.found(&uid, endpoint.protocol, *port));
            ports.push(port.map(|port| (endpoint.protocol, port)));
        }
        let session = Session {
            key: key.clone(),
            object,
            app,
            bound: None,
            reason: Reason::new("Waiting", "the session waits for an instance"),
            refused: Default::default(),
            not_before: None,
            seen: now,
            deadline: now + timeout.saturating_sub(age),
            over: None,
            writing: false,
            commanding: false,
            closing: false,
            ports,
        };
        self.keys.insert(key.clone(), uid.clone());
        self.at(session.deadline, Wake::Session(uid.clone()));
        self.sessions.insert(uid, session);
    }

    /// A session's object is gone: by its own end, or since somebody took its finalizer away.
    fn session_gone(&mut self, uid: &str) {
        self.release(uid);
        if let Some(session) = self.sessions.remove(uid) {
            self.keys.remove(&session.key);
            self.dirty_apps.extend(session.app);
        }
        self.dirty_sessions.insert(uid.to_owned());
    }

    /// Takes a session out of its application's books.
    fn release(&mut self, uid: &str) {
        let Some(session) = self.sessions.get_mut(uid) else { return };
        session.bound = None;
        let ports = std::mem::take(&mut session.ports);
        if let Some(app) = session.app.as_ref().and_then(|app| self.apps.get_mut(app)) {
            let changed = app.release(uid) | app.waiting.remove(&(session.object.created(), uid.to_owned()));
            if changed && let Some(app) = session.app.clone() {
                self.share_quota(&app);
                self.dirty_apps.insert(app);
            }
        }
        self.portless.remove(uid);
        if ports.iter().any(Option::is_some) {
            self.dirty_sessions.extend(std::mem::take(&mut self.portless));
        }
        self.ports.give_back(uid, ports.into_iter().flatten());
    }

    /// Looks at a session.
    pub(super) fn look(&mut self, uid: &str) {
        let Some(session) = self.sessions.get(uid) else { return self.stranger(uid) };
        if session.object.status.session_status.has_ended() {
            return self.ended(uid);
        }
        self.find(uid);
        self.open_again(uid);
        self.judge(uid);
        self.close(uid);
        self.write(uid);
        self.close_idle(uid);
    }

    /// Closes a session that calls opened, when none has come for long.
    fn close_idle(&mut self, uid: &str) {
        let Some(session) = self.sessions.get(uid) else { return };
        let idle = self.of.config.idle_timeout;
        let Some(unused) = self.of.ages.unused(&session.key, session.object.object()) else { return };
        let left = idle.saturating_sub(unused);
        if left.is_zero() {
            self.delete(uid);
        } else {
            let at = self.now() + left;
            self.at(at, Wake::Session(uid.to_owned()));
        }
    }

    /// A session that has no object: what a worker has of it goes.
    fn stranger(&mut self, uid: &str) {
        let Some(worker) = self.field.worker_of(uid).map(ToOwned::to_owned) else { return };
        let Some(report) = self.field.session(&worker, uid) else { return };
        let Some(command) = parting(uid, report.phase) else { return };
        let of = uid.to_owned();
        self.command(&worker, command, |outcome| match outcome {
            Ok(()) => Done::Nothing,
            Err(error) => Done::Commanded(of, Err(error)),
        });
    }

    /// A session that has ended, as its object says: its worker may forget it, and its object goes when its time has come.
    fn ended(&mut self, uid: &str) {
        self.release(uid);
        let now = self.now();
        let Some(session) = self.sessions.get_mut(uid) else { return };
        let at = self.field.worker_of(uid).map(ToOwned::to_owned);
        if let Some(worker) = at
            && !session.commanding
            && let Some(report) = self.field.session(&worker, uid)
            && self.field.nodes.get(&worker).is_some_and(|node| node.state != MemberState::Lost)
            && let Some(command) = parting(uid, report.phase)
        {
            session.commanding = true;
            let of = uid.to_owned();
            self.command(&worker, command, |outcome| Done::Commanded(of, outcome));
        }
        let Some(session) = self.sessions.get(uid) else { return };
        if session.writing {
            return;
        }
        if session.object.metadata.deletion_timestamp.is_some() {
            return self.write_session(uid, None);
        }
        let ttl = Duration::from_secs(session.object.spec.ttl_seconds_after_finished.into());
        let age = session.object.status.close_time.map_or(Duration::ZERO, |at| self.time().since(at.timestamp()));
        if age < ttl {
            let at = now + (ttl - age).min(Duration::from_secs(3_600));
            self.at(at, Wake::Session(uid.to_owned()));
            return;
        }
        self.delete(uid);
    }

    /// Deletes a session's object, as a client does.
    pub(super) fn delete(&mut self, uid: &str) {
        let Some(session) = self.sessions.get_mut(uid) else { return };
        if session.writing || session.object.metadata.deletion_timestamp.is_some() {
            return;
        }
        session.writing = true;
        let (of, key, uid) = (Arc::clone(&self.of), session.key.clone(), uid.to_owned());
        self.begin(async move {
            let outcome = of.delete_session(&key, &uid).await;
            Done::WroteSession(uid, outcome.map(|()| None))
        });
    }

    /// Finds out where a session is that this leader did not place.
    fn find(&mut self, uid: &str) {
        let Some(session) = self.sessions.get_mut(uid) else { return };
        if session.app.is_none() {
            let name = Key::new(&session.key.tenant, &session.object.spec.application_name);
            session.app = self.names.get(&name).cloned();
        }
        let entry = (session.object.created(), uid.to_owned());
        if session.bound.is_none()
            && let Some(worker) = self.field.worker_of(uid)
            && let Some(report) = self.field.session(worker, uid)
        {
            let (worker, version) = (worker.to_owned(), report.app.version);
            session.bound = Some(Bound { worker, version, opening: Opening::Accepted, takes_standing: false });
            if let Some(app) = session.app.as_ref().and_then(|app| self.apps.get_mut(app)) {
                app.waiting.remove(&entry);
                app.bound.insert(uid.to_owned(), version);
                self.dirty_apps.extend(session.app.clone());
            }
        }
        let Some(session) = self.sessions.get_mut(uid) else { return };
        let Some(bound) = &mut session.bound else {
            // One that is open somewhere, as its object says, is waited for; see `judge`.
            let may_wait =
                matches!(session.object.status.session_status, SessionStatus::Unset | SessionStatus::Pending);
            let may_wait = may_wait && session.object.metadata.deletion_timestamp.is_none() && session.over.is_none();
            if let Some(app) = session.app.as_ref().and_then(|app| self.apps.get_mut(app))
                && may_wait
                && app.waiting.insert(entry)
            {
                self.dirty_apps.extend(session.app.clone());
            }
            return;
        };
        let Some(node) = self.field.nodes.get(&bound.worker) else { return };
        if let Some(report) = node.sessions.get(uid) {
            bound.opening = Opening::Accepted;
            if report.instance.is_some() && bound.takes_standing {
                bound.takes_standing = false;
                self.dirty_apps.extend(session.app.clone());
            }
        }
    }

    /// Ends a session whose time is over, or whose worker is.
    fn judge(&mut self, uid: &str) {
        let (now, lost_after, settled) = (self.now(), self.of.config.lost_after, self.settled);
        let Some(session) = self.sessions.get_mut(uid) else { return };
        if session.over.is_some() {
            return;
        }
        if now < session.deadline {
            let at = session.deadline;
            self.at(at, Wake::Session(uid.to_owned()));
        }
        // Seldom needed, and there may be many workers.
        let knows_all = || now >= settled && all_follow(&self.field, &self.followed);
        let Some(session) = self.sessions.get_mut(uid) else { return };
        let deleted = session.object.metadata.deletion_timestamp.is_some();
        let app_gone = session.app.as_ref().is_none_or(|app| !self.apps.contains_key(app));
        let Some(bound) = &session.bound else {
            let was_open =
                !matches!(session.object.status.session_status, SessionStatus::Unset | SessionStatus::Pending);
            let over = if was_open {
                // Some worker had it. It is given the time that a worker has to come back.
                let until = session.seen.max(settled) + lost_after;
                if now < until || !knows_all() {
                    self.at(until.max(now + AGAIN), Wake::Session(uid.to_owned()));
                    return;
                }
                Some((
                    SessionStatus::Closed,
                    Reason::new("WorkerLost", "the worker that had the session has not come back"),
                ))
            } else if deleted {
                Some((SessionStatus::Closed, Reason::new("Closed", "the session was closed before it had an instance")))
            } else if app_gone {
                Some((SessionStatus::Timeout, Reason::new("ApplicationNotFound", "its application is gone")))
            } else if now >= session.deadline {
                Some((SessionStatus::Timeout, session.reason.clone()))
            } else {
                None
            };
            session.over = over;
            return;
        };
        let node = self.field.nodes.get(&bound.worker);
        let report = node.and_then(|node| node.sessions.get(uid));
        let is_told = report.is_some();
        let lost = node.is_none_or(|node| node.lost.is_some());
        let was_open = session.object.status.available_time.is_some()
            || report.is_some_and(|report| report.phase != SessionPhase::Starting);
        if now >= session.deadline && !was_open && (lost || !is_told) {
            // Should its worker have it all the same, it is told to close it.
            let message = match lost {
                true => format!("worker {}, which was to open the session, is away", bound.worker),
                false => "the worker did not say that it has the session".to_owned(),
            };
            session.over = Some((SessionStatus::Timeout, Reason::new("OpenTimeout", message)));
        } else if now >= session.deadline && session.lacks_port() {
            session.over = Some((SessionStatus::Timeout, no_port_left()));
        } else if lost {
            let since = node.and_then(|node| node.lost).unwrap_or(session.seen).max(settled);
            if now >= since + lost_after {
                let message = format!("worker {} has not come back", bound.worker);
                session.over = Some((SessionStatus::Closed, Reason::new("WorkerLost", message)));
            } else {
                self.at(since + lost_after, Wake::Session(uid.to_owned()));
            }
        } else if bound.opening == Opening::Accepted && !is_told && now >= session.seen + lost_after && knows_all() {
            // Its worker lives and has it no more: it lost its memory.
            let message = format!("worker {} does not have the session any more", bound.worker);
            session.over = Some((SessionStatus::Closed, Reason::new("WorkerLost", message)));
        }
    }

    /// Has the worker close a session that was told to end.
    fn close(&mut self, uid: &str) {
        let Some(session) = self.sessions.get_mut(uid) else { return };
        let deleted = session.object.metadata.deletion_timestamp.is_some();
        let Some(bound) = session.bound.as_ref().filter(|_| deleted && !session.commanding) else { return };
        let Some(report) = self.field.session(&bound.worker, uid) else { return };
        if session.closing || matches!(report.phase, SessionPhase::Closing | SessionPhase::Closed) {
            return;
        }
        (session.commanding, session.closing) = (true, true);
        let grace = Duration::from_secs(session.object.spec.close_grace_period_seconds.into());
        let (worker, of) = (bound.worker.clone(), uid.to_owned());
        self.command(&worker, SessionCommand::Close(uid.to_owned(), grace), |outcome| Done::Commanded(of, outcome));
    }

    /// Writes the status, if it is to be another.
    fn write(&mut self, uid: &str) {
        self.take_ports(uid);
        let now = self.now();
        let Some(session) = self.sessions.get(uid) else { return };
        if session.writing {
            return;
        }
        let stage = match (&session.over, &session.bound) {
            (Some((how, reason)), _) => Stage::Over(*how, reason),
            (None, None) => {
                if !matches!(session.object.status.session_status, SessionStatus::Unset | SessionStatus::Pending) {
                    // It may be on a worker that has not come back yet.
                    return;
                }
                Stage::Waiting(&session.reason)
            }
            (None, Some(bound)) => Stage::Bound {
                version: bound.version,
                report: self.field.session(&bound.worker, uid),
                ports: &session.ports,
                waits: &session.reason,
            },
        };
        let status = next(&session.object, &stage, &self.of.config, self.time());
        if status == session.object.status {
            return;
        }
        let passing = matches!(status.session_status, SessionStatus::Pending | SessionStatus::Starting);
        if passing && now < session.seen + PASSING {
            let at = session.seen + PASSING;
            return self.at(at, Wake::Session(uid.to_owned()));
        }
        self.write_session(uid, Some(status));
    }

    /// Writes a session's status; and lets the object go where it has ended and was deleted.
    fn write_session(&mut self, uid: &str, status: Option<ApplicationSessionStatus>) {
        let Some(session) = self.sessions.get_mut(uid) else { return };
        session.writing = true;
        let (of, key, uid) = (Arc::clone(&self.of), session.key.clone(), uid.to_owned());
        let (before, seen) = (Arc::clone(&session.object), session.seen);
        self.begin(async move {
            let change = |object: &mut ApplicationSession| {
                if let Some(status) = &status {
                    object.status.clone_from(status);
                }
                if object.status.session_status.has_ended() && object.metadata.deletion_timestamp.is_some() {
                    object.metadata.finalizers.retain(|of| of != SESSION_FINALIZER);
                }
            };
            let outcome = of.api.sessions().update(&key.tenant, &key.name, Some(&uid), change).await;
            if let (Ok(Some(_)), Some(status)) = (&outcome, &status) {
                of.observe(before.object(), status, seen);
            }
            Done::WroteSession(uid, outcome)
        });
    }

    /// Gives the session its ports on gateways, where those lead to sessions.
    fn take_ports(&mut self, uid: &str) {
        let Some(session) = self.sessions.get_mut(uid) else { return };
        let has_all = !session.ports.is_empty() && !session.lacks_port();
        if self.of.config.ingress_address.is_empty() || has_all || session.over.is_some() {
            return;
        }
        let Some(bound) = &session.bound else { return };
        let Some(report) = self.field.session(&bound.worker, uid) else { return };
        session.ports.resize(report.endpoints.len(), None);
        for (endpoint, port) in report.endpoints.iter().zip(&mut session.ports) {
            if port.is_none() {
                let protocol = endpoint.port.protocol;
                *port = self.ports.take(uid, protocol).map(|number| (protocol, number));
            }
        }
        if session.lacks_port() {
            session.reason = no_port_left();
            self.portless.insert(uid.to_owned());
        }
    }

    /// How the command to open a session went.
    pub(super) fn opened(&mut self, uid: &str, worker: &str, outcome: Result<()>) {
        let now = self.now();
        self.dirty_sessions.insert(uid.to_owned());
        let Some(session) = self.sessions.get_mut(uid) else { return };
        self.dirty_apps.extend(session.app.clone());
        let Some(bound) = session.bound.as_mut().filter(|bound| bound.worker == worker) else { return };
        match outcome {
            Ok(()) => bound.opening = Opening::Accepted,
            Err(_) if session.over.is_some() => {}
            Err(error) if is_refusal(&error) => {
                let word = if error.code == Code::Overloaded { "Unschedulable" } else { "Refused" };
                session.reason = Reason::new(word, format!("worker {worker}: {}", error.detail));
                session.bound = None;
                session.refused.insert(worker.to_owned());
                if let Some(app) = session.app.as_ref().and_then(|app| self.apps.get_mut(app)) {
                    app.bound.remove(uid);
                    app.waiting.insert((session.object.created(), uid.to_owned()));
                }
            }
            Err(_) => {
                bound.opening = Opening::Uncertain;
                session.not_before = Some(now + AGAIN);
                self.at(now + AGAIN, Wake::Session(uid.to_owned()));
            }
        }
    }

    /// Says again that a session is to be opened, where it is not known whether the worker has heard.
    fn open_again(&mut self, uid: &str) {
        let now = self.now();
        let Some(session) = self.sessions.get_mut(uid) else { return };
        let Some(bound) = session.bound.as_mut().filter(|of| of.opening == Opening::Uncertain) else { return };
        if now >= session.deadline {
            return;
        }
        if let Some(later) = session.not_before.filter(|at| now < *at) {
            // The timer that was set with it may have been an earlier one's.
            return self.at(later, Wake::Session(uid.to_owned()));
        }
        if self.field.nodes.get(&bound.worker).is_some_and(|node| node.state != MemberState::Lost) {
            bound.opening = Opening::Sent;
            self.send_open(uid);
        } else {
            self.at(now + AGAIN, Wake::Session(uid.to_owned()));
        }
    }
}

impl Session {
    /// Whether it is not open for its clients yet since gateways have no port left for it.
    fn lacks_port(&self) -> bool {
        self.object.status.available_time.is_none() && self.ports.iter().any(Option::is_none)
    }
}

fn no_port_left() -> Reason {
    let message = "all ports of the gateways (control.sessions.ingress_first_port to ingress_last_port) are taken; close a \
                   session, or have more ports";
    Reason::new("NoPortLeft", message)
}

/// What a worker is told that still has a session which is over.
fn parting(uid: &str, phase: SessionPhase) -> Option<SessionCommand> {
    match phase {
        SessionPhase::Closed => Some(SessionCommand::Forget(uid.to_owned())),
        SessionPhase::Closing => None,
        SessionPhase::Starting | SessionPhase::Open => Some(SessionCommand::Close(uid.to_owned(), Duration::ZERO)),
    }
}
