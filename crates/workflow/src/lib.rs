//! The workflow role: compositions of functions, run durably.

mod config;
pub mod core;
pub mod enact;
mod engine;
pub mod mapping;
mod metrics;

pub use config::Config;
