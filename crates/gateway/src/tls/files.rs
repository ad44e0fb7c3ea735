//! Reads a certificate and its key (PEM) and puts together what connections are secured with.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use lyra_types::{Code, Error, Result};
use lyra_wire::tls::Dates;
use rustls::ServerConfig;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Largest file, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// What is offered to clients (RFC 7301), the first one that both know is taken.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

const CERTIFICATE: &str = "gateway.tls_cert";
const KEY: &str = "gateway.tls_key";

/// A certificate that can be used.
pub(super) struct Usable {
    pub config: ServerConfig,
    /// When it holds, where that can be read.
    pub dates: Option<Dates>,
}

/// Reads both files. Blocks.
///
/// # Errors
/// [`Code::InvalidField`], which names the file and what is wrong with it; nothing of a key.
pub(super) fn read(certificate: &Path, key: &Path) -> Result<Usable> {
    let chain = chain_of(certificate)?;
    let private = key_of(key)?;
    let dates = chain.first().and_then(|first| Dates::of(first).ok());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| Error::internal(format!("TLS can't be set up: {error}")))?;
    let mut config = config.with_no_client_auth().with_single_cert(chain, private).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => bad(KEY, key, &format!("is not the key of {}", certificate.display())),
        error => bad(CERTIFICATE, certificate, &format!("can't be used: {error}")),
    })?;
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    Ok(Usable { config, dates })
}

fn bad(field: &str, path: &Path, reason: &str) -> Error {
    Error::field(Code::InvalidField, field, format!("{} {reason}", path.display()))
}

/// The certificate, and those between it and the authority's.
fn chain_of(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let text = text_of(CERTIFICATE, path, false)?;
    let chain: Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(&text).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(bad(CERTIFICATE, path, "holds no certificate in PEM")),
        Ok(chain) => Ok(chain),
        Err(error) => Err(bad(CERTIFICATE, path, &format!("is not PEM ({error})"))),
    }
}

fn key_of(path: &Path) -> Result<PrivateKeyDer<'static>> {
    let text = text_of(KEY, path, true)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        PemError::NoItemsFound => bad(KEY, path, "holds no private key in PEM (without a password)"),
        _ => bad(KEY, path, "is not PEM"),
    })
}

/// What is in a file; a secret one has to be this user's, and nobody else may read it.
fn text_of(field: &str, path: &Path, is_secret: bool) -> Result<Vec<u8>> {
    let unreadable = |error: std::io::Error| bad(field, path, &format!("can't be read: {error}"));
    // What is checked is what is read: the file is opened once.
    let file = File::open(path).map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    if !about.is_file() {
        return Err(bad(field, path, "is not a file"));
    }
    let (mode, user) = (about.mode() & 0o777, rustix::process::geteuid().as_raw());
    if is_secret && about.uid() != user {
        let reason = format!("belongs to user {}, and Lyra runs as user {user}", about.uid());
        return Err(bad(field, path, &reason));
    }
    if is_secret && mode & 0o077 != 0 {
        let reason = format!("has the mode {mode:03o}: only its owner may read it (chmod 600)");
        return Err(bad(field, path, &reason));
    }
    if about.len() > MAX_FILE {
        return Err(bad(field, path, "is too large to be one"));
    }
    let mut text = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut text).map_err(unreadable)?;
    Ok(text)
}
