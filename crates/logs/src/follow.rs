//! Tells followers that there is news, and reads it for them.
//!
//! A follower keeps its place in the file and is only woken, so it holds no lines of its own, needs no bound
//! on how far it may fall behind, and can neither miss a line nor see one twice. What it can't read in
//! time is deleted by the bounds on size and age; then its stream ends and says so.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt};
use lyra_kit::telemetry::prometheus::IntGauge;
use lyra_types::log::LogLine;
use lyra_types::{Code, Error, Result};
use lyra_wire::logs::Query;

use crate::read::{self, Batch};
use crate::service::{Inner, check};
use crate::tails::{Bell, News};

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
    bell: Arc<Bell>,
    /// What it was told of and has not read to the end.
    news: News,
    ready: VecDeque<LogLine>,
    /// All that is asked for has been read up to here.
    up_to: i64,
    _counted: Counted,
}

impl Follower {
    /// The next line; `None` at the end.
    async fn next(&mut self) -> Result<Option<LogLine>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            let news = self.bell.look();
            self.news = News { after: self.news.after.or(news.after), ..news };
            match self.news.after {
                Some(after) if self.news.up_to > self.up_to => self.read(after).await?,
                _ if self.news.closed => return Ok(None),
                _ => {
                    self.news.after = None;
                    self.bell.wait().await;
                }
            }
        }
    }

    async fn read(&mut self, after: i64) -> Result<()> {
        let (query, from, told) = (self.query.clone(), self.up_to, self.news.up_to);
        let unread = after.max(from) + 1;
        let reading = self.inner.read(move |connection| read::next(connection, &query, from, unread, told));
        let batch: Batch = reading.await?;
        if batch.missed {
            return Err(Error::new(
                Code::LimitReached,
                "lines were deleted before they were read here: the reader was too slow for how much is written; \
                 follow again to go on with the newest lines",
            ));
        }
        if !batch.more {
            self.news.after = None;
        }
        self.up_to = self.up_to.max(batch.up_to);
        self.ready.extend(batch.lines);
        Ok(())
    }
}

/// See [`lyra_wire::Logs::follow`].
pub(crate) async fn follow(inner: Arc<Inner>, query: Query) -> Result<BoxStream<'static, Result<LogLine>>> {
    check(&query)?;
    // First the bell, then the backlog: what is written in between rings and is read after the backlog.
    let bell = inner.tails.subscribe(&query, inner.config.max_followers).ok_or_else(|| {
        Error::new(Code::Overloaded, format!("{} streams follow logs, which is the limit", inner.config.max_followers))
    })?;
    let counted = Counted::new(inner.metrics.followers.clone());
    let backlog = inner.newest(query.clone()).await?;
    let follower = Follower {
        inner,
        query,
        bell,
        news: News::default(),
        ready: backlog.lines.into(),
        up_to: backlog.up_to,
        _counted: counted,
    };
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
