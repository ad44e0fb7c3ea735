//! What the launcher does without Lyra: it keeps lasting sandboxes until the next Lyra takes them over.
//!
//! It listens in Lyra's directory, where only its own user may enter, and reads what the programs write so that none waits.
//! Who connects must be the same user and speak the same protocol; everything else is ended or refused.
//!
//! What must hold: without a lasting sandbox it ends at once; with some, after the grace at the latest, and then all of
//! them do; how one ended meanwhile is told once to the next Lyra.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lyra_kit::Clock;
use tokio::time::Instant;

use super::super::error::{Fault, Step};
use super::super::system;
use super::super::wire::{self, Kept, PROTOCOL, Reply, Request};
use super::backlog::{self, Backlog};
use super::sandbox::{Sandbox, Starting};
use super::{Server, token};
use crate::process::launch::DOOR;

/// How long one who has connected may take to say who it is.
const GREETING: Duration = Duration::from_secs(1);

/// Longest time between `SIGTERM` and `SIGKILL`, whatever a plan says.
const MAX_KILL_GRACE: Duration = Duration::from_secs(60);

/// What the launcher keeps of a lasting sandbox beside what it keeps of all.
pub(super) struct Keepsake {
    outputs: [(OwnedFd, Backlog); 2],
    listeners: Vec<OwnedFd>,
    /// Nobody else reads its outputs.
    watched: bool,
}

impl Keepsake {
    /// What belongs to a sandbox that has just started.
    pub(super) fn of(starting: &Starting) -> io::Result<Keepsake> {
        let output = |end: &OwnedFd| Ok::<_, io::Error>((end.try_clone()?, Backlog::default()));
        let listeners = starting.listeners.iter().map(|listener| Ok(listener.try_clone()?.into()));
        Ok(Keepsake {
            outputs: [output(&starting.stdout.0)?, output(&starting.stderr.0)?],
            listeners: listeners.collect::<io::Result<_>>()?,
            watched: false,
        })
    }
}

/// A lasting sandbox that has ended while nobody was there.
pub(super) struct Departed {
    id: u64,
    sandbox: Sandbox,
    ended: (i32, bool),
}

/// Where the launcher can be found when nobody is there.
pub(super) struct Home {
    /// Lyra's directory; `None`: it can't be used.
    directory: Option<File>,
    pub(super) grace: Duration,
}

impl Home {
    pub(super) fn new(directory: &Path, grace: Duration) -> Home {
        let directory = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_CLOEXEC).open(directory);
        Home { directory: directory.ok(), grace }
    }

    /// Whether lasting sandboxes could be kept.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let usable = match &self.directory {
            Some(directory) => system::may_write(directory.as_fd()),
            None => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        };
        usable.step("looking whether a lasting sandbox could be kept").map_err(|fault| {
            let advice = "the launcher's user must be able to write to the launcher's directory";
            if fault.errno == libc::EACCES { fault.advise(advice) } else { fault }
        })
    }

    /// By the descriptor, since the path may be longer than an address.
    fn door(&self) -> io::Result<PathBuf> {
        let directory = self.directory.as_ref().ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
        Ok(PathBuf::from(format!("/proc/self/fd/{}/{DOOR}", directory.as_raw_fd())))
    }

    fn open_door(&self) -> io::Result<OwnedFd> {
        let path = self.door()?;
        let _none = std::fs::remove_file(&path);
        system::listen_at(&path)
    }

    fn close_door(&self) {
        if let Ok(path) = self.door() {
            let _gone = std::fs::remove_file(path);
        }
    }
}

/// Who the launcher works for.
pub(super) enum Link {
    /// A running Lyra.
    Lyra {
        socket: OwnedFd,
        /// Ready when it has ended.
        process: OwnedFd,
    },
    /// Nobody, until somebody knocks or time is up. It is opened once nothing is left but what lasts.
    Nobody { door: OwnedFd, until: Instant, opened: bool },
    /// Nobody any more: lasting sandboxes have been asked to end.
    Closing { until: Instant },
}

impl Link {
    /// How long it may be waited before the launcher has to do something of itself.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let until = match self {
            Link::Lyra { .. } => return None,
            Link::Nobody { until, .. } | Link::Closing { until } => *until,
        };
        Some(until.saturating_duration_since(now()).max(Duration::from_millis(1)))
    }

    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Link::Lyra { socket, .. } => Some(socket.as_fd()),
            Link::Nobody { .. } | Link::Closing { .. } => None,
        }
    }
}

fn now() -> Instant {
    Clock::system().instant()
}

impl Server {
    /// Lyra is gone: ends what does not last, and waits for the next Lyra where something does.
    pub(super) fn orphan(&mut self) {
        let Link::Lyra { socket, process } = &self.link else { return };
        self.events.remove(socket.as_fd());
        self.events.remove(process.as_fd());
        self.outbox.clear();
        self.starts.clear();
        for zygote in self.zygotes.values() {
            let _gone = system::kill(zygote.pid(), libc::SIGKILL);
        }
        self.workshop.discard_all();
        for sandbox in self.sandboxes.values().filter(|sandbox| !sandbox.lasts()) {
            sandbox.kill();
        }
        let lasts = self.sandboxes.values().any(Sandbox::lasts) || self.leaving.iter().any(|one| one.sandbox.is_some());
        let door = lasts.then(|| self.home.open_door());
        let Some(Ok(door)) = door else {
            self.over = true;
            return;
        };
        // Whoever reads what Lyra has written shall see its end.
        let _noisy = File::open("/dev/null").and_then(|nothing| system::duplicate_to(nothing.as_fd(), 2));
        self.link = Link::Nobody { door, until: now() + self.home.grace, opened: false };
        let lasting: Vec<u64> =
            self.sandboxes.iter().filter(|(_, sandbox)| sandbox.lasts()).map(|(id, _)| *id).collect();
        lasting.into_iter().for_each(|id| self.watch_outputs(id));
    }

    /// Reads what a program writes from now on.
    fn watch_outputs(&mut self, id: u64) {
        let Some(kept) = self.sandboxes.get_mut(&id).and_then(|sandbox| sandbox.kept.as_mut()) else { return };
        kept.watched = true;
        for ((output, _), kind) in kept.outputs.iter().zip([token::STDOUT, token::STDERR]) {
            let _unread = system::set_nonblocking(output.as_fd())
                .and_then(|()| self.events.add(output.as_fd(), token::of(id, kind)));
        }
    }

    /// A program has written something that nobody else reads.
    pub(super) fn written(&mut self, id: u64, which: usize) {
        let Some(kept) = self.sandboxes.get_mut(&id).and_then(|sandbox| sandbox.kept.as_mut()) else { return };
        let Some((output, backlog)) = kept.outputs.get_mut(which).filter(|_| kept.watched) else { return };
        if backlog.read(output.as_fd(), &mut self.buffer[..backlog::MOST], false) == backlog::State::Closed {
            self.events.remove(output.as_fd());
        }
    }

    /// Reads the rest of what a program has written that is gone, where nobody else does, and stops watching.
    pub(super) fn last_words(&mut self, sandbox: &mut Sandbox) {
        let Some(kept) = sandbox.kept.as_mut().filter(|kept| kept.watched) else { return };
        for (output, backlog) in &mut kept.outputs {
            backlog.read(output.as_fd(), &mut self.buffer[..backlog::MOST], true);
            self.events.remove(output.as_fd());
        }
        kept.watched = false;
    }

    /// A lasting sandbox is gone: keeps how it ended, if nobody is there to be told.
    pub(super) fn departed(&mut self, id: u64, sandbox: Sandbox, ended: (i32, bool)) {
        match self.link {
            Link::Lyra { .. } => {
                let (status, out_of_memory) = ended;
                self.tell(&Reply::Exited { sandbox: id, status, out_of_memory }, &[]);
            }
            Link::Nobody { .. } => self.departed.push(Departed { id, sandbox, ended }),
            Link::Closing { .. } => {}
        }
    }

    /// Does what is due while nobody is there: lets the next Lyra in once what does not last is gone, and when time is up
    /// asks what lasts to end, and then ends all.
    pub(super) fn bide(&mut self) {
        if let Link::Lyra { .. } = self.link {
            return;
        }
        let is_clear = self.zygotes.is_empty()
            && self.sandboxes.values().all(Sandbox::lasts)
            && self.leaving.iter().all(|leaving| leaving.sandbox.is_some());
        if let Link::Nobody { door, opened, .. } = &mut self.link
            && is_clear
            && !std::mem::replace(opened, true)
            && self.events.add(door.as_fd(), token::DOOR).is_err()
        {
            self.over = true;
        }
        let time = now();
        match &self.link {
            Link::Nobody { door, until, .. } if *until <= time => {
                self.events.remove(door.as_fd());
                self.home.close_door();
                self.departed.clear();
                let graces = self.sandboxes.values().filter_map(|sandbox| sandbox.plan.lasting.as_ref());
                let grace = graces.map(|lasting| lasting.kill_grace).max().unwrap_or_default().min(MAX_KILL_GRACE);
                self.link = Link::Closing { until: time + grace };
                for sandbox in self.sandboxes.values() {
                    let _thawed = sandbox.group.set_frozen(false);
                    sandbox.signal(libc::SIGTERM);
                }
            }
            Link::Closing { until } if *until <= time || self.sandboxes.is_empty() => self.over = true,
            _ => {}
        }
    }

    /// Somebody has connected where the launcher waits.
    pub(super) fn knock(&mut self) {
        let Link::Nobody { door, .. } = &self.link else { return };
        let Ok(socket) = system::accept(door.as_fd()) else { return };
        let Ok((pid, user)) = system::peer(socket.as_fd()) else { return };
        if user != system::effective_user().0 {
            return;
        }
        match (receive(&socket, &mut self.buffer), system::pidfd_open(pid)) {
            (Some(Request::Hello { protocol: PROTOCOL, orphan_grace, .. }), Ok(process)) => {
                self.home.grace = orphan_grace;
                if self.adopt(socket, process).is_err() {
                    self.over = true;
                }
            }
            (Some(Request::End), _) => self.over = true,
            // What is no request that is known here comes from a Lyra of another protocol.
            _ => {
                let fault = Fault::new("taking over", &io::Error::from_raw_os_error(libc::EPROTO));
                let bytes = wire::encode(&Reply::Unable(fault)).unwrap_or_default();
                let _gone = wire::send(socket.as_fd(), &bytes, &[]);
                self.over = matches!(receive(&socket, &mut self.buffer), Some(Request::End));
            }
        }
    }

    /// Works for another Lyra from now on, and tells it what there is.
    fn adopt(&mut self, socket: OwnedFd, process: OwnedFd) -> io::Result<()> {
        if let Link::Nobody { door, .. } = &self.link {
            self.events.remove(door.as_fd());
        }
        self.home.close_door();
        system::set_nonblocking(socket.as_fd())?;
        self.events.add(socket.as_fd(), token::LYRA)?;
        self.events.add(process.as_fd(), token::PARENT)?;
        self.link = Link::Lyra { socket, process };
        let mut kept = Vec::new();
        let leaving = self.leaving.iter_mut().filter_map(|one| Some((one.id, one.sandbox.as_mut()?)));
        let running = self.sandboxes.iter_mut().filter(|(_, sandbox)| sandbox.lasts()).map(|(id, one)| (*id, one));
        for (id, sandbox) in running.chain(leaving) {
            if let Some(keepsake) = sandbox.kept.as_mut().filter(|keepsake| keepsake.watched) {
                keepsake.outputs.iter().for_each(|(output, _)| self.events.remove(output.as_fd()));
                keepsake.watched = false;
            }
            kept.extend(describe(id, sandbox, None));
        }
        let departed = std::mem::take(&mut self.departed);
        kept.extend(departed.into_iter().filter_map(|mut one| describe(one.id, &mut one.sandbox, Some(one.ended))));
        let ready = Reply::Ready { abilities: self.abilities.clone(), kept: kept.len(), next: self.next };
        self.tell(&ready, &[]);
        for (told, descriptors) in kept {
            let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            self.tell(&Reply::Kept(Box::new(told)), &descriptors);
        }
        Ok(())
    }
}

/// What the next Lyra is told of a lasting sandbox.
fn describe(id: u64, sandbox: &mut Sandbox, ended: Option<(i32, bool)>) -> Option<(Kept, Vec<OwnedFd>)> {
    let keepsake = sandbox.kept.as_mut()?;
    let mut descriptors = vec![sandbox.pidfd.try_clone().ok()?];
    let mut earlier = Vec::new();
    let mut lost = 0;
    for (output, backlog) in &mut keepsake.outputs {
        descriptors.push(output.try_clone().ok()?);
        let (file, dropped) = backlog.take().ok()?;
        earlier.push(file);
        lost += dropped;
    }
    descriptors.extend(earlier);
    for listener in &keepsake.listeners {
        descriptors.push(listener.try_clone().ok()?);
    }
    let kept = Kept {
        sandbox: id,
        pid: u32::try_from(sandbox.pid).unwrap_or(0),
        group: sandbox.group.clone(),
        label: sandbox.plan.lasting.as_ref()?.label.clone(),
        ended,
        exposed: sandbox.exposure.as_ref().map(|exposure| exposure.ports.clone()).unwrap_or_default(),
        lost,
    };
    Some((kept, descriptors))
}

/// A request of somebody who has just connected.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Option<Request> {
    if !system::is_readable_within(socket.as_fd(), GREETING) {
        return None;
    }
    wire::decode(wire::receive(socket.as_fd(), buffer).ok()?.0).ok()
}
