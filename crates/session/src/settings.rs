//! What a session server allows a program, and how long it waits for it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Settings of session servers. Every wait of a server has its bound here, and everything that a program can make it hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Time between pings, and longest wait for the answer to one.
    #[serde(with = "humantime_serde")]
    pub ping_interval: Duration,
    /// Pings in a row without any answer after which a program counts as dead.
    pub ping_misses: u32,
    /// How long a program whose stream broke may take to come back.
    #[serde(with = "humantime_serde")]
    pub reattach: Duration,
    /// How long a stream has to prove that it lives when a second one comes.
    #[serde(with = "humantime_serde")]
    pub takeover: Duration,
    /// How long a connection may take for a request's head, for the first message, or for a posted one.
    #[serde(with = "humantime_serde")]
    pub patience: Duration,
    /// How long a session that the program closes by itself may take.
    #[serde(with = "humantime_serde")]
    pub closing: Duration,
    /// Largest message of a program, in bytes.
    pub max_message: usize,
    /// Most client sessions at a time.
    pub max_clients: usize,
    /// Most connections at a time; more are closed at once.
    pub connections: usize,
    /// Bytes that are read from a program in a second, on the average.
    pub bytes_per_second: u32,
    /// Messages that are read from a program in a second, on the average.
    pub messages_per_second: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            ping_interval: Duration::from_secs(5),
            ping_misses: 3,
            reattach: Duration::from_secs(10),
            takeover: Duration::from_secs(1),
            patience: Duration::from_secs(5),
            closing: Duration::from_secs(60),
            max_message: 2 << 20,
            max_clients: 10_000,
            connections: 8,
            bytes_per_second: 1 << 20,
            messages_per_second: 1_000,
        }
    }
}

impl Settings {
    /// The same, but nothing so small that a server could do nothing else, or nothing at all.
    pub(crate) fn within_reason(mut self) -> Settings {
        self.ping_interval = self.ping_interval.max(Duration::from_millis(10));
        self.ping_misses = self.ping_misses.max(1);
        self.connections = self.connections.max(1);
        self.max_message = self.max_message.max(4 << 10);
        self
    }
}

/// Longest id of a client session or a session, in bytes.
pub(crate) const MAX_ID: usize = 128;
/// Most of a program's reason that is kept, in bytes.
pub(crate) const MAX_REASON: usize = 1_024;
