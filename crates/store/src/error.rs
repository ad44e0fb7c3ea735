//! Faults of the stores themselves. Outcomes that a caller must tell apart (a failed precondition, a
//! stale lease) have their own types beside the trait that they belong to.

use std::time::Duration;

use lyra_types::{Code, Error};

/// Why a store could not do what was asked of it. Nothing was changed, unless the variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file could not be read or written.
    #[error("{operation}: {source}")]
    File {
        /// What was being done.
        operation: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// SQLite refused a statement.
    #[error("{operation}: {source}")]
    Sqlite {
        /// What was being done.
        operation: &'static str,
        /// The cause.
        source: rusqlite::Error,
    },
    /// The transaction that the request was part of could not be committed. After a disk fault it is not
    /// known whether it is on disk.
    #[error("commit: {detail}")]
    Commit {
        /// The cause.
        detail: String,
    },
    /// A stored value can't be read: the file was changed by something else or is damaged.
    #[error("{operation}: damaged record: {detail}")]
    Damaged {
        /// What was being done.
        operation: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// A key is empty, too long, or holds something other than printable ASCII.
    #[error("the key {key:?} is not 1 to 512 printable ASCII characters")]
    InvalidKey {
        /// The key.
        key: String,
    },
    /// Another process uses the data directory.
    #[error("the data directory {path} is in use by another process")]
    InUse {
        /// The directory.
        path: String,
    },
    /// A transaction puts an object under a lease that has ended.
    #[error("the lease has ended")]
    LeaseEnded,
    /// A server that keeps the data refused or could not be reached in time. Nothing was changed.
    #[error("{operation}: {detail}")]
    Remote {
        /// What was being done.
        operation: &'static str,
        /// The cause, as the server or the connection gave it.
        detail: String,
    },
    /// The connection was lost in the middle and it could not be found out in time whether the request was carried out.
    #[error("{operation}: it is not known whether it happened: {detail}")]
    Indeterminate {
        /// What was being done.
        operation: &'static str,
        /// The cause.
        detail: String,
    },
    /// More was asked of the server in one request than it takes.
    #[error("{operation}: {detail}")]
    TooLarge {
        /// What was being done.
        operation: &'static str,
        /// Which limit.
        detail: String,
    },
    /// The address of a store can't be understood.
    #[error("bad address of a store: {detail}")]
    Address {
        /// What is wrong with it; never the address itself, which can have a password in it.
        detail: String,
    },
    /// A bug: the request panicked. What it had changed was undone.
    #[error("the request panicked")]
    Panicked,
    /// Too many requests wait for the disk.
    #[error("too many requests wait for the disk")]
    Overloaded,
    /// The store was closed, or its runtime is going down.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// For `map_err` on SQLite calls.
    pub(crate) fn sqlite(operation: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
        move |source| StoreError::Sqlite { operation, source }
    }

    /// For `map_err` on what servers answer.
    pub(crate) fn remote<E: std::fmt::Display>(operation: &'static str) -> impl Fn(E) -> StoreError {
        move |error| StoreError::Remote { operation, detail: error.to_string() }
    }

    /// For `map_err` on file calls.
    pub(crate) fn file(operation: &'static str) -> impl Fn(std::io::Error) -> StoreError {
        move |source| StoreError::File { operation, source }
    }
}

impl From<StoreError> for Error {
    /// What a user sees. The cause can name files of the server, so it goes to the log alone.
    fn from(error: StoreError) -> Error {
        match error {
            StoreError::Overloaded => Error::new(Code::Overloaded, "too many requests wait for the disk")
                .with_retry_after(Duration::from_secs(1)),
            StoreError::Remote { operation, detail } => {
                tracing::error!(operation, detail, "a server of the store failed");
                Error::new(Code::Unavailable, "the store can't be reached; try again")
                    .with_retry_after(Duration::from_secs(1))
            }
            StoreError::Closed => Error::new(Code::Unavailable, "the platform is shutting down"),
            error => {
                tracing::error!(%error, "store failed");
                Error::internal("the store failed; its log has the cause")
            }
        }
    }
}
