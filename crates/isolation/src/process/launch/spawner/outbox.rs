//! Messages that wait until a socket takes them, in order.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::super::wire;

/// What could not be sent at once.
#[derive(Default)]
pub(super) struct Outbox {
    unsent: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
}

impl Outbox {
    /// Sends a message, or keeps it until there is room. That the other end is gone is noticed elsewhere.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>, bytes: Vec<u8>, descriptors: &[BorrowedFd<'_>]) {
        if self.unsent.is_empty() {
            match wire::send(socket, &bytes, descriptors) {
                Err(error) if is_passing(&error) => {}
                _ => return,
            }
        }
        let copies = descriptors.iter().filter_map(|fd| fd.try_clone_to_owned().ok()).collect();
        self.unsent.push_back((bytes, copies));
    }

    /// Sends as much as there is room for.
    pub(super) fn flush(&mut self, socket: BorrowedFd<'_>) {
        while let Some((bytes, descriptors)) = self.unsent.front() {
            let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            match wire::send(socket, bytes, &borrowed) {
                Err(error) if is_passing(&error) => return,
                _ => drop(self.unsent.pop_front()),
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unsent.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.unsent.len()
    }

    /// Forgets what was not sent.
    pub(super) fn clear(&mut self) {
        self.unsent.clear();
    }
}

/// Whether a message may be sent later that could not be sent now.
fn is_passing(error: &io::Error) -> bool {
    const FULL: [i32; 3] = [libc::ENOBUFS, libc::ENOMEM, libc::ETOOMANYREFS];
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error().is_some_and(|number| FULL.contains(&number))
}
