//! Exchanges: many calls with events over one stream.
//!
//! A stream of HTTP/2 for each call costs more than most calls do. Here calls are messages of a stream that stays, so that
//! under load one write carries many of them. An event or a result over [`PART`] goes in parts, between which
//! other calls' messages find their way.

mod caller;
mod handler;
mod parts;

pub(super) use caller::{Caller, Missed};
pub(super) use handler::exchange;

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use bytes::Bytes;
use rustc_hash::FxHasher;

/// A map with keys that no stranger chooses.
type Map<K, V> = HashMap<K, V, BuildHasherDefault<FxHasher>>;

/// How long a worker may let a call wait before it runs, in milliseconds: a header of its side of an exchange.
pub(super) const LONGEST_WAIT_KEY: &str = "lyra-longest-wait-ms";
/// Largest piece of an event or a result in one message, in bytes.
const PART: usize = 64 << 10;
/// Messages that wait to be written, of one exchange.
const WAITING: usize = 1_024;
/// Largest event or result, in bytes. The gateway's own limit is lower; this one guards memory against a peer at fault.
const MAX_WHOLE: usize = 128 << 20;

/// Cuts the first piece off; says whether more is left.
fn cut(rest: &mut Bytes) -> (Bytes, bool) {
    let piece = rest.split_to(rest.len().min(PART));
    (piece, !rest.is_empty())
}
