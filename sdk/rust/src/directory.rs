//! The session as files: `session.json`, `config/` and `secrets/`, which the worker rewrites on a change.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use serde::{Deserialize, Deserializer};

use crate::{DIRECTORY, Error};

/// The session's directory.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
}

/// `session.json`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SessionFile {
    /// Tells the session from every other one.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its tenant.
    pub tenant: String,
    /// Its application.
    pub application: String,
    /// Version of the application.
    pub application_version: u32,
    /// `spec.sessionData`.
    #[serde(deserialize_with = "data")]
    pub data: Vec<u8>,
    /// Version of what is in `config/`.
    pub configuration_version: u64,
}

impl Directory {
    /// The directory that `LYRA_SESSION_DIR` names.
    ///
    /// # Errors
    /// When that is not set.
    pub fn from_env() -> Result<Directory, Error> {
        std::env::var(DIRECTORY).map(Directory::at).map_err(|_| Error::NotAnInstance(DIRECTORY))
    }

    /// The directory at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Directory {
        Directory { path: path.into() }
    }

    /// What `session.json` says. It is there once a session is being opened.
    ///
    /// # Errors
    /// When it can't be read or understood.
    pub fn session(&self) -> Result<SessionFile, Error> {
        let path = self.path.join("session.json");
        let content = fs::read(&path).map_err(|cause| Error::Read { path, cause })?;
        serde_json::from_slice(&content).map_err(Error::Understand)
    }

    /// The configuration: content of each file of `config/`, by name.
    ///
    /// # Errors
    /// When a file can't be read, or is no text.
    pub fn configuration(&self) -> Result<BTreeMap<String, String>, Error> {
        let folder = self.path.join("config");
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |cause| Error::Read { path, cause }
        };
        let mut data = BTreeMap::new();
        for entry in fs::read_dir(&folder).map_err(failed(&folder))? {
            let entry = entry.map_err(failed(&folder))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // Being written.
            if name.starts_with('.') {
                continue;
            }
            data.insert(name, fs::read_to_string(entry.path()).map_err(failed(&entry.path()))?);
        }
        Ok(data)
    }

    /// A secret of the application.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn secret(&self, name: &str) -> Result<Vec<u8>, Error> {
        let path = self.path.join("secrets").join(name);
        fs::read(&path).map_err(|cause| Error::Read { path, cause })
    }
}

fn data<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Data {
        Text(String),
        Binary { base64: String },
    }
    match Data::deserialize(deserializer)? {
        Data::Text(text) => Ok(text.into_bytes()),
        Data::Binary { base64 } => {
            base64::engine::general_purpose::STANDARD.decode(base64).map_err(serde::de::Error::custom)
        }
    }
}
