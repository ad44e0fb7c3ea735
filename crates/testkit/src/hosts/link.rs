//! What may be wrong on the way from one host to another.

use std::time::Duration;

/// The way from one host to another, in that direction.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Link {
    /// Nothing arrives.
    pub cut: bool,
    /// Packets take so long.
    pub delay: Duration,
    /// So large a share of the packets is lost, from 0 to 1.
    pub loss: f64,
}

impl Link {
    /// Nothing arrives.
    pub fn cut() -> Link {
        Link { cut: true, ..Link::default() }
    }

    /// Every packet takes so long.
    pub fn delayed(delay: Duration) -> Link {
        Link { delay, ..Link::default() }
    }

    /// So large a share of the packets is lost, from 0 to 1.
    pub fn lossy(loss: f64) -> Link {
        Link { loss, ..Link::default() }
    }
}
