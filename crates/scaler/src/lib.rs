//! The scaler role: how many workers there shall be, and having them made and ended.
//!
//! [`decide`] is pure: what was seen goes in, a decision comes out. [`backends`] make and end workers: processes of this machine, a
//! program, Kubernetes, the classic system's platform. [`Service`] takes a turn every few seconds: it tells control how it stands, learns
//! whether it leads and what there is to do, decides, and has the [`backends::Backend`] do it.
//!
//! What must hold:
//! - Only the scaler that leads changes anything, and only while its lease holds by its own clock.
//! - A worker that can be named is emptied before it is ended, so that no running job is lost; when more workers are wanted meanwhile,
//!   it is taken back.
//! - The number of workers that is asked for is never outside of the bounds, and changes no more often than the cool-downs allow, but
//!   for the bounds' sake.
//!
//! It runs nothing of users and is on the path of no call: without it, the workers stay as they are.

pub mod backends;
mod config;
pub mod decide;
mod drain;
mod metrics;
mod order;
mod service;
mod waits;

pub use config::{Backing, Config, Hook, Kubernetes, Kumori, LocalWorkers};
pub use service::{Deps, Reach, Service};
