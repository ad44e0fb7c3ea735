//! How roles speak with each other: one trait for each service.
//!
//! A caller holds an `Arc<dyn Worker>` (or `Control`, `Logs`) and cannot tell whether the service runs
//! in its own process. In `lyra up` the service itself is handed in; apart, a client over the network
//! implements the same trait.

pub mod accounts;
pub mod classic;
pub mod control;
pub mod grpc;
pub mod hooks;
pub mod instances;
pub mod logs;
mod octets;
pub mod quotas;
pub mod registry;
pub mod resources;
pub mod role;
pub mod scaler;
pub mod secrets;
pub mod sessions;
pub mod spans;
pub mod tls;
pub mod worker;
pub mod workers;
pub mod workflows;

pub use accounts::Accounts;
pub use control::Control;
pub use logs::Logs;
pub use quotas::Quotas;
pub use registry::Registry;
pub use role::Role;
pub use worker::{Operated, Worker};
pub use workers::Workers;
pub use workflows::Workflows;

/// An error of a body that streams.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body that streams.
pub type Body = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, BoxError>;

/// A body that is all there.
pub fn full_body(bytes: impl Into<bytes::Bytes>) -> Body {
    use http_body_util::BodyExt;
    Body::new(http_body_util::Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync())
}
