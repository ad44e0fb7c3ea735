//! Lyra's end of the socket to the launcher's process.
//!
//! Requests carry a number, and answers come in any order. A task reads answers and hands them to who waits; when the
//! launcher is gone, everybody who waits is told.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::abilities::Abilities;
use super::cgroup::Group;
use super::error::{Fault, LaunchError};
use super::process::exit_of;
use super::system;
use super::wire::{self, Kept, MAX_MESSAGE, Reply, Request};
use crate::{Exit, Traffic};

/// What the launcher has answered.
pub(super) enum Answer {
    Spawned { pid: u32, hold: Hold, descriptors: Vec<OwnedFd> },
    Done(Vec<OwnedFd>),
    Carried(Traffic),
    Failed(Fault),
}

/// A running sandbox that ends when this is dropped.
pub(super) struct Hold {
    pub(super) pidfd: OwnedFd,
    pub(super) group: Group,
    /// It goes on when this is dropped.
    pub(super) left: AtomicBool,
}

impl Hold {
    /// Ends all processes of the sandbox.
    pub(super) fn kill(&self) {
        let _gone = system::pidfd_signal(self.pidfd.as_fd(), libc::SIGKILL);
        // Of a frozen sandbox, version 1 of cgroups lets nothing die.
        if self.group.is_frozen() {
            let _thawed = self.group.set_frozen(false);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.left.load(Ordering::Relaxed) {
            self.kill();
        }
    }
}

/// Who waits for the end of which sandbox.
pub(super) type Ends = HashMap<u64, watch::Sender<Option<Exit>>>;

#[derive(Default)]
struct Waiting {
    answers: HashMap<u64, oneshot::Sender<Answer>>,
    ends: Ends,
    gone: bool,
}

struct Shared {
    socket: AsyncFd<OwnedFd>,
    waiting: Mutex<Waiting>,
}

/// The connection; the launcher's process ends when it is dropped.
pub(super) struct Connection {
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
    next: AtomicU64,
    patience: Duration,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
        self.shared.leave();
    }
}

impl Connection {
    /// Takes over the socket; numbers from `next` on are free, `ends` waits for those of sandboxes that are known already.
    /// Call inside of a runtime.
    pub(super) fn new(socket: OwnedFd, next: u64, ends: Ends, patience: Duration) -> io::Result<Connection> {
        system::set_nonblocking(socket.as_fd())?;
        let socket = system::watched(socket, Interest::READABLE | Interest::WRITABLE)?;
        let shared = Arc::new(Shared { socket, waiting: Mutex::new(Waiting { ends, ..Waiting::default() }) });
        let reader = lyra_kit::tasks::spawn("launcher", read(Arc::clone(&shared)));
        Ok(Connection { shared, reader, next: AtomicU64::new(next), patience })
    }

    /// Lets the launcher go; everybody who waits is told.
    pub(super) fn leave(&self) {
        self.shared.leave();
    }

    pub(super) fn is_gone(&self) -> bool {
        self.shared.waiting.lock().gone
    }

    /// A number for a request.
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells how the sandbox of a number ends. To be asked for before the request is made.
    pub(super) fn end_of(&self, id: u64) -> watch::Receiver<Option<Exit>> {
        let (sender, receiver) = watch::channel(None);
        self.shared.waiting.lock().ends.insert(id, sender);
        receiver
    }

    /// Forgets about the end of a sandbox that was never started.
    pub(super) fn forget(&self, id: u64) {
        self.shared.waiting.lock().ends.remove(&id);
    }

    /// Makes a request and waits for its answer.
    pub(super) async fn ask(&self, id: u64, request: &Request) -> Result<Answer, LaunchError> {
        self.ask_with(id, request, &[]).await
    }

    /// The same with descriptors.
    pub(super) async fn ask_with(
        &self,
        id: u64,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Answer, LaunchError> {
        let work = async {
            let (sender, receiver) = oneshot::channel();
            let known = {
                let mut waiting = self.shared.waiting.lock();
                waiting.answers.insert(id, sender);
                !waiting.gone
            };
            if !known {
                return Err(LaunchError::Gone);
            }
            self.shared.send(request, descriptors).await?;
            receiver.await.map_err(|_| LaunchError::Gone)
        };
        match tokio::time::timeout(self.patience, work).await {
            Ok(Ok(Answer::Failed(fault))) => Err(LaunchError::Refused(fault)),
            Ok(other) => other,
            Err(_) => Err(LaunchError::Late(self.patience)),
        }
    }

    /// Makes a request that has no answer.
    pub(super) async fn tell_surely(&self, request: &Request) -> Result<(), LaunchError> {
        let sent = tokio::time::timeout(self.patience, self.shared.send(request, &[])).await;
        sent.map_err(|_| LaunchError::Late(self.patience))?
    }

    /// Makes a request that has no answer, if there is room for it at once.
    pub(super) fn tell(&self, request: &Request) {
        if let Some(bytes) = wire::encode(request) {
            let _lost = wire::send(self.shared.socket.as_fd(), &bytes, &[]);
        }
    }
}

impl Shared {
    async fn send(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<(), LaunchError> {
        let too_long =
            || LaunchError::InvalidPlan("it is too long for one message; make its environment smaller".into());
        let bytes = wire::encode(request).ok_or_else(too_long)?;
        loop {
            let mut ready = self.socket.writable().await.map_err(|_| LaunchError::Gone)?;
            match ready.try_io(|socket| wire::send(socket.as_fd(), &bytes, descriptors)) {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(_)) => return Err(LaunchError::Gone),
                Err(_would_block) => {}
            }
        }
    }

    /// Tells everybody who waits that the launcher is gone, and lets it go.
    fn leave(&self) {
        let Waiting { ends, .. } = {
            let mut waiting = self.waiting.lock();
            let left = Waiting { gone: true, ..Waiting::default() };
            std::mem::replace(&mut *waiting, left)
        };
        for end in ends.into_values() {
            end.send_replace(Some(Exit::killed()));
        }
        system::shut_down(self.socket.get_ref().as_fd());
    }

    fn dispatch(&self, reply: Reply, descriptors: Vec<OwnedFd>) {
        let (id, answer) = match reply {
            Reply::Spawned { id, pid, group } => {
                let mut descriptors = descriptors.into_iter();
                let Some(pidfd) = descriptors.next() else { return };
                let hold = Hold { pidfd, group, left: AtomicBool::new(false) };
                (id, Answer::Spawned { pid, hold, descriptors: descriptors.collect() })
            }
            Reply::Done { id } => (id, Answer::Done(descriptors)),
            Reply::Carried { id, traffic } => (id, Answer::Carried(traffic)),
            Reply::Failed { id, fault } => (id, Answer::Failed(fault)),
            Reply::Exited { sandbox, status, out_of_memory } => {
                let end = self.waiting.lock().ends.remove(&sandbox);
                if let Some(end) = end {
                    end.send_replace(Some(exit_of(status, out_of_memory)));
                }
                return;
            }
            Reply::Ready { .. } | Reply::Kept(_) | Reply::Unable(_) => return,
        };
        let waits = {
            let mut waiting = self.waiting.lock();
            if matches!(answer, Answer::Failed(_)) {
                waiting.ends.remove(&id);
            }
            waiting.answers.remove(&id)
        };
        // When nobody waits any more, a sandbox that was started ends here.
        drop(waits.map(|waits| waits.send(answer)));
    }
}

async fn read(shared: Arc<Shared>) {
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let Ok(mut ready) = shared.socket.readable().await else { break };
        match ready.try_io(|socket| wire::receive(socket.as_fd(), &mut buffer).map(|(b, fds)| (b.len(), fds))) {
            Ok(Ok((0, _)) | Err(_)) => break,
            Ok(Ok((length, descriptors))) => match wire::decode::<Reply>(&buffer[..length]) {
                Ok(reply) => shared.dispatch(reply, descriptors),
                Err(_) => break,
            },
            Err(_would_block) => {}
        }
    }
    shared.leave();
}

/// The answer to a greeting.
pub(super) enum Greeting {
    /// The launcher is up.
    Ready { abilities: Abilities, next: u64, kept: Vec<(Kept, Vec<OwnedFd>)> },
    /// It can't work, or not with this Lyra.
    Unable(Fault),
    /// It does not answer in time, or is gone.
    Silent,
}

/// Waits for the answer to a greeting on a socket that nobody else reads.
pub(super) async fn greeting(socket: &OwnedFd, patience: Duration) -> Greeting {
    let Ok(socket) = socket.try_clone() else { return Greeting::Silent };
    let read = lyra_kit::tasks::blocking(move || {
        let mut buffer = vec![0; MAX_MESSAGE];
        let mut next = || {
            if !system::is_readable_within(socket.as_fd(), patience) {
                return None;
            }
            let (bytes, descriptors) = wire::receive(socket.as_fd(), &mut buffer).ok()?;
            Some((wire::decode::<Reply>(bytes).ok()?, descriptors))
        };
        match next() {
            Some((Reply::Ready { abilities, kept: count, next: number }, _)) => {
                let mut kept = Vec::new();
                while kept.len() < count {
                    match next() {
                        Some((Reply::Kept(one), descriptors)) => kept.push((*one, descriptors)),
                        _ => return Greeting::Silent,
                    }
                }
                Greeting::Ready { abilities, next: number, kept }
            }
            Some((Reply::Unable(fault), _)) => Greeting::Unable(fault),
            _ => Greeting::Silent,
        }
    });
    read.await.unwrap_or(Greeting::Silent)
}
