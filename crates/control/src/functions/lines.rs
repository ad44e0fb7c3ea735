//! Lines of functions go with them: each control process keeps those that workers sent to it, and so forgets its own when it
//! hears that a function is gone, whoever deleted it.

use std::time::Duration;

use futures::StreamExt;
use lyra_wire::control::RouteEvent;

use super::Functions;

/// Wait before the table is followed again after too many changes at once.
const AGAIN: Duration = Duration::from_secs(1);

impl Functions {
    /// Forgets lines for ever. Those of functions that went while this process was away go when they are old.
    pub(super) async fn forget_lines(&self) {
        loop {
            let mut changes = self.table.subscribe();
            while let Some(Ok((_, change))) = changes.next().await {
                let RouteEvent::Remove(tenant, function) = change else { continue };
                if let Err(error) = self.logs.forget(&tenant, &function).await {
                    tracing::warn!(%error, %tenant, %function, "logs of a deleted function are left");
                }
            }
            self.clock.sleep(AGAIN).await;
        }
    }
}
