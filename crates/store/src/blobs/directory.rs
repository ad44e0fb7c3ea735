//! [`Blobs`] in a directory: one file each, in 256 folders by the first byte of the digest.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_types::function::Digest;

use super::{Blobs, Shelf, digest, is_digest};
use crate::StoreError;

/// A file that nobody has written to for so long belongs to a process that was killed: of those that share a directory, one may
/// write a blob while another one starts.
const ABANDONED: Duration = Duration::from_secs(600);

/// [`Blobs`] in a directory, which several processes may share.
#[derive(Debug, Clone)]
pub struct DirectoryBlobs {
    root: PathBuf,
}

impl DirectoryBlobs {
    /// Opens or makes the directory, and clears away files that a killed process left half-written. Blocks.
    ///
    /// # Errors
    /// When the directory can't be made.
    pub fn open(root: &Path) -> Result<DirectoryBlobs, StoreError> {
        DirectoryBlobs::open_shelf(root, Shelf::Code)
    }

    /// Opens or makes a shelf of the directory, as [`DirectoryBlobs::open`] does.
    ///
    /// # Errors
    /// When the directory can't be made.
    pub fn open_shelf(root: &Path, shelf: Shelf) -> Result<DirectoryBlobs, StoreError> {
        let root = match shelf {
            Shelf::Code => root.to_owned(),
            Shelf::Values => root.join("values"),
        };
        let partial = root.join("partial");
        std::fs::create_dir_all(&partial).map_err(StoreError::file("make the blob directory"))?;
        clear_abandoned(&partial).map_err(StoreError::file("clear half-written blobs"))?;
        Ok(DirectoryBlobs { root })
    }

    fn path(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
        let text = digest.0.as_str();
        if !is_digest(digest) {
            return Err(StoreError::InvalidKey { key: text.chars().take(64).collect() });
        }
        Ok(self.root.join(&text[..2]).join(text))
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&DirectoryBlobs) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let this = self.clone();
        lyra_kit::tasks::blocking(move || work(&this)).await.map_err(|_| StoreError::Closed)?
    }

    fn store(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = digest(bytes);
        let path = self.path(&digest)?;
        // A damaged file is written anew.
        if std::fs::metadata(&path).is_ok_and(|found| found.len() == bytes.len() as u64)
            && matches!(self.read(&digest), Ok(Some(_)))
        {
            return Ok(digest);
        }
        let folder = path.parent().unwrap_or(&self.root);
        if !folder.is_dir() {
            std::fs::create_dir_all(folder).map_err(StoreError::file("make a blob folder"))?;
            sync_dir(&self.root)?;
        }
        let mut file = tempfile::Builder::new()
            .prefix(&digest.0)
            .tempfile_in(self.root.join("partial"))
            .map_err(StoreError::file("make a blob"))?;
        file.write_all(bytes).map_err(StoreError::file("write a blob"))?;
        file.as_file().sync_all().map_err(StoreError::file("sync a blob"))?;
        file.persist(&path).map_err(|error| StoreError::File { operation: "name a blob", source: error.error })?;
        sync_dir(folder)?;
        Ok(digest)
    }

    fn read(&self, wanted: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        match std::fs::read(self.path(wanted)?) {
            Ok(bytes) if digest(&bytes) == *wanted => Ok(Some(bytes)),
            Ok(_) => Err(StoreError::Damaged {
                operation: "read a blob",
                detail: format!("the bytes of {wanted} do not have this digest"),
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::File { operation: "read a blob", source }),
        }
    }

    fn names(&self) -> Result<Vec<Digest>, StoreError> {
        let at = StoreError::file("list blobs");
        let mut names = Vec::new();
        for folder in std::fs::read_dir(&self.root).map_err(&at)? {
            let folder = folder.map_err(&at)?;
            if folder.file_name().len() != 2 {
                continue;
            }
            for file in std::fs::read_dir(folder.path()).map_err(&at)? {
                if let Ok(name) = file.map_err(&at)?.file_name().into_string() {
                    names.push(Digest(name));
                }
            }
        }
        Ok(names)
    }
}

fn clear_abandoned(partial: &Path) -> std::io::Result<()> {
    for file in std::fs::read_dir(partial)? {
        let file = file?;
        let Ok(written) = file.metadata().and_then(|found| found.modified()) else { continue };
        if written.elapsed().is_ok_and(|age| age >= ABANDONED) {
            match std::fs::remove_file(file.path()) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(StoreError::file("sync a blob folder"))
}

#[async_trait]
impl Blobs for DirectoryBlobs {
    async fn put(&self, bytes: Bytes) -> Result<Digest, StoreError> {
        self.run(move |this| this.store(&bytes)).await
    }

    async fn get(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        let digest = digest.clone();
        self.run(move |this| Ok(this.read(&digest)?.map(Bytes::from))).await
    }

    async fn exists(&self, digest: &Digest) -> Result<bool, StoreError> {
        let path = self.path(digest)?;
        self.run(move |_| path.try_exists().map_err(StoreError::file("look for a blob"))).await
    }

    async fn delete(&self, digest: &Digest) -> Result<bool, StoreError> {
        let path = self.path(digest)?;
        self.run(move |_| match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(source) => Err(StoreError::File { operation: "delete a blob", source }),
        })
        .await
    }

    async fn list(&self) -> Result<Vec<Digest>, StoreError> {
        self.run(DirectoryBlobs::names).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_killed_process_left_half_written_is_cleared_away() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = DirectoryBlobs::open(&dir.path().join("blobs")).unwrap();
        let (left, fresh) = (dir.path().join("blobs/partial/left"), dir.path().join("blobs/partial/fresh"));
        std::fs::write(&left, b"hal").unwrap();
        std::fs::write(&fresh, b"hal").unwrap();
        let of_old = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        File::options().write(true).open(&left).unwrap().set_modified(of_old).unwrap();
        drop(blobs);
        let blobs = DirectoryBlobs::open(&dir.path().join("blobs")).unwrap();
        assert!(!left.exists() && fresh.exists());
        assert!(blobs.list().await.unwrap().is_empty());
    }
}
