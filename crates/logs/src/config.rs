//! Settings of the log service, with their defaults.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Settings of the log service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Folder of the database, `logs.db`; made when it is missing.
    #[serde(skip)]
    pub dir: PathBuf,
    /// Most bytes of lines kept, 256 MiB. A line counts as its text and 128 bytes for the rest of its row; one of an application also
    /// as the names that it is found by.
    ///
    /// When more are there, lines are deleted until 1/32 of it is free again. Room is made at a common
    /// level: every function that holds more bytes than the level loses its oldest lines down to it, and
    /// every function that holds less loses none. A function that keeps under an equal share
    /// (`max_bytes` / number of functions) therefore never loses a line to another one.
    pub max_bytes: u64,
    /// Longest time a line is kept, 7 days.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
    /// Most lines that wait to be written, 65,536. One function may hold half of them.
    pub queue_lines: usize,
    /// Most bytes of lines that wait to be written, 32 MiB. One function may hold half of them.
    pub queue_bytes: usize,
    /// How long lines wait for others, to be written in one go, 100 ms. A query or a follower cuts it short.
    #[serde(with = "humantime_serde")]
    pub batch_delay: Duration,
    /// Longest time a query waits for the lines offered before it to be written, and for a free reader, 10 s.
    #[serde(with = "humantime_serde")]
    pub read_wait: Duration,
    /// Most queries that read at once, 8; more wait.
    pub readers: usize,
    /// Most streams that follow at once, 1,024; more are refused.
    pub max_followers: usize,
    /// Most lines of one answer, 10,000, whatever was asked for.
    pub max_answer_lines: usize,
    /// Most bytes of text in one answer, 32 MiB: the newest that fit.
    pub max_answer_bytes: usize,
}

impl Default for Config {
    /// The defaults, with the database in the folder `logs`.
    fn default() -> Config {
        Config::new("logs")
    }
}

impl Config {
    /// The defaults, with the database in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Config {
        Config {
            dir: dir.into(),
            max_bytes: 256 << 20,
            max_age: Duration::from_secs(7 * 24 * 3_600),
            queue_lines: 65_536,
            queue_bytes: 32 << 20,
            batch_delay: Duration::from_millis(100),
            read_wait: Duration::from_secs(10),
            readers: 8,
            max_followers: 1_024,
            max_answer_lines: 10_000,
            max_answer_bytes: 32 << 20,
        }
    }
}
