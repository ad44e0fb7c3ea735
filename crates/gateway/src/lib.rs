//! The public interface: REST routes, HTTP triggers, the way to sessions, authentication, limits.
//!
//! A gateway keeps a route table that it learns from the control role by watch, and talks straight to the
//! worker: the control role is never on the path of a call. The call runs inside of the request's own
//! future, so a client that goes away cancels its invocation.
//!
//! Every answer that is not a success is an RFC 9457 problem document; every body is read within a limit and a
//! deadline; no request makes the process allocate without bound.

mod access;
mod auth;
mod body;
mod bound;
mod classic;
mod config;
mod dispatch;
mod extract;
mod forwarded;
mod headers;
mod ingress;
mod listen;
mod metrics;
mod openapi;
mod problem;
mod query;
mod quota;
mod resources;
mod rest;
mod routes;
mod service;
mod socket;
mod status;
mod tls;
mod trigger;

pub use access::oidc::OidcConfig;
pub use auth::Tokens;
pub use config::Config;
pub use extract::parse_deploy;
pub use ingress::IngressConfig;
pub use openapi::document as openapi_document;
pub use resources::{ResourceCaller, ResourceServer};
pub use routes::{listed as listed_routes, needed as needed_scopes};
pub use service::{Deps, Service};
pub use status::{Ready, Status};
