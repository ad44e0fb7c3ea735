//! Making one sandbox, seen from the launcher.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};

use super::super::cgroup::{Group, Hierarchy};
use super::super::error::{Fault, Step};
use super::super::plan::Plan;
use super::super::system::{self, Forked};
use super::filter::Filters;
use super::first::{self, Start};
use super::network::{self, Networks};
use super::root::Sources;

/// The namespaces of a sandbox that are made with its first process. Its network is made ahead, and the one for cgroups
/// once it is in its group.
const NAMESPACES: i32 =
    libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// How many users are taken in turn. None of two live sandboxes is the same.
const USERS: u32 = 1 << 16;

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
    pub(super) filters: Filters,
    pub(super) users: Users,
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
}

/// What a sandbox that starts holds ready.
pub(super) struct Starting {
    pub(super) report: OwnedFd,
    pub(super) stdout: (OwnedFd, OwnedFd),
    pub(super) stderr: (OwnedFd, OwnedFd),
    pub(super) listeners: Vec<TcpListener>,
}

impl Workshop {
    /// Makes a sandbox; it reports when it stands. Nothing is left when this fails.
    pub(super) fn make(&mut self, plan: Plan) -> Result<Sandbox, Fault> {
        let sources = Sources::open(&plan)?;
        let network = self.networks.take().step("making a network namespace")?;
        let no_user = || io::Error::from_raw_os_error(libc::EAGAIN);
        let user = self.users.take().ok_or_else(no_user).step("finding a free user")?;
        let group = match self.hierarchy.create(&plan.id.to_string(), &plan.limits).step("making a cgroup") {
            Ok(group) => group,
            Err(fault) => {
                self.users.give_back(user);
                return Err(fault);
            }
        };
        match self.fork(&plan, &sources, &network) {
            Ok((pid, pidfd, control, starting)) => {
                drop(sources);
                let sandbox = Sandbox {
                    plan,
                    pid,
                    pidfd,
                    control,
                    network,
                    group,
                    user,
                    starting: Some(starting),
                    status: None,
                    forked: None,
                    over_limit: false,
                };
                self.admit(sandbox)
            }
            Err(fault) => {
                group.remove();
                self.users.give_back(user);
                Err(fault)
            }
        }
    }

    fn fork(
        &self,
        plan: &Plan,
        sources: &Sources,
        network: &OwnedFd,
    ) -> Result<(i32, OwnedFd, OwnedFd, Starting), Fault> {
        const STEP: &str = "connecting a sandbox";
        let (control, its_control) = system::socket_pair().step(STEP)?;
        let (report, its_report) = system::pipe().step(STEP)?;
        let (stdout, stderr) = (system::pipe().step(STEP)?, system::pipe().step(STEP)?);
        system::set_nonblocking(control.as_fd()).step(STEP)?;
        system::set_nonblocking(report.as_fd()).step(STEP)?;
        let start = Start {
            plan,
            sources,
            filters: &self.filters,
            control: its_control,
            report: its_report,
            stdout: stdout.1.try_clone().step(STEP)?,
            stderr: stderr.1.try_clone().step(STEP)?,
            leave_groups: matches!(self.users, Users::Own { .. }),
            count_processes: !self.hierarchy.abilities().pids,
        };
        let made = self.networks.inside(network, || {
            let listeners = network::listen(&plan.listen)?;
            match system::fork_into(NAMESPACES)? {
                Forked::Child => first::run(&start),
                Forked::Parent { pid, pidfd } => Ok((pid, pidfd, listeners)),
            }
        });
        let (pid, pidfd, listeners) = made.step("making the namespaces of a sandbox")?;
        Ok((pid, pidfd, control, Starting { report, stdout, stderr, listeners }))
    }

    /// Gives the first process its user and its limits, and lets it go on.
    fn admit(&mut self, sandbox: Sandbox) -> Result<Sandbox, Fault> {
        let pid = sandbox.pid;
        let write = |file: &str, text: &str| fs::write(format!("/proc/{pid}/{file}"), text);
        let map = format!("{} {} 1", first::USER, sandbox.user);
        let admitted = write("uid_map", &map)
            .and_then(|()| write("gid_map", &map))
            .step("mapping the user of a sandbox")
            .and_then(|()| sandbox.group.admit(pid).step("moving a sandbox into its cgroup"))
            .and_then(|()| {
                let _best_effort = write("oom_score_adj", OOM_ADJUSTMENT);
                system::write(sandbox.control.as_fd(), first::GO).map(drop).step("starting a sandbox")
            });
        if let Err(fault) = admitted {
            let _gone = system::kill(pid, libc::SIGKILL);
            let _reaped = system::wait_for(pid);
            self.users.give_back(sandbox.user);
            sandbox.group.remove();
            return Err(fault);
        }
        Ok(sandbox)
    }
}
