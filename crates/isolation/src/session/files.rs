//! The files that an instance reads about its session: written by the worker, seen read-only in the sandbox.
//!
//! All of them change in one step, by the exchange of one symbolic link, as programs for Kubernetes know it: each name
//! leads over `..data` to a directory that is never changed again. What must hold: whoever opens a file reads the old one
//! or the new one as a whole; nothing is left of an instance that has gone. Where they are is the business of [`super::places`].

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use lyra_types::{Code, Error};

use super::Files;

/// Most files of one instance.
const MAX_FILES: usize = 256;

/// Most bytes of all files of one instance.
const MAX_BYTES: usize = 4 << 20;

/// Longest part of a name, in bytes.
const MAX_NAME: usize = 200;

/// The link that is exchanged.
const DATA: &str = "..data";

/// The directory of one instance's files. Dropping it removes it, unless it was left.
#[derive(Debug)]
pub(crate) struct SessionFiles {
    place: PathBuf,
    left: AtomicBool,
}

impl Drop for SessionFiles {
    fn drop(&mut self) {
        if self.left.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = remove(&self.place) {
            tracing::warn!(place = %self.place.display(), %error, "the files of a session are left");
        }
    }
}

impl SessionFiles {
    /// Those in a directory, without making it.
    pub(super) fn at(place: PathBuf) -> SessionFiles {
        SessionFiles { place, left: AtomicBool::new(false) }
    }

    /// It stays when this is dropped.
    pub(crate) fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// What is shown in the sandbox.
    pub(crate) fn shown(&self) -> PathBuf {
        self.place.join("shown")
    }

    /// Makes the directory with its first files.
    pub(crate) fn create(&self, files: &Files) -> Result<(), Error> {
        let make = |path: &Path, mode| DirBuilder::new().recursive(true).mode(mode).create(path);
        // Others of this machine can't get to the files; the sandbox gets them handed in.
        let parent = self.place.parent().unwrap_or(&self.place);
        make(parent, 0o700)
            .and_then(|()| make(&self.place, 0o700))
            .and_then(|()| make(&self.shown(), 0o755))
            .map_err(|error| unwritable(&error))?;
        self.write(files)
    }

    /// Replaces the files.
    pub(crate) fn write(&self, files: &Files) -> Result<(), Error> {
        check(files)?;
        self.exchange(files).map_err(|error| unwritable(&error))
    }

    fn exchange(&self, files: &Files) -> io::Result<()> {
        let shown = self.shown();
        let old = fs::read_link(shown.join(DATA)).ok();
        if old.is_none() && files.is_empty() {
            return Ok(());
        }
        let number = |name: &Path| name.to_str()?.strip_prefix("..")?.parse::<u64>().ok();
        let name = format!("..{}", old.as_deref().and_then(number).map_or(1, |number| number + 1));
        let new = shown.join(&name);
        // What an exchange that was broken off has left.
        remove(&new)?;
        directory(&new)?;
        for (file, content) in files {
            let path = new.join(file);
            if let Some(parent) = path.parent().filter(|parent| !parent.is_dir()) {
                directory(parent)?;
            }
            let mut options = fs::OpenOptions::new();
            options.write(true).create_new(true).mode(0o644).open(path)?.write_all(content)?;
        }
        link(Path::new(&name), &shown, DATA)?;
        let wanted: BTreeSet<&str> = files.keys().map(|file| file.split('/').next().unwrap_or(file)).collect();
        for top in &wanted {
            let target = Path::new(DATA).join(top);
            if fs::read_link(shown.join(top)).ok().as_ref() != Some(&target) {
                link(&target, &shown, top)?;
            }
        }
        for entry in fs::read_dir(&shown)?.flatten() {
            let file = entry.file_name();
            let is_kept = file == DATA || file == *name || file.to_str().is_some_and(|top| wanted.contains(top));
            if !is_kept {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// Puts a link in its place in one step.
fn link(target: &Path, shown: &Path, name: &str) -> io::Result<()> {
    let new = shown.join("..new");
    remove(&new)?;
    symlink(target, &new)?;
    fs::rename(new, shown.join(name))
}

fn directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn check(files: &Files) -> Result<(), Error> {
    let refused = |reason: String| Err(Error::field(Code::InvalidField, "files", reason));
    if files.len() > MAX_FILES || files.values().map(bytes::Bytes::len).sum::<usize>() > MAX_BYTES {
        return refused(format!("a session has {MAX_FILES} files and {MAX_BYTES} bytes in them at most"));
    }
    let is_name = |part: &str| {
        !part.is_empty()
            && part.len() <= MAX_NAME
            && !part.starts_with("..")
            && part != "."
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    for name in files.keys() {
        if name.split('/').count() > 2 || !name.split('/').all(is_name) {
            let reason = format!(
                "\"{}\" can't be the name of a file: it must be of letters, digits, '-', '_' and '.', with one '/' at most",
                name.escape_debug()
            );
            return refused(reason);
        }
        if name.split_once('/').is_some_and(|(top, _)| files.contains_key(top)) {
            return refused(format!("{name}: the directory is a file too"));
        }
    }
    Ok(())
}

fn unwritable(error: &io::Error) -> Error {
    tracing::error!(%error, "the files of a session can't be written");
    Error::internal("the files of the session can't be written on this worker")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        list.iter().map(|(name, text)| ((*name).to_owned(), Bytes::from((*text).to_owned()))).collect()
    }

    fn seen(place: &SessionFiles) -> Files {
        let mut found = Files::new();
        let mut next = vec![String::new()];
        while let Some(below) = next.pop() {
            for entry in fs::read_dir(place.shown().join(&below)).unwrap().flatten() {
                let name = entry.file_name().into_string().unwrap();
                let path = entry.path();
                let whole = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
                match path.is_dir() {
                    _ if name.starts_with("..") => {}
                    true => next.push(whole),
                    false => drop(found.insert(whole, fs::read(path).unwrap().into())),
                }
            }
        }
        found
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused_and_nothing_is_changed() {
        let dir = tempfile::tempdir().unwrap();
        let place = SessionFiles::at(dir.path().join("instance"));
        place.create(&files(&[("a", "1")])).unwrap();
        let long = "x".repeat(MAX_NAME + 1);
        for name in ["", "..", "../a", "/a", "a/", "a/b/c", "..data", "a b", "a\0", &long] {
            assert_eq!(place.write(&files(&[(name, "2")])).unwrap_err().code, Code::InvalidField, "{name:?}");
        }
        assert!(place.write(&files(&[("a", "2"), ("a/b", "2")])).is_err());
        assert_eq!(seen(&place), files(&[("a", "1")]));
        drop(place);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_open_file_keeps_what_it_had() {
        use std::io::Read;
        let dir = tempfile::tempdir().unwrap();
        let place = SessionFiles::at(dir.path().join("instance"));
        place.create(&files(&[("secrets/key", "old")])).unwrap();
        let mut open = fs::File::open(place.shown().join("secrets/key")).unwrap();
        place.write(&files(&[("secrets/key", "new")])).unwrap();
        let mut text = String::new();
        open.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), seen(&place)), ("old", files(&[("secrets/key", "new")])));
    }

    fn some_files() -> impl Strategy<Value = Files> {
        let name = prop_oneof!["[a-c]", "[d-f]/[a-c]", "[g-i]\\.json"];
        proptest::collection::btree_map(name, proptest::collection::vec(any::<u8>(), 0..9).prop_map(Bytes::from), 0..6)
    }

    proptest! {
        #[test]
        fn after_each_write_there_is_what_was_written(writes in proptest::collection::vec(some_files(), 1..5)) {
            let dir = tempfile::tempdir().unwrap();
            let place = SessionFiles::at(dir.path().join("instance"));
            place.create(&Files::new()).unwrap();
            for files in writes {
                place.write(&files).unwrap();
                prop_assert_eq!(seen(&place), files);
            }
        }
    }
}
