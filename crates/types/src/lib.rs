//! The words of Lyra: names, ids, specifications, phases and error codes.
//!
//! Everything that crosses a boundary (HTTP, the wire between roles, the store) is made of these
//! types. Nothing here does I/O, waits, reads a clock or draws a random number.

pub mod account;
pub mod address;
pub mod api;
mod balancing;
mod binding;
pub mod code;
pub mod delivery;
pub mod error;
pub mod function;
pub mod id;
pub mod invocation;
pub mod job;
pub mod layout;
pub mod log;
pub mod name;
pub mod quota;
pub mod resources;
pub mod schedule;
pub mod secret;
pub mod time;
pub mod trigger;
pub mod usage;
pub mod workflow;

pub use account::{Role, Scope, Scopes, Secret};
pub use balancing::Balancing;
pub use binding::{KeySource, SessionBinding, SessionsRequest};
pub use code::Code;
pub use error::{Error, FieldError, Result};
pub use function::{Alias, FunctionVersion, Network, Runtime};
pub use id::{InstanceId, InvocationId, JobId, TokenId};
pub use name::{AliasName, FunctionName, ScheduleName, SecretName, TenantName, TriggerName, UserName, WorkflowName};
pub use secret::{SecretBytes, SecretUse};
pub use time::Timestamp;
pub use workflow::RunId;
