//! Waiting for many descriptors at once.
#![expect(unsafe_code, reason = "epoll has no safe interface in std")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Most events that are taken at a time.
const BATCH: usize = 64;

pub(super) struct Events(OwnedFd);

impl Events {
    pub(super) fn new() -> io::Result<Events> {
        // SAFETY: takes no memory.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just returned it.
        Ok(Events(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Tells `token` whenever there is something to read from `fd`, or its other end is gone.
    pub(super) fn add(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN.cast_unsigned(), u64: token };
        // SAFETY: the event is read.
        let result =
            unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Stops telling. A descriptor that a child has inherited stays known to the kernel after it was closed here.
    pub(super) fn remove(&self, fd: BorrowedFd<'_>) {
        // SAFETY: no event is read for this operation.
        unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_DEL, fd.as_raw_fd(), std::ptr::null_mut()) };
    }

    /// Waits and returns the tokens of what is ready; none after `limit`.
    pub(super) fn wait(&self, limit: Option<Duration>) -> Vec<u64> {
        let limit = limit.map_or(-1, |limit| i32::try_from(limit.as_millis()).unwrap_or(i32::MAX));
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; BATCH];
        // SAFETY: pointer and length belong together.
        let count = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), BATCH as i32, limit) };
        events.iter().take(usize::try_from(count).unwrap_or(0)).map(|event| event.u64).collect()
    }
}
