//! Tells followers that there is news, and reads it for them.
//!
//! A follower keeps its place in the file and is only woken, so it holds no lines of its own, needs no bound
//! on how far it may fall behind, and can neither miss a line nor see one twice. What it can't read in
//! time is deleted by the bounds on size and age; then its stream ends and says so.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt};
use lyra_kit::telemetry::prometheus::IntGauge;
use lyra_types::log::LogLine;
use lyra_types::{Code, Error, Result};
use lyra_wire::logs::Query;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::queue::Source;
use crate::read::{self, Batch};
use crate::service::Inner;

/// How far a function's lines have come.
#[derive(Debug, Clone, Copy, Default)]
struct Tail {
    seq: i64,
    closed: bool,
}

/// Functions that are followed now.
#[derive(Default)]
pub(crate) struct Tails {
    followed: Mutex<HashMap<Source, watch::Sender<Tail>>>,
}

impl Tails {
    /// Whether anybody follows anything.
    pub(crate) fn any(&self) -> bool {
        !self.followed.lock().is_empty()
    }

    /// Lines of these functions were written, up to `seq`.
    pub(crate) fn wrote(&self, lines: &[LogLine], seq: i64) {
        let mut followed = self.followed.lock();
        followed.retain(|_, tail| !tail.is_closed());
        if followed.is_empty() {
            return;
        }
        for line in lines {
            if let Some(tail) = followed.get(&(line.tenant.clone(), line.function.clone())) {
                tail.send_if_modified(|tail| std::mem::replace(&mut tail.seq, seq) != seq);
            }
        }
    }

    /// The function was deleted: its streams end.
    pub(crate) fn close(&self, source: &Source) {
        if let Some(tail) = self.followed.lock().remove(source) {
            tail.send_modify(|tail| tail.closed = true);
        }
    }

    /// The service stops: all streams end.
    pub(crate) fn close_all(&self) {
        for (_, tail) in self.followed.lock().drain() {
            tail.send_modify(|tail| tail.closed = true);
        }
    }

    fn subscribe(&self, source: Source, most: usize) -> Option<watch::Receiver<Tail>> {
        let mut followed = self.followed.lock();
        followed.retain(|_, tail| !tail.is_closed());
        if followed.values().map(watch::Sender::receiver_count).sum::<usize>() >= most {
            return None;
        }
        Some(followed.entry(source).or_insert_with(|| watch::Sender::new(Tail::default())).subscribe())
    }
}

/// Counts a stream for as long as it lives.
struct Counted(IntGauge);

impl Counted {
    fn new(gauge: IntGauge) -> Counted {
        gauge.inc();
        Counted(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

struct Follower {
    inner: Arc<Inner>,
    query: Query,
    tail: watch::Receiver<Tail>,
    ready: VecDeque<LogLine>,
    up_to: i64,
    /// How far the writer had come when all of this function's lines had been read. Ahead of `up_to` where the
    /// batch ended with lines of others.
    told: i64,
    _counted: Counted,
}

impl Follower {
    /// The next line; `None` at the end.
    async fn next(&mut self) -> Result<Option<LogLine>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            let tail = *self.tail.borrow_and_update();
            if tail.seq > self.up_to.max(self.told) {
                self.read(tail.seq).await?;
            } else if tail.closed || self.tail.changed().await.is_err() {
                return Ok(None);
            }
        }
    }

    async fn read(&mut self, told: i64) -> Result<()> {
        let (query, from) = (self.query.clone(), self.up_to);
        let batch: Batch = self.inner.read(move |connection| read::next(connection, &query, from)).await?;
        if batch.missed {
            return Err(Error::new(
                Code::LimitReached,
                "lines were deleted before they were read here: the reader was too slow for how much the function \
                 writes; follow again to go on with the newest lines",
            ));
        }
        if !batch.more {
            self.told = told;
        }
        self.up_to = self.up_to.max(batch.up_to);
        self.ready.extend(batch.lines);
        Ok(())
    }
}

/// See [`lyra_wire::Logs::follow`].
pub(crate) async fn follow(inner: Arc<Inner>, query: Query) -> Result<BoxStream<'static, Result<LogLine>>> {
    let source = (query.tenant.clone(), query.function.clone());
    // First the bell, then the backlog: what is written in between rings and is read after the backlog.
    let tail = inner.tails.subscribe(source, inner.config.max_followers).ok_or_else(|| {
        Error::new(Code::Overloaded, format!("{} streams follow logs, which is the limit", inner.config.max_followers))
    })?;
    let counted = Counted::new(inner.metrics.followers.clone());
    let backlog = inner.newest(query.clone()).await?;
    let follower =
        Follower { inner, query, tail, ready: backlog.lines.into(), up_to: backlog.up_to, told: 0, _counted: counted };
    let stream = futures::stream::unfold(Some(follower), |follower| async move {
        let mut follower = follower?;
        match follower.next().await {
            Ok(Some(line)) => Some((Ok(line), Some(follower))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(stream.boxed())
}
