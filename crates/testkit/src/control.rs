//! What tests ask about control processes.

use std::time::Duration;

use anyhow::{Context, Result};
use lyra_client::Client;

/// Longest wait for somebody to lead.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Name and epoch of the control process that leads; waits until there is one other than `not`.
///
/// # Errors
/// When nobody leads for too long.
pub async fn leader(client: &Client, not: &str) -> Result<(String, u64)> {
    let found = async {
        loop {
            let all = client.control(1_000).await.map(|all| all.items).unwrap_or_default();
            let leader = all.into_iter().find(|one| one.value.state == "leader" && one.value.name != not);
            if let Some(leader) = leader {
                return (leader.value.name.clone(), leader.value.epoch.unwrap_or_default());
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.context("nobody leads")
}
