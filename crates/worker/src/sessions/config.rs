//! What can be set of sessions on a worker.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Settings of instances of applications and their sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address of this machine on which ports of sessions are reached; `None`: the one at which this worker is reached.
    pub address: Option<IpAddr>,
    /// Ports on this machine for ports of sessions.
    pub ports: PortRange,
    /// A standing instance that is idle for so long is hibernated, where its kind can; `None`: none is.
    #[serde(with = "humantime_serde")]
    pub hibernate_after: Option<Duration>,
    /// Standing instances that are started at the same time; those for sessions that wait are started besides.
    pub parallel_starts: usize,
    /// Longest time from the start of an instance's program until it is ready.
    #[serde(with = "humantime_serde")]
    pub ready_timeout: Duration,
    /// Time that the program of an instance without a session has to end before it is killed.
    #[serde(with = "humantime_serde")]
    pub end_grace: Duration,
    /// Longest wait before a standing instance is started in place of one that failed. The first is a second, each
    /// further one twice the one before.
    #[serde(with = "humantime_serde")]
    pub restart_max: Duration,
    /// A session that has ended is remembered for so long, where control does not say sooner that it knows.
    #[serde(with = "humantime_serde")]
    pub keep_ended: Duration,
    /// The session service that programs with the SDK speak with.
    pub service: lyra_session::Settings,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            address: None,
            ports: PortRange { first: 20_000, last: 29_999 },
            hibernate_after: Some(Duration::from_secs(60)),
            parallel_starts: 8,
            ready_timeout: Duration::from_secs(5 * 60),
            end_grace: Duration::from_secs(5),
            restart_max: Duration::from_secs(60),
            keep_ended: Duration::from_secs(60 * 60),
            service: lyra_session::Settings::default(),
        }
    }
}

/// Ports from one to another, as `FIRST-LAST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The ports.
    pub fn ports(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<PortRange, String> {
        let refused = || format!("\"{text}\" is no range of ports: write FIRST-LAST, from 1 to 65535");
        let (first, last) = text.split_once('-').ok_or_else(refused)?;
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(refused);
        let (first, last) = (port(first)?, port(last)?);
        if first <= last { Ok(PortRange { first, last }) } else { Err(refused()) }
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PortRange, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_ports_is_read_as_it_is_written() {
        let range: PortRange = "20000-29999".parse().unwrap();
        assert_eq!((range, range.to_string().as_str()), (Config::default().ports, "20000-29999"));
        for bad in ["", "80", "0-9", "9-8", "1-70000", "a-b"] {
            bad.parse::<PortRange>().unwrap_err();
        }
    }
}
