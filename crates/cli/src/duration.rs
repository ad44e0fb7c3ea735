//! Durations on the command line: `30s`, `1m 30s`, `250ms`.

use std::time::Duration;

use lyra_kit::Clock;
use lyra_types::Timestamp;

/// Reads a duration with its unit.
///
/// # Errors
/// What is wrong, and what one looks like.
pub fn parse(text: &str) -> Result<Duration, String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("a unit is missing: {text}s? {text}ms?"));
    }
    humantime::parse_duration(text).map_err(|error| format!("{error} (examples: 30s, 250ms, \"1m 30s\")"))
}

/// A point in time: RFC 3339, or a duration before now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// So long ago.
    Ago(Duration),
    /// At that time.
    At(Timestamp),
}

impl Since {
    /// Reads `10m` or `2026-01-31T12:00:00Z`.
    ///
    /// # Errors
    /// What is wrong, and what one looks like.
    pub fn parse(text: &str) -> Result<Since, String> {
        if let Some(time) = Timestamp::parse(text) {
            return Ok(Since::At(time));
        }
        parse(text).map(Since::Ago).map_err(|error| format!("{error}, or a time as 2026-01-31T12:00:00Z"))
    }

    /// The point in time.
    pub fn time(self, clock: &Clock) -> Timestamp {
        match self {
            Since::Ago(duration) => clock.now() - duration,
            Since::At(time) => time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_without_a_unit_is_refused_with_a_proposal() {
        assert_eq!(parse("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(parse("30").expect_err("no unit").contains("30s?"));
        assert!(parse("").is_err() && parse("soon").is_err() && parse("-1s").is_err());
    }

    #[test]
    fn since_is_an_age_or_a_time() {
        assert_eq!(Since::parse("10m"), Ok(Since::Ago(Duration::from_secs(600))));
        assert_eq!(Since::parse("1970-01-01T00:00:01Z"), Ok(Since::At(Timestamp::from_millis(1_000))));
        assert!(Since::parse("yesterday").is_err());
    }
}
