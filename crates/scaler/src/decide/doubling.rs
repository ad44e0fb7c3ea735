//! Twice as many workers when much waits, half as many when nearly nothing does.
//!
//! The rule of the classic system (its scaler's source): more than 32 in the queue doubles, fewer than 2 halves. Other than there, what
//! runs counts: a worker that is needed for it stays.

use lyra_types::api::ScalerLook;

use super::{Reason, Want, for_running};
use crate::Config;

pub(super) fn want(look: &ScalerLook, config: &Config) -> Want {
    let workers = look.workers;
    if look.queued > config.grow_above {
        return Want { workers: workers.saturating_mul(2).max(1), reason: Reason::Queue };
    }
    if look.queued < config.shrink_below {
        let fewer = (workers / 2).max(for_running(look, config)).min(workers);
        return Want { workers: fewer, reason: Reason::Idle };
    }
    Want { workers, reason: Reason::Steady }
}
