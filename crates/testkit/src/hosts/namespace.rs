//! One host's network: a namespace with a device whose other end is a file of this process.
//!
//! Nothing here has a name outside of this process. A namespace lives as long as a file of it is open or a process
//! runs in it, and the device as long as its file: when this process ends, however that happens, the kernel takes all
//! of it away.
#![expect(unsafe_code, reason = "namespaces and network devices have no safe interface")]

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// What a person has to do where hosts can't be made.
const NEEDS: &str = "hosts of tests are network namespaces, which need root (CAP_SYS_ADMIN and CAP_NET_ADMIN): run \
                     the tests as root, in a container with --privileged";
/// The device of every host.
const DEVICE: &str = "eth0";

/// A namespace, and the end of its device where its packets come out and go in.
#[derive(Debug)]
pub(super) struct Namespace {
    pub(super) file: File,
    pub(super) packets: File,
}

impl Namespace {
    /// A namespace with the address on a device, and nothing else but a loopback.
    ///
    /// # Errors
    /// With what to do, where this process may not make one or a part is missing.
    pub(super) fn new(address: Ipv4Addr, prefix: u8) -> Result<Namespace> {
        // A thread of its own: what a thread unshares stays with it and with its children.
        let made = std::thread::Builder::new().name("namespace".to_owned()).spawn(move || {
            // SAFETY: no memory is touched; only this thread, which ends here, is moved.
            check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).context(NEEDS)?;
            let file = File::open("/proc/thread-self/ns/net").context("the namespace's file")?;
            let packets = device()?;
            ip(&["link", "set", "lo", "up"])?;
            ip(&["address", "add", &format!("{address}/{prefix}"), "dev", DEVICE])?;
            ip(&["link", "set", DEVICE, "up"])?;
            Ok(Namespace { file, packets })
        })?;
        made.join().unwrap_or_else(|_| bail!("the thread that makes a namespace panicked"))
    }

    /// Moves the calling thread there, for good. What it starts from now on (threads, processes, sockets) is there too.
    ///
    /// # Errors
    /// Where this process may not do that.
    pub(super) fn enter(&self) -> Result<()> {
        // SAFETY: no memory is touched, and the file is open as long as `self` lives.
        check(unsafe { libc::setns(self.file.as_raw_fd(), libc::CLONE_NEWNET) }).context(NEEDS)
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes the device in the namespace of the calling thread. Reading its file gives the packets that the host sends, one
/// each; writing a packet has the host receive it.
fn device() -> Result<File> {
    const MISSING: &str = "/dev/net/tun is needed: mkdir -p /dev/net && mknod /dev/net/tun c 10 200 (where the kernel \
                           has TUN as a module: modprobe tun)";
    let file = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
    let file = file.context(MISSING)?;
    // SAFETY: all-zero bytes are a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(DEVICE.bytes()) {
        *to = libc::c_char::try_from(from)?;
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_TUN | libc::IFF_NO_PI)?;
    // SAFETY: the request is one, and outlives the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) }).context(NEEDS)?;
    Ok(file)
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("there is no `ip`: apt-get install iproute2")?;
    ensure!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
