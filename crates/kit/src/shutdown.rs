//! SIGTERM and SIGINT: the first drains, the second ends the process at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Starts listening for SIGTERM and SIGINT. The token is cancelled on the first; a second one ends
/// the process with status 130.
///
/// # Errors
/// When the signal handlers can't be installed.
pub fn on_signals() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    crate::tasks::spawn("signals", async move {
        for _ in 0..2 {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if cancelled.is_cancelled() {
                tracing::warn!("second signal, exiting at once");
                std::process::exit(130);
            }
            tracing::info!("signal received, draining");
            cancelled.cancel();
        }
    });
    Ok(token)
}
