//! Messages between Lyra and its launcher, and between the launcher and its sandboxes: one packet each, with descriptors
//! beside it where there are any.
//!
//! Both ends are Lyra's own, yet a message is checked as if they were not: a packet that is too long, cut off or not
//! JSON of the expected shape is an error and never a panic.
#![expect(unsafe_code, reason = "descriptors travel in control messages, which only exist as raw memory")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::abilities::Abilities;
use super::cgroup::Group;
use super::error::Fault;
use super::plan::{Limits, Plan};

/// Longest message, in bytes. A Unix socket takes packets of up to about 200 KiB unless its buffer is made larger.
pub(super) const MAX_MESSAGE: usize = 160 << 10;

/// Most descriptors that a message brings.
pub(super) const MAX_DESCRIPTORS: usize = 160;

/// What Lyra asks of the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// The first: how to work.
    Hello {
        /// Names the cgroups of this Lyra.
        name: String,
        /// Use cgroups where there are any.
        cgroups: bool,
        /// Numbers of users for sandboxes start here.
        first_user: u32,
    },
    /// Start a sandbox.
    Spawn { id: u64, plan: Box<Plan> },
    /// Get a Python interpreter ready to be forked.
    Warm { id: u64, interpreter: PathBuf, preload: Vec<String> },
    /// Mount something, read-only, into a running sandbox.
    Bind { id: u64, sandbox: u64, source: PathBuf, target: PathBuf },
    /// Make a TCP socket in a sandbox's network.
    Socket { id: u64, sandbox: u64 },
    /// Change the limits of a running sandbox.
    Limits { id: u64, sandbox: u64, limits: Limits },
    /// Send the sandbox's program a signal.
    Signal { sandbox: u64, signal: i32 },
}

/// What the launcher tells Lyra.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// To `Hello`.
    Ready(Abilities),
    /// To `Hello`: it can't work.
    Unable(Fault),
    /// A sandbox runs. Brings: pidfd, stdout, stderr, listeners.
    Spawned { id: u64, pid: u32, group: Group },
    /// A request was done. `Socket` brings one.
    Done { id: u64 },
    /// A request failed.
    Failed { id: u64, fault: Fault },
    /// A sandbox is gone.
    Exited { sandbox: u64, status: i32, out_of_memory: bool },
}

/// Room for the control message with the descriptors, aligned as the kernel wants it.
#[repr(align(8))]
struct Control([u8; 704]);

fn space(count: usize) -> usize {
    let bytes = u32::try_from(count * size_of::<RawFd>()).unwrap_or(u32::MAX);
    // SAFETY: only computes.
    unsafe { libc::CMSG_SPACE(bytes) as usize }
}

/// Sends one packet. On a non-blocking socket, `WouldBlock` when there is no room for it.
pub(super) fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if bytes.len() > MAX_MESSAGE || descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let mut control = Control([0; 704]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all zeroes is a valid `msghdr`.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if !raw.is_empty() {
        let length = raw.len() * size_of::<RawFd>();
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = space(raw.len()) as _;
        // SAFETY: the buffer is aligned and has `space(MAX_DESCRIPTORS)` bytes, so the header and all of `raw` fit.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(u32::try_from(length).unwrap_or(u32::MAX)) as _;
            std::ptr::copy_nonoverlapping(raw.as_ptr().cast(), libc::CMSG_DATA(header), length);
        }
    }
    loop {
        // SAFETY: the message points to memory that lives on.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
        if sent >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Receives one packet into `buffer` and returns it with its descriptors; an empty one: the other end is gone.
pub(super) fn receive<'a>(socket: BorrowedFd<'_>, buffer: &'a mut [u8]) -> io::Result<(&'a [u8], Vec<OwnedFd>)> {
    let mut control = Control([0; 704]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all zeroes is a valid `msghdr`.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = space(MAX_DESCRIPTORS) as _;
    let count = loop {
        // SAFETY: the message points to memory that lives on, with its true lengths.
        let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        if let Ok(count) = usize::try_from(count) {
            break count;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    };
    let mut descriptors = Vec::new();
    // SAFETY: the kernel has filled the buffer up to `msg_controllen`; the macros keep to it. The descriptors are new
    // in this process, and nobody else has them.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let empty = libc::CMSG_LEN(0) as usize;
                let here = ((*header).cmsg_len as usize).saturating_sub(empty) / size_of::<RawFd>();
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                for index in 0..here {
                    descriptors.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    if message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is longer than allowed"));
    }
    Ok((&buffer[..count], descriptors))
}

/// The bytes of a message, or `None` when it would be too long.
pub(super) fn encode<T: Serialize>(message: &T) -> Option<Vec<u8>> {
    serde_json::to_vec(message).ok().filter(|bytes| bytes.len() <= MAX_MESSAGE)
}

/// The message in a packet.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    serde_json::from_slice(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use proptest::prelude::*;

    use super::super::system;
    use super::*;

    #[test]
    fn descriptors_arrive_with_their_message() {
        let (here, there) = system::socket_pair().unwrap();
        let (read, write) = system::pipe().unwrap();
        send(here.as_fd(), b"two", &[read.as_fd(), write.as_fd()]).unwrap();
        let mut buffer = [0; 64];
        let (bytes, descriptors) = receive(there.as_fd(), &mut buffer).unwrap();
        assert_eq!((bytes, descriptors.len()), (&b"two"[..], 2));
        system::write(descriptors[1].as_fd(), b"x").unwrap();
        assert_eq!(system::read(read.as_fd(), &mut [0; 4]).unwrap(), 1);
    }

    #[test]
    fn a_message_longer_than_the_buffer_is_refused_and_its_descriptors_closed() {
        let (here, there) = system::socket_pair().unwrap();
        let (read, write) = system::pipe().unwrap();
        send(here.as_fd(), &[0; 100], &[write.as_fd()]).unwrap();
        drop(write);
        assert_eq!(receive(there.as_fd(), &mut [0; 10]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(system::read(read.as_fd(), &mut [0; 4]).unwrap(), 0, "nobody can write any more");
    }

    #[test]
    fn too_long_a_message_is_not_sent() {
        let (here, _there) = system::socket_pair().unwrap();
        assert!(send(here.as_fd(), &vec![0; MAX_MESSAGE + 1], &[]).is_err());
        send(here.as_fd(), &vec![0; MAX_MESSAGE], &[]).unwrap();
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes: Vec<u8>) {
            let _: io::Result<Request> = decode(&bytes);
            let _: io::Result<Reply> = decode(&bytes);
        }
    }
}
