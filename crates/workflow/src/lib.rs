//! The workflow role: compositions of functions, run durably.

pub mod enact;
pub mod mapping;
pub mod schedule;
