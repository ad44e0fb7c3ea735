//! Landlord: every idle instance pays rent for its memory out of a credit, and leaves when it is used up.
//!
//! After Young, "On-line file caching", Algorithmica 33 (2002). An instance that becomes idle has a credit of what its
//! cold start costs. When room is needed, all idle instances pay the same rent for each byte, as much as makes the
//! first one's credit zero; that one leaves. A use fills the credit up again.
//!
//! Charging everyone is the same as letting the price of a byte only rise: an instance leaves when the rent since its
//! last use, `price - price then`, has reached its credit for each byte. So its rank is the price at which it leaves.

use std::time::Duration;

use super::{KeepAlive, Rested, Track};

#[derive(Debug, Default)]
pub(super) struct Landlord {
    /// Rent for each MiB since the beginning.
    price: f64,
}

impl KeepAlive for Landlord {
    fn stamp(&self) -> f64 {
        self.price
    }

    fn rank(&self, track: &mut Track, rested: &Rested) -> f64 {
        rested.stamp + track.worth()
    }

    fn evicted(&mut self, rank: f64) {
        self.price = self.price.max(rank);
    }

    fn keep(&self, _: &mut Track, _: &Rested) -> Option<Duration> {
        None
    }
}
