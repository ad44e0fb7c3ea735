//! The launcher's own process: small, with one thread, and the parent of all sandboxes.
//!
//! It is the same program, started again by [`super::Launcher`] with its standard input as the socket to Lyra. It waits for
//! requests and for what happens to its sandboxes, and never for one of them alone: sandboxes start beside each other,
//! and answers come as they are ready.
//!
//! It ends when Lyra does, in whatever way; its sandboxes end with it, since their first processes do. The exception are
//! lasting sandboxes: with some of them it waits for the next Lyra ([`keeping`]).

mod backlog;
mod events;
mod filter;
mod first;
mod keeping;
mod network;
mod outbox;
mod porter;
mod ports;
mod root;
mod sandbox;
mod setup;
mod starts;
mod zygote;

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

pub use self::porter::Bounds;

use self::events::Events;
use self::keeping::{Departed, Home, Link};
use self::outbox::Outbox;
use self::porter::Porter;
use self::sandbox::{Sandbox, Workshop};
use self::zygote::{Key, Told, Zygote};
use super::abilities::Abilities;
use super::cgroup::Group;
use super::error::{Fault, Step};
use super::plan::{Limits, Plan};
use super::wire::{self, Reply, Request};
use super::{members, system};

/// Exit code when the launcher could not leave a sandbox's network.
const NO_WAY_HOME: i32 = 71;

/// How often is tried again what can't be done now: to send an answer, to remove a cgroup.
const AGAIN: Duration = Duration::from_millis(5);

/// How long nothing has to happen before a sandbox is made ahead. Making one holds everything else up for 15 ms and more
/// where the kernel waits for all processors before it moves a process to a cgroup, and a start that has just begun is
/// not over before its program runs.
const QUIET: Duration = Duration::from_millis(10);

/// How often memory is looked at where no cgroup bounds it.
const WATCH: Duration = Duration::from_millis(100);

/// How often a cgroup is tried to be removed before its sandbox counts as gone all the same.
const REMOVALS: u32 = 400;

/// Answers that Lyra has not taken yet; above it no more requests are read.
const MAX_UNSENT: usize = 4096;

/// Most requests that are read at a time.
const REQUESTS: usize = 64;

/// What an event belongs to, in the lowest bits of its token; the number of the sandbox or the process is above.
mod token {
    pub(super) const LYRA: u64 = 0;
    pub(super) const PARENT: u64 = 1;
    pub(super) const CHILDREN: u64 = 2;
    pub(super) const CONTROL: u64 = 3;
    pub(super) const REPORT: u64 = 4;
    pub(super) const ZYGOTE: u64 = 5;
    pub(super) const PORTER: u64 = 6;
    pub(super) const DOOR: u64 = 7;
    pub(super) const STDOUT: u64 = 8;
    pub(super) const STDERR: u64 = 9;
    pub(super) const BITS: u32 = 4;
    pub(super) const fn of(id: u64, kind: u64) -> u64 {
        id << BITS | kind
    }
}

/// Runs the launcher's process, as it is started by [`super::Launcher`]; returns when Lyra has gone.
pub fn serve() -> ExitCode {
    match setup::server() {
        Ok(server) => {
            server.run();
            ExitCode::SUCCESS
        }
        Err(error) => {
            let told = format!("lyra: the launcher of sandboxes can't work: {error}\n");
            let _unread = system::write(system::inherited(2), told.as_bytes());
            ExitCode::FAILURE
        }
    }
}

/// A sandbox that has ended and whose cgroup is still to be removed.
struct Leaving {
    id: u64,
    group: Group,
    /// Status, and whether it lacked memory; a fault for one that was never told of.
    end: Result<(i32, bool), Fault>,
    /// A lasting one.
    sandbox: Option<Sandbox>,
    tries: u32,
}

/// The state of the process.
struct Server {
    link: Link,
    home: Home,
    abilities: Abilities,
    children: OwnedFd,
    events: Events,
    workshop: Workshop,
    /// Asked for and not begun. All else goes first: to begin one may take as long as hundreds of other requests.
    starts: VecDeque<(u64, Plan)>,
    sandboxes: HashMap<u64, Sandbox>,
    numbers: HashMap<i32, u64>,
    zygotes: HashMap<Key, Zygote>,
    leaving: Vec<Leaving>,
    /// Lasting ones that have ended while nobody was there.
    departed: Vec<Departed>,
    porter: Option<Porter>,
    /// Sandboxes that have ended and whose ports are still open.
    hiding: HashSet<u64>,
    outbox: Outbox,
    /// Above all numbers of sandboxes.
    next: u64,
    buffer: Vec<u8>,
    over: bool,
}

impl Server {
    fn run(mut self) {
        while !self.over {
            let sent = self.flush();
            self.remove_groups();
            self.bide();
            let busy = !sent || !self.leaving.is_empty();
            let watching = self.sandboxes.values().any(|sandbox| !sandbox.group.bounds_memory());
            let until = self.link.time_left();
            let ready = match (busy, watching) {
                _ if self.over => break,
                _ if !self.starts.is_empty() => self.events.wait(Some(Duration::ZERO)),
                (true, _) => self.events.wait(Some(AGAIN)),
                (_, true) => self.events.wait(Some(WATCH)),
                // Nobody is there: blanks are made for the next one.
                _ if until.is_some() => self.events.wait(until),
                // Nothing to do for a moment: a good time to make sandboxes ahead, one at a time.
                _ if self.workshop.is_short() => match self.events.wait(Some(QUIET)) {
                    ready if ready.is_empty() && !self.workshop.prepare() => self.events.wait(None),
                    ready => ready,
                },
                _ => self.events.wait(None),
            };
            for token in ready {
                self.handle(token);
            }
            if let Some((id, plan)) = self.starts.pop_front() {
                self.spawn(id, plan);
            }
            if watching {
                self.watch();
            }
        }
        self.end();
    }

    fn handle(&mut self, token: u64) {
        let id = token >> token::BITS;
        match token & ((1 << token::BITS) - 1) {
            token::LYRA if self.outbox.len() < MAX_UNSENT => self.requests(),
            token::PARENT => self.orphan(),
            token::CHILDREN => {
                system::drain(self.children.as_fd());
                self.reap();
            }
            token::CONTROL => self.program_ended(id),
            token::REPORT => self.reported(id),
            token::ZYGOTE => self.zygote_told(i32::try_from(id).unwrap_or(0)),
            token::PORTER => self.porter_told(),
            token::DOOR => self.knock(),
            token::STDOUT => self.written(id, 0),
            token::STDERR => self.written(id, 1),
            _ => {}
        }
    }

    fn requests(&mut self) {
        for _ in 0..REQUESTS {
            let Some(socket) = self.link.socket() else { return };
            let received = match wire::receive(socket, &mut self.buffer) {
                Ok(([], _)) => None,
                Ok((bytes, descriptors)) => wire::decode::<Request>(bytes).ok().map(|request| (request, descriptors)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => None,
            };
            match received {
                // The other end is gone, or is not what it should be.
                None | Some((Request::Hello { .. }, _)) => return self.orphan(),
                Some((request, descriptors)) => self.serve(request, descriptors),
            }
        }
    }

    fn serve(&mut self, request: Request, descriptors: Vec<OwnedFd>) {
        match request {
            Request::Hello { .. } | Request::End => self.over = true,
            Request::Spawn { id, plan } => {
                self.next = self.next.max(id + 1);
                self.starts.push_back((id, *plan));
            }
            Request::Warm { id, interpreter, preload } => self.warm(id, (interpreter, preload)),
            Request::Bind { id, sandbox, source, target } => {
                let bound = self.bind(sandbox, &source, &target);
                self.answer(id, bound, &[]);
            }
            Request::Socket { id, sandbox, six } => match self.socket(sandbox, six) {
                Ok(socket) => self.answer(id, Ok(()), &[socket.as_fd()]),
                Err(fault) => self.answer(id, Err(fault), &[]),
            },
            Request::Expose { id, sandbox, ports, bounds } => self.expose(id, sandbox, (ports, bounds), descriptors),
            Request::Hide { id, sandbox } => self.hide(id, sandbox),
            Request::Count { id, sandbox } => self.count(id, sandbox),
            Request::Limits { id, sandbox, limits } => {
                let set = self.set_limits(sandbox, limits);
                self.answer(id, set, &[]);
            }
            Request::Forget { sandbox: id } => {
                if let Some(sandbox) = self.sandboxes.get_mut(&id) {
                    sandbox.plan.lasting = None;
                } else if let Some(leaving) = self.leaving.iter_mut().find(|leaving| leaving.id == id) {
                    leaving.sandbox = None;
                }
            }
            Request::Signal { sandbox, signal } => {
                if let Some(sandbox) = self.sandboxes.get(&sandbox) {
                    sandbox.signal(signal);
                }
            }
        }
    }

    fn answer(&mut self, id: u64, result: Result<(), Fault>, descriptors: &[BorrowedFd<'_>]) {
        let reply = match result {
            Ok(()) => Reply::Done { id },
            Err(fault) => Reply::Failed { id, fault },
        };
        self.tell(&reply, descriptors);
    }

    /// Sends a reply, or keeps it until there is room. Nobody: nobody waits for it.
    fn tell(&mut self, reply: &Reply, descriptors: &[BorrowedFd<'_>]) {
        if let (Some(bytes), Some(socket)) = (wire::encode(reply), self.link.socket()) {
            self.outbox.send(socket, bytes, descriptors);
        }
    }

    /// Sends what could not be sent before; false: there is still some.
    fn flush(&mut self) -> bool {
        if let Some(socket) = self.link.socket() {
            self.outbox.flush(socket);
        }
        let porter = self.porter.as_mut().is_none_or(Porter::flush);
        self.outbox.is_empty() && porter
    }

    fn socket(&self, sandbox: u64, six: bool) -> Result<OwnedFd, Fault> {
        const STEP: &str = "making a socket in a sandbox";
        let sandbox = self.sandboxes.get(&sandbox).ok_or_else(gone).step(STEP)?;
        self.workshop.networks.inside(&sandbox.network, || system::tcp_socket(six)).step(STEP)
    }

    /// Mounts something into a running sandbox. The mount is opened here, with the launcher's rights, and put in its
    /// place by a child that has gone into the sandbox, so that the path means what it means there.
    fn bind(&self, sandbox: u64, source: &Path, target: &Path) -> Result<(), Fault> {
        let step = format!("mounting {} into a running sandbox", source.display());
        let sandbox = self.sandboxes.get(&sandbox).ok_or_else(gone).step(&step)?;
        let mount = root::open(source, false).step(&step)?;
        let namespaces = libc::CLONE_NEWUSER | libc::CLONE_NEWNS;
        match system::fork_into(0).step(&step)? {
            system::Forked::Child => {
                let placed = system::enter(sandbox.pidfd.as_fd(), namespaces)
                    .and_then(|()| system::attach(mount.as_fd(), target));
                let error = placed.err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO));
                system::exit_now(error)
            }
            system::Forked::Parent { pid, .. } => match libc::WEXITSTATUS(system::wait_for(pid).step(&step)?) {
                0 => Ok(()),
                error => Err(Fault::new(&step, &io::Error::from_raw_os_error(error))),
            },
        }
    }

    fn set_limits(&mut self, sandbox: u64, limits: Limits) -> Result<(), Fault> {
        const STEP: &str = "changing the limits of a sandbox";
        let sandbox = self.sandboxes.get_mut(&sandbox).ok_or_else(gone).step(STEP)?;
        sandbox.group.set_limits(&limits).step(STEP)?;
        sandbox.plan.limits = limits;
        Ok(())
    }

    /// The first process says how the program has ended; its own end follows.
    fn program_ended(&mut self, id: u64) {
        let Some(sandbox) = self.sandboxes.get_mut(&id) else { return };
        read_status(sandbox);
        self.events.remove(sandbox.control.as_fd());
    }

    fn reap(&mut self) {
        while let Some((pid, status)) = system::reap() {
            if let Some(id) = self.numbers.remove(&pid) {
                self.ended(id, status);
            } else if let Some(key) = self.zygotes.iter().find(|(_, zygote)| zygote.pid() == pid).map(|(key, _)| key) {
                let key = key.clone();
                self.zygote_ended(&key);
            } else if let Some(id) = self.sandbox_of_fork(pid) {
                // Its interpreter has ended before it.
                self.fork_ended(id, status);
            } else if self.porter.as_ref().is_some_and(|porter| porter.pid == pid) {
                self.porter_ended();
            } else {
                self.workshop.lost(pid);
            }
        }
    }

    fn sandbox_of_fork(&self, pid: i32) -> Option<u64> {
        self.sandboxes.iter().find(|(_, sandbox)| sandbox.forked == Some(pid)).map(|(id, _)| *id)
    }

    /// The first process of a sandbox is gone, and with it all others of the sandbox.
    fn ended(&mut self, id: u64, status: i32) {
        let Some(sandbox) = self.sandboxes.get_mut(&id) else { return };
        read_status(sandbox);
        // Its report may not have been looked at yet.
        let fault = sandbox.starting.as_ref().and_then(starts::read_fault);
        if fault.is_none() && sandbox.status.is_some() && sandbox.starting.is_some() {
            // It was over before its start was noticed.
            self.runs(id);
        }
        let Some(mut sandbox) = self.sandboxes.remove(&id) else { return };
        self.events.remove(sandbox.control.as_fd());
        let end = match sandbox.starting.take() {
            Some(starting) => {
                self.events.remove(starting.report.as_fd());
                Err(fault.unwrap_or_else(|| {
                    let fault = Fault::new("starting a sandbox", &gone());
                    fault.advise("it was ended before its program ran; is its memory limit too low?")
                }))
            }
            None => {
                let out_of_memory = sandbox.over_limit || sandbox.group.ran_out_of_memory();
                Ok((sandbox.status.unwrap_or(status), out_of_memory))
            }
        };
        self.last_words(&mut sandbox);
        self.hide_ended(id, sandbox.exposure.take());
        self.workshop.users.give_back(sandbox.user);
        let group = sandbox.group.clone();
        let sandbox = (end.is_ok() && sandbox.plan.lasting.is_some()).then_some(sandbox);
        self.leaving.push(Leaving { id, group, end, sandbox, tries: 0 });
    }

    /// Removes the cgroups of sandboxes that are gone, and tells of their end once nothing of them is left.
    fn remove_groups(&mut self) {
        for mut leaving in std::mem::take(&mut self.leaving) {
            leaving.tries += 1;
            let is_gone = leaving.group.remove() && !self.hiding.contains(&leaving.id);
            if !is_gone && leaving.tries <= REMOVALS {
                self.leaving.push(leaving);
                continue;
            }
            match (leaving.end, leaving.sandbox) {
                (Ok(ended), Some(sandbox)) => self.departed(leaving.id, sandbox, ended),
                (Ok((status, out_of_memory)), None) => {
                    self.tell(&Reply::Exited { sandbox: leaving.id, status, out_of_memory }, &[]);
                }
                (Err(fault), _) => self.tell(&Reply::Failed { id: leaving.id, fault }, &[]),
            }
        }
    }

    /// Ends sandboxes that hold more memory than they may, where no cgroup does it.
    fn watch(&mut self) {
        for sandbox in self.sandboxes.values_mut().filter(|sandbox| !sandbox.group.bounds_memory()) {
            let roots: Vec<i32> = [Some(sandbox.pid), sandbox.forked].into_iter().flatten().collect();
            if members::usage(&members::descendants(&roots)).memory > sandbox.plan.limits.memory_bytes {
                sandbox.over_limit = true;
                let _gone = system::pidfd_signal(sandbox.pidfd.as_fd(), libc::SIGKILL);
            }
        }
    }

    /// Ends everything: Lyra is gone.
    fn end(mut self) {
        self.over = true;
        if let Some(porter) = &self.porter {
            let _gone = system::kill(porter.pid, libc::SIGKILL);
        }
        for zygote in self.zygotes.values() {
            let _gone = system::kill(zygote.pid(), libc::SIGKILL);
        }
        self.workshop.discard_all();
        for sandbox in self.sandboxes.values() {
            sandbox.kill();
        }
        // Each is certain to end; the bound is for a kernel that has lost one.
        for _ in 0..REMOVALS {
            self.reap();
            self.remove_groups();
            if self.sandboxes.is_empty() && self.leaving.is_empty() && self.porter.is_none() {
                break;
            }
            system::is_readable_within(self.children.as_fd(), AGAIN);
            system::drain(self.children.as_fd());
        }
        self.workshop.hierarchy.remove();
    }
}

fn gone() -> io::Error {
    io::Error::from_raw_os_error(libc::ESRCH)
}

fn read_status(sandbox: &mut Sandbox) {
    let mut bytes = [0; 4];
    if matches!(system::read(sandbox.control.as_fd(), &mut bytes), Ok(4)) {
        sandbox.status = Some(i32::from_ne_bytes(bytes));
    }
}
