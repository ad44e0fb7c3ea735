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

/// The filter as the kernel takes it.
pub(super) struct Filter(pub(super) BpfProgram);

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Allow,
    /// It fails with this error.
    Fail(i32),
    /// A program of its own says by the arguments.
    Look(BpfProgram),
}

impl Filter {
    /// Compiles it.
    pub(super) fn new() -> Result<Filter, seccompiler::Error> {
        let (arch, audited) = if cfg!(target_arch = "aarch64") {
            (TargetArch::aarch64, 0xc000_00b7)
        } else {
            (TargetArch::x86_64, 0xc000_003e)
        };
        let mut rules = rules()?;
        let mut verdicts = Vec::new();
        for number in 0..=NEWEST {
            let verdict = match rules.remove(&i64::from(number)) {
                Some(list) if list.is_empty() => Verdict::Allow,
                Some(list) => {
                    let one = BTreeMap::from([(i64::from(number), list)]);
                    let denied = SeccompAction::Errno(libc::EPERM.cast_unsigned());
                    Verdict::Look(SeccompFilter::new(one, denied, SeccompAction::Allow, arch)?.try_into()?)
                }
                None if number == CLONE3 => Verdict::Fail(libc::ENOSYS),
                None => Verdict::Fail(libc::EPERM),
            };
            verdicts.push((number, verdict));
        }
        verdicts.push((NEWEST + 1, Verdict::Fail(libc::ENOSYS)));
        // Neighbours with the same verdict are one.
        verdicts.dedup_by(|next, first| next.1 == first.1 && !matches!(next.1, Verdict::Look(_)));
        Ok(Filter(compile(audited, &verdicts)))
    }
}

/// A search tree over the numbers, each verdict from its number on. The kernel runs a filter for every number there is when the filter is
/// added, to know for which it need not be run at each call; as a list, of some hundred calls, that took a millisecond.
fn compile(arch: u32, verdicts: &[(u32, Verdict)]) -> BpfProgram {
    let mut program = vec![
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 4),
        jump(libc::BPF_JEQ, arch, 1, 0),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_KILL_PROCESS),
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
    ];
    program.extend(branch(verdicts));
    program
}

fn branch(verdicts: &[(u32, Verdict)]) -> BpfProgram {
    let answer = |action| vec![statement(libc::BPF_RET | libc::BPF_K, action)];
    match verdicts {
        [] => Vec::new(),
        [(_, Verdict::Allow)] => answer(libc::SECCOMP_RET_ALLOW),
        [(_, Verdict::Fail(error))] => answer(libc::SECCOMP_RET_ERRNO | error.cast_unsigned()),
        [(_, Verdict::Look(program))] => program.clone(),
        _ => {
            let (lower, upper) = verdicts.split_at(verdicts.len() / 2);
            let (from, lower) = (upper[0].0, branch(lower));
            let mut program = match u8::try_from(lower.len()) {
                Ok(over) => vec![jump(libc::BPF_JGE, from, over, 0)],
                // Further than a condition can jump; programs have far fewer than 2^32 instructions.
                Err(_) => {
                    let over = u32::try_from(lower.len()).unwrap_or(u32::MAX);
                    vec![jump(libc::BPF_JGE, from, 0, 1), statement(libc::BPF_JMP | libc::BPF_JA, over)]
                }
            };
            program.extend(lower);
            program.extend(branch(upper));
            program
        }
    }
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn jump(condition: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: (libc::BPF_JMP | condition | libc::BPF_K) as u16, jt, jf, k }
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

    /// What the program answers, and in how many steps: as `seccomp_run_filters` does, for the instructions that there are.
    fn run(program: &[sock_filter], data: &[u32; 16]) -> (u32, usize) {
        let (mut at, mut value, mut steps) = (0, 0, 0);
        loop {
            let one = &program[at];
            (at, steps) = (at + 1, steps + 1);
            let code = u32::from(one.code);
            let mut go = |holds: bool| at += usize::from(if holds { one.jt } else { one.jf });
            match (code & 7, code & 0xf0) {
                (libc::BPF_LD, _) => value = data[one.k as usize / 4],
                (libc::BPF_ALU, libc::BPF_AND) => value &= one.k,
                (libc::BPF_JMP, libc::BPF_JA) => at += one.k as usize,
                (libc::BPF_JMP, libc::BPF_JEQ) => go(value == one.k),
                (libc::BPF_JMP, libc::BPF_JGT) => go(value > one.k),
                (libc::BPF_JMP, libc::BPF_JGE) => go(value >= one.k),
                (libc::BPF_JMP, libc::BPF_JSET) => go(value & one.k != 0),
                (libc::BPF_RET, _) => return (one.k, steps),
                other => panic!("an instruction that is not known here: {other:?}"),
            }
        }
    }

    const ARCH: u32 = if cfg!(target_arch = "aarch64") { 0xc000_00b7 } else { 0xc000_003e };

    fn asked(number: u32, arguments: &[u32]) -> [u32; 16] {
        let mut data = [0; 16];
        (data[0], data[1]) = (number, ARCH);
        for (place, argument) in arguments.iter().enumerate() {
            data[4 + 2 * place] = *argument;
        }
        data
    }

    fn number(call: c_long) -> u32 {
        u32::try_from(call).unwrap()
    }

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();

    #[test]
    fn every_call_has_the_verdict_of_the_list_in_a_few_steps() {
        let (Filter(program), rules) = (Filter::new().unwrap(), rules().unwrap());
        assert!(program.len() < 1_000, "{}", program.len());
        for call in 0..NEWEST + 200 {
            let (verdict, steps) = run(&program, &asked(call, &[]));
            let expected = match rules.get(&i64::from(call)) {
                Some(list) if list.is_empty() => ALLOW,
                Some(_) => continue,
                None if call == CLONE3 || call > NEWEST => ENOSYS,
                None => EPERM,
            };
            assert_eq!(verdict, expected, "call {call}");
            assert!(steps <= 16, "call {call} takes {steps} steps");
        }
        // The other interface of the same processor.
        assert_eq!(run(&program, &asked(0x4000_0000, &[])).0, ENOSYS);
        let mut elsewhere = asked(0, &[]);
        elsewhere[1] = 0x4000_0003;
        assert_eq!(run(&program, &elsewhere).0, libc::SECCOMP_RET_KILL_PROCESS);
    }

    #[test]
    fn arguments_decide_where_they_matter() {
        let Filter(program) = Filter::new().unwrap();
        let verdict = |call, arguments: &[u32]| run(&program, &asked(number(call), arguments)).0;
        let of = |value: i32| value.cast_unsigned();
        assert_eq!(verdict(libc::SYS_clone, &[of(libc::CLONE_VM | libc::CLONE_THREAD)]), ALLOW);
        assert_eq!(verdict(libc::SYS_clone, &[of(libc::CLONE_NEWUSER | libc::CLONE_VM)]), EPERM);
        let stream = of(libc::SOCK_STREAM | libc::SOCK_CLOEXEC);
        assert_eq!(verdict(libc::SYS_socket, &[of(libc::AF_INET6), stream]), ALLOW);
        assert_eq!(verdict(libc::SYS_socket, &[of(libc::AF_INET), of(libc::SOCK_RAW)]), EPERM);
        assert_eq!(verdict(libc::SYS_socket, &[of(libc::AF_PACKET), stream]), EPERM);
        assert_eq!(verdict(libc::SYS_socket, &[of(libc::AF_NETLINK), of(libc::SOCK_RAW), 0]), ALLOW);
        assert_eq!(verdict(libc::SYS_socket, &[of(libc::AF_NETLINK), of(libc::SOCK_RAW), 9]), EPERM);
        assert_eq!((verdict(libc::SYS_ioctl, &[1, 0x5413]), verdict(libc::SYS_ioctl, &[1, 0x5412])), (ALLOW, EPERM));
        assert_eq!((verdict(libc::SYS_personality, &[0]), verdict(libc::SYS_personality, &[8])), (ALLOW, EPERM));
        assert_eq!(verdict(libc::SYS_mknodat, &[0, 0, libc::S_IFIFO]), ALLOW);
        assert_eq!(verdict(libc::SYS_mknodat, &[0, 0, libc::S_IFBLK]), EPERM);
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
