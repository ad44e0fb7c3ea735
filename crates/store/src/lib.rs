//! What Lyra keeps: versioned objects, jobs, and blobs.
//!
//! Four traits, each with an embedded implementation and one on a server; nothing here knows what the objects or jobs
//! mean. What a call has acknowledged is on disk and survives `kill -9`.
//!
//! - [`Objects`]: small versioned values with atomic transactions, consistent lists, watches from a revision, and
//!   leases ([`SqliteObjects`], [`EtcdObjects`]); who leads ([`objects::Election`]).
//! - [`Jobs`]: the durable record of jobs, their leases and outcomes ([`SqliteJobs`], [`NatsJobs`]).
//! - [`Runs`]: workflow runs and their journals ([`SqliteRuns`], [`NatsRuns`]).
//! - [`Blobs`]: content-addressed bytes ([`DirectoryBlobs`], [`S3Blobs`]).
//!
//! An address says which ([`open_objects`], [`open_jobs`], [`open_runs`], [`open_blobs`]).
//!
//! # Writes, group commit, and virtual time
//! Each embedded database has one writer. Requests that arrive while a commit runs are gathered into the next
//! transaction, each under its own savepoint, and are answered only after that transaction is on disk. The
//! writer is not a thread of its own but a blocking task of the runtime that lives while there is something
//! to write: tokio's paused clock does not advance while such a task runs, so under virtual time a
//! commit takes no time at all and a simulation stays right.

pub mod blobs;
mod error;
pub mod jobs;
mod lock;
mod nats;
pub mod objects;
mod open;
pub mod runs;
mod sqlite;
mod tls;

pub use blobs::{Blobs, DirectoryBlobs, S3Blobs, S3Keys, S3Settings, Shelf};
pub use error::StoreError;
pub use jobs::{Jobs, JobsError, NatsJobs, NatsSettings, SqliteJobs};
pub use lock::DirLock;
pub use objects::{EtcdObjects, EtcdSettings, Objects, SqliteObjects, TxnError};
pub use open::{Access, open_blobs, open_jobs, open_objects, open_runs};
pub use runs::{NatsRuns, Runs, RunsError, SqliteRuns};
pub use sqlite::{Checkpoints, CommitStats};
pub use tls::TlsFiles;
