//! Waiting for many descriptors at once.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use super::super::system::timespec;

/// Most events that are taken at a time.
const BATCH: usize = 64;

pub(super) struct Events(OwnedFd);

impl Events {
    pub(super) fn new() -> io::Result<Events> {
        Ok(Events(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Tells `token` whenever there is something to read from `fd`, or its other end is gone.
    pub(super) fn add(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.0, fd, EventData::new_u64(token), EventFlags::IN)?)
    }

    /// Stops telling. A descriptor that a child has inherited stays known to the kernel after it was closed here.
    pub(super) fn remove(&self, fd: BorrowedFd<'_>) {
        let _unknown = epoll::delete(&self.0, fd);
    }

    /// Waits and returns the tokens of what is ready; none after `limit`.
    pub(super) fn wait(&self, limit: Option<Duration>) -> Vec<u64> {
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; BATCH];
        let count = epoll::wait(&self.0, &mut events, limit.map(timespec).as_ref()).unwrap_or(0);
        events.iter().take(count).map(|event| event.data.u64()).collect()
    }
}
