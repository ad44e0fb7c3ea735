//! Compiled code on disk.
//!
//! Images are machine code or memory contents that the process trusts when it reads them back, so: only the owner
//! may read or write them, a file is complete or not there at all (also after a crash), and the engine's settings
//! and version are part of every name. Old images of other engines are left alone; nothing here evicts.

use std::fs::{DirBuilder, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use crate::ImageKey;

/// What went wrong with an image's file.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The directory can't be made or used.
    #[error("the image directory {path} can't be used")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The directory or a file in it belongs to somebody else, who could put machine code there.
    #[error("{path} must belong to the user that runs lyra")]
    Foreign {
        /// The directory or file.
        path: PathBuf,
    },
    /// A file can't be written.
    #[error("the image {path} can't be written")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file can't be read.
    #[error("the image {path} can't be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The store of images.
pub struct Images {
    dir: PathBuf,
    /// Hash of all of the engine's settings that compiled code depends on.
    engine: [u8; 32],
    /// Tells the temporary files of this process apart.
    next: AtomicU64,
}

impl Images {
    /// Opens the store, making the directory (0700) when it is not there.
    ///
    /// # Errors
    /// When the directory can't be used, or belongs to somebody else.
    pub fn open(dir: &Path, engine: &wasmtime::Engine) -> Result<Images, ImageError> {
        let failed = |source| ImageError::Directory { path: dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let found = std::fs::metadata(dir).map_err(failed)?;
        if !own(&found) {
            return Err(ImageError::Foreign { path: dir.to_owned() });
        }
        if found.mode() & 0o077 != 0 {
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
        }
        let mut hasher = Sha256Hasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Images { dir: dir.to_owned(), engine: hasher.0.finalize().into(), next: AtomicU64::new(0) })
    }

    /// The file of `key`'s image. `part` tells several files of one image apart and becomes the file's extension;
    /// `depends_on` is whatever else the image was made from (the base image's digest, for one).
    pub fn path(&self, key: &ImageKey, part: &str, depends_on: &[u8]) -> PathBuf {
        let memory = key.memory_mb.to_be_bytes();
        let handler = key.handler.as_deref();
        let given = [u8::from(handler.is_some())];
        let handler = handler.unwrap_or_default().as_bytes();
        let runtime = key.runtime.as_str().as_bytes();
        let fields: [&[u8]; 7] =
            [runtime, key.digest.0.as_bytes(), &given, handler, &memory, depends_on, key.result.as_str().as_bytes()];
        // Images of functions whose results are JSON have the name that they had before there were other forms.
        let named = if key.result.is_text() { &fields[..] } else { &fields[..6] };
        self.file(named, part)
    }

    /// The file of an image that belongs to no version, made from `depends_on`.
    pub fn shared_path(&self, part: &str, depends_on: &[u8]) -> PathBuf {
        self.file(&[depends_on], part)
    }

    fn file(&self, fields: &[&[u8]], part: &str) -> PathBuf {
        let mut hasher = Sha256::new();
        hasher.update(self.engine);
        for field in fields {
            hasher.update((field.len() as u64).to_be_bytes());
            hasher.update(field);
        }
        let name = hex::encode(&hasher.finalize()[..20]);
        self.dir.join(format!("{name}.{part}"))
    }

    /// Writes a file in one step: after this it is there and on disk, or the error says why not.
    ///
    /// # Errors
    /// [`ImageError::Write`].
    pub fn write(&self, path: &Path, contents: &[&[u8]]) -> Result<(), ImageError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let temporary = self.dir.join(format!("{}-{number}.tmp", std::process::id()));
        let written = write_synced(&temporary, contents)
            .and_then(|()| std::fs::rename(&temporary, path))
            .and_then(|()| File::open(&self.dir)?.sync_all());
        written.map_err(|source| {
            // It may not be there; the error that is reported is the first one.
            let _ = std::fs::remove_file(&temporary);
            ImageError::Write { path: path.to_owned(), source }
        })
    }

    /// Reads a file; `None` when it is not there.
    ///
    /// # Errors
    /// [`ImageError::Read`], and [`ImageError::Foreign`] when it is not our own.
    pub fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, ImageError> {
        if !self.exists(path)? {
            return Ok(None);
        }
        std::fs::read(path).map(Some).map_err(|source| ImageError::Read { path: path.to_owned(), source })
    }

    /// Removes a file that can't be used, so that it is made again.
    ///
    /// # Errors
    /// [`ImageError::Write`].
    pub fn remove(&self, path: &Path) -> Result<(), ImageError> {
        match std::fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(ImageError::Write { path: path.to_owned(), source })
            }
            _ => Ok(()),
        }
    }

    /// Whether a file is there, and safe to be loaded.
    ///
    /// # Errors
    /// [`ImageError::Read`], and [`ImageError::Foreign`] when it is not our own.
    pub fn exists(&self, path: &Path) -> Result<bool, ImageError> {
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.is_file() && own(&found) => Ok(true),
            Ok(_) => Err(ImageError::Foreign { path: path.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(ImageError::Read { path: path.to_owned(), source }),
        }
    }
}

fn write_synced(path: &Path, contents: &[&[u8]]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    for part in contents {
        file.write_all(part)?;
    }
    file.sync_all()
}

/// Whether a file or directory belongs to this process's user, and nobody else can write to it.
fn own(found: &std::fs::Metadata) -> bool {
    // SAFETY: has no preconditions and can't fail.
    // JUSTIFICATION: the standard library can't tell the process's user.
    #[expect(unsafe_code, reason = "geteuid has no safe form in std")]
    let user = unsafe { libc::geteuid() };
    found.uid() == user && (found.is_dir() || found.mode() & 0o022 == 0)
}

/// Lets a `Hash` value feed SHA-256, which does not change between builds and can't be made to collide.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        u64::from_be_bytes(std::array::from_fn(|i| digest[i]))
    }
}

#[cfg(test)]
mod tests {
    use lyra_types::Runtime;
    use lyra_types::function::Digest;

    use super::*;

    fn key() -> ImageKey {
        ImageKey {
            runtime: Runtime::Js,
            digest: Digest("ab".into()),
            handler: None,
            memory_mb: 128,
            result: Default::default(),
        }
    }

    fn images(dir: &Path) -> Images {
        Images::open(dir, &wasmtime::Engine::default()).expect("opens")
    }

    #[test]
    fn what_is_written_is_read_by_the_next_process_and_by_nobody_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().join("deep/images");
        let first = images(&dir);
        let path = first.path(&key(), "js", b"base");
        assert_eq!(first.read(&path).expect("reads"), None);
        first.write(&path, &[b"one ", b"two"]).expect("writes");

        let second = images(&dir);
        assert_eq!(second.path(&key(), "js", b"base"), path);
        assert_eq!(second.read(&path).expect("reads").as_deref(), Some(&b"one two"[..]));
        assert_eq!(std::fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(&dir).expect("there").mode() & 0o777, 0o700);
        assert_eq!(std::fs::read_dir(&dir).expect("lists").count(), 1, "no temporary files are left");
    }

    #[test]
    fn every_input_of_an_image_is_in_its_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let images = images(dir.path());
        let names = [
            images.path(&key(), "js", b"base"),
            images.path(&key(), "js", b"other base"),
            images.path(&key(), "map", b"base"),
            images.path(&ImageKey { handler: Some(String::new()), ..key() }, "js", b"base"),
            images.path(&ImageKey { handler: Some("h".into()), ..key() }, "js", b"base"),
            images.path(&ImageKey { memory_mb: 64, ..key() }, "js", b"base"),
            images.path(&ImageKey { runtime: Runtime::Wasm, ..key() }, "js", b"base"),
            images.path(&ImageKey { digest: Digest("ac".into()), ..key() }, "js", b"base"),
            images.shared_path("js", b"base"),
        ];
        let different: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len());
    }

    #[test]
    fn a_file_that_others_can_write_is_not_loaded() {
        let dir = tempfile::tempdir().expect("a directory");
        let images = images(dir.path());
        let path = images.path(&key(), "js", b"");
        images.write(&path, &[b"code"]).expect("writes");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("changes");
        assert!(matches!(images.read(&path), Err(ImageError::Foreign { .. })));
        std::fs::remove_file(&path).expect("removes");
        std::os::unix::fs::symlink("/etc/hostname", &path).expect("links");
        assert!(matches!(images.read(&path), Err(ImageError::Foreign { .. })));
    }
}
