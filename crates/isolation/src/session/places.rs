//! Where the files of sessions lie: in memory where there is room, else beside the worker's other data.
//!
//! They come and go with each session, a dozen files and directories at a time. A disk's file system takes its time for that: ext4 passes
//! over every inode that was deleted within the last minutes whenever it makes one, so that a busy worker gets slower and slower. And what
//! is secret about a session is never on a disk.
//!
//! What must hold: secrets are in memory or nowhere; nobody else of this machine reads or has made the directory in memory; one process finds again what another has left
//! under the same data directory; what is left of data directories that are gone goes, too.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use lyra_types::{Code, Error, InstanceId};
use sha2::{Digest, Sha256};

use super::files::SessionFiles;
use super::{Files, SECRETS};

/// A file system in memory, which every Linux has.
const MEMORY: &str = "/dev/shm";

/// What directories in it are called, before what stands for a data directory.
const NAME: &str = "lyra-sessions-";

/// The file in it that names the data directory.
const OF: &str = "of";

/// Memory that must be free there, in bytes: far more than the files of one session may take.
const ROOM: u64 = 128 << 20;

/// The same where there are secrets among the files, which are nowhere else.
const ROOM_FOR_SECRETS: u64 = 16 << 20;

/// Inodes that must be free there, where they are counted.
const INODES: u64 = 4_096;

/// Where the files of all instances of one back end are.
#[derive(Debug)]
pub(crate) struct Places {
    memory: Option<PathBuf>,
    disk: PathBuf,
}

impl Places {
    /// For the back end whose data is in `dir`.
    pub(crate) fn new(dir: &Path) -> Places {
        Places::below(Path::new(MEMORY), dir)
    }

    fn below(memory: &Path, dir: &Path) -> Places {
        let in_memory = match in_memory(memory, dir) {
            Ok(place) => Some(place),
            Err(error) => {
                tracing::debug!(%error, dir = %dir.display(), "files of sessions are kept on disk");
                None
            }
        };
        Places { memory: in_memory, disk: dir.join("sessions") }
    }

    /// Where the files of a new instance shall be.
    ///
    /// # Errors
    /// [`Code::Overloaded`] where secrets are among them and there is no room in memory.
    pub(crate) fn make(&self, id: InstanceId, files: &Files) -> Result<SessionFiles, Error> {
        if !files.keys().any(|name| name.starts_with(SECRETS)) {
            return Ok(self.of(id));
        }
        let memory = self.memory.as_ref().filter(|memory| has_room(memory, ROOM_FOR_SECRETS));
        let place = memory.map(|memory| SessionFiles::at(memory.join(id.to_string())));
        place.ok_or_else(|| {
            let room = ROOM_FOR_SECRETS >> 20;
            let why = format!("this worker has no {room} MiB free in {MEMORY}, and secrets are written to no disk");
            Error::new(Code::Overloaded, why)
        })
    }

    /// Where the files of an instance are; where there are none, where they shall be.
    pub(crate) fn of(&self, id: InstanceId) -> SessionFiles {
        let (name, on_disk) = (id.to_string(), self.disk.join(id.to_string()));
        let place = match &self.memory {
            Some(memory) if memory.join(&name).exists() || !on_disk.exists() && has_room(memory, ROOM) => {
                memory.join(name)
            }
            _ => on_disk,
        };
        SessionFiles::at(place)
    }

    /// Removes the files of all instances but those named: what an earlier worker has left.
    pub(crate) fn sweep(&self, kept: &BTreeSet<String>) {
        for root in self.memory.iter().chain([&self.disk]) {
            for entry in fs::read_dir(root).into_iter().flatten().flatten() {
                let is_of_instance = entry.path().is_dir();
                if is_of_instance && !entry.file_name().to_str().is_some_and(|id| kept.contains(id)) {
                    drop(SessionFiles::at(entry.path()));
                }
            }
        }
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        // While there are files of instances, which outlast this process, it stays.
        if let Some(memory) = &self.memory
            && fs::read_dir(memory).is_ok_and(|entries| entries.count() <= 1)
        {
            let _none = fs::remove_file(memory.join(OF));
            let _used = fs::remove_dir(memory);
        }
    }
}

/// The directory below `memory` for what is in `dir`, made if it is not there.
fn in_memory(memory: &Path, dir: &Path) -> io::Result<PathBuf> {
    clear(memory);
    fs::create_dir_all(dir)?;
    let dir = dir.canonicalize()?;
    let place = memory.join(format!("{NAME}{}", hex::encode(&Sha256::digest(dir.as_os_str().as_bytes())[..8])));
    match DirBuilder::new().mode(0o700).create(&place) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if !is_ours(&place)? {
        return Err(io::Error::other(format!("{} is somebody else's", place.display())));
    }
    fs::write(place.join(OF), dir.as_os_str().as_bytes())?;
    Ok(place)
}

/// Whether nobody else could have made it, or can look into it.
fn is_ours(place: &Path) -> io::Result<bool> {
    let found = fs::symlink_metadata(place)?;
    Ok(found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0)
}

/// Removes what is there for data directories that are gone.
fn clear(memory: &Path) {
    for entry in fs::read_dir(memory).into_iter().flatten().flatten() {
        let place = entry.path();
        if !entry.file_name().to_str().is_some_and(|name| name.starts_with(NAME)) || !is_ours(&place).unwrap_or(false) {
            continue;
        }
        // One without is just being made.
        let Ok(of) = fs::read(place.join(OF)) else { continue };
        let of = PathBuf::from(std::ffi::OsString::from_vec(of));
        if of.is_absolute() && !of.exists() {
            tracing::debug!(of = %of.display(), "files of sessions are removed whose data directory is gone");
            let _gone = fs::remove_dir_all(&place);
        }
    }
}

fn has_room(place: &Path, room: u64) -> bool {
    rustix::fs::statvfs(place).is_ok_and(|found| {
        found.f_bavail.saturating_mul(found.f_frsize) >= room && (found.f_files == 0 || found.f_favail >= INODES)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use bytes::Bytes;

    use super::*;

    fn id(n: u64) -> InstanceId {
        InstanceId::from_parts(n, 1)
    }

    fn files() -> Files {
        [("session.json".to_owned(), Bytes::from_static(b"{}"))].into()
    }

    /// A directory that stands for the memory of a machine, and a data directory.
    fn ground() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let whole = tempfile::tempdir().unwrap();
        let (memory, data) = (whole.path().join("memory"), whole.path().join("data"));
        fs::create_dir(&memory).unwrap();
        fs::create_dir(&data).unwrap();
        (whole, memory, data)
    }

    fn names(place: &Path) -> Vec<String> {
        let entries = fs::read_dir(place).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn files_are_in_memory_found_again_and_gone_with_their_instances() {
        let (_whole, memory, data) = ground();
        let places = Places::below(&memory, &data);
        let (gone, left) = (places.of(id(1)), places.of(id(2)));
        gone.create(&files()).unwrap();
        left.create(&files()).unwrap();
        left.leave();
        let shown = left.shown();
        assert!(shown.starts_with(&memory) && names(&data).is_empty());
        drop((gone, left, places));
        // The next process of the worker.
        let places = Places::below(&memory, &data);
        places.sweep(&[id(2).to_string()].into());
        assert_eq!(places.of(id(2)).shown(), shown);
        assert!(!shown.exists(), "it went with what was dropped");
        drop(places);
        assert!(names(&memory).is_empty(), "nothing is left");
    }

    #[test]
    fn where_memory_is_not_to_be_had_they_are_on_disk() {
        let (whole, memory, data) = ground();
        let place = in_memory(&memory, &data).unwrap();
        // Somebody was faster: everybody may look into it, or it leads elsewhere.
        fs::remove_dir_all(&place).unwrap();
        DirBuilder::new().mode(0o755).create(&place).unwrap();
        assert!(Places::below(&memory, &data).of(id(1)).shown().starts_with(&data));
        fs::remove_dir(&place).unwrap();
        symlink(whole.path(), &place).unwrap();
        assert!(Places::below(&memory, &data).of(id(1)).shown().starts_with(&data));
        let none = Places::below(Path::new("/nowhere"), &data);
        let on_disk = none.of(id(1));
        on_disk.create(&files()).unwrap();
        on_disk.leave();
        drop(on_disk);
        // They stay where they are once there is memory.
        fs::remove_file(&place).unwrap();
        let places = Places::below(&memory, &data);
        assert!(places.of(id(1)).shown().starts_with(&data));
        places.sweep(&BTreeSet::new());
        assert!(names(&data.join("sessions")).is_empty());
    }

    #[test]
    fn secrets_are_in_memory_or_nowhere() {
        let (_whole, memory, data) = ground();
        let mut files = files();
        files.insert("secrets/key".to_owned(), Bytes::from_static(b"hush"));
        let places = Places::below(&memory, &data);
        assert!(places.make(id(1), &files).unwrap().shown().starts_with(&memory));
        let none = Places::below(Path::new("/nowhere"), &data);
        let refused = none.make(id(1), &files).unwrap_err();
        assert!(refused.code == Code::Overloaded && refused.detail.contains("/dev/shm"), "{refused}");
        files.remove("secrets/key");
        assert!(none.make(id(1), &files).unwrap().shown().starts_with(&data));
    }

    #[test]
    fn what_belongs_to_data_that_is_gone_is_removed() {
        let (_whole, memory, data) = ground();
        let places = Places::below(&memory, &data);
        let killed = places.of(id(1));
        killed.create(&files()).unwrap();
        killed.leave();
        std::mem::forget(places);
        fs::remove_dir_all(&data).unwrap();
        fs::create_dir(data.with_extension("other")).unwrap();
        let other = Places::below(&memory, &data.with_extension("other"));
        assert_eq!(names(&memory).len(), 1);
        drop(other);
    }
}
