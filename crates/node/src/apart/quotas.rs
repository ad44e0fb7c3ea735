//! Shares of quotas where this process is one of several control processes: the one that leads gives them, wherever it is.

use std::sync::Arc;

use async_trait::async_trait;
use futures::lock::Mutex;
use lyra_types::Result;
use lyra_types::api::{Page, QuotaView};
use lyra_types::quota::{Quota, QuotaKey};
use lyra_wire::Quotas;
use lyra_wire::control::PageQuery;
use lyra_wire::grpc::{RemoteQuotas, Security};
use lyra_wire::quotas::{Claim, Shares};

/// The quotas of the process that leads.
pub(super) struct OfLeader {
    own: Arc<lyra_control::Service>,
    security: Security,
    /// Where another one leads.
    elsewhere: Mutex<Option<(String, Arc<RemoteQuotas>)>>,
}

impl OfLeader {
    pub(super) fn new(own: Arc<lyra_control::Service>, security: Security) -> OfLeader {
        OfLeader { own, security, elsewhere: Mutex::default() }
    }

    /// Who leads; this process where nobody is known to, which says so then.
    async fn leader(&self) -> Result<Arc<dyn Quotas>> {
        let Some(address) = self.own.leads_elsewhere() else { return Ok(self.own.clone()) };
        let mut known = self.elsewhere.lock().await;
        if let Some((_, quotas)) = known.as_ref().filter(|(at, _)| *at == address) {
            return Ok(quotas.clone());
        }
        let quotas = Arc::new(RemoteQuotas::new(std::slice::from_ref(&address), &self.security)?);
        *known = Some((address, quotas.clone()));
        Ok(quotas)
    }
}

#[async_trait]
impl Quotas for OfLeader {
    async fn quota(&self, key: &QuotaKey) -> Result<QuotaView> {
        self.leader().await?.quota(key).await
    }

    async fn quotas(&self, page: PageQuery) -> Result<Page<QuotaView>> {
        self.leader().await?.quotas(page).await
    }

    async fn set_quota(&self, key: &QuotaKey, quota: Quota) -> Result<QuotaView> {
        self.leader().await?.set_quota(key, quota).await
    }

    async fn remove_quota(&self, key: &QuotaKey) -> Result<()> {
        self.leader().await?.remove_quota(key).await
    }

    async fn share(&self, claim: Claim) -> Result<Shares> {
        self.leader().await?.share(claim).await
    }
}
