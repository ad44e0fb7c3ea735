//! The directory in which a program finds its session as files.
//!
//! `session.json` has what the program is told when the session is opened; `config/` has one file for each key of the
//! configuration, `secrets/` one for each secret. The worker writes it, the instance sees it read-only. What must hold: each
//! file is replaced as a whole, so a reader sees the old one or the new one; nothing is written through a link. It does not
//! tell the program: a message does.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::state::Open;

/// `session.json`.
#[derive(Serialize)]
struct SessionFile<'a> {
    id: &'a str,
    name: &'a str,
    tenant: &'a str,
    application: &'a str,
    application_version: u32,
    #[serde(with = "crate::json::data")]
    data: &'a bytes::Bytes,
    configuration_version: u64,
}

/// What a file is called while it is written. No key begins with a dot.
const BEING_WRITTEN: &str = ".new";

/// A session's directory.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// The directory at `path`, which is made if it is not there.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn create(path: impl Into<PathBuf>) -> io::Result<Directory> {
        let path = path.into();
        for folder in [path.clone(), path.join("config"), path.join("secrets")] {
            DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
        }
        Ok(Directory { path })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `session.json`.
    ///
    /// # Errors
    /// When it can't be written; what was there before stays.
    pub fn write_session(&self, open: &Open, configuration_version: u64) -> io::Result<()> {
        let file = SessionFile {
            id: &open.id,
            name: &open.name,
            tenant: &open.tenant,
            application: &open.application,
            application_version: open.application_version,
            data: &open.data,
            configuration_version,
        };
        replace(&self.path, "session.json", &serde_json::to_vec_pretty(&file)?)
    }

    /// Writes the configuration: a file for each key, and none for others.
    ///
    /// # Errors
    /// When a key is no file name, before anything is written; when a file can't be written.
    pub fn write_configuration(&self, data: &BTreeMap<String, String>) -> io::Result<()> {
        write_all(&self.path.join("config"), data.iter().map(|(key, value)| (key.as_str(), value.as_bytes())))
    }

    /// Writes secrets, like the configuration.
    ///
    /// # Errors
    /// As [`Directory::write_configuration`].
    pub fn write_secrets(&self, secrets: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
        write_all(&self.path.join("secrets"), secrets.iter().map(|(key, value)| (key.as_str(), value.as_slice())))
    }
}

fn write_all<'a>(folder: &Path, files: impl Iterator<Item = (&'a str, &'a [u8])> + Clone) -> io::Result<()> {
    for (key, _) in files.clone() {
        // The keys that a ConfigMap may have.
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if key.is_empty() || key.len() > 253 || key.starts_with('.') || !key.bytes().all(allowed) {
            let message = format!("{key:?} can't be the name of a file: use letters, digits, '-', '_' and '.'");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
    }
    for (key, value) in files.clone() {
        replace(folder, key, value)?;
    }
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if !files.clone().any(|(key, _)| name == key) {
            fs::remove_file(folder.join(name))?;
        }
    }
    Ok(())
}

fn replace(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let (new, path) = (folder.join(BEING_WRITTEN), folder.join(name));
    if fs::read(&path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o444).open(&new)?;
    file.write_all(content)?;
    fs::rename(&new, &path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn files_follow_the_configuration() {
        let folder = tempfile::tempdir().expect("a directory");
        let directory = Directory::create(folder.path().join("session")).expect("made");
        directory.write_configuration(&map(&[("mode", "easy"), ("map.json", "{}")])).expect("written");
        directory.write_configuration(&map(&[("mode", "hard")])).expect("written");
        let names: Vec<_> = fs::read_dir(directory.path().join("config"))
            .expect("there")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .collect();
        assert_eq!(names, ["mode"]);
        assert_eq!(fs::read_to_string(directory.path().join("config/mode")).expect("there"), "hard");
    }

    #[test]
    fn a_bad_key_changes_nothing() {
        let folder = tempfile::tempdir().expect("a directory");
        let directory = Directory::create(folder.path()).expect("made");
        directory.write_configuration(&map(&[("mode", "easy")])).expect("written");
        for bad in ["../session.json", ".new", "", "a/b"] {
            directory.write_configuration(&map(&[("mode", "hard"), (bad, "x")])).expect_err("refused");
        }
        assert_eq!(fs::read_to_string(directory.path().join("config/mode")).expect("there"), "easy");
    }
}
