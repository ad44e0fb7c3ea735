//! The workflow role: compositions of functions, run durably.

pub mod core;
pub mod enact;
pub mod mapping;
