//! What the stores promise, held against each implementation, with real servers.
#![expect(clippy::unwrap_used, reason = "the claims are tests, which clippy does not see")]

mod blobs;
mod jobs;
mod objects;
mod runs;
mod tls;
