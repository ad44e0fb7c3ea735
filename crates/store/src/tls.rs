//! Certificates for connections to the servers that keep the data.

use std::path::Path;

use crate::StoreError;

/// What a client shows and whom it trusts, as PEM text.
#[derive(Clone)]
pub struct TlsFiles {
    /// Certificates of the authorities that the servers' ones must be signed by.
    pub ca: Vec<u8>,
    /// The client's certificate chain and its key, where the servers ask for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for TlsFiles {
    /// The key is never shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsFiles").field("identity", &self.identity.is_some()).finish_non_exhaustive()
    }
}

impl TlsFiles {
    /// Reads `ca.pem`, and `cert.pem` with `key.pem` where they are there. Blocks.
    ///
    /// # Errors
    /// When a file can't be read, or there is only one of the last two.
    pub fn read(dir: &Path) -> Result<TlsFiles, StoreError> {
        let read = |name: &str| std::fs::read(dir.join(name));
        let ca = read("ca.pem").map_err(StoreError::file("read ca.pem of the TLS directory"))?;
        let identity = match (read("cert.pem"), read("key.pem")) {
            (Ok(certificate), Ok(key)) => Some((certificate, key)),
            (Err(first), Err(second))
                if first.kind() == std::io::ErrorKind::NotFound && second.kind() == std::io::ErrorKind::NotFound =>
            {
                None
            }
            (Err(source), _) => {
                return Err(StoreError::File { operation: "read cert.pem of the TLS directory", source });
            }
            (_, Err(source)) => {
                return Err(StoreError::File { operation: "read key.pem of the TLS directory", source });
            }
        };
        Ok(TlsFiles { ca, identity })
    }
}
