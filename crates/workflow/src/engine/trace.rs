//! What a run did, told by reading its journal back.
//!
//! What must hold: pages of a run that has ended, asked for one after the other, read its journal once; what is kept for the next page is
//! little, and not for long.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use lyra_store::runs::RunRecord;
use lyra_types::workflow::TraceToken;
use lyra_types::{Code, Error, Result, RunId, TenantName, Timestamp};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Engine, Head, guard, journal};
use crate::core::Core;

/// Traces that are kept for their next page, how long, and how much each may hold.
const KEPT: usize = 8;
const KEPT_FOR: Duration = Duration::from_secs(60);
const KEPT_BYTES: u64 = 32 << 20;

/// A run that has ended, as it has: taken up again it is another one.
#[derive(Debug, Clone, PartialEq)]
struct Ended {
    tenant: TenantName,
    id: RunId,
    order: u64,
    at: Timestamp,
}

impl Ended {
    fn of(record: RunRecord) -> Option<Ended> {
        let at = record.ended_at.filter(|_| record.status.is_final())?;
        Some(Ended { tenant: record.tenant, id: record.id, order: record.order, at })
    }
}

/// A journal that is read for its tokens.
struct Reader {
    core: Core,
    replay: journal::Replay,
    /// Tokens that were made and that nobody has asked for yet.
    ready: VecDeque<TraceToken>,
    /// Number of the next token that is made.
    seq: u64,
    /// Everything is read.
    over: bool,
}

impl Reader {
    /// Number of the first token that it can still give.
    fn next(&self) -> u64 {
        self.seq - self.ready.len() as u64
    }

    /// Up to `limit` tokens from number `from`.
    async fn page(&mut self, from: u64, limit: usize) -> Result<Vec<TraceToken>> {
        let mut page = Vec::new();
        loop {
            while page.len() < limit
                && let Some(token) = self.ready.pop_front()
            {
                if token.seq >= from {
                    page.push(token);
                }
            }
            if self.over || page.len() >= limit {
                return Ok(page);
            }
            self.over = !self.replay.turn(&mut self.core).await?;
            for mut token in self.core.take_trace() {
                token.seq = self.seq;
                self.seq += 1;
                self.ready.push_back(token);
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Traces whose next page may be asked for.
#[derive(Default)]
pub(super) struct Pages(Mutex<Vec<(Ended, Instant, Reader)>>);

impl Pages {
    fn take(&self, of: &Ended, from: u64) -> Option<Reader> {
        let mut kept = self.0.lock();
        let found = kept.iter().position(|(known, _, reader)| known == of && reader.next() <= from)?;
        Some(kept.swap_remove(found).2)
    }

    fn keep(&self, of: Ended, reader: Reader, now: Instant) {
        if (reader.over && reader.ready.is_empty()) || reader.core.held_bytes() > KEPT_BYTES {
            return;
        }
        let mut kept = self.0.lock();
        if kept.len() >= KEPT
            && let Some(oldest) = (0..kept.len()).min_by_key(|at| kept[*at].1)
        {
            kept.swap_remove(oldest);
        }
        kept.push((of, now, reader));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Lets those go whose next page nobody has asked for in time.
    pub(super) fn clear(&self, now: Instant) {
        self.0.lock().retain(|(_, at, _)| now.duration_since(*at) < KEPT_FOR);
    }
}

impl Engine {
    /// A page of what a run did, token by token.
    pub(crate) async fn trace(
        &self,
        tenant: &TenantName,
        id: &RunId,
        from: u64,
        limit: usize,
    ) -> Result<Vec<TraceToken>> {
        let stops = |_| Error::new(Code::Unavailable, "this process is to stop");
        let _place = self.inner.traces.acquire().await.map_err(stops)?;
        let (record, _) = self.inner.deps.runs.get(tenant.clone(), id.clone(), false).await?;
        let ended = Ended::of(record);
        let mut reader = match ended.as_ref().and_then(|ended| self.inner.pages.take(ended, from)) {
            Some(reader) => reader,
            None => self.reader(tenant, id).await?,
        };
        let traced = async move { reader.page(from, limit).await.map(|page| (page, reader)) };
        let (page, reader) = guard::guarded(traced).await?;
        if let Some(ended) = ended {
            self.inner.pages.keep(ended, reader, self.inner.deps.clock.instant());
        }
        Ok(page)
    }

    async fn reader(&self, tenant: &TenantName, id: &RunId) -> Result<Reader> {
        let deps = &self.inner.deps;
        let (head, batches) = deps.runs.journal(tenant.clone(), id.clone()).await?;
        let head: Head = serde_json::from_slice(&head)
            .map_err(|error| Error::internal(format!("a run's head can't be read: {error}")))?;
        let program = self.program(&head.program).await?;
        let replay = journal::Replay::new(&batches, Arc::clone(&deps.blobs))?;
        let limits = head.limits.unwrap_or_else(|| deps.config.limits());
        let mut core = Core::new(Arc::clone(&program.plan), limits, head.input);
        core.keep_trace();
        Ok(Reader { core, replay, ready: VecDeque::new(), seq: 0, over: false })
    }
}
