//! Follows a stream, from what is there to what comes.

use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy};
use async_nats::jetstream::stream::Stream;
use futures::{FutureExt, StreamExt};

use crate::StoreError;

/// Messages taken in at once.
const BATCH: usize = 500;
/// While all that is there is read: longest wait for the next message before it is asked whether there is one.
const QUIET: Duration = Duration::from_secs(2);
const OPERATION: &str = "follow the records";

/// Where to begin.
#[derive(Debug, Clone, Copy)]
pub(crate) enum From {
    /// With the last message of each subject.
    Newest,
    /// With the message after this sequence.
    After(u64),
}

/// One run of following: ends when the stream can't be read any more.
pub(crate) struct Follower {
    messages: Ordered,
    /// The last sequence that was handed out.
    pub(crate) seen: u64,
}

/// Messages with their sequences.
pub(crate) type Heard = Vec<(Message, u64)>;

impl Follower {
    /// Begins; says how many messages are there already.
    pub(crate) async fn start(stream: &Stream, from: From) -> Result<(Follower, u64), StoreError> {
        let (deliver_policy, seen) = match from {
            From::Newest => (DeliverPolicy::LastPerSubject, 0),
            From::After(0) => (DeliverPolicy::All, 0),
            From::After(seen) => (DeliverPolicy::ByStartSequence { start_sequence: seen + 1 }, seen),
        };
        let filter_subject = match from {
            // The server wants to know of which subjects.
            From::Newest => stream.cached_info().config.subjects.first().cloned().unwrap_or_default(),
            From::After(_) => String::new(),
        };
        let config = OrderedConfig {
            deliver_policy,
            filter_subject,
            replay_policy: ReplayPolicy::Instant,
            ..OrderedConfig::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(StoreError::remote(OPERATION))?;
        let pending = consumer.cached_info().num_pending;
        let messages = consumer.messages().await.map_err(StoreError::remote(OPERATION))?;
        Ok((Follower { messages, seen }, pending))
    }

    /// Begins, and hands all that is there to `take`.
    pub(crate) async fn filled<Fut>(
        stream: &Stream,
        from: From,
        take: impl Fn(Heard) -> Fut,
    ) -> Result<Follower, StoreError>
    where
        Fut: Future<Output = Result<(), StoreError>>,
    {
        const OPERATION: &str = "read the records";
        let there = stream.get_info().await.map_err(StoreError::remote(OPERATION))?;
        let last = there.state.last_sequence;
        let (mut follower, mut pending) = Follower::start(stream, from).await?;
        // Where records were replaced while they were counted, too many can be said to be left.
        while pending > 0 && follower.seen < last {
            match tokio::time::timeout(QUIET, follower.next()).await {
                Ok(heard) => {
                    let (heard, left) = heard?;
                    take(heard).await?;
                    pending = left;
                }
                // What was still to come can have been deleted meanwhile.
                Err(_) => {
                    let info = stream.get_info().await.map_err(StoreError::remote(OPERATION))?;
                    if info.state.messages == 0 || info.state.last_sequence <= follower.seen {
                        pending = 0;
                    }
                }
            }
        }
        Ok(follower)
    }

    /// The next messages, waiting for the first; and how many were left when the last of them was sent. May be dropped
    /// while it waits.
    pub(crate) async fn next(&mut self) -> Result<(Heard, u64), StoreError> {
        let first = self.messages.next().await.ok_or_else(|| StoreError::remote(OPERATION)("it has ended"))?;
        let (mut heard, mut left) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(message) = next {
            let message = message.map_err(StoreError::remote(OPERATION))?;
            let sequence;
            (sequence, left) = {
                let info = message.info().map_err(StoreError::remote(OPERATION))?;
                (info.stream_sequence, info.pending)
            };
            self.seen = sequence;
            heard.push((message, sequence));
            // Those that are here already.
            next = if heard.len() < BATCH && left > 0 { self.messages.next().now_or_never().flatten() } else { None };
        }
        Ok((heard, left))
    }
}
