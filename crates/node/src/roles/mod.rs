//! One file for each role: settings and the other roles' clients in, one service out.

pub(crate) mod control;
pub(crate) mod gateway;
pub(crate) mod logs;
pub(crate) mod scaler;
pub(crate) mod worker;
pub(crate) mod workflow;

use lyra_kit::{Clock, Ids, Random, telemetry};

/// What every role is given.
#[derive(Clone, Default)]
pub(crate) struct Kit {
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) ids: Ids,
    pub(crate) metrics: telemetry::Metrics,
}

impl Kit {
    /// The machine's clock and randomness.
    pub(crate) fn system() -> Kit {
        let (clock, random) = (Clock::system(), Random::system());
        let ids = Ids::new(clock.clone(), random.clone());
        Kit { clock, random, ids, metrics: telemetry::Metrics::new() }
    }
}
