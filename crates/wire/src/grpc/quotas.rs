//! Quotas in another process: the client that is one, and the server over one.
//!
//! Shares are given by the leading control process only, and what counts against a quota is known there: a process that does not lead
//! says so, and the next one is asked. Every question may be asked twice.

use std::sync::Arc;

use async_trait::async_trait;
use lyra_types::api::{Page, QuotaView};
use lyra_types::quota::{Quota, QuotaKey};
use lyra_types::{Code, Result};
use tonic::service::RoutesBuilder;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::asking::{Peers, Repeat, SHORT, answer};
use super::messages::{Claim, Nothing, QuotaPage, SetQuota, Shares};
use super::security::{Peer, Security};
use super::services::quotas_client::QuotasClient;
use super::services::quotas_server::{Quotas as QuotasService, QuotasServer};
use crate::Quotas;
use crate::control::PageQuery;

type Client = QuotasClient<Channel>;

/// Quotas that are reached over gRPC.
#[derive(Debug)]
pub struct RemoteQuotas {
    peers: Peers,
}

impl RemoteQuotas {
    /// The control processes at `addresses` (`HOST:PORT` each).
    ///
    /// # Errors
    /// When an address is none. Whether somebody is there is seen with the first question.
    pub fn new(addresses: &[String], security: &Security) -> Result<RemoteQuotas> {
        Ok(RemoteQuotas { peers: Peers::new("control", addresses, Peer::CONTROL, security)? })
    }

    /// Asks one process after the other until one says more than that it can't say. Which one that was is asked first the next time.
    async fn ask<M, T, F>(&self, asked: M, question: impl Fn(Client, M) -> F) -> Result<T>
    where
        M: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut left = self.peers.all().len();
        loop {
            left -= 1;
            let question = |channel| question(QuotasClient::new(channel), asked.clone());
            match self.peers.ask(Repeat::Unsent, SHORT, question).await {
                Err(error) if error.code == Code::Unavailable && left > 0 => {}
                answered => return answered,
            }
        }
    }
}

#[async_trait]
impl Quotas for RemoteQuotas {
    async fn quota(&self, key: &QuotaKey) -> Result<QuotaView> {
        self.ask(key.clone(), |mut client: Client, asked| async move { client.quota(asked).await }).await
    }

    async fn quotas(&self, page: PageQuery) -> Result<Page<QuotaView>> {
        self.ask(page, |mut client: Client, asked| async move { client.quotas(asked).await }).await
    }

    async fn set_quota(&self, key: &QuotaKey, quota: Quota) -> Result<QuotaView> {
        let asked = SetQuota { key: key.clone(), quota };
        self.ask(asked, |mut client: Client, asked| async move { client.set_quota(asked).await }).await
    }

    async fn remove_quota(&self, key: &QuotaKey) -> Result<()> {
        let ask = |mut client: Client, asked| async move { client.remove_quota(asked).await };
        self.ask(key.clone(), ask).await.map(|Nothing| ())
    }

    async fn share(&self, claim: Claim) -> Result<Shares> {
        self.ask(claim, |mut client: Client, asked| async move { client.share(asked).await }).await
    }
}

/// Adds the service by which others reach `quotas`.
pub fn add_quotas(routes: &mut RoutesBuilder, quotas: Arc<dyn Quotas>) {
    routes.add_service(QuotasServer::new(Served(quotas)));
}

struct Served(Arc<dyn Quotas>);

#[async_trait]
impl QuotasService for Served {
    async fn quota(&self, request: Request<QuotaKey>) -> Result<Response<QuotaView>, Status> {
        answer(self.0.quota(&request.into_inner()).await)
    }

    async fn quotas(&self, request: Request<PageQuery>) -> Result<Response<QuotaPage>, Status> {
        answer(self.0.quotas(request.into_inner()).await)
    }

    async fn set_quota(&self, request: Request<SetQuota>) -> Result<Response<QuotaView>, Status> {
        let SetQuota { key, quota } = request.into_inner();
        answer(self.0.set_quota(&key, quota).await)
    }

    async fn remove_quota(&self, request: Request<QuotaKey>) -> Result<Response<Nothing>, Status> {
        answer(self.0.remove_quota(&request.into_inner()).await.map(|()| Nothing))
    }

    async fn share(&self, request: Request<Claim>) -> Result<Response<Shares>, Status> {
        answer(self.0.share(request.into_inner()).await)
    }
}
