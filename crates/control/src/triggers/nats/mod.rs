//! Triggers that take messages from NATS JetStream.
//!
//! A trigger has a durable pull consumer of its own, named for its identity. A *session* ([`session`]) is one connection: it takes up the
//! batches that are written down, gathers messages ([`gather`]), hands them in as jobs and sees each to its end ([`flight`]),
//! which it remembers for a while ([`settle`]). Whatever goes wrong ends the session, and the next one begins with what is written down:
//! there is one way back, also after `kill -9`.

mod connect;
mod flight;
mod gather;
mod session;
mod settle;

use async_nats::jetstream::consumer::pull;

pub(super) use connect::{authorities, check};

/// What keeps a trigger from taking messages, for people.
type Fault = String;
type Consumer = async_nats::jetstream::consumer::Consumer<pull::Config>;

/// What went wrong at NATS while `doing` something.
fn fault<E: std::fmt::Display>(doing: &'static str) -> impl Fn(E) -> Fault {
    move |error| format!("{doing}: {error}")
}

/// The name of a trigger's consumer.
fn consumer_name(name: &lyra_types::TriggerName, uid: u64) -> String {
    format!("lyra-{name}-{uid:016x}")
}
