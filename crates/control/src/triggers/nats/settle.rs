//! Batches that have ended and whose messages are acknowledged, until NATS has surely kept that.
//!
//! NATS says that it took note of an acknowledgement before it writes it down: a server keeps what its consumers have done in files that it
//! writes some ten times a second. One that is killed meanwhile gives messages again that were done, even as new ones. So what is written
//! down of a batch stays for a while, and a message of it that comes again is acknowledged again.

use std::collections::HashMap;
use std::time::Duration;

use lyra_types::JobId;
use tokio::time::Instant;

use super::super::record::Flight;

/// How long a batch is remembered after the last acknowledgement of its messages: many times as long as NATS may take to write it down.
const KEEP: Duration = Duration::from_secs(10);
/// How long where NATS never comes to where its messages are: the stream was made anew.
const KEEP_LOST: Duration = Duration::from_secs(3_600);

/// Which message of a stream: its number, and when it was published, in ns since the epoch. The number alone would be another
/// message's after the stream was deleted and made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) sequence: u64,
    published: i64,
}

impl Place {
    /// Of the message that is acknowledged at the subject `ack`, which says both.
    pub(super) fn new(sequence: u64, ack: &str) -> Place {
        // $JS.ACK.{stream}.{consumer}.{deliveries}.{number}.{number for the consumer}.{time}.{waiting}, or with the domain and a hash of the
        // account behind $JS.ACK, and maybe something at the end (ADR-15 of NATS).
        let time = if ack.split('.').count() > 9 { 9 } else { 7 };
        let published = ack.split('.').nth(time).and_then(|time| time.parse().ok()).unwrap_or_default();
        Place { sequence, published }
    }
}

/// Where the messages of a batch are.
pub(super) fn places(flight: &Flight) -> Vec<Place> {
    flight.sequences.iter().zip(&flight.acks).map(|(&sequence, ack)| Place::new(sequence, ack)).collect()
}

/// The batches that are remembered.
#[derive(Default)]
pub(super) struct Settling {
    batches: HashMap<JobId, Batch>,
    by_place: HashMap<Place, JobId>,
}

struct Batch {
    places: Vec<Place>,
    last: u64,
    acknowledged: Instant,
}

impl Settling {
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Remembers a batch that was acknowledged `now`.
    pub(super) fn add(&mut self, flight: &Flight, now: Instant) {
        let places = places(flight);
        self.by_place.extend(places.iter().map(|&place| (place, flight.job)));
        let last = flight.sequences.iter().copied().max().unwrap_or_default();
        self.batches.insert(flight.job, Batch { places, last, acknowledged: now });
    }

    /// Whether a message is one of a batch that has ended; that is remembered from `now` on then, since its message is acknowledged again.
    pub(super) fn comes_again(&mut self, place: Place, now: Instant) -> bool {
        let batch = self.by_place.get(&place).and_then(|job| self.batches.get_mut(job));
        batch.map(|batch| batch.acknowledged = now).is_some()
    }

    /// The batches that need not be remembered any more, where NATS has given messages up to number `delivered`: what is behind that
    /// can't come as a new one.
    pub(super) fn settled(&self, delivered: u64, now: Instant) -> Vec<JobId> {
        let settled = self.batches.iter().filter(|(_, batch)| {
            let for_long = now.duration_since(batch.acknowledged);
            for_long >= KEEP && batch.last <= delivered || for_long >= KEEP_LOST
        });
        settled.map(|(job, _)| *job).collect()
    }

    /// Forgets a batch; returns where its messages are.
    pub(super) fn forget(&mut self, job: JobId) -> Vec<Place> {
        let places = self.batches.remove(&job).map(|batch| batch.places).unwrap_or_default();
        for place in &places {
            self.by_place.remove(place);
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACKS: [&str; 3] = [
        "$JS.ACK.ORDERS.lyra-orders.1.4.7.1763840000000000001.3",
        "$JS.ACK.hub.hash.ORDERS.lyra-orders.1.4.7.1763840000000000001.3",
        "$JS.ACK.hub.hash.ORDERS.lyra-orders.1.4.7.1763840000000000001.3.token",
    ];

    #[test]
    fn a_message_is_known_by_its_number_and_time_however_it_is_acknowledged() {
        for ack in ACKS {
            assert_eq!(Place::new(4, ack), Place { sequence: 4, published: 1_763_840_000_000_000_001 }, "{ack}");
        }
        let redelivered = Place::new(4, "$JS.ACK.ORDERS.lyra-orders.2.4.9.1763840000000000001.0");
        assert_eq!(redelivered, Place::new(4, ACKS[0]));
        let of_another_stream = Place::new(4, "$JS.ACK.ORDERS.lyra-orders.1.4.7.1763840000000000002.3");
        assert_ne!(of_another_stream, Place::new(4, ACKS[0]));
        assert_eq!(Place::new(4, "").published, 0);
    }

    #[test]
    fn a_batch_is_remembered_until_its_messages_can_not_come_again() {
        let job = JobId::from_number(7);
        let flight = Flight { job, sequences: vec![4], acks: vec![ACKS[0].into()], own: true, landed: true };
        let begin = lyra_kit::Clock::system().instant();
        let mut settling = Settling::default();
        settling.add(&flight, begin);
        assert!(settling.settled(4, begin + KEEP / 2).is_empty());
        // It comes again, and is remembered for as long once more.
        assert!(settling.comes_again(places(&flight)[0], begin + KEEP / 2));
        assert!(!settling.comes_again(Place::new(5, ACKS[0]), begin + KEEP / 2));
        assert!(settling.settled(4, begin + KEEP).is_empty());
        // NATS forgot that it gave it.
        assert!(settling.settled(3, begin + 2 * KEEP).is_empty());
        assert_eq!(settling.settled(3, begin + KEEP / 2 + KEEP_LOST), [job]);
        assert_eq!(settling.settled(4, begin + 2 * KEEP), [job]);
        assert_eq!(settling.forget(job), places(&flight));
        assert!(settling.is_empty() && settling.by_place.is_empty());
    }
}
