//! What Lyra keeps on disk: versioned objects, jobs, and blobs.
//!
//! Three traits, each with an embedded implementation; nothing here knows what the objects or jobs
//! mean. What a call has acknowledged is on disk and survives `kill -9`.
//!
//! - [`Objects`]: small versioned values with atomic transactions, consistent lists and watches from a
//!   revision ([`SqliteObjects`]).
//! - [`Jobs`]: the durable record of jobs, their leases and outcomes ([`SqliteJobs`]).
//! - [`Blobs`]: content-addressed bytes ([`DirectoryBlobs`]).
//!
//! # Writes, group commit, and virtual time
//! Each database has one writer. Requests that arrive while a commit runs are gathered into the next
//! transaction, each under its own savepoint, and are answered only after that transaction is on disk. The
//! writer is not a thread of its own but a blocking task of the runtime that lives while there is something
//! to write: tokio's paused clock does not advance while such a task runs, so under virtual time a
//! commit takes no time at all and a simulation stays right.

pub mod blobs;
mod error;
pub mod jobs;
mod lock;
pub mod objects;
mod sqlite;
mod tls;

pub use blobs::{Blobs, DirectoryBlobs};
pub use error::StoreError;
pub use jobs::{Jobs, JobsError, NatsJobs, NatsSettings, SqliteJobs};
pub use lock::DirLock;
pub use objects::{EtcdObjects, EtcdSettings, Objects, SqliteObjects, TxnError};
pub use sqlite::CommitStats;
pub use tls::TlsFiles;
