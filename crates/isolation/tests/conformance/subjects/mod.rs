//! The back ends that the claims are tested on, with the programs of the claims as code of each runtime.

pub mod http;
pub mod native;
pub mod nodejs;
mod process;
pub mod python;
pub mod simulated;
pub mod wasm;
