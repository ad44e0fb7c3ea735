//! Reads and writes the files of certificates and keys (PEM).

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;

/// Certificates of the authorities that a node believes.
pub const CA: &str = "ca.pem";
/// The authority's key, which no node needs.
pub const CA_KEY: &str = "ca-key.pem";
/// A node's certificate, with those between it and the authority's, if any.
pub const CERTIFICATE: &str = "cert.pem";
/// A node's key.
pub const KEY: &str = "key.pem";

const INIT: &str = "`lyra tls init` makes the files of a node";

pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => TlsError::Missing { path: path.to_owned(), hint: INIT },
        _ => TlsError::Io { path: path.to_owned(), what: "read", source },
    })
}

/// Says of `path` what is wrong with it.
pub(super) fn bad(path: &Path, reason: impl Into<String>) -> TlsError {
    TlsError::Bad { path: path.to_owned(), reason: reason.into() }
}

/// The certificates in a file, one at least.
pub(super) fn certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(text).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(bad(path, "holds no certificate in PEM; give the right file"))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(bad(path, format!("is not PEM ({error}); give the right file"))),
    }
}

/// The key in a file.
pub(super) fn key(path: &Path, text: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        PemError::NoItemsFound => bad(path, "holds no private key in PEM; give the right file"),
        error => bad(path, format!("is not PEM ({error}); give the right file")),
    })
}

/// Whether others than the owner can read a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readable {
    /// The owner alone.
    ByOwner,
    /// Everybody.
    ByAll,
}

/// Puts a file in its place whole, over what is there.
pub(super) fn write(path: &Path, text: &str, readable: Readable) -> Result<(), TlsError> {
    let failed = |path: &Path, source| TlsError::Io { path: path.to_owned(), what: "written", source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh: PathBuf = path.with_file_name(name);
    // What a former run left half done may have other permissions.
    match std::fs::remove_file(&fresh) {
        Err(source) if source.kind() != ErrorKind::NotFound => return Err(failed(&fresh, source)),
        _ => {}
    }
    let mode = if readable == Readable::ByOwner { 0o600 } else { 0o644 };
    let put = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    put().map_err(|source| failed(path, source))
}
