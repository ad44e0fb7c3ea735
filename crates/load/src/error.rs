//! What can go wrong with traces and simulations.

use std::path::{Path, PathBuf};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file can't be read or written.
    #[error("{path} can't be {verb}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        verb: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path}: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line where there is one.
        reason: String,
    },
    /// A setting is out of range.
    #[error("{0}")]
    Setting(String),
    /// The worker refused a function of the trace.
    #[error("function {name} of the trace is refused: {source}")]
    Refused {
        /// The function.
        name: String,
        /// Why.
        source: lyra_types::Error,
    },
    /// A plot can't be drawn.
    #[error("the plot {path} can't be drawn: {reason}")]
    Plot {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The simulation can't be run.
    #[error("the simulation can't be run: {0}")]
    Runtime(String),
}

impl Error {
    pub(crate) fn file(path: &Path, verb: &'static str, source: std::io::Error) -> Error {
        Error::File { path: path.to_owned(), verb, source }
    }

    pub(crate) fn format(path: &Path, reason: impl ToString) -> Error {
        Error::Format { path: path.to_owned(), reason: reason.to_string() }
    }
}
