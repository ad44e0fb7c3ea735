//! What a program has written while nobody was there to read it: the last of it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{BorrowedFd, OwnedFd};

use super::super::system;

/// Bytes that are kept of each output.
pub(super) const MOST: usize = 64 << 10;

/// The end of one output. What is dropped for lack of room is counted.
#[derive(Default)]
pub(super) struct Backlog {
    bytes: VecDeque<u8>,
    lost: u64,
}

/// What one look at an output found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There may be more later.
    Open,
    /// Nothing comes any more.
    Closed,
}

impl Backlog {
    /// Reads what is there, as far as `buffer` goes at a time; `all`: until there is nothing left.
    pub(super) fn read(&mut self, fd: BorrowedFd<'_>, buffer: &mut [u8], all: bool) -> State {
        // A bound for the last look, at a program that is gone: no pipe holds more than this many buffers.
        for _ in 0..if all { 64 } else { 1 } {
            match system::read(fd, buffer) {
                Ok(0) => return State::Closed,
                Ok(count) => self.add(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return State::Open,
                Err(_) => return State::Closed,
            }
        }
        State::Open
    }

    fn add(&mut self, bytes: &[u8]) {
        let surplus = (self.bytes.len() + bytes.len()).saturating_sub(MOST);
        let old = surplus.min(self.bytes.len());
        self.bytes.drain(..old);
        self.bytes.extend(&bytes[surplus - old..]);
        self.lost += surplus as u64;
    }

    /// All of it as a file to be read from its start, and how much was dropped; nothing is left here.
    pub(super) fn take(&mut self) -> io::Result<(OwnedFd, u64)> {
        let mut file = File::from(system::memory_file(c"output")?);
        let (first, second) = self.bytes.as_slices();
        file.write_all(first)?;
        file.write_all(second)?;
        file.rewind()?;
        let lost = std::mem::take(self).lost;
        Ok((file.into(), lost))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pipe_is_read_to_its_end() {
        let (read, write) = system::pipe().unwrap();
        system::set_nonblocking(read.as_fd()).unwrap();
        let (mut backlog, mut buffer) = (Backlog::default(), [0; 3]);
        system::write(write.as_fd(), b"abcdef").unwrap();
        assert_eq!(backlog.read(read.as_fd(), &mut buffer, true), State::Open);
        drop(write);
        assert_eq!(backlog.read(read.as_fd(), &mut buffer, false), State::Closed);
        assert_eq!(backlog.bytes, b"abcdef");
    }

    proptest! {
        #[test]
        fn the_last_bytes_are_kept_and_the_others_counted(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..MOST), 0..6)
        ) {
            let mut backlog = Backlog::default();
            pieces.iter().for_each(|piece| backlog.add(piece));
            let all = pieces.concat();
            let (file, lost) = backlog.take().unwrap();
            let mut kept = Vec::new();
            File::from(file).read_to_end(&mut kept).unwrap();
            prop_assert_eq!(&kept[..], &all[all.len().saturating_sub(MOST)..]);
            prop_assert_eq!(lost as usize + kept.len(), all.len());
        }
    }
}
