//! The files of the count: the log that grows, the batches that wait, and whose they are.
//!
//! ```text
//! source         16 hexadecimal digits, drawn when the directory was made
//! last           a number that every later log is at or above
//! {number}.log   a line for each call, as JSON; a last line without an end was not acknowledged
//! {number}.batch the sums of the log of that number; where both are there, the log is in it
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use lyra_kit::Random;
use lyra_types::usage::UsageRow;

/// Why a file of the count can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}: {source}", path.display())]
pub struct UsageError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl UsageError {
    pub(super) fn at(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> UsageError + use<> {
        let path = path.to_owned();
        move |source| UsageError { operation, path, source }
    }
}

/// The log that grows.
pub(super) struct Log {
    file: File,
    path: PathBuf,
    bytes: u64,
    line: Vec<u8>,
}

impl Log {
    pub(super) fn create(dir: &Path, number: u64) -> Result<Log, UsageError> {
        let path = log_path(dir, number);
        let file = File::options().create(true).append(true).open(&path).map_err(UsageError::at("make", &path))?;
        Ok(Log { file, path, bytes: 0, line: Vec::with_capacity(512) })
    }

    /// Hands one line to the system, as one write.
    pub(super) fn write(&mut self, row: &UsageRow) -> Result<(), UsageError> {
        self.line.clear();
        let written = serde_json::to_writer(&mut self.line, row).map_err(io::Error::from).and_then(|()| {
            self.line.push(b'\n');
            self.file.write_all(&self.line)
        });
        written.map_err(UsageError::at("write to", &self.path))?;
        self.bytes += self.line.len() as u64;
        Ok(())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn log_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016}.log"))
}

fn batch_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016}.batch"))
}

/// Writes a file whole and durably, or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), UsageError> {
    let fresh = path.with_extension("new");
    let write = || {
        let mut file = File::create(&fresh)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&fresh, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    write().map_err(UsageError::at("write", path))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, UsageError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(UsageError::at("read", path)(error)),
    }
}

fn delete(path: &Path) -> Result<(), UsageError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(UsageError::at("delete", path)(error)),
        _ => Ok(()),
    }
}

/// Whose count this is.
pub(super) fn source(dir: &Path, random: &Random) -> Result<String, UsageError> {
    let path = dir.join("source");
    let known = read(&path)?.and_then(|bytes| String::from_utf8(bytes).ok());
    if let Some(known) = known.filter(|known| known.len() == 16) {
        return Ok(known);
    }
    let fresh = format!("{:016x}", random.u64());
    write_whole(&path, fresh.as_bytes())?;
    Ok(fresh)
}

/// A number that is at or above every one that was used.
pub(super) fn last(dir: &Path) -> Result<u64, UsageError> {
    let bytes = read(&dir.join("last"))?.unwrap_or_default();
    Ok(std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0))
}

pub(super) fn keep_last(dir: &Path, number: u64) -> Result<(), UsageError> {
    write_whole(&dir.join("last"), number.to_string().as_bytes())
}

/// Numbers of the logs and of the batches that are there.
pub(super) fn left(dir: &Path) -> Result<(Vec<u64>, Vec<u64>), UsageError> {
    let at = |error| UsageError::at("list", dir)(error);
    let (mut logs, mut batches) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(dir).map_err(at)? {
        let path = entry.map_err(|error| UsageError::at("list", dir)(error))?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        match (number, path.extension().and_then(|extension| extension.to_str())) {
            (Some(number), Some("log")) => logs.push(number),
            (Some(number), Some("batch")) => batches.push(number),
            _ => {}
        }
    }
    // A log whose batch is there is in it.
    for number in &batches {
        delete(&log_path(dir, *number))?;
    }
    logs.retain(|number| !batches.contains(number));
    logs.sort_unstable();
    batches.sort_unstable();
    Ok((logs, batches))
}

/// Makes a batch of a log that grows no more; false where nothing was in it.
pub(super) fn seal(dir: &Path, number: u64) -> Result<bool, UsageError> {
    let path = log_path(dir, number);
    let bytes = read(&path)?.unwrap_or_default();
    let lines = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let rows = super::add_up(lines.filter_map(|line| serde_json::from_slice(line).ok()));
    let any = !rows.is_empty();
    if any {
        let json = serde_json::to_vec(&rows).map_err(io::Error::from).map_err(UsageError::at("write", &path))?;
        write_whole(&batch_path(dir, number), &json)?;
    }
    delete(&path)?;
    Ok(any)
}

/// The rows of a batch.
pub(super) fn batch(dir: &Path, number: u64) -> Result<Vec<UsageRow>, UsageError> {
    let path = batch_path(dir, number);
    let bytes = read(&path)?.unwrap_or_default();
    serde_json::from_slice(&bytes).map_err(io::Error::from).map_err(UsageError::at("read", &path))
}

pub(super) fn drop_batch(dir: &Path, number: u64) -> Result<(), UsageError> {
    delete(&batch_path(dir, number))
}
