//! The first process of a sandbox: builds it from the inside, starts the program, and stays.
//!
//! It stays because the first process of a pid namespace is special: it must collect the processes that lost their
//! parents, signals without a handler pass it by, and when it ends the kernel kills all others. So a program that
//! isn't written for that place must not have it, and ending a sandbox is ending this process. It is a fork of the
//! launcher, not a program of its own, so that nothing has to be found in the sandbox's files.
//!
//! It does nothing before the launcher says that its user and its cgroup stand, and it ends when the launcher does. A few
//! are made ahead, up to the empty root, and wait to be told what they are for.

use std::borrow::Cow;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::process::Resource;
use serde::{Deserialize, Serialize};

use super::super::error::{Fault, Step};
use super::super::plan::{Limits, Plan, Program};
use super::super::system;
use super::super::wire;
use super::filter::Filter;
use super::root::{self, Piece, Sources};

/// User and group inside of every sandbox.
pub(super) const USER: u32 = 1000;

/// What a sandbox sees as the machine's name.
const HOST: &str = "lyra";

/// Number, inside, of a program that comes from elsewhere: nobody else can be there before it.
const JOINED: i32 = 2;

/// What is written to the report when the sandbox stands and waits for its program from elsewhere.
pub(super) const READY: &[u8] = b"R";

/// What a first process starts from, before it is known what its sandbox is for.
pub(super) struct Start<'a> {
    pub(super) filter: &'a Filter,
    /// The launcher's orders come in here: first a [`Go`], then a [`Task`], then signals as numbers. The status of the
    /// program goes out.
    pub(super) control: OwnedFd,
    /// Whether the groups of the launcher are to be given up (which an ordinary user can't).
    pub(super) leave_groups: bool,
    /// Bound the number of processes by `RLIMIT_NPROC`, for lack of a controller.
    pub(super) count_processes: bool,
}

/// User and group stand: to be begun with what every sandbox sees. Brings the mounts.
#[derive(Serialize, Deserialize)]
pub(super) struct Go<'a> {
    pub(super) pieces: Cow<'a, [Piece]>,
}

/// What the sandbox is for. Brings: the report, stdout, stderr, then the mounts. A fault is written to the report; it is
/// closed without one when the program runs.
#[derive(Serialize, Deserialize)]
pub(super) struct Task<'a> {
    pub(super) plan: Cow<'a, Plan>,
    pub(super) pieces: Cow<'a, [Piece]>,
}

/// A task as it arrives.
struct Assigned<'a> {
    start: &'a Start<'a>,
    plan: Plan,
    sources: Sources,
    report: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

/// Runs the first process.
pub(super) fn run(start: &Start<'_>) -> ! {
    // Nothing may unwind into the copy of the launcher's loop.
    let _unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| live(start)));
    system::exit_now(1)
}

fn report(assigned: &Assigned<'_>, fault: &Fault) {
    let bytes = serde_json::to_vec(fault).unwrap_or_default();
    let _unread = system::write(assigned.report.as_fd(), &bytes);
}

fn live(start: &Start<'_>) {
    let _cosmetic = system::set_process_name(c"lyra-init");
    let staged = stage(start);
    let Some(assigned) = receive(start) else { return };
    if let Err(fault) = staged.and_then(|()| work(&assigned)) {
        report(&assigned, &fault);
    }
}

/// What can be done before it is known what the sandbox is for.
fn stage(start: &Start<'_>) -> Result<(), Fault> {
    // What the launcher holds is not for here; its ends of sockets would hide from us that it has ended.
    let mut kept = [0, 1, 2, start.control.as_raw_fd()];
    system::close_all_but(&mut kept).step("closing what the launcher holds")?;
    let common = begin(start).step("waiting for the launcher")?;
    // Only now, so that the group it is in is the root of what it sees.
    system::unshare(libc::CLONE_NEWCGROUP).step("making a cgroup namespace")?;
    system::become_user(USER, USER, start.leave_groups).step("changing the user")?;
    // What it was forked from has seen the plans of others: nobody may look into it.
    system::set_control(libc::PR_SET_DUMPABLE, 0).step("hiding memory")?;
    system::set_control(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong).step("tying to the launcher")?;
    system::set_host_name(HOST).step("naming the machine")?;
    root::stage(&common)
}

/// Waits for the launcher's word to begin. Where the launcher has gone, so does this process.
fn begin(start: &Start<'_>) -> io::Result<Sources> {
    let (bytes, mounts) = wire::receive_alone(start.control.as_fd())?;
    if bytes.is_empty() {
        system::exit_now(1);
    }
    let go: Go<'static> = wire::decode(&bytes)?;
    Ok(Sources { pieces: go.pieces.into_owned(), mounts })
}

/// Waits for the task; `None`: there will be none.
fn receive<'a>(start: &'a Start<'a>) -> Option<Assigned<'a>> {
    let (bytes, descriptors) = wire::receive_alone(start.control.as_fd()).ok()?;
    let task: Task<'static> = wire::decode(&bytes).ok()?;
    let mut descriptors = descriptors.into_iter();
    let (report, stdout, stderr) = (descriptors.next()?, descriptors.next()?, descriptors.next()?);
    let sources = Sources { pieces: task.pieces.into_owned(), mounts: descriptors.collect() };
    Some(Assigned { start, plan: task.plan.into_owned(), sources, report, stdout, stderr })
}

fn work(assigned: &Assigned<'_>) -> Result<(), Fault> {
    root::fill(&assigned.sources, &assigned.plan)?;
    let program = match &assigned.plan.program {
        Program::Exec(words) => {
            let image = Image::of(words, &assigned.plan)?;
            let become_it = || {
                let Err(fault) = execute(assigned, &image);
                report(assigned, &fault);
                system::exit_now(127)
            };
            Some(system::spawn_sharing(&become_it).step("forking")?)
        }
        Program::Python { .. } => {
            system::write(assigned.report.as_fd(), READY).step("reporting")?;
            None
        }
    };
    lock_in(assigned.start.filter)?;
    keep(assigned.start, program).step("waiting for processes")
}

/// Gives up all rights and all calls that are not on the list.
fn lock_in(filter: &Filter) -> Result<(), Fault> {
    system::drop_capabilities().step("dropping capabilities")?;
    system::set_control(libc::PR_SET_NO_NEW_PRIVS, 1).step("forbidding new rights")?;
    system::add_filter(&filter.0).step("filtering system calls")
}

/// Resource limits that hold for each process.
pub(super) fn process_limits(limits: &Limits, count_processes: bool) -> Vec<(Resource, u64)> {
    let mut list =
        vec![(Resource::Nofile, limits.open_files), (Resource::Fsize, limits.file_bytes), (Resource::Core, 0)];
    if count_processes {
        list.push((Resource::Nproc, u64::from(limits.pids)));
    }
    list
}

/// What a program is started with.
struct Image {
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Image {
    fn of(words: &[String], plan: &Plan) -> Result<Image, Fault> {
        let string = |text: String| CString::new(text).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL));
        let arguments = words.iter().cloned().map(string).collect::<io::Result<_>>().step("reading arguments")?;
        let variables = plan.env.iter().map(|(name, value)| string(format!("{name}={value}")));
        let environment = variables.collect::<io::Result<_>>().step("reading the environment")?;
        Ok(Image { arguments, environment })
    }
}

/// Becomes the program. Runs in the memory of the first process, which waits.
fn execute(assigned: &Assigned<'_>, image: &Image) -> Result<std::convert::Infallible, Fault> {
    let (start, plan) = (assigned.start, &assigned.plan);
    system::duplicate_to(assigned.stdout.as_fd(), 1).step("connecting stdout")?;
    system::duplicate_to(assigned.stderr.as_fd(), 2).step("connecting stderr")?;
    let _already_a_leader = system::new_session();
    for (resource, value) in process_limits(&plan.limits, start.count_processes) {
        system::set_limit(resource, value).step("limiting resources")?;
    }
    std::env::set_current_dir(&plan.cwd).step("going to the working directory")?;
    system::reset_signals();
    system::take_huge_pages();
    lock_in(start.filter)?;
    let error = system::execute(&image.arguments, &image.environment);
    let name = image.arguments.first().map(|name| name.to_string_lossy()).unwrap_or_default();
    Err(Fault::new(&format!("starting {name} in a sandbox"), &error))
}

/// Collects processes and passes signals on, until the program or the launcher has ended.
fn keep(start: &Start<'_>, program: Option<i32>) -> io::Result<()> {
    const CONTROL: i32 = 3;
    // Beside the control socket everything goes, the launcher's standard error and its other sandboxes too.
    system::duplicate_to(system::standard_input(), 1)?;
    system::duplicate_to(system::standard_input(), 2)?;
    let control = system::duplicate_above(start.control.as_fd(), CONTROL + 1)?;
    system::duplicate_to(control.as_fd(), CONTROL)?;
    system::close_from(CONTROL as u32 + 1)?;
    let control = system::inherited(CONTROL);
    let children = system::signal_fd(&[libc::SIGCHLD])?;
    loop {
        while let Some((pid, status)) = system::reap() {
            if Some(pid) == program {
                system::write(control, &status.to_ne_bytes())?;
                return Ok(());
            }
        }
        system::wait_readable(&[control, children.as_fd()])?;
        system::drain(children.as_fd());
        if system::is_readable(control) {
            let mut signal = [0];
            if system::read(control, &mut signal)? == 0 {
                return Ok(());
            }
            let _gone = system::kill(program.unwrap_or(JOINED), i32::from(signal[0]));
        }
    }
}
