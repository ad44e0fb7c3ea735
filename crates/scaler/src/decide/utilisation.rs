//! So many workers that a share of their places and processors is in use.
//!
//! The formula of the Horizontal Pod Autoscaler of Kubernetes: as many as are ready, times what is in use, by what is to be; a miss of a
//! tenth is left alone. Workers that are being made carry nothing yet, so they don't count; the cool-down keeps them until they do.

use lyra_types::api::ScalerLook;

use super::{Reason, Want, for_running, scaled};
use crate::Config;

pub(super) fn want(look: &ScalerLook, config: &Config) -> Want {
    let ratio = look.utilisation.clamp(0.0, 1.0) / config.utilisation;
    let (ready, workers) = (look.ready.min(look.workers).max(1), look.workers);
    let wanted = scaled(ready, ratio).max(for_running(look, config).min(workers));
    let reason = if wanted < workers { Reason::Idle } else { Reason::Utilisation };
    Want { workers: wanted, reason }
}
