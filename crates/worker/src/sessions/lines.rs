//! Lines that instances of applications write.
//!
//! What must hold: a line that a program writes while it serves a session is that session's, and nobody else's; no line shows a secret.

use std::sync::Arc;

use lyra_isolation::{Hosted, LogSink};
use lyra_types::log::{Hosted as Doing, Level, LogLine, SessionOf};
use lyra_types::{InstanceId, InvocationId};
use lyra_wire::sessions::{AppVersion, SessionKey};
use parking_lot::Mutex;

use super::Shared;

/// Passes an instance's lines to the log service, under the name of its function, for as long as it does the same. They belong to no
/// call: in place of a call's id they bear one that is the same for all lines of the instance.
struct Lines {
    shared: Arc<Shared>,
    app: Arc<AppVersion>,
    instance: InstanceId,
    doing: Arc<Doing>,
}

impl LogSink for Lines {
    fn line(&self, level: Level, message: &str) {
        let (deps, version) = (&self.shared.deps, &self.app.function);
        let message = match deps.secrets.masks_of_app(&self.app) {
            Some(masks) => masks.apply(message.to_owned()),
            None => message.to_owned(),
        };
        deps.logs.offer(LogLine {
            time: deps.clock.now(),
            level,
            message,
            invocation: InvocationId::from_number(self.instance.number()),
            version: version.version,
            instance: Some(self.instance),
            tenant: version.tenant.clone(),
            function: version.function.clone(),
            hosted: Some(Arc::clone(&self.doing)),
        });
    }
}

/// Where an instance's lines go: to the session that it serves, or to none.
pub(super) struct Outlet {
    shared: Arc<Shared>,
    app: Arc<AppVersion>,
    instance: InstanceId,
    state: Mutex<State>,
}

struct State {
    /// Lines are taken.
    listens: bool,
    session: Option<SessionOf>,
}

impl Outlet {
    /// That of an instance with this session, or with none.
    pub(super) fn new(
        shared: &Arc<Shared>,
        app: &Arc<AppVersion>,
        instance: InstanceId,
        session: Option<&SessionKey>,
    ) -> Outlet {
        let state = Mutex::new(State { listens: false, session: session.map(named) });
        Outlet { shared: Arc::clone(shared), app: Arc::clone(app), instance, state }
    }

    /// Takes the lines of the instance, also those that it has written already.
    pub(super) fn listen(&self, hosted: &dyn Hosted) {
        let mut state = self.state.lock();
        state.listens = true;
        hosted.logs(self.lines(&state));
    }

    /// What the instance writes from now on is of this session, or of none.
    pub(super) fn turn(&self, hosted: &dyn Hosted, session: Option<&SessionKey>) {
        let (next, mut state) = (session.map(named), self.state.lock());
        if state.session == next {
            return;
        }
        state.session = next;
        if state.listens {
            hosted.logs(self.lines(&state));
        }
    }

    fn lines(&self, state: &State) -> Arc<Lines> {
        let doing = Doing { application: self.app.key.application.clone(), session: state.session.clone() };
        let (shared, app) = (Arc::clone(&self.shared), Arc::clone(&self.app));
        Arc::new(Lines { shared, app, instance: self.instance, doing: Arc::new(doing) })
    }
}

fn named(key: &SessionKey) -> SessionOf {
    SessionOf { name: key.name.clone(), uid: key.uid.clone() }
}
