//! Packages on disk: the code of a version, unpacked once, and found again after a restart.
//!
//! What must hold: a package is there as a whole or not at all (also after a crash); nothing is written outside of its
//! directory, whatever names and links an archive holds; no more is unpacked than [`limit::MAX_UNPACKED`] bytes and
//! [`limit::MAX_PACKAGE_FILES`] files. Whether the code is any good is for [`super::check`] to say; nothing here evicts.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Cursor, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use lyra_types::function::limit;
use lyra_types::{Code as ErrorCode, Error, Runtime};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zip::ZipArchive;

use crate::ImageKey;

/// What a zip archive starts with: its first file, or the end of an empty one.
const ZIP_MAGIC: [&[u8]; 2] = [b"PK\x03\x04", b"PK\x05\x06"];

/// Changes whenever what is kept on disk changes, so that packages of another build are made again.
const LAYOUT: &[u8] = b"package 1";

/// Name of the program of a custom runtime.
pub(super) const BOOTSTRAP: &str = "bootstrap";

/// How instances of a package are run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Entry {
    /// An interpreter of Lyra's calls `function` of `file`.
    Handler {
        /// Path in the package.
        file: String,
        /// Name in the file.
        function: String,
    },
    /// An executable of the package speaks the runtime interface.
    Bootstrap,
    /// An executable of the package listens on `$PORT`.
    Server {
        /// Path in the package.
        program: String,
    },
}

/// A package that is ready to be run.
#[derive(Debug, Clone)]
pub(super) struct Package {
    /// The unpacked code.
    pub(super) root: PathBuf,
    /// What to run.
    pub(super) entry: Entry,
}

/// What went wrong with a package's files.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The directory of packages can't be made or used.
    #[error("the package directory {path} can't be used")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The store of packages.
#[derive(Debug)]
pub(super) struct Packages {
    dir: PathBuf,
    /// Tells the unfinished packages of this process apart.
    next: AtomicU64,
}

impl Packages {
    /// Opens the store, making its directory when it is not there, and removes what an earlier process left unfinished.
    pub(super) fn open(dir: &Path) -> Result<Packages, PackageError> {
        let failed = |source| PackageError::Directory { path: dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(failed)?;
        for entry in std::fs::read_dir(dir).map_err(failed)?.flatten() {
            if entry.path().extension().is_some_and(|ending| ending == "new") {
                remove(&entry.path());
            }
        }
        Ok(Packages { dir: dir.to_owned(), next: AtomicU64::new(0) })
    }

    fn path(&self, key: &ImageKey) -> PathBuf {
        let given = [u8::from(key.handler.is_some())];
        let handler = key.handler.as_deref().unwrap_or_default().as_bytes();
        let mut hasher = Sha256::new();
        for field in [LAYOUT, key.runtime.as_str().as_bytes(), key.digest.0.as_bytes(), &given, handler] {
            hasher.update((field.len() as u64).to_be_bytes());
            hasher.update(field);
        }
        self.dir.join(hex::encode(&hasher.finalize()[..20]))
    }

    /// The package of `key`; `None` when it is not there, or not whole.
    pub(super) fn find(&self, key: &ImageKey) -> io::Result<Option<Package>> {
        let dir = self.path(key);
        let text = match std::fs::read(dir.join("entry.json")) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(serde_json::from_slice(&text).ok().map(|entry| Package { root: dir.join("code"), entry }))
    }

    /// Unpacks code into a directory of its own. It becomes the package of `key` by [`Unpacked::keep`], and goes when it
    /// is dropped before.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidCode`] when it is no package, or too large.
    pub(super) fn unpack(&self, key: &ImageKey, bytes: &[u8]) -> Result<Unpacked, Error> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let dir = self.dir.join(format!("{}-{number}.new", std::process::id()));
        let unpacked = Unpacked { target: self.path(key), dir: Some(dir.clone()) };
        let root = dir.join("code");
        make_dir(&dir).and_then(|()| make_dir(&root)).map_err(|error| unwritable(&error))?;
        if ZIP_MAGIC.iter().any(|magic| bytes.starts_with(magic)) {
            unzip(&root, bytes)?;
        } else {
            let name = file_name(key, bytes)?;
            let mut budget = Budget::default();
            write_file(&root.join(&name), bytes, name == BOOTSTRAP, &mut budget, &name)?;
        }
        Ok(unpacked)
    }
}

/// A package that is not finished.
#[derive(Debug)]
pub(super) struct Unpacked {
    target: PathBuf,
    /// `None` once it was kept.
    dir: Option<PathBuf>,
}

impl Unpacked {
    /// Where the code is.
    pub(super) fn root(&self) -> PathBuf {
        self.dir.as_deref().unwrap_or(&self.target).join("code")
    }

    /// Renames a file of the package.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.root().join(from), self.root().join(to))
    }

    /// Makes it the package of its key, in one step.
    ///
    /// # Errors
    /// [`ErrorCode::Internal`] when the disk refuses.
    pub(super) fn keep(mut self, entry: &Entry) -> Result<(), Error> {
        let Some(dir) = self.dir.clone() else { return Ok(()) };
        let text = serde_json::to_vec(entry).map_err(|error| Error::internal(error.to_string()))?;
        let kept = std::fs::write(dir.join("entry.json"), text).and_then(|()| {
            sync_tree(&dir)?;
            if self.target.exists() {
                // An earlier deploy of the same code, or one at the same moment: theirs is as good, unless it is broken.
                if self.target.join("entry.json").exists() {
                    return Ok(false);
                }
                std::fs::remove_dir_all(&self.target)?;
            }
            match std::fs::rename(&dir, &self.target) {
                Ok(()) => Ok(true),
                Err(_) if self.target.join("entry.json").exists() => Ok(false),
                Err(error) => Err(error),
            }
        });
        if kept.map_err(|error| unwritable(&error))? {
            self.dir = None;
        }
        Ok(())
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        if let Some(dir) = self.dir.take() {
            remove(&dir);
        }
    }
}

fn remove(dir: &Path) {
    if let Err(error) = std::fs::remove_dir_all(dir) {
        tracing::warn!(dir = %dir.display(), %error, "an unfinished package is left");
    }
}

/// Makes what was written survive a crash of the machine before the rename does.
fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() && entry.metadata()?.len() > 0 {
            File::open(entry.path())?.sync_data()?;
        }
    }
    File::open(dir)?.sync_all()
}

/// What a single file is called in its package.
fn file_name(key: &ImageKey, bytes: &[u8]) -> Result<String, Error> {
    match key.runtime {
        Runtime::Python => Ok(format!("{}.py", named_by_handler(key).unwrap_or("main"))),
        Runtime::Nodejs => Ok(format!("{}.js", named_by_handler(key).unwrap_or("index"))),
        _ if is_executable(bytes) => Ok(BOOTSTRAP.to_owned()),
        runtime => Err(invalid(format!(
            "the runtime {runtime} takes a zip archive or one executable file: an ELF program, or a script whose first line starts with #!"
        ))),
    }
}

/// How the handler's name calls the file that it is in, where that is a plain name. What it was called where it comes from is not
/// known here.
fn named_by_handler(key: &ImageKey) -> Option<&str> {
    let (file, _) = key.handler.as_deref()?.rsplit_once('.')?;
    let is_plain = |of: char| of.is_ascii_alphanumeric() || matches!(of, '_' | '-');
    Some(file).filter(|file| !file.is_empty() && file.chars().all(is_plain))
}

/// Whether the kernel can run a file that starts so.
pub(super) fn is_executable(start: &[u8]) -> bool {
    start.starts_with(b"\x7fELF") || start.starts_with(b"#!")
}

/// What may still be unpacked.
struct Budget {
    bytes: u64,
    files: usize,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { bytes: limit::MAX_UNPACKED, files: limit::MAX_PACKAGE_FILES }
    }
}

impl Budget {
    fn take_file(&mut self) -> Result<(), Error> {
        self.files = self.files.checked_sub(1).ok_or_else(|| {
            invalid(format!("the package holds more than {} files and directories", limit::MAX_PACKAGE_FILES))
        })?;
        Ok(())
    }
}

fn unzip(root: &Path, bytes: &[u8]) -> Result<(), Error> {
    let broken = |error: zip::result::ZipError| invalid(format!("the package is not a zip archive: {error}"));
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(broken)?;
    let mut budget = Budget::default();
    let mut links = BTreeMap::new();
    let mut written = 0;
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).map_err(broken)?;
        let name = file.name().map_err(broken)?.into_owned();
        let path = inside(&name)?;
        if path.as_os_str().is_empty() || path.starts_with("__MACOSX") {
            continue;
        }
        budget.take_file()?;
        if file.is_dir() {
            make_dirs(root, &path, &mut budget)?;
            continue;
        }
        if let Some(parent) = path.parent() {
            make_dirs(root, parent, &mut budget)?;
        }
        let mode = file.unix_mode().unwrap_or(0);
        if file.is_symlink() {
            let mut target = String::new();
            file.by_ref().take(4 << 10).read_to_string(&mut target).map_err(|_| outside(&name))?;
            check_link(&path, &target).ok_or_else(|| outside(&name))?;
            links.insert(path, target);
        } else {
            let executable = mode & 0o111 != 0 || path == Path::new(BOOTSTRAP);
            write_file(&root.join(&path), &mut file, executable, &mut budget, &name)?;
        }
        written += 1;
    }
    if written == 0 {
        return Err(invalid("the package holds no file"));
    }
    // After all files, so that none was written through a link.
    for (path, target) in links {
        std::os::unix::fs::symlink(&target, root.join(&path)).map_err(|_| twice(&path.to_string_lossy()))?;
    }
    Ok(())
}

/// The path that a name in an archive stands for, below the package's root.
fn inside(name: &str) -> Result<PathBuf, Error> {
    let mut path = PathBuf::new();
    for part in Path::new(name).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return Err(outside(name)),
        }
    }
    if name.contains('\0') || path.as_os_str().len() > 4_000 {
        return Err(outside(name));
    }
    Ok(path)
}

/// `Some` when a link at `path` to `target` stays below the package's root.
fn check_link(path: &Path, target: &str) -> Option<()> {
    let mut depth = path.components().count().checked_sub(1)?;
    if target.is_empty() || target.contains('\0') {
        return None;
    }
    for part in Path::new(target).components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir => depth = depth.checked_sub(1)?,
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(())
}

fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o755).create(path)
}

fn make_dirs(root: &Path, path: &Path, budget: &mut Budget) -> Result<(), Error> {
    let mut whole = root.to_owned();
    for part in path.components() {
        whole.push(part);
        match make_dir(&whole) {
            Ok(()) => budget.take_file()?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && whole.is_dir() => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(twice(&path.to_string_lossy()));
            }
            Err(error) => return Err(unwritable(&error)),
        }
    }
    Ok(())
}

/// Writes one file. The size that an archive states is not trusted.
fn write_file(path: &Path, from: impl Read, executable: bool, budget: &mut Budget, name: &str) -> Result<(), Error> {
    let mode = if executable { 0o755 } else { 0o644 };
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(twice(name)),
        Err(error) => return Err(unwritable(&error)),
    };
    let mut from = from.take(budget.bytes + 1);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).map_err(|error| invalid(format!("{name} can't be unpacked: {error}")))?;
        if read == 0 {
            break;
        }
        budget.bytes = budget.bytes.checked_sub(read as u64).ok_or_else(|| {
            invalid(format!("the package is larger than {} MiB when unpacked", limit::MAX_UNPACKED >> 20))
        })?;
        file.write_all(&buffer[..read]).map_err(|error| unwritable(&error))?;
    }
    // What the process's umask took away.
    file.set_permissions(Permissions::from_mode(mode)).map_err(|error| unwritable(&error))
}

pub(super) fn invalid(detail: impl Into<String>) -> Error {
    Error::field(ErrorCode::InvalidCode, "code", detail)
}

fn outside(name: &str) -> Error {
    invalid(format!("the name or link {} leads out of the package", shown(name)))
}

fn twice(name: &str) -> Error {
    invalid(format!("the package holds {} more than once", shown(name)))
}

fn shown(name: &str) -> String {
    format!("\"{}\"", name.chars().take(100).collect::<String>().escape_debug())
}

fn unwritable(error: &io::Error) -> Error {
    tracing::error!(%error, "a package can't be written");
    Error::internal("the package can't be written on this worker")
}

#[cfg(test)]
#[path = "package_tests.rs"]
mod tests;
