//! What was measured: a table for people, JSON lines for programs, and medians.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

/// One line of the report: one system in one situation.
#[derive(Debug, Clone, Serialize, Default)]
pub struct Record {
    /// Name of the scenario.
    pub scenario: &'static str,
    /// What was measured: `lyra`, or a peer.
    pub system: String,
    /// Median latency, in µs.
    pub p50_us: Option<f64>,
    /// 99th percentile, in µs.
    pub p99_us: Option<f64>,
    /// Answers a second.
    pub rps: Option<f64>,
    /// Resident memory, in MB.
    pub rss_mb: Option<f64>,
    /// How many times better Lyra is than the peer in `vs`, by what `ratio_of` names.
    pub ratio: Option<f64>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: BTreeMap<&'static str, Value>,
}

impl Record {
    /// A record without figures.
    pub fn new(scenario: &'static str, system: impl Into<String>) -> Record {
        Record { scenario, system: system.into(), ..Record::default() }
    }

    /// Adds a field of its own.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Record {
        self.extra.insert(name, value.into());
        self
    }

    /// Adds a number, rounded.
    #[must_use]
    pub fn with_number(self, name: &'static str, value: f64) -> Record {
        self.with(name, rounded(value))
    }

    /// Says how it stands to a peer.
    #[must_use]
    pub fn against(mut self, peer: &str, of: &'static str, ratio: f64) -> Record {
        self.ratio = Some(ratio);
        self.with("vs", peer).with("ratio_of", of)
    }
}

/// Three digits after the point: more would only pretend.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// The median; 0 of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    percentile(values, 0.5)
}

/// The value that `share` of all are not above (nearest rank); 0 of nothing.
pub fn percentile(values: impl IntoIterator<Item = f64>, share: f64) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// In µs.
pub fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Prints a table to stdout.
pub fn print(records: &[Record]) {
    let cell = |value: Option<f64>, digits: usize| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.digits$}"));
    println!(
        "{:<10} {:<22} {:>10} {:>10} {:>9} {:>8} {:>7}  other",
        "scenario", "system", "p50 us", "p99 us", "per s", "RSS MB", "ratio"
    );
    for record in records {
        let others: Vec<String> = record
            .extra
            .iter()
            .map(|(name, value)| format!("{name}={}", value.to_string().trim_matches('"')))
            .collect();
        println!(
            "{:<10} {:<22} {:>10} {:>10} {:>9} {:>8} {:>7}  {}",
            record.scenario,
            record.system,
            cell(record.p50_us, 1),
            cell(record.p99_us, 1),
            cell(record.rps, 0),
            cell(record.rss_mb, 1),
            cell(record.ratio, 2),
            others.join(" ")
        );
    }
}

/// Writes the records to `path`, one JSON object a line.
///
/// # Errors
/// When the file can't be written.
pub fn write_json(records: &[Record], path: &Path) -> anyhow::Result<()> {
    let mut file = std::fs::File::create(path).with_context(|| format!("create {}", path.display()))?;
    for record in records {
        let mut record = record.clone();
        for value in [&mut record.p50_us, &mut record.p99_us, &mut record.rps, &mut record.rss_mb, &mut record.ratio] {
            *value = value.map(rounded);
        }
        writeln!(file, "{}", serde_json::to_string(&record)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(percentile((1..=100).map(f64::from), 0.99), 99.0);
        assert_eq!(median([]), 0.0);
    }

    #[test]
    fn a_record_is_one_flat_object() {
        let record = Record::new("warm-js", "lyra").with("connections", 32).against("workerd", "rps", 1.5);
        let json = serde_json::to_value(record).expect("serializes");
        assert_eq!(json["scenario"], "warm-js");
        assert_eq!(json["connections"], 32);
        assert_eq!(json["ratio"], 1.5);
        assert!(json["rss_mb"].is_null());
    }
}
