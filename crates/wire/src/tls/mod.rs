//! Mutual TLS between roles: who a node is by its certificate, where its certificates are kept, and how they are made.
//!
//! Each node has a directory with `ca.pem`, `cert.pem` and `key.pem`. The certificate says which roles the node may play
//! and by which name, as DNS names: `w1.worker.lyra.internal` and `worker.lyra.internal` for the worker `w1`. Both ends of a
//! connection ask for the other's certificate, so addresses and host names need not be in it. What each role may then ask for
//! stands in one table (`grpc/access.rs`).

mod authority;
mod directory;
mod files;
mod identity;
mod verify;

pub use authority::{Authority, NodeSpec, Validity};
pub use directory::{Directory, Material, look};
pub use files::{CA, CA_KEY, CERTIFICATE, KEY};
pub use identity::{ANY, Dates, Identity, name_of};
pub(crate) use verify::{failed_to_accept, failed_to_connect};

use std::path::PathBuf;
use std::time::Duration;

/// How long certificates of nodes hold, where nobody says otherwise.
pub const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Why certificates can't be used, with what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not there.
    #[error("{path} is missing; {hint}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// What to do.
        hint: &'static str,
    },
    /// A file can't be read or written.
    #[error("{path} can't be {what}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        what: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// A file holds something else.
    #[error("{path} {reason}")]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The certificates are good, but not for what was asked.
    #[error("{0}")]
    Refused(String),
    /// A certificate can't be made.
    #[error("a certificate can't be made: {0}")]
    Make(#[from] rcgen::Error),
}

impl From<TlsError> for lyra_types::Error {
    fn from(error: TlsError) -> lyra_types::Error {
        let code = match &error {
            TlsError::Make(_) => lyra_types::Code::Internal,
            TlsError::Missing { .. } => lyra_types::Code::NotFound,
            _ => lyra_types::Code::BadRequest,
        };
        lyra_types::Error::new(code, error.to_string())
    }
}
