//! Randomness, from the system or from a seed.
#![expect(clippy::disallowed_methods, reason = "this module is where randomness is drawn")]

use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Draws random numbers. Cheap to clone; clones of a seeded one share its sequence.
#[derive(Debug, Clone, Default)]
pub struct Random {
    seeded: Option<Arc<Mutex<StdRng>>>,
}

impl Random {
    /// Cryptographically strong, one generator a thread.
    pub fn system() -> Random {
        Random { seeded: None }
    }

    /// The same sequence for the same seed.
    pub fn seeded(seed: u64) -> Random {
        Random { seeded: Some(Arc::new(Mutex::new(StdRng::seed_from_u64(seed)))) }
    }

    /// Uniform over all of `u64`.
    pub fn u64(&self) -> u64 {
        match &self.seeded {
            Some(rng) => rng.lock().next_u64(),
            None => rand::rng().next_u64(),
        }
    }

    /// Uniform over all of `u128`.
    pub fn u128(&self) -> u128 {
        (u128::from(self.u64()) << 64) | u128::from(self.u64())
    }

    /// Uniform in `[0, 1)`.
    pub fn unit(&self) -> f64 {
        // 53 bits are what an f64 holds exactly.
        (self.u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Fills `bytes`.
    pub fn fill(&self, bytes: &mut [u8]) {
        match &self.seeded {
            Some(rng) => rng.lock().fill_bytes(bytes),
            None => rand::rng().fill_bytes(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_sequence() {
        let (a, b) = (Random::seeded(7), Random::seeded(7));
        assert!((0..100).all(|_| a.u64() == b.u64()));
        assert_ne!(Random::seeded(8).u64(), Random::seeded(7).u64());
        assert!((0..1_000).all(|_| (0.0..1.0).contains(&a.unit())));
    }
}
