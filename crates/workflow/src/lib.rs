//! The workflow role: compositions of functions, run durably.

mod clearing;
mod config;
pub mod core;
mod definitions;
mod deletion;
pub mod enact;
mod ends;
mod engine;
mod export;
pub mod mapping;
mod membership;
mod metrics;
mod nested;
mod quota;
pub mod schedule;
mod service;
mod timetable;

pub use config::{Config, CutToken, Extraction, HttpSettings, Transmission};
pub use membership::Identity;
pub use service::{Deps, Service};
