//! What the stores promise, held against each implementation, with real servers.

mod jobs;
mod objects;
