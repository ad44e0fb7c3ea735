//! The file of the characteristics: a line with version and checksum, then JSON.
//!
//! It is replaced as a whole, by a rename after the new one is on disk, so that a crash leaves the old or the new one.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::record::Saved;

const HEADER: &str = "lyra-characteristics 1 ";

/// Why the file can't be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("reading: {0}")]
    Read(#[source] io::Error),
    #[error("writing: {0}")]
    Write(#[source] io::Error),
    #[error("the first line is not that of a file of estimates, or of another version of Lyra's")]
    Header,
    #[error("the content does not match its checksum")]
    Checksum,
    #[error("the content is not what it should be: {0}")]
    Content(#[source] serde_json::Error),
}

/// What the file holds; nothing where there is none.
pub(super) fn read(path: &Path) -> Result<Vec<Saved>, Error> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(Error::Read)?,
    };
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(Error::Header)?;
    let checksum = bytes[..end].strip_prefix(HEADER.as_bytes()).ok_or(Error::Header)?;
    let content = &bytes[end + 1..];
    if hex::encode(Sha256::digest(content)).as_bytes() != checksum {
        return Err(Error::Checksum);
    }
    serde_json::from_slice(content).map_err(Error::Content)
}

/// Replaces the file. Makes its folder.
pub(super) fn write(path: &Path, records: &[Saved]) -> Result<(), Error> {
    let content = serde_json::to_vec(records).map_err(Error::Content)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(Error::Write)?;
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let replace = || {
        let mut file = File::create(&new)?;
        writeln!(file, "{HEADER}{}", hex::encode(Sha256::digest(&content)))?;
        file.write_all(&content)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        File::open(folder)?.sync_all()
    };
    replace().map_err(Error::Write)
}
