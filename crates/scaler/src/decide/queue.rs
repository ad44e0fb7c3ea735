//! So many workers that each has a number of jobs, waiting and running ones together.

use lyra_types::api::ScalerLook;

use super::{Reason, Want, shared};
use crate::Config;

pub(super) fn want(look: &ScalerLook, config: &Config) -> Want {
    let workers = shared(look.queued.saturating_add(look.running), config.queue_per_worker);
    let reason = if workers < look.workers { Reason::Idle } else { Reason::Queue };
    Want { workers, reason }
}
