//! The lock on a data directory: two processes on one directory would each take the other's jobs for lost.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::StoreError;

/// Held for as long as the value lives; the system lets go of it when the process dies, however it dies.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Makes `dir` if it is not there and locks it. Blocks for as long as the file system takes.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process, or another part of this one, holds the lock;
    /// [`StoreError::File`] when the directory can't be made or written.
    pub fn acquire(dir: &Path) -> Result<DirLock, StoreError> {
        std::fs::create_dir_all(dir).map_err(StoreError::file("make the data directory"))?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(dir.join("lock"))
            .map_err(StoreError::file("open the data directory's lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(DirLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: dir.display().to_string() }),
            Err(TryLockError::Error(source)) => Err(StoreError::File { operation: "lock the data directory", source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_locked_once_and_free_again_after_the_drop() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let held = DirLock::acquire(&path).unwrap();
        let error = DirLock::acquire(&path).unwrap_err();
        assert!(matches!(error, StoreError::InUse { .. }), "{error}");
        assert!(error.to_string().contains("in use by another process"));
        drop(held);
        DirLock::acquire(&path).unwrap();
    }
}
