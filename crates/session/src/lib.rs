//! The session server: how a worker opens, watches and closes a session in the program that serves it.
//!
//! One [`SessionServer`] serves one instance, on a listener that only this instance can reach; that is the program's
//! identity, and nothing that it says about itself is believed. The program keeps one stream open, over gRPC or as lines of
//! JSON over HTTP/1.1 (`proto/`, `docs/reference/session-sdk.md`). What happens is decided by a [`machine`] without
//! I/O and clock; the rest carries messages to it and from it. What a program can cost is bounded by [`Settings`].

mod grpc;
mod handle;
mod http;
mod json;
mod listen;
mod machine;
mod rate;
mod server;
mod settings;
mod state;
mod stream;

/// Messages and service of the protocol, generated from `proto/`.
#[expect(clippy::all, missing_docs, reason = "generated")]
pub mod protocol {
    tonic::include_proto!("lyra.session.v1");
}

pub use handle::{How, SessionHandle};
pub use listen::{tcp, unix};
pub use server::SessionServer;
pub use settings::Settings;
pub use state::{Client, End, Open, Phase, Resumed, SessionState, Why};
