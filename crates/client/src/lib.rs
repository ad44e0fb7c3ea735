//! Typed client of Lyra's public HTTP API.
//!
//! One method for each route, grouped by noun in files of that name. Every answer keeps the JSON as the server
//! sent it beside the typed value ([`Answer`]), so that a program that prints it prints exactly that.
//!
//! What always holds: a request is sent once (nothing that changes state is ever repeated by itself; only a wait looks
//! again when a server was away for a moment); every wait has a deadline, the caller's or the server's; dropping the
//! future of a call closes the connection, which cancels the invocation; a token never shows in `Debug` or in an error.

mod account;
mod answer;
mod call;
mod config;
mod control;
mod dead_letter;
mod delivery;
mod error;
mod event_trigger;
mod follow;
mod function;
mod invoke;
mod job;
mod log;
mod object;
mod patience;
mod quota;
mod run;
mod scaler;
mod schedule;
mod secret;
mod server;
mod status;
mod transport;
mod trigger;
mod usage;
mod worker;
mod workflow;

pub use account::TokenFilter;
pub use answer::{Answer, Listing};
pub use call::{CallInfo, PhaseTimes};
pub use config::{Client, Config, DEFAULT_URL};
pub use dead_letter::Affected;
pub use delivery::{DeliveryFilter, EndsOf};
pub use error::{Error, Result};
pub use function::{Deployed, Precondition};
pub use invoke::Invocation;
pub use job::{JobFilter, JobResult};
pub use log::LogFilter;
pub use object::{Applied, ApplyOptions, Object};
pub use run::RunFilter;
pub use server::ServerVersion;
pub use trigger::Triggered;
pub use usage::UsageFilter;
