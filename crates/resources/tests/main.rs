//! The resource API over HTTP, by its clients.

mod server;
