//! The processor time of a group, read again and again.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use super::field;

/// More than the kernel ever writes there.
const LENGTH: usize = 4096;

/// The file in which the kernel counts a group's processor time, kept open: a call of a function reads it, and to find
/// and open it takes several times as long as to read it. Once the group is gone there is nothing to be read.
#[derive(Debug)]
pub(in super::super) struct CpuClock {
    file: File,
    /// What stands before the number, at the start of its line.
    name: &'static str,
    unit: fn(u64) -> Duration,
}

impl CpuClock {
    pub(super) fn open(path: &Path, name: &'static str, unit: fn(u64) -> Duration) -> Option<CpuClock> {
        Some(CpuClock { file: File::open(path).ok()?, name, unit })
    }

    /// Processor time of all processes of the group since it was made.
    pub(in super::super) fn read(&self) -> Option<Duration> {
        let mut bytes = [0; LENGTH];
        let count = self.file.read_at(&mut bytes, 0).ok()?;
        let text = std::str::from_utf8(bytes.get(..count)?).ok()?;
        field(text, self.name).map(self.unit)
    }
}
