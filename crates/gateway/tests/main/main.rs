//! The gateway over real sockets, with scripted neighbours behind it.

mod client;
mod doubles;

mod auth;
mod functions;
mod hostile;
mod invoke;
mod jobs;
mod logs;
mod platform;
mod trigger;
