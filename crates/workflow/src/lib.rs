//! The workflow role: compositions of functions, run durably.

mod config;
pub mod core;
mod definitions;
pub mod enact;
mod engine;
pub mod mapping;
mod metrics;
mod nested;
pub mod schedule;
mod service;
mod timetable;

pub use config::Config;
pub use service::{Deps, Service};
