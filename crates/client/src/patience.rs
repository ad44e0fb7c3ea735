//! Waiting for what ends by itself, while servers come and go.

use std::time::Duration;

use lyra_types::Code;

use crate::{Error, Result};

/// Pause between two looks: keeps a server that answers at once from being asked in a tight loop.
const PAUSE: Duration = Duration::from_millis(50);
/// Pause before a server that gave no good answer is asked again.
pub(crate) const AGAIN: Duration = Duration::from_millis(200);
/// A wait ends when no good answer has come for so long: more than an answer may take that the server itself waits with.
pub(crate) const AWAY: Duration = Duration::from_secs(60);

/// Whether a failure may pass by itself.
pub(crate) fn passes(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } | Error::Broken { .. } | Error::Deadline { .. } => true,
        Error::Api { error, .. } => {
            matches!(error.code, Code::Unavailable | Code::Overloaded | Code::Timeout | Code::StaleVersion)
        }
        Error::Untrusted { .. } | Error::Protocol { .. } | Error::Config(_) => false,
    }
}

/// Looks until there is something, for `limit` at most; `None` when there is nothing by then. `look` changes nothing, and may itself
/// wait at the server. A server that goes away is waited for, [`AWAY`] at most; one that never was there is not, since its address may
/// be wrong.
///
/// # Errors
/// The last look's, where it does not pass.
pub(crate) async fn until<T>(limit: Duration, look: impl AsyncFn() -> Result<Option<T>>) -> Result<Option<T>> {
    let waiting = async {
        let mut known = false;
        loop {
            let found = match look().await {
                Err(error @ Error::Unreachable { .. }) if !known => Err(error),
                Err(error) if passes(&error) => look_again(&look, error).await,
                outcome => outcome,
            };
            if let Some(found) = found? {
                return Ok(found);
            }
            known = true;
            tokio::time::sleep(PAUSE).await;
        }
    };
    match tokio::time::timeout(limit, waiting).await {
        Ok(outcome) => outcome.map(Some),
        Err(_) => Ok(None),
    }
}

/// Looks until the server gives a good answer; with `failed` when it does not in time.
async fn look_again<T>(look: &impl AsyncFn() -> Result<Option<T>>, mut failed: Error) -> Result<Option<T>> {
    let answered = async {
        loop {
            tokio::time::sleep(AGAIN).await;
            match look().await {
                Err(error) if passes(&error) => failed = error,
                outcome => return outcome,
            }
        }
    };
    let outcome = tokio::time::timeout(AWAY, answered).await;
    outcome.unwrap_or(Err(failed))
}
