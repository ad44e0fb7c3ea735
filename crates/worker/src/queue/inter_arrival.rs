//! The function that is called most often first: the smallest time between its arrivals.
//!
//! What is called often has its instances warm, so its calls are served with the least waste (Ilúvatar, HPDC 2023). A version
//! whose rate is not known yet comes last; the ageing bound gets its first calls through.

use std::time::Duration;

use super::ranked::Rank;
use super::shortest::nanos;
use crate::characteristics::Record;

/// Ranks by the expected time between arrivals.
#[derive(Debug)]
pub(super) struct InterArrival;

impl Rank for InterArrival {
    fn rank(record: &Record, _: Duration) -> u64 {
        record.expected().inter_arrival.map_or(u64::MAX, nanos)
    }
}
