//! Making one sandbox, seen from the launcher: a blank first process, made ahead where there was time, and what it is for.

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};

use super::super::abilities::USERS;
use super::super::cgroup::{Group, Hierarchy};
use super::super::error::{Fault, Step};
use super::super::plan::{Bind, Plan};
use super::super::system::{self, Forked};
use super::super::wire;
use super::filter::Filter;
use super::first::{self, Start};
use super::keeping::Keepsake;
use super::network::{self, Networks};
use super::ports::Exposure;
use super::root::Sources;

/// The namespaces of a sandbox that are made with its first process. Its network is made ahead, and the one for cgroups
/// once it is in its group.
const NAMESPACES: i32 =
    libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// Sandboxes shall go first when the machine runs out of memory.
const OOM_ADJUSTMENT: &str = "500";

/// The users that sandboxes run as, outside.
pub(super) enum Users {
    /// Users of their own, from a first number on.
    Own { first: u32, next: u32, taken: HashSet<u32> },
    /// The launcher's own: what it is within its user namespace.
    Same,
}

impl Users {
    fn take(&mut self) -> Option<u32> {
        match self {
            Users::Same => Some(0),
            Users::Own { first, next, taken } => {
                for _ in 0..USERS {
                    let user = *first + *next;
                    *next = (*next + 1) % USERS;
                    if taken.insert(user) {
                        return Some(user);
                    }
                }
                None
            }
        }
    }

    pub(super) fn give_back(&mut self, user: u32) {
        if let Users::Own { taken, .. } = self {
            taken.remove(&user);
        }
    }
}

/// What sandboxes are made from.
pub(super) struct Workshop {
    pub(super) hierarchy: Hierarchy,
    pub(super) networks: Networks,
    pub(super) filter: Filter,
    pub(super) users: Users,
    /// What of the machine's files all but a few sandboxes see.
    pub(super) ground: Vec<Bind>,
    /// Made ahead, since making one is mostly waiting for the kernel.
    pub(super) blanks: VecDeque<Blank>,
    /// How many were made.
    pub(super) made: u64,
}

/// A sandbox, from its first process on.
pub(super) struct Sandbox {
    pub(super) plan: Plan,
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) control: OwnedFd,
    pub(super) network: OwnedFd,
    pub(super) group: Group,
    pub(super) user: u32,
    /// While it starts: what is handed out once it runs.
    pub(super) starting: Option<Starting>,
    /// How the program ended, as `wait` gives it.
    pub(super) status: Option<i32>,
    /// The process that was forked into it, for programs that come so.
    pub(super) forked: Option<i32>,
    /// Memory was watched, and there was too much of it.
    pub(super) over_limit: bool,
    /// Of a lasting one: what the next Lyra gets.
    pub(super) kept: Option<Keepsake>,
    /// Its ports that are carried.
    pub(super) exposure: Option<Exposure>,
}

impl Sandbox {
    /// Ends all its processes.
    pub(super) fn kill(&self) {
        // Of a frozen sandbox, version 1 of cgroups lets nothing die.
        let _thawed = self.group.set_frozen(false);
        let _gone = system::pidfd_signal(self.pidfd.as_fd(), libc::SIGKILL);
    }

    /// Sends its program a signal. What comes too late meets nobody: that is no error.
    pub(super) fn signal(&self, signal: i32) {
        if let Ok(signal) = u8::try_from(signal) {
            let _late = system::write(self.control.as_fd(), &[signal]);
        }
    }

    /// Whether it goes on without Lyra. One that starts does not: nobody was told of it.
    pub(super) fn lasts(&self) -> bool {
        self.plan.lasting.is_some() && self.starting.is_none()
    }
}

/// What a sandbox that starts holds ready.
pub(super) struct Starting {
    pub(super) report: OwnedFd,
    pub(super) stdout: (OwnedFd, OwnedFd),
    pub(super) stderr: (OwnedFd, OwnedFd),
    pub(super) listeners: Vec<TcpListener>,
}

/// A first process that waits to be told what its sandbox is for.
pub(super) struct Blank {
    pid: i32,
    pidfd: OwnedFd,
    control: OwnedFd,
    network: OwnedFd,
    group: Group,
    user: u32,
}

/// How many wait at a time.
const BLANKS: usize = 4;

impl Workshop {
    /// Makes a sandbox; it reports when it stands. Nothing is left when this fails.
    pub(super) fn make(&mut self, plan: Plan) -> Result<Sandbox, Fault> {
        // Others than functions and cells have may leave out something of the system.
        let beside = plan.binds.strip_prefix(self.ground.as_slice());
        let sources = Sources::open(beside.unwrap_or(&plan.binds), &plan.devices)?;
        let blank = match beside {
            Some(_) => self.blank_for_use()?,
            None => self.blank(&[])?,
        };
        match self.assign(&blank, &plan, &sources) {
            Ok(starting) => Ok(Sandbox {
                plan,
                pid: blank.pid,
                pidfd: blank.pidfd,
                control: blank.control,
                network: blank.network,
                group: blank.group,
                user: blank.user,
                starting: Some(starting),
                status: None,
                forked: None,
                over_limit: false,
                kept: None,
                exposure: None,
            }),
            Err(fault) => {
                self.discard(blank);
                Err(fault)
            }
        }
    }

    /// One that was made ahead, or a new one where there is none.
    fn blank_for_use(&mut self) -> Result<Blank, Fault> {
        while let Some(blank) = self.blanks.pop_front() {
            if !system::is_readable(blank.pidfd.as_fd()) {
                return Ok(blank);
            }
            self.discard(blank);
        }
        self.blank(&self.ground.clone())
    }

    /// Whether there are fewer blanks than there should be.
    pub(super) fn is_short(&self) -> bool {
        self.blanks.len() < BLANKS
    }

    /// Makes one blank ahead; false: there are enough, or it can't be done now.
    pub(super) fn prepare(&mut self) -> bool {
        if !self.is_short() {
            return false;
        }
        match self.blank(&self.ground.clone()) {
            Ok(blank) => self.blanks.push_back(blank),
            Err(_) => return false,
        }
        self.blanks.len() < BLANKS
    }

    /// A process has ended and was waited for: if it was a blank, takes away what belongs to it.
    pub(super) fn lost(&mut self, pid: i32) {
        if let Some(index) = self.blanks.iter().position(|blank| blank.pid == pid)
            && let Some(blank) = self.blanks.remove(index)
        {
            self.clear(&blank);
        }
    }

    /// Ends all blanks.
    pub(super) fn discard_all(&mut self) {
        while let Some(blank) = self.blanks.pop_front() {
            self.discard(blank);
        }
    }

    /// Ends a first process that was not used, and takes away all that belongs to it.
    fn discard(&mut self, blank: Blank) {
        let _gone = system::pidfd_signal(blank.pidfd.as_fd(), libc::SIGKILL);
        let _reaped = system::wait_for(blank.pid);
        self.clear(&blank);
    }

    fn clear(&mut self, blank: &Blank) {
        self.users.give_back(blank.user);
        for _ in 0..super::REMOVALS {
            if blank.group.remove() {
                break;
            }
            lyra_kit::clock::block_for(super::AGAIN);
        }
    }

    /// `ground`: what of the machine it sees, whatever it will be for.
    fn blank(&mut self, ground: &[Bind]) -> Result<Blank, Fault> {
        let common = Sources::common(ground)?;
        let network = self.networks.make().step("making a network namespace")?;
        let no_user = || io::Error::from_raw_os_error(libc::EAGAIN);
        let user = self.users.take().ok_or_else(no_user).step("finding a free user")?;
        self.made += 1;
        let name = format!("sandbox-{}", self.made);
        let forked = self.hierarchy.create(&name).step("making a cgroup").and_then(|group| match self.fork(&network) {
            Ok(forked) => Ok((group, forked)),
            Err(fault) => {
                group.remove();
                Err(fault)
            }
        });
        match forked {
            Ok((group, (pid, pidfd, control))) => {
                let blank = Blank { pid, pidfd, control, network, group, user };
                match admit(&blank, &common) {
                    Ok(()) => Ok(blank),
                    Err(fault) => {
                        self.discard(blank);
                        Err(fault)
                    }
                }
            }
            Err(fault) => {
                self.users.give_back(user);
                Err(fault)
            }
        }
    }

    fn fork(&self, network: &OwnedFd) -> Result<(i32, OwnedFd, OwnedFd), Fault> {
        const STEP: &str = "making the namespaces of a sandbox";
        let (control, its_control) = system::socket_pair().step(STEP)?;
        system::set_nonblocking(control.as_fd()).step(STEP)?;
        let start = Start {
            filter: &self.filter,
            control: its_control,
            leave_groups: matches!(self.users, Users::Own { .. }),
            count_processes: !self.hierarchy.abilities().pids,
        };
        let forked = self.networks.inside(network, || match system::fork_into(NAMESPACES)? {
            Forked::Child => first::run(&start),
            Forked::Parent { pid, pidfd } => Ok((pid, pidfd)),
        });
        let (pid, pidfd) = forked.step(STEP)?;
        Ok((pid, pidfd, control))
    }

    /// Tells a blank what it is for.
    fn assign(&self, blank: &Blank, plan: &Plan, sources: &Sources) -> Result<Starting, Fault> {
        const STEP: &str = "connecting a sandbox";
        blank.group.set_limits(&plan.limits).step("setting the limits of a sandbox")?;
        let (report, its_report) = system::pipe().step(STEP)?;
        system::set_nonblocking(report.as_fd()).step(STEP)?;
        let (stdout, stderr) = (system::pipe().step(STEP)?, system::pipe().step(STEP)?);
        let listeners = self.networks.inside(&blank.network, || network::listen(&plan.listen));
        let listeners = listeners.step("listening in a sandbox")?;
        let task = first::Task { plan: Cow::Borrowed(plan), pieces: Cow::Borrowed(&sources.pieces) };
        let too_long = || io::Error::from_raw_os_error(libc::E2BIG);
        let bytes = wire::encode(&task).ok_or_else(too_long).step(STEP)?;
        let mut descriptors = vec![its_report.as_fd(), stdout.1.as_fd(), stderr.1.as_fd()];
        descriptors.extend(sources.mounts.iter().map(AsFd::as_fd));
        wire::send(blank.control.as_fd(), &bytes, &descriptors).step(STEP)?;
        Ok(Starting { report, stdout, stderr, listeners })
    }
}

/// Gives a first process its user and its cgroup, and lets it go on.
fn admit(blank: &Blank, common: &Sources) -> Result<(), Fault> {
    const STEP: &str = "starting a sandbox";
    let write = |file: &str, text: &str| fs::write(format!("/proc/{}/{file}", blank.pid), text);
    let map = format!("{} {} 1", first::USER, blank.user);
    write("uid_map", &map).and_then(|()| write("gid_map", &map)).step("mapping the user of a sandbox")?;
    blank.group.admit(blank.pid).step("moving a sandbox into its cgroup")?;
    let _best_effort = write("oom_score_adj", OOM_ADJUSTMENT);
    let go = first::Go { pieces: Cow::Borrowed(&common.pieces) };
    let bytes = wire::encode(&go).ok_or_else(|| io::Error::from_raw_os_error(libc::E2BIG)).step(STEP)?;
    let mounts: Vec<_> = common.mounts.iter().map(AsFd::as_fd).collect();
    wire::send(blank.control.as_fd(), &bytes, &mounts).step(STEP)
}
