//! The gateway over real sockets, with scripted neighbours behind it.
#![expect(clippy::unwrap_used, reason = "a test that meets an error shall fail")]

mod accounts;
mod classic;
mod client;
mod doubles;

mod access;
mod auth;
mod functions;
mod hostile;
mod invoke;
mod jobs;
mod logs;
mod oidc;
mod platform;
mod quotas;
mod resources;
mod sessions;
mod trigger;
mod workflows;
