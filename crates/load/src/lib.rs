//! Load: traces of calls, made or read; days of them run through the real worker under virtual time; reports and
//! plots of how policies compare; and load on a running Lyra over HTTP.
//!
//! What always holds: a simulation is the worker's own code over the back end `simulated`, never a model of it; the
//! same trace, policy and seed give the same report, bit by bit; a latency counts from when a call was due, so that a
//! slow server can't hide its waits.

pub mod compare;
pub mod error;
pub mod overhead;
pub mod plot;
pub mod replay;
pub mod report;
pub mod simulation;
pub mod site;
pub mod trace;

mod latency;
mod served;

pub use error::Error;
pub use report::Report;
pub use simulation::{Policy, simulate};
pub use trace::Trace;
