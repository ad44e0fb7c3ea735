//! The users: made, reset, removed, and what they have used.

use bytes::Bytes;
use lyra_store::TxnError;
use lyra_store::objects::{Change, Txn};
use lyra_types::function::label;
use lyra_types::usage::UsageQuery;
use lyra_types::{Error, Result, TenantName, Timestamp};
use lyra_wire::classic::{ClassicAnswer, ClassicName};
use serde::{Deserialize, Serialize};

use super::{Classic, damaged};

/// Functions looked at together.
const PAGE: usize = 1_000;

/// A user as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct User {
    pub(super) name: ClassicName,
    pub(super) created_at: Timestamp,
    /// Execution time of the tenant when the user was made or reset, in microseconds: it does not count.
    pub(super) before_us: u64,
}

fn key(user: &ClassicName) -> String {
    format!("classic/users/{}", user.tenant())
}

impl Classic {
    pub(super) async fn user(&self, user: &ClassicName) -> Result<Option<User>> {
        let key = key(user);
        let Some(entry) = self.objects.get(&key).await? else { return Ok(None) };
        serde_json::from_slice(&entry.value).map(Some).map_err(|error| damaged(&key, &error))
    }

    pub(super) async fn put_user(&self, name: &ClassicName) -> Result<ClassicAnswer> {
        let tenant = name.tenant();
        self.numbers.of(&tenant, true).await?;
        let revision = self.retire_all(&tenant).await?;
        let before_us = self.executed(&tenant).await?;
        let user = User { name: name.clone(), created_at: self.clock.now(), before_us };
        let json = serde_json::to_vec(&user).map_err(|_| Error::internal("the user can't be stored"))?;
        self.change(Change::Put(key(name), Bytes::from(json))).await?;
        tracing::info!(%tenant, user = %name, "classic user made or reset");
        Ok(ClassicAnswer::Done { revision })
    }

    pub(super) async fn remove_user(&self, name: &ClassicName) -> Result<ClassicAnswer> {
        if self.user(name).await?.is_none() {
            return Ok(ClassicAnswer::Done { revision: 0 });
        }
        let tenant = name.tenant();
        let revision = self.retire_all(&tenant).await?;
        self.change(Change::Delete(key(name))).await?;
        tracing::info!(%tenant, user = %name, "classic user removed");
        Ok(ClassicAnswer::Done { revision })
    }

    /// Execution time of the user since it was made or reset, in whole milliseconds.
    pub(super) async fn time(&self, tenant: &TenantName, user: &User) -> Result<u64> {
        Ok(self.executed(tenant).await?.saturating_sub(user.before_us) / 1_000)
    }

    /// Execution time of the tenant since ever, in microseconds.
    async fn executed(&self, tenant: &TenantName) -> Result<u64> {
        let query = UsageQuery { tenant: Some(tenant.clone()), limit: 1, ..UsageQuery::default() };
        Ok(self.jobs.usage(query).await?.pop().unwrap_or_default().usage.exec_us)
    }

    async fn change(&self, change: Change) -> Result<()> {
        match self.objects.txn(Txn { checks: Vec::new(), changes: vec![change] }).await {
            Ok(_) => Ok(()),
            Err(TxnError::Store(error)) => Err(error.into()),
            Err(TxnError::Failed { key, .. }) => {
                Err(Error::internal(format!("a change without a check failed on {key}")))
            }
        }
    }

    /// Retires every classic function of the tenant; returns the revision from which that is seen.
    async fn retire_all(&self, tenant: &TenantName) -> Result<u64> {
        let mut revision = 0;
        let mut after = std::ops::Bound::Unbounded;
        loop {
            let routes = self.functions.table().list(tenant, after, PAGE);
            for route in &routes {
                let classic = route.versions.values().any(|version| version.labels.contains_key(label::CLASSIC));
                if classic && route.aliases.contains_key("live") {
                    revision = self.functions.retire(tenant, &route.function).await?.max(revision);
                }
            }
            match routes.last() {
                Some(last) if routes.len() == PAGE => after = std::ops::Bound::Excluded(last.function.clone()),
                _ => return Ok(revision),
            }
        }
    }
}
