//! Makes ids out of the clock and randomness.

use lyra_types::{InstanceId, InvocationId, JobId, TokenId};

use crate::{Clock, Random};

/// Makes ids. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Ids {
    clock: Clock,
    random: Random,
}

impl Ids {
    /// Ids of `clock`'s time and `random`'s bits.
    pub fn new(clock: Clock, random: Random) -> Ids {
        Ids { clock, random }
    }

    fn parts(&self) -> (u64, u128) {
        (u64::try_from(self.clock.now().millis()).unwrap_or(0), self.random.u128())
    }

    /// A new invocation id.
    pub fn invocation(&self) -> InvocationId {
        let (millis, random) = self.parts();
        InvocationId::from_parts(millis, random)
    }

    /// A new job id.
    pub fn job(&self) -> JobId {
        let (millis, random) = self.parts();
        JobId::from_parts(millis, random)
    }

    /// A new token id.
    pub fn token(&self) -> TokenId {
        let (millis, random) = self.parts();
        TokenId::from_parts(millis, random)
    }

    /// A new instance id.
    pub fn instance(&self) -> InstanceId {
        let (millis, random) = self.parts();
        InstanceId::from_parts(millis, random)
    }
}
