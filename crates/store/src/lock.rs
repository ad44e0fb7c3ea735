//! The lock on a data directory: two processes on one directory would each take the other's jobs for lost.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::StoreError;

/// Held for as long as the value lives; the system lets go of it when the process dies, however it dies.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Makes `dir` if it is not there, for this user alone, and locks it. Blocks for as long as the file system takes.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process, or another part of this one, holds the lock;
    /// [`StoreError::File`] when the directory can't be made or written.
    pub fn acquire(dir: &Path) -> Result<DirLock, StoreError> {
        // Events, results and logs of tenants are for no other user of the machine. One that is there is left as it is.
        let above = dir.parent().map_or(Ok(()), std::fs::create_dir_all);
        above
            .and_then(|()| DirBuilder::new().recursive(true).mode(0o700).create(dir))
            .map_err(StoreError::file("make the data directory"))?;
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
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

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
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700, "nobody else may read what is in it");
        std::fs::set_permissions(&path, Permissions::from_mode(0o750)).unwrap();
        DirLock::acquire(&path).unwrap();
        assert_eq!(mode(&path), 0o750, "one that was there is as its owner wants it");
    }
}
