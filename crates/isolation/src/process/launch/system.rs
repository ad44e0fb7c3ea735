//! The system calls that the launcher needs and that `std` does not have, each with a safe face: over `rustix` where it has
//! them among the features that this build has anyway, else over `libc`.
//!
//! Nothing here decides anything: a function makes one call (or the fixed few that belong together) and returns what the
//! kernel said. Numbers of calls and flags that `libc` does not have yet are those of the kernel's headers.
#![expect(unsafe_code, reason = "namespaces, mounts, capabilities and seccomp have no safe interface")]

use std::ffi::{CString, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{self, Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

mod options;
mod sockets;

pub(super) use self::options::*;
pub(super) use self::sockets::*;

const OPEN_TREE_CLONE: u32 = 1;
const OPEN_TREE_CLOEXEC: u32 = libc::O_CLOEXEC as u32;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;

/// Attributes of a mount, as `mount_setattr` takes them.
pub(super) mod attribute {
    pub(crate) const READ_ONLY: u64 = 1;
    pub(crate) const NO_SUID: u64 = 2;
    pub(crate) const NO_DEVICES: u64 = 4;
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_long(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(fd: c_int) -> io::Result<OwnedFd> {
    let fd = check(fd)?;
    // SAFETY: the kernel has just returned it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn path_string(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// A new process.
pub(super) enum Forked {
    /// This is the parent.
    Parent {
        /// The child's number.
        pid: i32,
        /// Refers to the child, whatever becomes of its number.
        pidfd: OwnedFd,
    },
    /// This is the child.
    Child,
}

/// Forks into new namespaces (`CLONE_NEW…`). The caller must have one thread only.
pub(super) fn fork_into(namespaces: c_int) -> io::Result<Forked> {
    let mut pidfd: c_int = -1;
    // SAFETY: all zeroes is a valid `clone_args`.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = u64::from(namespaces.cast_unsigned()) | u64::from(libc::CLONE_PIDFD.cast_unsigned());
    arguments.pidfd = (&raw mut pidfd).addr() as u64;
    arguments.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    // SAFETY: without CLONE_VM this is a fork: the child goes on with a copy of the memory, and with one thread no lock
    // is left held in it.
    let pid = check_long(unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of_val(&arguments)) })?;
    if pid == 0 {
        return Ok(Forked::Child);
    }
    Ok(Forked::Parent { pid: i32::try_from(pid).unwrap_or(i32::MAX), pidfd: owned(pidfd)? })
}

/// Room for what a child does before it becomes another program. Only what is touched takes memory.
const CHILD_STACK: usize = 512 << 10;

/// Starts a child in this very memory; this process stands still until the child has become another program or has ended, so
/// no page is copied, neither for the child nor later for its parent. What `child` allocates and does not free stays here.
/// Returns the child's number. The caller must have one thread only.
pub(super) fn spawn_sharing(child: &dyn Fn()) -> io::Result<i32> {
    extern "C" fn begin(child: *mut c_void) -> c_int {
        // SAFETY: points to the `child` below, whose owner stands still meanwhile.
        let child = unsafe { *child.cast::<&dyn Fn()>() };
        // Nothing may unwind out of the child's stack.
        let _unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
        1
    }
    let (access, kind) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK);
    // SAFETY: a new mapping, of which nobody else knows.
    let stack = unsafe { libc::mmap(std::ptr::null_mut(), CHILD_STACK, access, kind | libc::MAP_NORESERVE, -1, 0) };
    if stack == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let mut argument: &dyn Fn() = child;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack grows down from its end, which is aligned, and is the child's alone. The child has this process's
    // memory to itself until it has gone from it (CLONE_VFORK), as in `vfork`; no lock is held, with one thread.
    let pid = unsafe { libc::clone(begin, stack.byte_add(CHILD_STACK), flags, (&raw mut argument).cast()) };
    let started = check(pid);
    // SAFETY: the child has left it.
    unsafe { libc::munmap(stack, CHILD_STACK) };
    started
}

/// Ends this process at once, without running anything else of it.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: takes no memory.
    unsafe { libc::_exit(code) }
}

/// Refers to a process.
pub(super) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    Ok(process::pidfd_open(number(pid)?, PidfdFlags::empty())?)
}

/// Sends a signal to the process that `pidfd` refers to.
pub(super) fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: c_int) -> io::Result<()> {
    Ok(process::pidfd_send_signal(pidfd, named(signal)?)?)
}

/// Sends a signal by number. Only for children that have not been waited for.
pub(super) fn kill(pid: i32, signal: c_int) -> io::Result<()> {
    Ok(process::kill_process(number(pid)?, named(signal)?)?)
}

/// A child that has ended, if there is one: its number and the status as `wait` gives it.
pub(super) fn reap() -> Option<(i32, i32)> {
    let (pid, status) = process::wait(WaitOptions::NOHANG).ok()??;
    Some((pid.as_raw_nonzero().get(), status.as_raw()))
}

/// Waits for one child.
pub(super) fn wait_for(pid: i32) -> io::Result<i32> {
    let ended = retry_on_intr(|| process::waitpid(Some(Pid::from_raw(pid).ok_or(Errno::SRCH)?), WaitOptions::empty()))?;
    ended.map(|(_, status)| status.as_raw()).ok_or_else(|| Errno::CHILD.into())
}

/// Moves this process into namespaces: those of a process (by its pidfd), or one by its own descriptor.
pub(super) fn enter(namespace: BorrowedFd<'_>, kinds: c_int) -> io::Result<()> {
    // SAFETY: takes no memory.
    check(unsafe { libc::setns(namespace.as_raw_fd(), kinds) }).map(drop)
}

/// Moves this process into new namespaces.
pub(super) fn unshare(kinds: c_int) -> io::Result<()> {
    // SAFETY: takes no memory.
    check(unsafe { libc::unshare(kinds) }).map(drop)
}

/// A detached copy of a mount with all that is mounted below it.
pub(super) fn open_tree(path: &Path) -> io::Result<OwnedFd> {
    let path = path_string(path)?;
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE.cast_unsigned();
    // SAFETY: `path` ends with a zero and lives on.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    owned(c_int::try_from(fd).unwrap_or(-1))
}

#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Adds attributes to a mount and, with `recursive`, to all below it.
pub(super) fn restrict_mount(mount: BorrowedFd<'_>, set: u64, recursive: bool) -> io::Result<()> {
    let attributes = MountAttributes { set, clear: 0, propagation: 0, user_namespace: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the empty path and the attributes live on; the size is theirs.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    })
    .map(drop)
}

/// Puts a detached mount at a place.
pub(super) fn attach(mount: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    let target = path_string(target)?;
    let (from, to, flags) = (c"".as_ptr(), target.as_ptr(), MOVE_MOUNT_F_EMPTY_PATH);
    // SAFETY: both paths end with a zero and live on.
    check_long(unsafe { libc::syscall(libc::SYS_move_mount, mount.as_raw_fd(), from, libc::AT_FDCWD, to, flags) })
        .map(drop)
}

/// Mounts a file system of a kind.
pub(super) fn mount(kind: &str, target: &Path, flags: libc::c_ulong, options: &str) -> io::Result<()> {
    let invalid = |_| io::Error::from_raw_os_error(libc::EINVAL);
    let (kind, options) = (CString::new(kind).map_err(invalid)?, CString::new(options).map_err(invalid)?);
    let target = path_string(target)?;
    // SAFETY: all strings end with a zero and live on.
    check(unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast()) })
        .map(drop)
}

/// Sets how mounts below `/` spread to and from other namespaces (`MS_SLAVE`, `MS_PRIVATE`).
pub(super) fn set_propagation(kind: libc::c_ulong) -> io::Result<()> {
    let (nothing, none) = (std::ptr::null(), std::ptr::null());
    // SAFETY: the path is a literal, and the others are not read.
    check(unsafe { libc::mount(nothing, c"/".as_ptr(), nothing, libc::MS_REC | kind, none) }).map(drop)
}

/// Makes the working directory the root, and takes the old root away with all that is mounted below it.
pub(super) fn replace_root() -> io::Result<()> {
    let here = c".".as_ptr();
    // SAFETY: literals.
    check_long(unsafe { libc::syscall(libc::SYS_pivot_root, here, here) })?;
    // SAFETY: a literal. The old root lies on top of the new one.
    check(unsafe { libc::umount2(here, libc::MNT_DETACH) })?;
    std::env::set_current_dir("/")
}

/// Names the machine as this namespace sees it.
pub(super) fn set_host_name(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length belong together.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// Takes on a user and a group for good. `leave_groups`: gives up all other groups too.
pub(super) fn become_user(uid: u32, gid: u32, leave_groups: bool) -> io::Result<()> {
    if leave_groups {
        // SAFETY: an empty list is not read.
        check(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    }
    // SAFETY: take no memory.
    check(unsafe { libc::setresgid(gid, gid, gid) })?;
    // SAFETY: takes no memory.
    check(unsafe { libc::setresuid(uid, uid, uid) }).map(drop)
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: c_int,
}

#[repr(C)]
struct CapabilitySet {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The third version of the interface: 64 capabilities in two halves.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// Empties all capability sets of this process: bounding, ambient, inheritable, permitted, effective.
pub(super) fn drop_capabilities() -> io::Result<()> {
    drop_bounding_except(&[])?;
    set_control(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong)?;
    let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let none = || CapabilitySet { effective: 0, permitted: 0, inheritable: 0 };
    let sets = [none(), none()];
    // SAFETY: this version of the header takes two sets.
    check_long(unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) }).map(drop)
}

/// Gives up all capabilities but one, for good.
pub(super) fn keep_capability(kept: u32) -> io::Result<()> {
    drop_bounding_except(&[kept.into()])?;
    set_control(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong)?;
    let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let half = |from: u32| {
        let bit = kept.checked_sub(from).and_then(|number| 1u32.checked_shl(number)).unwrap_or(0);
        CapabilitySet { effective: bit, permitted: bit, inheritable: 0 }
    };
    let sets = [half(0), half(32)];
    // SAFETY: this version of the header takes two sets.
    check_long(unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) }).map(drop)
}

/// Empties the bounding set but for what is named.
pub(super) fn drop_bounding_except(kept: &[libc::c_ulong]) -> io::Result<()> {
    for capability in (0..64).filter(|capability| !kept.contains(capability)) {
        match set_control(libc::PR_CAPBSET_DROP, capability) {
            // The kernel has no more of them.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            other => other?,
        }
    }
    Ok(())
}

/// `prctl` with one value.
pub(super) fn set_control(option: c_int, value: libc::c_ulong) -> io::Result<()> {
    let none: libc::c_ulong = 0;
    // SAFETY: no option used here reads memory.
    check(unsafe { libc::prctl(option, value, none, none, none) }).map(drop)
}

/// Takes huge pages as the machine is set up to, whatever Lyra does for itself.
pub(super) fn take_huge_pages() {
    let _older_kernel = set_control(libc::PR_SET_THP_DISABLE, 0);
}

/// How this process is called in lists of processes; at most 15 bytes.
pub(super) fn set_process_name(name: &std::ffi::CStr) -> io::Result<()> {
    // SAFETY: ends with a zero and lives on; the kernel copies 16 bytes at most, up to the zero.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) }).map(drop)
}

/// Adds a filter of system calls to this process. Needs `PR_SET_NO_NEW_PRIVS`.
pub(super) fn add_filter(filter: &[seccompiler::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(filter.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut().cast() };
    let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
    // SAFETY: `sock_filter` of both crates is the kernel's struct; the kernel only reads it.
    check(unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program, 0, 0) }).map(drop)
}

/// Sets the soft and the hard limit of a resource, not above the hard limit that holds now.
pub(super) fn set_limit(resource: Resource, value: u64) -> io::Result<()> {
    let most = process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let value = Some(value.min(most)).filter(|value| *value < u64::MAX);
    Ok(process::setrlimit(resource, Rlimit { current: value, maximum: value })?)
}

/// Raises the soft limit of a resource to the hard one.
pub(super) fn raise_limit(resource: Resource) -> io::Result<()> {
    set_limit(resource, u64::MAX)
}

fn signals(which: Option<&[c_int]>) -> libc::sigset_t {
    // SAFETY: `sigemptyset` makes the zeroes a valid set.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in which.unwrap_or_default() {
            libc::sigaddset(&raw mut set, *signal);
        }
        set
    }
}

/// Holds signals back, so that [`signal_fd`] gets them.
pub(super) fn block_signals(which: &[c_int]) -> io::Result<()> {
    let set = signals(Some(which));
    // SAFETY: the set is read; the old one is not asked for.
    check(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) }).map(drop)
}

/// Puts every signal back to what a new program expects: default actions, none held back.
pub(super) fn reset_signals() {
    let none = signals(None);
    for signal in 1..=64 {
        // SAFETY: default actions run no code of ours. Fails for the two that can't be set, which is as it should be.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: the set is read.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
}

/// Lets a signal pass by.
pub(super) fn ignore(signal: c_int) {
    // SAFETY: this action runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Holds no signal back.
pub(super) fn unblock_all_signals() -> io::Result<()> {
    let none = signals(None);
    // SAFETY: the set is read; the old one is not asked for.
    check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) }).map(drop)
}

/// A descriptor that is readable when a held back signal has come.
pub(super) fn signal_fd(which: &[c_int]) -> io::Result<OwnedFd> {
    let set = signals(Some(which));
    // SAFETY: the set is read.
    owned(unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })
}

/// Takes what has come on a non-blocking descriptor and forgets it.
pub(super) fn drain(fd: BorrowedFd<'_>) {
    let mut buffer = [0u8; 512];
    while matches!(read(fd, &mut buffer), Ok(1..)) {}
}

/// Reads.
pub(super) fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(retry_on_intr(|| rustix::io::read(fd, &mut *buffer))?)
}

/// Writes once; never raises `SIGPIPE` in a process that ignores it.
pub(super) fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::io::write(fd, bytes)?)
}

/// Both ends of a pipe: to read, to write.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = io::pipe()?;
    Ok((read.into(), write.into()))
}

/// Whether this process may make files in a directory.
pub(super) fn may_write(directory: BorrowedFd<'_>) -> io::Result<()> {
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    Ok(rustix::fs::accessat(directory, ".", access, rustix::fs::AtFlags::EACCESS)?)
}

/// A file that is nowhere in the file system.
pub(super) fn memory_file(name: &std::ffi::CStr) -> io::Result<OwnedFd> {
    Ok(rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)?)
}

/// Makes calls on a descriptor return at once.
pub(super) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::fs::fcntl_setfl(fd, rustix::fs::fcntl_getfl(fd)? | OFlags::NONBLOCK)?)
}

/// Makes `target` refer to what `fd` refers to; it stays open across an exec.
pub(super) fn duplicate_to(fd: BorrowedFd<'_>, target: RawFd) -> io::Result<()> {
    // SAFETY: takes no memory; what `target` was is closed, as the caller wants it.
    check(unsafe { libc::dup2(fd.as_raw_fd(), target) }).map(drop)
}

/// A copy of a descriptor whose number is at least `least`, closed at an exec.
pub(super) fn duplicate_above(fd: BorrowedFd<'_>, least: RawFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, least)?)
}

/// Closes every descriptor from a number on. What owned them must not be used any more.
pub(super) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: takes no memory.
    check_long(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// Closes every descriptor but those named. What owned the others must not be used any more.
pub(super) fn close_all_but(kept: &mut [RawFd]) -> io::Result<()> {
    kept.sort_unstable();
    let mut first = 0;
    for fd in kept.iter().filter_map(|fd| u32::try_from(*fd).ok()) {
        if fd > first {
            // SAFETY: takes no memory.
            check_long(unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) })?;
        }
        first = fd + 1;
    }
    close_from(first)
}

/// The descriptor that this process was started with in place of its standard input.
pub(super) fn take_standard_input() -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is open (or the call fails); the copy is nobody else's.
    let socket = unsafe { BorrowedFd::borrow_raw(0) };
    let socket = duplicate_above(socket, 3)?;
    let nothing = std::fs::File::open("/dev/null")?;
    duplicate_to(std::os::fd::AsFd::as_fd(&nothing), 0)?;
    Ok(socket)
}

/// Replaces this process by a program. Returns only when that fails.
pub(super) fn execute(program: &[CString], environment: &[CString]) -> io::Error {
    let terminated = |strings: &[CString]| -> Vec<_> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (arguments, environment) = (terminated(program), terminated(environment));
    if program.is_empty() {
        return io::Error::from_raw_os_error(libc::EINVAL);
    }
    // SAFETY: both lists end with a null pointer, and their strings live on.
    unsafe { libc::execve(arguments[0], arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// The caller's effective user and group.
pub(super) fn effective_user() -> (u32, u32) {
    (process::geteuid().as_raw(), process::getegid().as_raw())
}

/// The version of Landlock that the kernel has; 0: none.
pub(super) fn landlock_version() -> u32 {
    let nothing = std::ptr::null::<c_void>();
    // SAFETY: with this flag no memory is read.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0usize, 1u32) };
    u32::try_from(version).unwrap_or(0)
}

/// Locks a file until it is closed; false: somebody else has it.
pub(super) fn try_lock(file: &std::fs::File) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Starts a session of its own, without a terminal.
pub(super) fn new_session() -> io::Result<()> {
    process::setsid()?;
    Ok(())
}

/// Standard input; for processes in which it is open.
pub(super) fn standard_input() -> BorrowedFd<'static> {
    inherited(0)
}

/// A descriptor that is open by its number and stays open as long as the process lives.
pub(super) fn inherited(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: callers name descriptors that they themselves have put there and never close.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Waits until one of the descriptors can be read or its other end is gone.
pub(super) fn wait_readable(descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    poll(descriptors, None).map(drop)
}

/// Whether a descriptor can be read now, or its other end is gone.
pub(super) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    is_readable_within(fd, Duration::ZERO)
}

/// Waits for a descriptor to be readable; false: it is not within `limit`.
pub(super) fn is_readable_within(fd: BorrowedFd<'_>, limit: Duration) -> bool {
    poll(&[fd], Some(limit)).is_ok_and(|ready| ready > 0)
}

fn poll(descriptors: &[BorrowedFd<'_>], limit: Option<Duration>) -> io::Result<usize> {
    let mut list: Vec<PollFd<'_>> = descriptors.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    match rustix::event::poll(&mut list, limit.map(timespec).as_ref()) {
        Err(Errno::INTR) => Ok(0),
        other => Ok(other?),
    }
}

/// A span of time as the kernel takes it.
pub(super) fn timespec(span: Duration) -> Timespec {
    Timespec::try_from(span).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })
}

/// A descriptor that can be waited for. Call inside of a runtime.
pub(super) fn watched(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` always gives the same descriptor, open as long as it lives; it is closed with the `AsyncFd`,
    // after it was taken from the reactor.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest)? })
}

fn number(pid: i32) -> io::Result<Pid> {
    Pid::from_raw(pid).ok_or_else(|| Errno::SRCH.into())
}

fn named(signal: c_int) -> io::Result<Signal> {
    Signal::from_named_raw(signal).ok_or_else(|| Errno::INVAL.into())
}
