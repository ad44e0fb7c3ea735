//! Follows the registry. While it is away, what was known last holds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use lyra_kit::retry::Backoff;
use lyra_types::{Code, Error, Result};
use lyra_wire::Registry;
use lyra_wire::registry::MemberEvent;

use crate::fleet::Inner;

/// Waits between tries to watch.
const RETRY: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(3) };

/// Watches, and watches anew, until dropped.
pub(crate) async fn follow(fleet: Arc<Inner>, registry: Arc<dyn Registry>) {
    let mut tries = 0;
    loop {
        let mut synced = false;
        let error = watch(&fleet, &*registry, &mut synced).await.err();
        tries = if synced { 1 } else { tries + 1 };
        if let Some(error) = error {
            tracing::debug!(%error, "the registry can't be followed");
        }
        fleet.clock.sleep(RETRY.delay(tries, &fleet.random)).await;
    }
}

async fn watch(fleet: &Inner, registry: &dyn Registry, synced: &mut bool) -> Result<()> {
    let mut events = registry.watch_workers().await?;
    let mut told = BTreeSet::new();
    while let Some(event) = events.next().await {
        match event? {
            MemberEvent::Put(member) => {
                if !*synced {
                    told.insert(member.registration.name.clone());
                }
                fleet.put(*member);
            }
            MemberEvent::Remove(name) => fleet.retain(|known| known != name),
            MemberEvent::Synced => {
                *synced = true;
                fleet.retain(|known| told.contains(known));
                fleet.synced.send_replace(true);
            }
        }
    }
    Err(Error::new(Code::Unavailable, "the registry hung up"))
}
