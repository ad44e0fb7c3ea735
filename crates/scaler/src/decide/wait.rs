//! So many workers that nothing waits longer than a time.
//!
//! Twice as many workers halve the wait, so the number grows as the wait does to the time that is allowed, at most fourfold at once.
//! When next to nothing waits, it is halved, but for the workers that what runs needs: from a wait of nothing no number follows.

use lyra_types::api::ScalerLook;

use super::{Reason, Want, for_running, scaled};
use crate::Config;

/// Share of the time that is allowed below which workers are given up.
const LITTLE: f64 = 0.5;

#[expect(clippy::cast_precision_loss, reason = "a ratio, for which a few figures are enough")]
pub(super) fn want(look: &ScalerLook, config: &Config) -> Want {
    let ratio = look.wait_ms as f64 / (config.wait.as_secs_f64() * 1e3);
    let workers = look.workers;
    if ratio > 1.0 {
        return Want { workers: scaled(workers, ratio), reason: Reason::Wait };
    }
    if ratio < LITTLE {
        let fewer = (workers / 2).max(for_running(look, config)).min(workers);
        return Want { workers: fewer, reason: Reason::Idle };
    }
    Want { workers, reason: Reason::Steady }
}
