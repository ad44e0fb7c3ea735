//! Puts a session server together: one machine under a lock, a timer, and the tasks that serve connections.
//!
//! What must hold: whatever changes the machine goes through [`Shared::act`], which sends what it has to say, cuts a
//! stream that does not take it, publishes the state and wakes the timer. Nothing waits while the lock is held.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use lyra_kit::Clock;
use lyra_kit::tasks::Tasks;
use lyra_types::Timestamp;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::Instant;

use crate::handle::SessionHandle;
use crate::machine::{At, Machine};
use crate::protocol::ToProgram;
use crate::rate::Rate;
use crate::settings::Settings;
use crate::state::SessionState;

/// Serves the session protocol to one instance.
#[derive(Debug)]
pub struct SessionServer;

impl SessionServer {
    /// Starts a server on `connections`, which must come from the one instance that it is for. It runs until the handle, and
    /// all clones of it, are dropped, or [`SessionHandle::stop`] is called. Call inside of a runtime.
    pub fn start<S, C>(connections: S, settings: Settings, clock: Clock) -> SessionHandle
    where
        S: Stream<Item = io::Result<C>> + Send + 'static,
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let shared = Arc::new(Shared::new(settings, clock));
        shared.tasks.spawn_cancellable("session-timer", timer(Arc::clone(&shared)));
        shared.tasks.spawn_cancellable("session-accept", crate::listen::accept(connections, Arc::clone(&shared)));
        SessionHandle::new(shared)
    }
}

/// What all parts of a server share.
pub(crate) struct Shared {
    pub(crate) settings: Arc<Settings>,
    pub(crate) clock: Clock,
    pub(crate) tasks: Tasks,
    pub(crate) bytes: Arc<Rate>,
    pub(crate) messages: Rate,
    /// Who sets up a stream; one at a time, since each may bring a large first message.
    pub(crate) attaching: Semaphore,
    /// Who posts messages; one at a time, for the same reason.
    pub(crate) posting: Semaphore,
    /// Told whenever a program gave a sign of life, or its stream ended.
    pub(crate) heard: Notify,
    start: Instant,
    inner: Mutex<Inner>,
    wake: Notify,
    state: watch::Sender<SessionState>,
    attached: watch::Sender<Option<Timestamp>>,
}

struct Inner {
    machine: Machine,
    outgoing: Option<Outgoing>,
    /// When the timer will look next.
    armed: Option<Duration>,
}

/// The way to the program. Dropping it ends its stream.
struct Outgoing {
    stream: u64,
    sender: mpsc::Sender<ToProgram>,
}

/// Messages that may wait to be written. All that a server says within some pings; who does not read is cut off.
const WAITING: usize = 64;

impl Shared {
    fn new(settings: Settings, clock: Clock) -> Shared {
        let settings = Arc::new(settings);
        let machine = Machine::new(Arc::clone(&settings));
        Shared {
            bytes: Arc::new(Rate::new(settings.bytes_per_second, &clock)),
            messages: Rate::new(settings.messages_per_second, &clock),
            tasks: Tasks::new(),
            attaching: Semaphore::new(1),
            posting: Semaphore::new(1),
            heard: Notify::new(),
            start: clock.instant(),
            state: watch::Sender::new(machine.state()),
            inner: Mutex::new(Inner { machine, outgoing: None, armed: None }),
            wake: Notify::new(),
            attached: watch::Sender::new(None),
            settings,
            clock,
        }
    }

    /// Does something to the machine, and what follows from it.
    pub(crate) fn act<R>(&self, work: impl FnOnce(&mut Machine, At) -> R) -> R {
        let mut inner = self.inner.lock();
        let at = self.at();
        let result = work(&mut inner.machine, at);
        self.settle(&mut inner, at);
        result
    }

    /// As [`Shared::act`], for work that begins a stream: gives it the way to its program.
    pub(crate) fn act_and_open<E>(
        &self,
        work: impl FnOnce(&mut Machine, At) -> Result<u64, E>,
    ) -> Result<(u64, mpsc::Receiver<ToProgram>), E> {
        let mut inner = self.inner.lock();
        let at = self.at();
        let stream = work(&mut inner.machine, at)?;
        let (sender, receiver) = mpsc::channel(WAITING);
        inner.outgoing = Some(Outgoing { stream, sender });
        self.settle(&mut inner, at);
        Ok((stream, receiver))
    }

    fn at(&self) -> At {
        At { since_start: self.clock.instant().saturating_duration_since(self.start), wall: self.clock.now() }
    }

    fn settle(&self, inner: &mut Inner, at: At) {
        let Inner { machine, outgoing, armed } = inner;
        let current = machine.stream().map(|stream| stream.number);
        outgoing.take_if(|outgoing| Some(outgoing.stream) != current);
        let messages = machine.take_out();
        let broken =
            outgoing.as_ref().filter(|way| messages.into_iter().any(|message| way.sender.try_send(message).is_err()));
        if let Some(stream) = broken.map(|way| way.stream) {
            tracing::debug!(stream, "a program does not read what it is told");
            machine.detach(stream, at);
            *outgoing = None;
        }
        let state = machine.state();
        self.state.send_if_modified(|old| {
            let changed = *old != state;
            if changed {
                *old = state;
            }
            changed
        });
        let is_attached = machine.stream().is_some();
        self.attached.send_if_modified(|since| {
            let changed = since.is_some() != is_attached;
            if changed {
                *since = is_attached.then_some(at.wall);
            }
            changed
        });
        if machine.next_deadline().is_some_and(|next| armed.is_none_or(|armed| next < armed)) {
            self.wake.notify_one();
        }
        self.heard.notify_waiters();
    }

    /// Looks at the machine.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&Machine) -> R) -> R {
        look(&self.inner.lock().machine)
    }

    pub(crate) fn state(&self) -> watch::Receiver<SessionState> {
        self.state.subscribe()
    }

    pub(crate) fn attached(&self) -> watch::Receiver<Option<Timestamp>> {
        self.attached.subscribe()
    }

    fn arm(&self) -> Option<Duration> {
        let mut inner = self.inner.lock();
        inner.armed = inner.machine.next_deadline();
        inner.armed
    }
}

async fn timer(shared: Arc<Shared>) {
    loop {
        match shared.arm().and_then(|due| shared.start.checked_add(due)) {
            None => shared.wake.notified().await,
            Some(due) => tokio::select! {
                () = tokio::time::sleep_until(due) => shared.act(Machine::tick),
                () = shared.wake.notified() => {}
            },
        }
    }
}
