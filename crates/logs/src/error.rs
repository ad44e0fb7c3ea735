//! What can go wrong with the log database, and what of it a user sees.

use std::path::PathBuf;

use lyra_types::Error as UserError;

/// A failed operation on the log database.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The folder or file can't be made.
    #[error("make or move {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    /// The database can't be opened or its tables can't be made.
    #[error("open the log database: {0}")]
    Open(#[source] rusqlite::Error),
    /// The file is no log database of this version.
    #[error("the log database has layout {found}, this build reads {expected}")]
    Layout { found: i64, expected: i64 },
    /// A batch can't be written.
    #[error("write log lines: {0}")]
    Write(#[source] rusqlite::Error),
    /// Old lines can't be deleted.
    #[error("delete old log lines: {0}")]
    Trim(#[source] rusqlite::Error),
    /// Lines can't be read.
    #[error("read log lines: {0}")]
    Read(#[source] rusqlite::Error),
}

impl Error {
    /// Whether the file's content is at fault, so that only a new file helps.
    pub(crate) fn is_corruption(&self) -> bool {
        match self {
            Error::Layout { .. } => true,
            Error::File { .. } => false,
            Error::Open(source) | Error::Write(source) | Error::Trim(source) | Error::Read(source) => match source {
                rusqlite::Error::SqliteFailure(failure, _) => {
                    matches!(failure.code, rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
                }
                // A table or a value that is not what this code writes.
                rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::SqlInputError { .. } => true,
                _ => false,
            },
        }
    }
}

/// The user's view: the cause goes to the log.
impl From<Error> for UserError {
    fn from(error: Error) -> UserError {
        tracing::error!(%error, "log database failed");
        UserError::internal("the log database failed; the server's own log says why")
    }
}
