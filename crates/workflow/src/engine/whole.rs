//! What is done to its end although whoever asked for it goes away: nobody else would.

use lyra_types::{Code, Error, Result, RunId, TenantName};
use tokio::sync::oneshot;

use super::{Engine, guard};

impl Engine {
    /// Does to its end what nobody else would: a run that the store has begun for this process, whose caller goes away before
    /// it is told, would stand still for as long as the process lives.
    pub(super) async fn whole<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (tell, told) = oneshot::channel();
        self.inner.deps.tasks.spawn(name, async move {
            // Whoever asked may have gone away.
            let _ = tell.send(work.await);
        });
        told.await.unwrap_or_else(|_| Err(Error::new(Code::Unavailable, "this process is to stop")))
    }

    /// Takes up a run that has failed or was cancelled.
    pub(crate) async fn redrive(&self, tenant: &TenantName, id: &RunId) -> Result<()> {
        self.check_stays()?;
        let (engine, tenant, id) = (self.clone(), tenant.clone(), id.clone());
        self.whole("redrive of a run", async move {
            let taken = engine.inner.deps.runs.reopen(tenant, id, engine.inner.owner).await?;
            let (record, fence) = (taken.record.clone(), taken.fence);
            match guard::guarded(engine.revive(taken, true)).await {
                Ok((mut actor, mail)) => {
                    actor.redrive();
                    engine.run(actor, mail, fence);
                    Ok(())
                }
                Err(error) => {
                    engine.stick(record, fence, &error).await;
                    Err(error)
                }
            }
        })
        .await
    }
}
