//! The system calls that a sandbox may make.
//!
//! An allow-list: what CPython, Node, Go and Rust programs and what they start are known to need. Everything else fails
//! with `EPERM`, and what is newer than this list with `ENOSYS`, so that libraries fall back to what they did before.
//! `clone3` fails with `ENOSYS` too: its flags lie in memory, where a filter can't see them, and libraries then use
//! `clone`, whose flags it can.
//!
//! Left out on purpose: mounts, other namespaces, `ptrace` and the memory of other processes, `bpf`, `perf`,
//! `userfaultfd`, `io_uring`, keys, modules, `kexec`, clocks, raw and packet and `vsock` sockets, handles of files.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

/// The newest system call that is known to this list; numbers from 424 on are the same on all machines.
const NEWEST: u32 = 462;

/// `clone3`, on all machines.
const CLONE3: u32 = 435;

/// Calls that are the same on all machines but have no name in `libc` for all of them: `fchmodat2`, `cachestat`,
/// `futex_wake`, `futex_wait`, `futex_requeue`, `mseal`.
const NUMBERED: [c_long; 6] = [452, 451, 454, 455, 456, 462];

/// The filters, in the order in which they are to be added.
pub(super) struct Filters {
    /// The allow-list.
    pub(super) allowed: BpfProgram,
    /// What fails as if the kernel did not have it.
    pub(super) unknown: BpfProgram,
}

impl Filters {
    /// Compiles them.
    pub(super) fn new() -> Result<Filters, seccompiler::Error> {
        let arch = if cfg!(target_arch = "aarch64") { TargetArch::aarch64 } else { TargetArch::x86_64 };
        let denied = SeccompAction::Errno(libc::EPERM.cast_unsigned());
        let filter = SeccompFilter::new(rules()?, denied, SeccompAction::Allow, arch)?;
        Ok(Filters { allowed: filter.try_into()?, unknown: unknown() })
    }
}

/// `clone3` and everything newer than the list: "no such call". Of two filters that refuse, the one added last gives the
/// error.
fn unknown() -> BpfProgram {
    let statement = |code: u32, k: u32| sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let jump = |code: u32, k: u32, jt: u8, jf: u8| sock_filter { code: code as u16, jt, jf, k };
    let absent = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
    vec![
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        jump(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, CLONE3, 1, 0),
        jump(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, NEWEST, 0, 1),
        statement(libc::BPF_RET | libc::BPF_K, absent),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ]
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn rules() -> Result<Rules, seccompiler::Error> {
    let mut rules: Rules = EVERYWHERE.iter().chain(HERE).chain(&NUMBERED).map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_clone, vec![all(&[masked(0, NAMESPACES, 0)?])?]);
    rules.insert(libc::SYS_socket, sockets()?);
    // Pushing characters into a terminal, and its clipboard.
    rules.insert(libc::SYS_ioctl, vec![all(&[not(1, 0x5412)?, not(1, 0x541c)?])?]);
    // Asking for the personality, and the standard one.
    rules.insert(libc::SYS_personality, vec![all(&[is(0, 0)?])?, all(&[is(0, 0xffff_ffff_u32)?])?]);
    // Named pipes, sockets and ordinary files, but no devices.
    let kinds = [0, libc::S_IFREG, libc::S_IFIFO, libc::S_IFSOCK];
    let nodes = |argument| -> Result<Vec<SeccompRule>, seccompiler::Error> {
        kinds.iter().map(|kind| all(&[masked(argument, libc::S_IFMT, *kind)?])).collect()
    };
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_mknod, nodes(1)?);
    rules.insert(libc::SYS_mknodat, nodes(2)?);
    Ok(rules)
}

const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32
    | 0x80; // CLONE_NEWTIME

/// The part of a socket's type that is not a flag.
const SOCKET_TYPE: u32 = 0xf;

/// Local, IPv4 and IPv6 sockets that are not raw, and questions about the sandbox's own interfaces.
fn sockets() -> Result<Vec<SeccompRule>, seccompiler::Error> {
    let mut rules = Vec::new();
    for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
            rules.push(all(&[is(0, family)?, masked(1, SOCKET_TYPE, kind.cast_unsigned())?])?);
        }
    }
    rules.push(all(&[is(0, libc::AF_NETLINK)?, is(2, libc::NETLINK_ROUTE)?])?);
    Ok(rules)
}

fn all(conditions: &[SeccompCondition]) -> Result<SeccompRule, seccompiler::Error> {
    Ok(SeccompRule::new(conditions.to_vec())?)
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, seccompiler::Error> {
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?)
}

fn is(argument: u8, value: impl TryInto<i64>) -> Result<SeccompCondition, seccompiler::Error> {
    let value = value.try_into().unwrap_or(-1);
    condition(argument, SeccompCmpOp::Eq, value.cast_unsigned())
}

fn not(argument: u8, value: u64) -> Result<SeccompCondition, seccompiler::Error> {
    condition(argument, SeccompCmpOp::Ne, value)
}

fn masked(argument: u8, mask: u32, value: u32) -> Result<SeccompCondition, seccompiler::Error> {
    condition(argument, SeccompCmpOp::MaskedEq(u64::from(mask)), u64::from(value))
}

macro_rules! calls {
    ($($name:ident)*) => { &[$(libc::$name as c_long),*] };
}

/// Allowed whatever the arguments, on every machine.
#[rustfmt::skip]
const EVERYWHERE: &[c_long] = calls![
    // files
    SYS_read SYS_write SYS_readv SYS_writev SYS_pread64 SYS_pwrite64 SYS_preadv SYS_pwritev SYS_preadv2 SYS_pwritev2
    SYS_openat SYS_openat2 SYS_close SYS_close_range SYS_lseek SYS_fstat SYS_newfstatat SYS_statx SYS_statfs SYS_fstatfs
    SYS_faccessat SYS_faccessat2 SYS_readlinkat SYS_getdents64 SYS_getcwd SYS_chdir SYS_fchdir SYS_fcntl SYS_flock
    SYS_fsync SYS_fdatasync SYS_sync_file_range SYS_sync SYS_syncfs SYS_ftruncate SYS_truncate SYS_fallocate
    SYS_mkdirat SYS_unlinkat SYS_renameat SYS_renameat2 SYS_linkat SYS_symlinkat SYS_fchmod SYS_fchmodat SYS_fchown
    SYS_fchownat SYS_utimensat SYS_umask SYS_dup SYS_dup3 SYS_pipe2 SYS_sendfile SYS_splice SYS_tee SYS_vmsplice
    SYS_copy_file_range SYS_fadvise64 SYS_readahead SYS_getxattr SYS_lgetxattr SYS_fgetxattr SYS_listxattr
    SYS_llistxattr SYS_flistxattr SYS_setxattr SYS_lsetxattr SYS_fsetxattr SYS_removexattr SYS_lremovexattr
    SYS_fremovexattr SYS_inotify_init1 SYS_inotify_add_watch SYS_inotify_rm_watch SYS_memfd_create
    // waiting
    SYS_ppoll SYS_pselect6 SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_signalfd4
    SYS_timerfd_create SYS_timerfd_settime SYS_timerfd_gettime SYS_nanosleep SYS_clock_nanosleep
    SYS_io_setup SYS_io_destroy SYS_io_submit SYS_io_cancel SYS_io_getevents
    // memory
    SYS_mmap SYS_munmap SYS_mprotect SYS_mremap SYS_madvise SYS_brk SYS_msync SYS_mincore SYS_mlock SYS_mlock2
    SYS_munlock SYS_mlockall SYS_munlockall SYS_membarrier SYS_pkey_alloc SYS_pkey_free SYS_pkey_mprotect
    SYS_remap_file_pages SYS_get_mempolicy
    // processes and threads
    SYS_execve SYS_execveat SYS_exit SYS_exit_group SYS_wait4 SYS_waitid SYS_kill SYS_tkill SYS_tgkill SYS_getpid
    SYS_getppid SYS_gettid SYS_getpgid SYS_setpgid SYS_getsid SYS_setsid SYS_getuid SYS_geteuid SYS_getgid SYS_getegid
    SYS_getresuid SYS_getresgid SYS_getgroups SYS_setuid SYS_setgid SYS_setreuid SYS_setregid SYS_setresuid
    SYS_setresgid SYS_setfsuid SYS_setfsgid SYS_setgroups SYS_capget SYS_capset SYS_prctl SYS_seccomp SYS_getrusage
    SYS_times SYS_getpriority SYS_setpriority SYS_ioprio_get SYS_ioprio_set SYS_getrlimit SYS_setrlimit SYS_prlimit64
    SYS_set_tid_address SYS_set_robust_list SYS_get_robust_list SYS_rseq SYS_futex SYS_futex_waitv SYS_sched_yield
    SYS_sched_getaffinity SYS_sched_setaffinity SYS_sched_getparam SYS_sched_setparam SYS_sched_getscheduler
    SYS_sched_setscheduler SYS_sched_get_priority_max SYS_sched_get_priority_min SYS_sched_rr_get_interval
    SYS_sched_getattr SYS_sched_setattr SYS_getcpu SYS_pidfd_open SYS_pidfd_send_signal
    SYS_landlock_create_ruleset SYS_landlock_add_rule SYS_landlock_restrict_self SYS_restart_syscall
    // signals
    SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigpending SYS_rt_sigsuspend SYS_rt_sigtimedwait SYS_rt_sigqueueinfo
    SYS_rt_tgsigqueueinfo SYS_rt_sigreturn SYS_sigaltstack
    // time
    SYS_clock_gettime SYS_clock_getres SYS_gettimeofday SYS_getitimer SYS_setitimer SYS_timer_create SYS_timer_settime
    SYS_timer_gettime SYS_timer_getoverrun SYS_timer_delete
    // sockets and other ways between processes
    SYS_socketpair SYS_bind SYS_listen SYS_accept SYS_accept4 SYS_connect SYS_getsockname SYS_getpeername
    SYS_getsockopt SYS_setsockopt SYS_sendto SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_sendmmsg SYS_recvmmsg
    SYS_shutdown SYS_shmget SYS_shmat SYS_shmdt SYS_shmctl SYS_semget SYS_semop SYS_semtimedop SYS_semctl
    SYS_msgget SYS_msgsnd SYS_msgrcv SYS_msgctl SYS_mq_open SYS_mq_unlink SYS_mq_timedsend SYS_mq_timedreceive
    SYS_mq_notify SYS_mq_getsetattr
    // about the machine
    SYS_uname SYS_sysinfo SYS_getrandom
];

/// Allowed on this kind of machine only: the older forms of some of the above.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const HERE: &[c_long] = calls![
    SYS_open SYS_creat SYS_stat SYS_lstat SYS_access SYS_readlink SYS_getdents SYS_mkdir SYS_rmdir SYS_unlink SYS_rename
    SYS_link SYS_symlink SYS_chmod SYS_chown SYS_lchown SYS_utime SYS_utimes SYS_futimesat SYS_dup2 SYS_pipe SYS_poll
    SYS_select SYS_epoll_create SYS_epoll_wait SYS_epoll_wait_old SYS_epoll_ctl_old SYS_eventfd SYS_signalfd
    SYS_inotify_init SYS_fork SYS_vfork SYS_getpgrp SYS_alarm SYS_pause SYS_time SYS_arch_prctl
];
#[cfg(not(target_arch = "x86_64"))]
const HERE: &[c_long] = &[];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_compile_within_the_kernels_limit() {
        let filters = Filters::new().unwrap();
        assert!(filters.allowed.len() + filters.unknown.len() < 4096, "{}", filters.allowed.len());
    }

    #[test]
    fn what_opens_a_way_out_is_not_on_the_list() {
        let rules = rules().unwrap();
        #[rustfmt::skip]
        let refused: &[c_long] = calls![
            SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_unshare SYS_setns SYS_ptrace SYS_process_vm_readv
            SYS_process_vm_writev SYS_bpf SYS_perf_event_open SYS_userfaultfd SYS_io_uring_setup SYS_io_uring_enter
            SYS_keyctl SYS_add_key SYS_request_key SYS_init_module SYS_finit_module SYS_delete_module SYS_kexec_load
            SYS_reboot SYS_swapon SYS_swapoff SYS_settimeofday SYS_clock_settime SYS_adjtimex SYS_clock_adjtime
            SYS_open_by_handle_at SYS_name_to_handle_at SYS_fanotify_init SYS_quotactl SYS_acct SYS_syslog SYS_kcmp
            SYS_pidfd_getfd SYS_move_mount SYS_open_tree SYS_fsopen SYS_fsmount SYS_mount_setattr SYS_sethostname
            SYS_clone3 SYS_move_pages SYS_migrate_pages SYS_process_madvise SYS_vhangup SYS_memfd_secret
        ];
        for call in refused {
            assert!(!rules.contains_key(call), "call {call} is allowed");
        }
    }
}
