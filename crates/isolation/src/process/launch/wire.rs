//! Messages between Lyra and its launcher, and between the launcher and its sandboxes: one packet each, with descriptors
//! beside it where there are any.
//!
//! Both ends are Lyra's own, yet a message is checked as if they were not: a packet that is too long, cut off or not
//! JSON of the expected shape is an error and never a panic.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

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
use super::spawner::Bounds;
use crate::session::{Exposed, Traffic};

/// Longest message, in bytes. A Unix socket takes packets of up to about 200 KiB unless its buffer is made larger.
pub(super) const MAX_MESSAGE: usize = 160 << 10;

/// Most descriptors that a message brings.
pub(super) const MAX_DESCRIPTORS: usize = 160;

/// Changes with every change to messages or to what they mean, so that a Lyra never takes over a launcher that it does not
/// understand.
pub(super) const PROTOCOL: u32 = 2;

/// What Lyra asks of the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// The first: how to work.
    Hello {
        /// Names the cgroups of this Lyra.
        name: String,
        /// Use cgroups where there are any.
        cgroups: bool,
        /// Have the kernel move processes between them quickly.
        #[serde(default)]
        favor_dynmods: bool,
        /// Numbers of users for sandboxes start here.
        first_user: u32,
        /// [`PROTOCOL`] of this Lyra. A launcher of another one answers that it is unable.
        #[serde(default)]
        protocol: u32,
        /// The directory of this Lyra.
        #[serde(default)]
        directory: PathBuf,
        /// How long lasting sandboxes are kept without a Lyra.
        #[serde(default)]
        orphan_grace: Duration,
    },
    /// End everything, lasting sandboxes too. Launchers of all protocols know this one.
    End,
    /// Start a sandbox.
    Spawn { id: u64, plan: Box<Plan> },
    /// Get a Python interpreter ready to be forked.
    Warm { id: u64, interpreter: PathBuf, preload: Vec<String> },
    /// Mount something, read-only, into a running sandbox.
    Bind { id: u64, sandbox: u64, source: PathBuf, target: PathBuf },
    /// Make a TCP socket in a sandbox's network.
    Socket {
        id: u64,
        sandbox: u64,
        /// For IPv6.
        six: bool,
    },
    /// Carry what comes in at sockets of the node to the sandbox. Brings a socket for each port, which listens.
    Expose { id: u64, sandbox: u64, ports: Vec<Exposed>, bounds: Bounds },
    /// Close them, with all that has come in at them.
    Hide { id: u64, sandbox: u64 },
    /// Say what has gone over them.
    Count { id: u64, sandbox: u64 },
    /// Change the limits of a running sandbox.
    Limits { id: u64, sandbox: u64, limits: Limits },
    /// A sandbox does not last any more.
    Forget { sandbox: u64 },
    /// Send the sandbox's program a signal.
    Signal { sandbox: u64, signal: i32 },
}

/// What the launcher tells Lyra.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// To `Hello`.
    Ready {
        abilities: Abilities,
        /// So many [`Reply::Kept`] follow.
        kept: usize,
        /// Numbers from here on are free.
        next: u64,
    },
    /// A lasting sandbox of an earlier Lyra. Brings: pidfd, stdout, stderr, what came of either meanwhile, listeners.
    Kept(Box<Kept>),
    /// To `Hello`: it can't work.
    Unable(Fault),
    /// A sandbox runs. Brings: pidfd, stdout, stderr, listeners.
    Spawned { id: u64, pid: u32, group: Group },
    /// A request was done. `Socket` brings one.
    Done { id: u64 },
    /// To `Expose`, `Hide` and `Count`.
    Carried { id: u64, traffic: Traffic },
    /// A request failed.
    Failed { id: u64, fault: Fault },
    /// A sandbox is gone.
    Exited { sandbox: u64, status: i32, out_of_memory: bool },
}

/// A lasting sandbox, as the next Lyra is told of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) sandbox: u64,
    pub(super) pid: u32,
    pub(super) group: Group,
    pub(super) label: String,
    /// How it ended, if it did: status, and whether it lacked memory.
    pub(super) ended: Option<(i32, bool)>,
    pub(super) exposed: Vec<Exposed>,
    /// Bytes of its output that were dropped for lack of room.
    pub(super) lost: u64,
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

/// As [`receive`], into memory of the packet's own length: for who receives a few in all, and shares its memory with the process
/// that it was forked from as long as it touches little of it.
pub(super) fn receive_alone(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let look = || net::recv(socket, &mut [0_u8; 0], RecvFlags::PEEK | RecvFlags::TRUNC);
    let (_, length) = retry_on_intr(look)?;
    let mut buffer = vec![0; length.min(MAX_MESSAGE)];
    let (bytes, descriptors) = receive(socket, &mut buffer)?;
    let length = bytes.len();
    buffer.truncate(length);
    Ok((buffer, descriptors))
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
    fn a_packet_is_received_into_memory_of_its_own_length() {
        let (here, there) = system::socket_pair().unwrap();
        send(here.as_fd(), b"one", &[there.as_fd()]).unwrap();
        send(here.as_fd(), &vec![7; MAX_MESSAGE], &[]).unwrap();
        let (bytes, descriptors) = receive_alone(there.as_fd()).unwrap();
        assert_eq!((&bytes[..], descriptors.len()), (&b"one"[..], 1));
        assert_eq!(receive_alone(there.as_fd()).unwrap().0, vec![7; MAX_MESSAGE]);
        drop(here);
        assert_eq!(receive_alone(there.as_fd()).unwrap().0, b"", "the other end is gone");
    }

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
