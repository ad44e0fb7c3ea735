//! Ways out of a sandbox that are tried, from Python, from a fork of an interpreter and from a native program, and are
//! all shut.

use super::*;

/// Tries everything by the plainest means, system calls, and prints what did not fail.
const ESCAPES: &str = r#"
import ctypes, os, socket, errno, sys
libc = ctypes.CDLL(None, use_errno=True)
u = ctypes.c_ulong
tried = 0
def refused(what, result, errors=(errno.EPERM, errno.EACCES, errno.ENOSYS)):
    global tried
    tried += 1
    if result >= 0 or ctypes.get_errno() not in errors:
        print('OPEN', what, result, os.strerror(ctypes.get_errno()))
def fails(what, work):
    global tried
    tried += 1
    try:
        print('OPEN', what, work())
    except OSError:
        pass
number = {'x86_64': dict(ptrace=101, bpf=321, keyctl=250, add_key=248, perf=298, uffd=323, uring=425, kexec=246, module=175,
                         finit=313, vm_read=310, handle=304, open_tree=428, fsopen=430, move_mount=429, setattr=442, acct=163,
                         reboot=169, swapon=167, settime=227, pivot=155, clone=56, clone3=435, getfd=438, chroot=161),
          'aarch64': dict(ptrace=117, bpf=280, keyctl=219, add_key=217, perf=241, uffd=282, uring=425, kexec=104, module=105,
                          finit=273, vm_read=270, handle=265, open_tree=428, fsopen=430, move_mount=429, setattr=442, acct=89,
                          reboot=142, swapon=224, settime=112, pivot=41, clone=220, clone3=435, getfd=438, chroot=51)}[os.uname().machine]
call = lambda name, *arguments: libc.syscall(ctypes.c_long(number[name]), *[u(a) if isinstance(a, int) else a for a in arguments])
refused('mount tmpfs', libc.mount(b'x', b'/tmp', b'tmpfs', u(0), None))
refused('mount proc', libc.mount(b'proc', b'/tmp', b'proc', u(0), None))
refused('remount the root', libc.mount(None, b'/', None, u(32), None))
refused('umount', libc.umount2(b'/proc', 0))
refused('chroot', call('chroot', b'/tmp'))
refused('pivot_root', call('pivot', b'.', b'.'))
for name in ('bpf', 'keyctl', 'add_key', 'perf', 'uffd', 'uring', 'kexec', 'module', 'finit', 'handle', 'open_tree', 'fsopen',
             'move_mount', 'setattr', 'acct', 'reboot', 'swapon', 'settime', 'getfd', 'vm_read', 'clone3'):
    refused(name, call(name, 0, 0, 0, 0, 0))
refused('ptrace of the first process', call('ptrace', 16, 1, 0, 0))
refused('ptrace of the parent', call('ptrace', 0, 0, 0, 0))
for flag in (0x10000000, 0x00020000, 0x20000000, 0x40000000, 0x08000000, 0x04000000, 0x02000000):
    refused('unshare %x' % flag, libc.unshare(flag))
    pid = call('clone', flag | 17, 0, 0, 0, 0)
    if pid == 0: os._exit(0)
    refused('clone %x' % flag, pid)
refused('setns', libc.setns(os.open('/proc/self/ns/net', os.O_RDONLY), 0))
for family, kind, protocol in ((socket.AF_INET, socket.SOCK_RAW, 1), (socket.AF_PACKET, socket.SOCK_RAW, 3), (socket.AF_VSOCK, socket.SOCK_STREAM, 0),
                               (socket.AF_ALG, socket.SOCK_SEQPACKET, 0), (socket.AF_NETLINK, socket.SOCK_RAW, 9), (17, 2, 0)):
    fails('socket %d %d' % (family, kind), lambda: socket.socket(family, kind, protocol))
for path in ('/root', '/home', '/var', '/sys', '/proc/1/root', '/proc/1/fd', '/proc/1/cwd/..', '/sys/fs/cgroup', '/etc/shadow', '/dev/kmsg', '/dev/mem', '/dev/vda', '/dev/kvm', '/dev/sda'):
    fails('see ' + path, lambda: os.open(path, os.O_RDONLY))
for path in ('/proc/1/mem', '/proc/1/environ', '/proc/1/maps', '/proc/kcore'):
    fails('read ' + path, lambda: open(path, 'rb').read(1))
for path in ('/usr/x', '/bin/x', '/etc/x', '/x', '/dev/x', '/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger', '/proc/sys/kernel/hostname', '/proc/1/oom_score_adj'):
    fails('write ' + path, lambda: open(path, 'w').write('1'))
fails('make a device', lambda: os.mknod('/tmp/vda', 0o60666, os.makedev(254, 0)))
fails('make a device of characters', lambda: os.mknod('/tmp/mem', 0o20666, os.makedev(1, 1)))
fails('become root', lambda: os.setuid(0))
fails('become a group', lambda: os.setgid(0))
fails('take groups', lambda: os.setgroups([0]))
fails('kill the first process', lambda: os.kill(1, 9) or os.kill(1, 15) or (_ for _ in ()).throw(OSError()))
fails('kill outside', lambda: os.kill(OUTSIDE, 9))
fails('change the name', lambda: socket.sethostname('x'))
fails('go outside', lambda: socket.create_connection(('192.0.2.1', 9), 1))
processes = [p for p in os.listdir('/proc') if p.isdigit()]
if set(processes) - {'1', str(os.getpid())}: print('OPEN processes', processes)
status = dict(line.split(':\t', 1) for line in open('/proc/self/status').read().splitlines() if ':\t' in line)
for sets in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'):
    if int(status[sets], 16): print('OPEN', sets, status[sets])
if (status['NoNewPrivs'], status['Seccomp']) != ('1', '2'): print('OPEN status')
if open('/proc/self/cgroup').read().count('lyra'): print('OPEN cgroup')
if any('/tmp/' in line for line in open('/proc/self/mountinfo')): print('OPEN mounts')
print('tried', tried > 80)
"#;

async fn tries(make: impl FnOnce(&str) -> Plan) {
    let bench = Bench::start().await;
    let outside = std::process::id();
    let script = ESCAPES.replace("OUTSIDE", &outside.to_string());
    let outcome = bench.run(make(&script)).await;
    assert_eq!(outcome.stdout, "tried True\n", "{}", outcome.stderr);
    assert_eq!(outcome.exit.code, Some(0), "{}", outcome.stderr);
    bench.finish().await;
}

#[tokio::test]
async fn python_finds_no_way_out() {
    tries(python).await;
}

#[tokio::test]
async fn a_forked_interpreter_finds_no_way_out() {
    tries(forked).await;
}

#[tokio::test]
async fn native_programs_find_no_way_out() {
    let bench = Bench::start().await;
    let commands = [
        "mount -t tmpfs x /tmp",
        "umount /proc",
        "unshare -U true",
        "unshare -r true",
        "nsenter -t 1 -m true",
        "chroot / true",
        "mknod /tmp/a b 254 0",
        "cat /proc/1/environ",
        "ls /root",
        "dmesg",
        "su -c true",
        "setpriv --reuid 0 true",
        "hostname other",
        "date -s 2000-01-01",
        "echo 1 > /proc/sys/vm/drop_caches",
        "dd if=/dev/vda of=/dev/null count=1",
    ];
    let script: String = commands.iter().map(|one| format!("({one}) >/dev/null 2>&1 && echo 'OPEN {one}'\n")).collect();
    let mut plan = shell(&format!("{script}echo tried"));
    plan.env = vec![("PATH".into(), "/usr/bin:/bin:/usr/sbin:/sbin".into())];
    assert_eq!(bench.run(plan).await.stdout, "tried\n");
    bench.finish().await;
}

#[tokio::test]
async fn sandboxes_are_apart_from_each_other() {
    let bench = Bench::start().await;
    let mut one = bench
        .spawn(forked(
            "import os\nopen('/tmp/secret', 'w').write('x')\nprint('up', flush=True)\nwhile 1: os.read(0, 1)",
        ))
        .await;
    let mut up = [0; 3];
    tokio::io::AsyncReadExt::read_exact(one.stdout.as_mut().unwrap(), &mut up).await.unwrap();
    let outside = |process: &Process| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
        status.lines().find(|line| line.starts_with("Uid:")).unwrap().to_owned()
    };
    let other = bench.spawn(shell("ls /tmp; ls /proc | grep -c '^[0-9]'; read x")).await;
    assert_ne!(outside(&one), outside(&other), "each has a user of its own");
    assert!(outside(&one).contains("18791"), "{}", outside(&one));
    let outcome = finish(other).await;
    assert!(!outcome.stdout.contains("secret"), "{}", outcome.stdout);
    one.kill();
    one.wait().await;
    bench.finish().await;
}

#[tokio::test]
async fn languages_find_the_calls_that_they_need() {
    let bench = Bench::start().await;
    let threads = "import threading, subprocess, multiprocessing, socket, ssl, tempfile, time, asyncio\n\
        t = threading.Thread(target=lambda: print('thread', flush=True)); t.start(); t.join()\n\
        print(subprocess.run(['/bin/echo', 'child'], capture_output=True, text=True).stdout, end='')\n\
        print(socket.gethostbyname('localhost'))\n\
        p = multiprocessing.Pool(2); print(p.map(abs, [-1, -2])); p.close(); p.join()\n\
        async def main(): await asyncio.sleep(0); return 'async'\nprint(asyncio.run(main()))\n";
    for plan in [python(threads), forked(threads)] {
        let outcome = bench.run(plan).await;
        assert_eq!(outcome.stdout, "thread\nchild\n127.0.0.1\n[1, 2]\nasync\n", "{}", outcome.stderr);
    }
    if Path::new("/usr/bin/node").exists() {
        let script = "const {execSync} = require('child_process'); const {Worker} = require('worker_threads');\
             console.log(execSync('echo child').toString().trim(), require('os').cpus().length > 0);\
             new Worker('require(\"worker_threads\").parentPort.postMessage(1)', {eval: true}).on('message', m => console.log('worker', m));";
        let mut plan = exec(&["/usr/bin/node", "-e", script]);
        plan.limits.memory_bytes = 512 << 20;
        let outcome = bench.run(plan).await;
        assert_eq!(outcome.stdout, "child true\nworker 1\n", "{}", outcome.stderr);
    }
    bench.finish().await;
}
