//! How busy the machine is, as one number: what a concurrency limit is adapted by.
//!
//! Two sources of the kernel's, and one that a test sets. All are read without waiting; none is smoothed here.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use tokio::time::Instant;

const LOADAVG: &str = "/proc/loadavg";
const PRESSURE: &str = "/proc/pressure/cpu";
const CGROUPS: &str = "/sys/fs/cgroup";
const OWN_CGROUP: &str = "/proc/self/cgroup";

/// Where the load is read. Cheap to clone; clones share what was read last.
#[derive(Debug, Clone)]
pub struct Load(Source);

#[derive(Debug, Clone)]
enum Source {
    Average { file: PathBuf, cores: u32 },
    Pressure { file: PathBuf, last: Arc<Mutex<Option<Reading>>> },
    Given(Arc<AtomicU32>),
}

/// A reading of the stall counter of a pressure file.
#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    stalled_us: u64,
}

impl Load {
    /// The one-minute load average by core, in percent: 100 is one task for each core. Slow, but there on every Linux.
    pub fn average() -> Load {
        let cores = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
        Load::average_of(Path::new(LOADAVG), cores)
    }

    /// As [`Load::average`], from a file of the form of `/proc/loadavg`.
    pub fn average_of(file: &Path, cores: u32) -> Load {
        Load(Source::Average { file: file.to_owned(), cores: cores.max(1) })
    }

    /// The share of time, since it was read last, in which some task waited for a core, in percent (the kernel's
    /// pressure stall information). Of this process' own cgroup where that has such a file (cgroup v2), else of the
    /// machine.
    pub fn pressure() -> Load {
        let own = std::fs::read_to_string(OWN_CGROUP).ok().and_then(|text| {
            let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
            let file = Path::new(CGROUPS).join(path).join("cpu.pressure");
            file.exists().then_some(file)
        });
        Load::pressure_of(&own.unwrap_or_else(|| PRESSURE.into()))
    }

    /// As [`Load::pressure`], from a file of the form of `/proc/pressure/cpu`.
    pub fn pressure_of(file: &Path) -> Load {
        Load(Source::Pressure { file: file.to_owned(), last: Arc::default() })
    }

    /// What `percent` holds at the time, for tests and simulations.
    pub fn given(percent: Arc<AtomicU32>) -> Load {
        Load(Source::Given(percent))
    }

    /// The load in percent; `None` where a first reading is needed to compare the next one with.
    ///
    /// # Errors
    /// When the file can't be read, or is not of the form that it should be.
    pub fn percent(&self, now: Instant) -> io::Result<Option<u32>> {
        match &self.0 {
            Source::Given(percent) => Ok(Some(percent.load(Ordering::Relaxed))),
            Source::Average { file, cores } => {
                let [average, ..] =
                    averages_in(&std::fs::read_to_string(file)?).ok_or_else(|| malformed(file, "no load average"))?;
                Ok(Some(whole(average * 100.0 / f64::from(*cores))))
            }
            Source::Pressure { file, last } => {
                let stalled_us = stalled(&std::fs::read_to_string(file)?).ok_or_else(|| malformed(file, "no total"))?;
                let before = last.lock().replace(Reading { at: now, stalled_us });
                Ok(before.and_then(|before| {
                    let passed = u64::try_from((now - before.at).as_micros()).unwrap_or(u64::MAX);
                    let stalled = stalled_us.saturating_sub(before.stalled_us).min(passed);
                    (passed > 0).then(|| whole(stalled as f64 * 100.0 / passed as f64))
                }))
            }
        }
    }
}

/// The load averages of the last 1, 5 and 15 minutes; `None` where the system has none.
pub fn averages() -> Option<[f64; 3]> {
    averages_in(&std::fs::read_to_string(LOADAVG).ok()?)
}

fn averages_in(text: &str) -> Option<[f64; 3]> {
    let mut numbers = text.split_whitespace().map(|word| word.parse().ok());
    Some([numbers.next()??, numbers.next()??, numbers.next()??])
}

/// The nearest whole number; the cast saturates.
fn whole(value: f64) -> u32 {
    value.round() as u32
}

fn malformed(file: &Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} in {}", file.display()))
}

/// The `total` of the line `some`, in microseconds.
fn stalled(text: &str) -> Option<u64> {
    let some = text.lines().find(|line| line.starts_with("some "))?;
    some.split_whitespace().find_map(|word| word.strip_prefix("total="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("it can be written");
        file
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_average_is_by_core() {
        let now = crate::Clock::system().instant();
        let file = file("3.00 1.00 0.50 2/300 1234\n");
        assert_eq!(Load::average_of(file.path(), 2).percent(now).expect("it is well formed"), Some(150));
        std::fs::write(file.path(), "nonsense").expect("it can be written");
        assert!(Load::average_of(file.path(), 2).percent(now).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn pressure_is_the_share_of_stalled_time_between_two_readings() {
        let clock = crate::Clock::system();
        let file = file("some avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\nfull avg10=0.00 total=0\n");
        let load = Load::pressure_of(file.path());
        assert_eq!(load.percent(clock.instant()).expect("it is well formed"), None);
        clock.sleep(Duration::from_secs(2)).await;
        std::fs::write(file.path(), "some avg10=0.00 total=1500000\n").expect("it can be written");
        assert_eq!(load.clone().percent(clock.instant()).expect("it is well formed"), Some(25));
        std::fs::write(file.path(), "full total=7\n").expect("it can be written");
        assert!(load.percent(clock.instant()).is_err());
    }

    #[test]
    fn this_machine_has_a_load_average() {
        let now = crate::Clock::system().instant();
        assert!(Load::average().percent(now).expect("Linux has it").is_some());
    }
}
