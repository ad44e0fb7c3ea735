//! What a run did, told by reading its journal back.

use std::sync::Arc;

use lyra_types::workflow::TraceToken;
use lyra_types::{Code, Error, Result, RunId, TenantName};

use super::{Engine, Head, guard, journal};
use crate::core::Core;

impl Engine {
    /// Everything that a run did, token by token.
    pub(crate) async fn trace(
        &self,
        tenant: &TenantName,
        id: &RunId,
        from: u64,
        limit: usize,
    ) -> Result<Vec<TraceToken>> {
        let stops = |_| Error::new(Code::Unavailable, "this process is to stop");
        let _place = self.inner.traces.acquire().await.map_err(stops)?;
        let (head, batches) = self.inner.deps.runs.journal(tenant.clone(), id.clone()).await?;
        let head: Head = serde_json::from_slice(&head)
            .map_err(|error| Error::internal(format!("a run's head can't be read: {error}")))?;
        let program = self.program(&head.program).await?;
        let mut replay = journal::Replay::new(&batches, self.inner.deps.blobs.as_ref())?;
        let limits = head.limits.unwrap_or_else(|| self.inner.deps.config.limits());
        let mut core = Core::new(Arc::clone(&program.plan), limits, head.input);
        core.keep_trace();
        let traced = async {
            let mut tokens = Vec::new();
            let mut seq = 0;
            loop {
                let more = replay.turn(&mut core).await?;
                for mut token in core.take_trace() {
                    token.seq = seq;
                    if seq >= from && tokens.len() < limit {
                        tokens.push(token);
                    }
                    seq += 1;
                }
                if !more || tokens.len() >= limit {
                    return Ok(tokens);
                }
                tokio::task::yield_now().await;
            }
        };
        guard::guarded(traced).await
    }
}
