//! The messages of `lyra.session.v1`, by hand: few enough, and nobody who builds a program needs a compiler for them. Numbers
//! are those of `session.proto`; the tests speak with the server that is generated from it.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::{Enumeration, Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ToProgram {
    #[prost(uint64, tag = "1")]
    pub(crate) sequence: u64,
    #[prost(oneof = "Down", tags = "100, 101, 102, 103, 106, 107, 108")]
    pub(crate) body: Option<Down>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Down {
    #[prost(message, tag = "100")]
    Configuration(Configuration),
    #[prost(message, tag = "101")]
    Open(OpenSession),
    #[prost(message, tag = "102")]
    Close(CloseSession),
    #[prost(message, tag = "103")]
    Ping(Number),
    #[prost(message, tag = "106")]
    Welcome(Welcome),
    #[prost(message, tag = "107")]
    Resync(Resync),
    #[prost(message, tag = "108")]
    Ack(Number),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct FromProgram {
    #[prost(uint64, tag = "1")]
    pub(crate) sequence: u64,
    #[prost(oneof = "Up", tags = "104, 105, 106, 107")]
    pub(crate) body: Option<Up>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Up {
    #[prost(message, tag = "104")]
    State(SessionState),
    #[prost(message, tag = "105")]
    Pong(Number),
    #[prost(message, tag = "106")]
    Hello(Hello),
    #[prost(message, tag = "107")]
    Clients(Clients),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Welcome {
    #[prost(uint32, tag = "3")]
    pub(crate) max_clients: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Resync {}

/// Ping, pong and ack.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Number {
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct OpenSession {
    #[prost(message, optional, tag = "1")]
    pub(crate) session: Option<SessionName>,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) data: Bytes,
    #[prost(uint64, tag = "3")]
    pub(crate) timeout_ms: u64,
    #[prost(message, optional, tag = "4")]
    pub(crate) configuration: Option<Configuration>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SessionName {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(string, tag = "3")]
    pub(crate) tenant: String,
    #[prost(string, tag = "4")]
    pub(crate) application: String,
    #[prost(uint32, tag = "5")]
    pub(crate) application_version: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Configuration {
    #[prost(uint64, tag = "1")]
    pub(crate) version: u64,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(crate) data: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CloseSession {
    #[prost(string, tag = "1")]
    pub(crate) session: String,
    #[prost(uint64, tag = "2")]
    pub(crate) grace_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub(crate) enum Phase {
    None = 0,
    Initializing = 100,
    Open = 101,
    Closed = 102,
    Closing = 103,
    Failed = 104,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SessionState {
    #[prost(string, tag = "1")]
    pub(crate) session: String,
    #[prost(enumeration = "Phase", tag = "2")]
    pub(crate) phase: i32,
    #[prost(string, tag = "3")]
    pub(crate) reason: String,
    #[prost(int32, optional, tag = "4")]
    pub(crate) exit_code: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Clients {
    #[prost(string, tag = "1")]
    pub(crate) session: String,
    #[prost(string, repeated, tag = "2")]
    pub(crate) joined: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    pub(crate) left: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Hello {
    #[prost(string, tag = "1")]
    pub(crate) sdk: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) state: Option<SessionState>,
    #[prost(string, repeated, tag = "3")]
    pub(crate) clients: Vec<String>,
    #[prost(uint64, tag = "4")]
    pub(crate) configuration: u64,
}
