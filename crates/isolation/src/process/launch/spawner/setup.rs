//! How the launcher's process comes up: what the machine allows, and a trial sandbox that shows it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::parent_id;
use std::time::Duration;

use lyra_types::InstanceId;
use rustix::process::Resource;

use super::super::abilities::{Abilities, Privilege};
use super::super::cgroup::{self, Hierarchy};
use super::super::error::{Fault, Step};
use super::super::plan::{Bind, Limits, Plan, Program};
use super::super::system;
use super::super::wire::{self, MAX_MESSAGE, Reply, Request};
use super::events::Events;
use super::filter::Filter;
use super::keeping::{Home, Link};
use super::network::Networks;
use super::outbox::Outbox;
use super::sandbox::{Users, Workshop};
use super::{Server, first, token};

const NO_NAMESPACES: &str = "as an ordinary user, Lyra needs user namespaces: set the sysctls user.max_user_namespaces above 0, \
     kernel.unprivileged_userns_clone=1 (Debian) and kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), or run it as root";
const NO_SANDBOXES: &str = "sandboxes need user, mount, pid, network, IPC and UTS namespaces, a /proc without masks, seccomp \
     and Linux 5.12 or newer; in a container, give it CAP_SYS_ADMIN and an unconfined seccomp profile, and set \
     user.max_user_namespaces above 0";

/// How long the trial sandbox may take.
const TRIAL: Duration = Duration::from_secs(10);

/// Comes up and tells Lyra; an error when that was not possible.
pub(super) fn server() -> io::Result<Server> {
    let lyra = system::take_standard_input()?;
    let parent = i32::try_from(parent_id()).map_err(io::Error::other)?;
    let parent_fd = system::pidfd_open(parent)?;
    let mut buffer = vec![0; MAX_MESSAGE];
    let hello = wire::decode(wire::receive(lyra.as_fd(), &mut buffer)?.0)?;
    let Request::Hello { name, cgroups, favor_dynmods, first_user, directory, orphan_grace, .. } = hello else {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    };
    let up = detach(&lyra).and_then(|(events, children)| {
        let (privilege, users) = privilege(first_user)?;
        let hierarchy = if cgroups { Hierarchy::find(&name, parent) } else { Hierarchy::None };
        let asks = favor_dynmods && matches!(privilege, Privilege::Root);
        let quick = !matches!(hierarchy, Hierarchy::None) && cgroup::favor_moves(asks);
        let filter = Filter::new().map_err(io::Error::other).step("compiling the filter of system calls")?;
        let networks = Networks::new().step("opening the network namespace")?;
        let (ground, blanks) = (Bind::system(), VecDeque::new());
        let mut workshop = Workshop { hierarchy, networks, filter, users, ground, blanks, made: 0 };
        if let Err(fault) = try_out(&mut workshop) {
            workshop.hierarchy.remove();
            return Err(fault);
        }
        Ok((events, children, privilege, quick, workshop))
    });
    match up {
        Ok((events, children, privilege, quick, workshop)) => {
            events.add(parent_fd.as_fd(), token::PARENT)?;
            let cgroups = workshop.hierarchy.abilities();
            let landlock = system::landlock_version();
            let abilities = Abilities { privilege, cgroups, favor_dynmods: quick, landlock };
            send(&lyra, &Reply::Ready { abilities: abilities.clone(), kept: 0, next: 1 })?;
            system::set_nonblocking(lyra.as_fd())?;
            Ok(Server {
                link: Link::Lyra { socket: lyra, process: parent_fd },
                home: Home::new(&directory, orphan_grace),
                abilities,
                children,
                events,
                workshop,
                starts: VecDeque::new(),
                sandboxes: HashMap::new(),
                numbers: HashMap::new(),
                zygotes: HashMap::new(),
                leaving: Vec::new(),
                departed: Vec::new(),
                porter: None,
                hiding: HashSet::new(),
                outbox: Outbox::default(),
                next: 1,
                buffer,
                over: false,
            })
        }
        Err(fault) => {
            send(&lyra, &Reply::Unable(fault))?;
            Err(io::Error::from(io::ErrorKind::Unsupported))
        }
    }
}

fn send(lyra: &OwnedFd, reply: &Reply) -> io::Result<()> {
    wire::send(lyra.as_fd(), &wire::encode(reply).unwrap_or_default(), &[])
}

/// Leaves Lyra's terminal and takes care of its own children.
fn detach(lyra: &OwnedFd) -> Result<(Events, OwnedFd), Fault> {
    const STEP: &str = "setting up the launcher";
    let _cosmetic = system::set_process_name(c"lyra-launcher");
    let _already_a_leader = system::new_session();
    std::env::set_current_dir("/").step(STEP)?;
    // A sandbox takes three descriptors as long as it runs.
    system::raise_limit(Resource::Nofile).step(STEP)?;
    // What a forked interpreter leaves behind comes here.
    system::set_control(libc::PR_SET_CHILD_SUBREAPER, 1).step(STEP)?;
    system::block_signals(&[libc::SIGCHLD]).step(STEP)?;
    let children = system::signal_fd(&[libc::SIGCHLD]).step(STEP)?;
    let events = Events::new().step(STEP)?;
    events.add(lyra.as_fd(), token::LYRA).step(STEP)?;
    events.add(children.as_fd(), token::CHILDREN).step(STEP)?;
    Ok((events, children))
}

/// Gets the right to make namespaces and mounts: as root, or in a user namespace of the launcher's own.
fn privilege(first_user: u32) -> Result<(Privilege, Users), Fault> {
    let (user, group) = system::effective_user();
    let as_root = user == 0 && system::unshare(libc::CLONE_NEWNS).is_ok();
    if !as_root {
        system::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)
            .step("making a user namespace")
            .map_err(|fault| fault.advise(NO_NAMESPACES))?;
        let write = |file: &str, text: &str| std::fs::write(format!("/proc/self/{file}"), text);
        write("setgroups", "deny")
            .and_then(|()| write("uid_map", &format!("0 {user} 1")))
            .and_then(|()| write("gid_map", &format!("0 {group} 1")))
            .step("mapping the user of the launcher")?;
    }
    // What is mounted outside later is seen here; what is mounted here is seen by nobody, and gone with this process.
    system::set_propagation(libc::MS_SLAVE).step("separating mounts")?;
    Ok(if as_root {
        (Privilege::Root, Users::Own { first: first_user, next: 0, taken: HashSet::new() })
    } else {
        (Privilege::UserNamespace, Users::Same)
    })
}

/// Makes a sandbox without a program and takes it away again: the way to find out what this machine refuses.
fn try_out(workshop: &mut Workshop) -> Result<(), Fault> {
    let nobody =
        Program::Python { interpreter: "/".into(), preload: Vec::new(), script: String::new(), arguments: Vec::new() };
    let mut plan = Plan::new(InstanceId::from_parts(0, u128::from(std::process::id())), nobody);
    plan.binds.clear();
    plan.limits = Limits { memory_bytes: 64 << 20, ..Limits::default() };
    let advise = |fault: Fault| if fault.advice.is_empty() { fault.advise(NO_SANDBOXES) } else { fault };
    let sandbox = workshop.make(plan).map_err(advise)?;
    let mut said = [0; 4096];
    let count = sandbox.starting.as_ref().map_or(Ok(0), |starting| {
        system::is_readable_within(starting.report.as_fd(), TRIAL);
        system::read(starting.report.as_fd(), &mut said)
    });
    let _gone = system::pidfd_signal(sandbox.pidfd.as_fd(), libc::SIGKILL);
    let _reaped = system::wait_for(sandbox.pid);
    workshop.users.give_back(sandbox.user);
    // A sandbox that is gone leaves its group at once; should the kernel be late, the next start sweeps it.
    sandbox.group.remove();
    match said.get(..count.unwrap_or(0)).unwrap_or_default() {
        first::READY => Ok(()),
        said => Err(advise(wire::decode(said).unwrap_or_else(|_| Fault::new("trying a sandbox", &super::gone())))),
    }
}
