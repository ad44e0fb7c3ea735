//! The workers that a gateway or a control process knows, and which of them gets a call.
//!
//! A [`Fleet`] follows the registry and is itself a worker: a call goes to one of those that are ready, chosen by a policy
//! ([`balance`]); one that can't have run there goes to another. When the registry is away, what was known last holds.
//!
//! A [`RouteTable`] follows the functions in the same way: what a call's name means.
//!
//! [`quota::Meters`] hold calls to quotas, of which each process has a share; a [`throttle::Throttle`] holds up who tries too often.
//!
//! Gateway, control and workflow role need these, and none may know another: hence a crate.

pub mod balance;
mod fleet;
mod follow;
mod footprint;
mod metrics;
mod node;
mod popularity;
pub mod quota;
mod replay;
mod route_table;
pub mod throttle;
mod tries;

pub use balance::Policy;
pub use fleet::{Config, Connect, Fleet};
pub use route_table::RouteTable;
