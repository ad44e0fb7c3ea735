//! Functions that were removed through the classic routes and whose jobs have all ended: the leader deletes them.

use std::time::Duration;

use lyra_types::function::label;

use super::Classic;
use crate::leader::Term;

/// How often they are looked for. A call that a gateway accepted just before it heard of the removal is a job well before that.
const EVERY: Duration = Duration::from_secs(30);

impl Classic {
    /// What the leader does.
    pub(crate) async fn lead(&self, term: &Term) {
        let duties = async {
            loop {
                self.clock.sleep(EVERY).await;
                self.delete_retired().await;
            }
        };
        term.over.run_until_cancelled(duties).await;
    }

    async fn delete_retired(&self) {
        for route in self.functions.table().all() {
            let classic = || route.versions.values().any(|version| version.labels.contains_key(label::CLASSIC));
            if route.aliases.contains_key("live") || !classic() {
                continue;
            }
            let (tenant, function) = (&route.tenant, &route.function);
            let deleted = match self.jobs.pinned(tenant.clone(), function.clone(), route.generation).await {
                Ok(versions) if versions.is_empty() => self.functions.delete_retired(tenant, function).await,
                Ok(_) => continue,
                Err(error) => Err(error.into()),
            };
            if let Err(error) = deleted {
                tracing::warn!(%error, %tenant, %function, "a function that was removed is left");
            }
        }
    }
}
