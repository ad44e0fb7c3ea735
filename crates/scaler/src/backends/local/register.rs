//! The file that says which processes live on: `workers.json` in the scaler's directory.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

const FILE: &str = "workers.json";

/// A process as it is found again: the number of another that came later would have begun later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Registered {
    pub(super) pid: i32,
    /// When it began, in ticks since the machine did.
    pub(super) began: u64,
}

/// Reads the file in `dir`, which is made where it is missing. What cannot be read any more counts as nobody.
pub(super) fn read(dir: &Path) -> io::Result<BTreeMap<u32, Registered>> {
    fs::create_dir_all(dir)?;
    match fs::read(dir.join(FILE)) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

/// Replaces the file as a whole.
pub(super) fn write(dir: &Path, processes: &BTreeMap<u32, Registered>) -> io::Result<()> {
    let (fresh, path) = (dir.join(format!("{FILE}.new")), dir.join(FILE));
    fs::write(&fresh, serde_json::to_vec(processes).map_err(io::Error::other)?)?;
    fs::rename(&fresh, path)
}

/// When a process began, in ticks since the machine did; none where it is gone, or dead and not waited for.
pub(super) fn began(pid: i32) -> Option<u64> {
    began_of(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn began_of(stat: &str) -> Option<u64> {
    // The second field is the program's name in brackets, which may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    // The 22nd field of all, the 20th of these.
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_a_process_began_is_read_whatever_its_name() {
        let fields: Vec<String> = (4..=30).map(|number| number.to_string()).collect();
        let stat = |state: &str| format!("17 (a) b (c) {state} {}", fields.join(" "));
        assert_eq!(began_of(&stat("S")), Some(22));
        assert_eq!((began_of(&stat("Z")), began_of("")), (None, None));
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(began(own).is_some());
    }

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("made");
        assert!(read(&inner).unwrap().is_empty());
        let some = BTreeMap::from([(3, Registered { pid: 7, began: 9 })]);
        write(&inner, &some).unwrap();
        assert_eq!(read(&inner).unwrap(), some);
        fs::write(inner.join(FILE), "half of i").unwrap();
        assert!(read(&inner).unwrap().is_empty());
    }
}
