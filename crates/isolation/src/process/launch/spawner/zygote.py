# One interpreter with the standard library's modules at hand, forked for each script that is to run.
#
# The process that runs this holds no user code. For each request it forks a child straight into the pid namespace of
# a sandbox that stands already; the child goes into the sandbox's other namespaces, takes on its user and limits,
# gives up all rights, adds the filter of system calls, and only then runs the script. What a child does before that is
# in `lock_in`, and any failure there ends it.
#
# Messages are JSON. In: {"preload", "filter"} once; then {"id", "script", "arguments", "env", "cwd", "limits"} with
# the descriptors of the sandbox's first process, stdout, stderr and the doors of its cgroups. Out: {"ready"}, then
# {"id", "forked"}, {"id", "failed"} and {"ended", "status"}.
import ctypes
import gc
import json
import os
import resource
import select
import signal
import socket
import sys

NEW_PID = 0x20000000
OTHERS = 0x10000000 | 0x00020000 | 0x08000000 | 0x04000000 | 0x40000000 | 0x02000000
PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 4, 22, 24, 38, 47
MAX_MESSAGE, MAX_DESCRIPTORS, MAX_SCRIPTS = 1 << 18, 32, 64

libc = ctypes.CDLL(None, use_errno=True)
unsigned = ctypes.c_ulong


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def check(result, what):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, what + ": " + os.strerror(number))


def control(option, value, what):
    check(libc.prctl(option, unsigned(value), unsigned(0), unsigned(0), unsigned(0)), what)


def drop_capabilities():
    for capability in range(64):
        if libc.prctl(PR_CAPBSET_DROP, unsigned(capability), unsigned(0), unsigned(0), unsigned(0)) < 0:
            break
    control(PR_CAP_AMBIENT, 4, "dropping ambient capabilities")
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    check(libc.capset(header, sets), "dropping capabilities")


def lock_in(request, descriptors, program):
    first, stdout, stderr, *doors = descriptors
    for door in doors:
        os.write(door, b"0")
    check(libc.setns(first, OTHERS), "entering the sandbox")
    if request["leave_groups"]:
        os.setgroups([])
    user = request["user"]
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.closerange(3, 4096)
    os.setsid()
    os.umask(0o022)
    os.chdir(request["cwd"])
    for kind, value in request["limits"]:
        most = resource.getrlimit(kind)[1]
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(kind, (value, value))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    drop_capabilities()
    control(PR_SET_DUMPABLE, 1, "showing the process to itself")
    control(PR_SET_NO_NEW_PRIVS, 1, "forbidding new rights")
    check(libc.prctl(PR_SET_SECCOMP, unsigned(2), ctypes.byref(program), unsigned(0), unsigned(0)), "filtering")


def serve():
    """Answers requests; returns only in a child: what it is to run."""
    lyra = socket.socket(fileno=os.dup(0))
    nothing = os.open("/dev/null", os.O_RDWR)
    os.dup2(nothing, 0)
    os.close(nothing)
    setup = json.loads(lyra.recv(MAX_MESSAGE))
    buffer = ctypes.create_string_buffer(bytes.fromhex(setup["filter"]), len(setup["filter"]) // 2)
    program = Program(len(buffer) // 8, ctypes.addressof(buffer))
    for name in setup["preload"]:
        try:
            __import__(name)
        except ImportError:
            pass
    home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    scripts = {}
    gc.collect()
    gc.freeze()

    def tell(message):
        lyra.send(json.dumps(message).encode())

    def collect():
        while True:
            try:
                child, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if child == 0:
                return
            tell({"ended": child, "status": status})

    tell({"ready": True})
    while True:
        readable, _, _ = select.select([lyra, woken], [], [])
        if woken in readable:
            os.read(woken, 4096)
            collect()
        if lyra not in readable:
            continue
        message, descriptors, _, _ = socket.recv_fds(lyra, MAX_MESSAGE, MAX_DESCRIPTORS)
        if not message:
            os._exit(0)
        request = json.loads(message)
        try:
            source = request["script"]
            code = scripts.get(source)
            if code is None:
                if len(scripts) >= MAX_SCRIPTS:
                    scripts.clear()
                code = scripts[source] = compile(source, "<lyra>", "exec")
            check(libc.setns(descriptors[0], NEW_PID), "entering the pid namespace")
            try:
                child = os.fork()
                if child == 0:
                    try:
                        signal.set_wakeup_fd(-1)
                        lock_in(request, descriptors, program)
                    except BaseException as error:
                        try:
                            os.write(2, ("lyra: the sandbox refused a step: %s\n" % error).encode())
                        finally:
                            os._exit(126)
                    lyra.detach()
                    return request, code
            finally:
                if os.getpid() == own:
                    check(libc.setns(home, NEW_PID), "leaving the pid namespace")
            tell({"id": request["id"], "forked": child})
        except Exception as error:
            tell({"id": request["id"], "failed": str(error), "errno": getattr(error, "errno", 0) or 0})
        finally:
            if os.getpid() == own:
                for descriptor in descriptors:
                    os.close(descriptor)


own = os.getpid()
request, code = serve()
os.environ.clear()
os.environ.update(request["env"])
sys.argv = ["lyra"] + request["arguments"]
main = type(sys)("__main__")
main.__builtins__ = __builtins__
sys.modules["__main__"] = main
del request
exec(code, main.__dict__)
