//! Sockets: between Lyra and its launcher, and in the networks of sandboxes.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::net::{self, AddressFamily, Shutdown, SocketFlags, SocketType};

use super::check;

/// A pair of sockets that keep the bounds of messages and tell when the other end is gone.
pub(in super::super) fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Listens at a path of the file system, for messages as [`socket_pair`] carries them; only the own user may connect.
pub(in super::super) fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    let socket = seqpacket(SocketFlags::NONBLOCK)?;
    let address = net::SocketAddrUnix::new(path)?;
    // Nobody can be quicker than the mode: the directory is the own user's.
    net::bind(&socket, &address)?;
    rustix::fs::chmod(path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
    net::listen(&socket, 4)?;
    Ok(socket)
}

/// Connects to where [`listen_at`] listens; at once or not at all.
pub(in super::super) fn connect_to(path: &Path) -> io::Result<OwnedFd> {
    let socket = seqpacket(SocketFlags::NONBLOCK)?;
    net::connect(&socket, &net::SocketAddrUnix::new(path)?)?;
    rustix::fs::fcntl_setfl(&socket, rustix::fs::fcntl_getfl(&socket)? - OFlags::NONBLOCK)?;
    Ok(socket)
}

fn seqpacket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC | flags, None)?)
}

/// A connection that has come in at a socket that listens.
pub(in super::super) fn accept(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(net::accept_with(socket, SocketFlags::CLOEXEC)?)
}

/// Number and user of the process at the other end, when it connected.
pub(in super::super) fn peer(socket: BorrowedFd<'_>) -> io::Result<(i32, u32)> {
    let peer = net::sockopt::socket_peercred(socket)?;
    Ok((peer.pid.as_raw_nonzero().get(), peer.uid.as_raw()))
}

/// A TCP socket in this process's network namespace, non-blocking; `six`: for IPv6.
pub(in super::super) fn tcp_socket(six: bool) -> io::Result<OwnedFd> {
    socket(six, SocketType::STREAM)
}

/// A UDP socket in this process's network namespace, non-blocking; `six`: for IPv6.
pub(in super::super) fn udp_socket(six: bool) -> io::Result<OwnedFd> {
    socket(six, SocketType::DGRAM)
}

fn socket(six: bool, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if six { AddressFamily::INET6 } else { AddressFamily::INET };
    Ok(net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?)
}

/// Switches the loopback interface of this process's network namespace on.
pub(in super::super) fn loopback_up() -> io::Result<()> {
    let socket = tcp_socket(false)?;
    // SAFETY: all zeroes is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed() as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(1);
    // SAFETY: the request is an `ifreq`, as this call wants it.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw mut request) }).map(drop)
}

/// Ends a connection: the other end sees it closed, whoever else still holds this end.
pub(in super::super) fn shut_down(socket: BorrowedFd<'_>) {
    let _gone = net::shutdown(socket, Shutdown::Both);
}
