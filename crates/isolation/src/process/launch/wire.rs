//! Messages between Lyra and its launcher, and between the launcher and its sandboxes: one packet each, with descriptors
//! beside it where there are any.
//!
//! Both ends are Lyra's own, yet a message is checked as if they were not: a packet that is too long, cut off or not
//! JSON of the expected shape is an error and never a panic.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    self, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
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

/// Room for the control message with the descriptors.
const CONTROL: usize = rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS));

/// Sends one packet. On a non-blocking socket, `WouldBlock` when there is no room for it.
pub(super) fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let too_long = || io::Error::from(Errno::MSGSIZE);
    if bytes.len() > MAX_MESSAGE || descriptors.len() > MAX_DESCRIPTORS {
        return Err(too_long());
    }
    let mut space = [MaybeUninit::uninit(); CONTROL];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(too_long());
    }
    let parts = [IoSlice::new(bytes)];
    retry_on_intr(|| net::sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Receives one packet into `buffer` and returns it with its descriptors; an empty one: the other end is gone.
pub(super) fn receive<'a>(socket: BorrowedFd<'_>, buffer: &'a mut [u8]) -> io::Result<(&'a [u8], Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); CONTROL];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = retry_on_intr(|| {
        net::recvmsg(socket, &mut [IoSliceMut::new(&mut *buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(sent) = message {
            descriptors.extend(sent);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is longer than allowed"));
    }
    let bytes = buffer.get(..received.bytes).unwrap_or_default();
    Ok((bytes, descriptors))
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
