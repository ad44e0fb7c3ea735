//! Keeps the lines that functions write, and shows them.
//!
//! A function's call must never wait for its logs: [`Service`] takes a line in memory, or drops and
//! counts it, and a thread of its own writes batches into one SQLite file. What a query returns
//! includes every line that was offered before it; what is followed comes without gaps and without
//! repeats, because a follower reads the file from the place it last saw and is only *told* of news.
//!
//! Who may hold how much: the file is bounded in bytes and in age. When it is full, room is made at
//! the cost of the functions that hold most, oldest lines first, so that one chatty function never
//! pushes out the lines of a quiet one (see [`Config::max_bytes`] for the exact rule).
//!
//! Lines acknowledged by nobody may be lost: those of the last [`Config::batch_delay`] when the process
//! is killed. Nothing here knows of users or HTTP.

mod config;
mod database;
mod error;
mod follow;
mod metrics;
mod queue;
mod read;
mod service;
mod tails;
mod writer;

pub use config::Config;
pub use service::Service;
