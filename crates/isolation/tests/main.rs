//! The back ends of this crate, through the traits that the worker uses.

mod component;
mod conformance;
mod js;
mod launch;
mod lines;
mod process;
mod sessions;
