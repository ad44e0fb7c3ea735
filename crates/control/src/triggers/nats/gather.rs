//! Gathers messages.

use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::pull;
use futures::StreamExt;
use lyra_types::trigger::MAX_BATCH_BYTES;

use super::{Consumer, Fault, fault};

/// How long NATS is asked to wait for a first message, before it is asked again.
const QUIET: Duration = Duration::from_secs(10);
/// Beyond what NATS was asked to wait, longest until it says that there was nothing.
const LATE: Duration = Duration::from_secs(5);
/// Shortest that NATS is asked to wait.
const SHORTEST: Duration = Duration::from_millis(1);

/// Messages for a batch: up to `most`, as many as there are or come within `wait` of the first one. None where none came for a while.
///
/// What was taken when this fails, or is dropped, is given again by NATS.
///
/// # Errors
/// When NATS gives none.
pub(super) async fn gather(consumer: &Consumer, most: usize, wait: Duration) -> Result<Vec<Message>, Fault> {
    let asking = fault("can't ask for messages");
    let mut messages = Vec::new();
    // What is there.
    let pulled = consumer.fetch().max_messages(most).max_bytes(MAX_BATCH_BYTES).messages().await.map_err(&asking)?;
    take(pulled, Duration::ZERO, &mut messages).await?;
    if messages.is_empty() {
        // Of any size.
        let pulled = consumer.batch().max_messages(1).expires(QUIET).messages().await.map_err(&asking)?;
        take(pulled, QUIET, &mut messages).await?;
    }
    let bytes: usize = messages.iter().map(|message| message.payload.len()).sum();
    let rest = most - messages.len();
    if messages.is_empty() || rest == 0 || wait.is_zero() || bytes >= MAX_BATCH_BYTES {
        return Ok(messages);
    }
    let wait = wait.max(SHORTEST);
    let more = consumer.batch().max_messages(rest).max_bytes(MAX_BATCH_BYTES - bytes).expires(wait);
    take(more.messages().await.map_err(&asking)?, wait, &mut messages).await?;
    Ok(messages)
}

/// Takes what a request gives.
async fn take(mut pulled: pull::Batch, wait: Duration, messages: &mut Vec<Message>) -> Result<(), Fault> {
    let taking = async {
        while let Some(next) = pulled.next().await {
            match next {
                Ok(message) => messages.push(message),
                // The next one is larger than what is left of the batch, or there are enough that nobody acknowledged.
                Err(error) if is_no_fault(&error.to_string()) => return Ok(()),
                Err(error) => return Err(format!("NATS gives no messages: {error}")),
            }
        }
        Ok(())
    };
    // Where the end was not told, what has come is a batch.
    tokio::time::timeout(wait + LATE, taking).await.unwrap_or(Ok(()))
}

fn is_no_fault(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["maxbytes", "max bytes", "maxackpending", "batch completed"].iter().any(|words| text.contains(words))
}
