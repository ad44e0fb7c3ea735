//! The current stream of a program: sequence numbers both ways, and signs of life.

use std::time::Duration;

pub(crate) struct Stream {
    /// Its number among the streams of this server.
    pub(crate) number: u64,
    /// Last sequence number that was sent.
    sent: u64,
    /// Last sequence number that was taken.
    taken: u64,
    /// Messages were lost, and the program has been asked for its whole state.
    asked_again: bool,
    pub(super) next_ping: Duration,
    pings: u64,
    /// Last ping that was answered.
    pongs: u64,
    /// Whether the program said anything since the last ping.
    heard: bool,
    misses: u32,
    pub(super) told_to_open: bool,
    pub(super) told_to_close: bool,
}

/// What the sequence number of a message says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    New,
    Known,
    AfterGap { first: bool },
}

impl Stream {
    pub(super) fn new(number: u64, taken: u64, next_ping: Duration) -> Stream {
        Stream {
            number,
            sent: 0,
            taken,
            asked_again: false,
            next_ping,
            pings: 0,
            pongs: 0,
            heard: true,
            misses: 0,
            told_to_open: false,
            told_to_close: false,
        }
    }

    pub(super) fn next_sequence(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    /// Judges a message's number; 0 is not numbered. A hello sets what comes after it.
    pub(super) fn take(&mut self, sequence: u64, is_hello: bool) -> Taken {
        if is_hello {
            self.taken = sequence;
            self.asked_again = false;
            return Taken::New;
        }
        if sequence == 0 {
            return Taken::New;
        }
        if sequence <= self.taken {
            return Taken::Known;
        }
        if sequence > self.taken + 1 {
            return Taken::AfterGap { first: !std::mem::replace(&mut self.asked_again, true) };
        }
        self.taken = sequence;
        Taken::New
    }

    pub(super) fn is_heard(&mut self) {
        self.heard = true;
        self.misses = 0;
    }

    /// Whether nothing was heard since the last ping. Misses are counted by pings, not by time, so that a worker that stood
    /// still for a while does not take its programs for dead.
    pub(super) fn count_miss(&mut self) -> u32 {
        if !self.heard {
            self.misses += 1;
        }
        self.misses
    }

    pub(super) fn send_ping(&mut self) -> u64 {
        self.heard = false;
        self.pings += 1;
        self.pings
    }

    pub(super) fn restart_pings(&mut self, next: Duration) {
        self.next_ping = next;
        self.heard = true;
        self.misses = 0;
    }

    pub(super) fn answered(&mut self, pong: u64) {
        if pong <= self.pings {
            self.pongs = self.pongs.max(pong);
        }
    }

    /// Last ping that was answered.
    pub(crate) fn pongs(&self) -> u64 {
        self.pongs
    }

    /// Whether the program said anything since the last ping.
    pub(crate) fn is_alive(&self) -> bool {
        self.heard
    }
}
