//! Keeps what happens again and again from flooding the log: a node that is refused asks anew every few seconds.

use std::collections::BTreeMap;
use std::time::Duration;

use lyra_kit::Clock;
use parking_lot::Mutex;
use tokio::time::Instant;

/// The same is said so often at most.
const REST: Duration = Duration::from_secs(30);
/// Different things that are remembered; beyond, all are forgotten.
const MAX_KNOWN: usize = 256;

/// When each thing was said last.
static SAID: Mutex<BTreeMap<String, Instant>> = Mutex::new(BTreeMap::new());

/// Whether it is time to say `what` (again).
pub(super) fn is_time_to_say(what: &str) -> bool {
    let now = Clock::system().instant();
    let mut said = SAID.lock();
    if said.get(what).is_some_and(|last| now.duration_since(*last) < REST) {
        return false;
    }
    if said.len() >= MAX_KNOWN {
        said.clear();
    }
    said.insert(what.to_owned(), now);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_same_is_not_said_again_at_once() {
        assert!(is_time_to_say("one"));
        assert!(!is_time_to_say("one") && is_time_to_say("two"));
        tokio::time::sleep(REST).await;
        assert!(is_time_to_say("one"));
        assert!((0..MAX_KNOWN * 2).all(|number| is_time_to_say(&number.to_string())));
    }
}
