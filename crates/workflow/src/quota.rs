//! What a tenant may have of workflows: how many of them, and how many runs that have not ended.
//!
//! Quotas are read where control keeps them, since both use one store of objects: so they hold from the moment at which they are set,
//! and while control is away. Workflows are held to theirs by the transaction that stores one, runs by the store of runs.

use std::time::Duration;

use lyra_types::quota::{LimitKind, Quota, QuotaKey};
use lyra_types::{Error, Result, TenantName};
use lyra_wire::quotas::quota_key;
use lyra_wire::workflows::WorkflowUse;

use crate::service::Service;

/// A run may end at any time.
const SOON: Duration = Duration::from_secs(1);
/// There is room again when somebody has deleted a workflow; nobody knows when.
const LATER: Duration = Duration::from_secs(60);

/// Workflows, and runs that have not ended, are counted up to here for those who look.
const COUNTED: u64 = 100_000;

impl Service {
    /// The quota of a tenant that is in force.
    pub(crate) async fn quota_of(&self, tenant: &TenantName) -> Result<Quota> {
        let key = quota_key(&QuotaKey { tenant: tenant.clone(), function: None });
        let Some(entry) = self.objects().get(&key).await? else { return Ok(self.default_quota().clone()) };
        serde_json::from_slice(&entry.value).map_err(|error| Error::internal(format!("a quota can't be read: {error}")))
    }

    /// Refuses one more run where there is no room for it.
    pub(crate) async fn check_room(&self, tenant: &TenantName) -> Result<()> {
        let Some(most) = self.quota_of(tenant).await?.runs else { return Ok(()) };
        match self.engine().deps().runs.live(tenant.clone(), most.into()).await? >= u64::from(most) {
            true => Err(full(&QuotaKey { tenant: tenant.clone(), function: None }, most)),
            false => Ok(()),
        }
    }

    /// What counts against the tenant's quota.
    pub(crate) async fn used(&self, tenant: &TenantName) -> Result<WorkflowUse> {
        let runs = self.engine().deps().runs.live(tenant.clone(), COUNTED).await?;
        Ok(WorkflowUse { workflows: self.definitions().count(tenant, COUNTED).await?, runs })
    }
}

/// The refusal of one more run.
pub(crate) fn full(of: &QuotaKey, most: u32) -> Error {
    LimitKind::Runs.refusal(of, most, "as many have not ended", SOON)
}

/// The refusal of one more workflow.
pub(crate) fn too_many_workflows(tenant: &TenantName, most: u32, stored: u64) -> Error {
    let of = QuotaKey { tenant: tenant.clone(), function: None };
    LimitKind::Workflows.refusal(&of, most, format!("there are {stored}"), LATER)
}
