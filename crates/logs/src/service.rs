//! The log service: the queue, the thread that writes, and the answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use lyra_kit::Clock;
use lyra_types::log::LogLine;
use lyra_types::{Code, Error, FunctionName, Result, TenantName};
use lyra_wire::Logs;
use lyra_wire::logs::Query;
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot};

use crate::config::Config;
use crate::follow;
use crate::metrics::Metrics;
use crate::queue::{Command, Queue};
use crate::read::{self, Batch, Readers};
use crate::tails::Tails;
use crate::writer::Writer;

/// How often lines that are too old are looked for.
const AGE_CHECK: Duration = Duration::from_secs(60);
/// How long lines wait for others while somebody follows.
const FOLLOWED_DELAY: Duration = Duration::from_millis(10);

/// Keeps lines and shows them.
pub struct Service {
    inner: Arc<Inner>,
    writer: Mutex<Option<Writer>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What callers, readers and the writer thread share.
pub(crate) struct Inner {
    pub config: Config,
    pub metrics: Metrics,
    pub tails: Tails,
    queue: Queue,
    readers: Readers,
    places: Semaphore,
    clock: Clock,
    /// Somebody found the file broken while reading.
    broken: AtomicBool,
}

impl Service {
    /// Opens the database; a broken one is moved aside with a warning. Reads the disk: call it before serving.
    ///
    /// # Errors
    /// [`Code::Internal`] when the folder can't be made or written.
    pub fn open(config: Config, clock: Clock, metrics: &lyra_kit::telemetry::Metrics) -> Result<Service> {
        let writer = Writer::open(config.dir.clone(), config.max_bytes)?;
        let metrics = Metrics::new(metrics);
        metrics.bytes.set(i64::try_from(writer.bytes()).unwrap_or(i64::MAX));
        let inner = Inner {
            queue: Queue::new(config.queue_lines, config.queue_bytes),
            readers: Readers::new(config.dir.clone(), config.readers),
            places: Semaphore::new(config.readers),
            tails: Tails::default(),
            broken: AtomicBool::new(false),
            metrics,
            clock,
            config,
        };
        Ok(Service { inner: Arc::new(inner), writer: Mutex::new(Some(writer)), thread: Mutex::default() })
    }

    /// Starts the thread that writes. Lines offered before wait in the queue. A second call does nothing.
    ///
    /// # Errors
    /// [`Code::Internal`] when the thread can't be made.
    pub fn start(&self) -> Result<()> {
        let Some(writer) = self.writer.lock().take() else { return Ok(()) };
        let inner = Arc::clone(&self.inner);
        let thread = std::thread::Builder::new().name("lyra-logs".to_owned()).spawn(move || inner.run(writer));
        match thread {
            Ok(thread) => *self.thread.lock() = Some(thread),
            Err(error) => return Err(Error::internal(format!("the thread that writes logs can't be made: {error}"))),
        }
        Ok(())
    }

    /// Writes what waits, ends every stream, and takes no more lines.
    pub async fn stop(&self) {
        self.inner.queue.close();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let joined = lyra_kit::tasks::blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the thread that writes logs did not end well");
            }
        }
        self.inner.tails.close_all();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.inner.queue.close();
    }
}

impl Inner {
    fn run(&self, mut writer: Writer) {
        self.trim_by_age(&mut writer);
        let mut checked = self.clock.instant();
        loop {
            let delay = match self.tails.any() {
                true => self.config.batch_delay.min(FOLLOWED_DELAY),
                false => self.config.batch_delay,
            };
            let taken = self.queue.take(delay, AGE_CHECK);
            if self.broken.swap(false, Ordering::AcqRel) {
                self.replace_broken(&mut writer);
            }
            if !taken.lines.is_empty() {
                self.write(&mut writer, &taken.lines);
            }
            self.queue.written(taken.counted);
            for command in taken.commands {
                let Command::Forget(source, reply) = command;
                self.tails.close(&source);
                // The caller may have gone; the lines are deleted all the same.
                drop(reply.send(writer.forget(&source)));
            }
            if self.clock.instant().duration_since(checked) >= AGE_CHECK {
                checked = self.clock.instant();
                self.trim_by_age(&mut writer);
            }
            self.metrics.bytes.set(i64::try_from(writer.bytes()).unwrap_or(i64::MAX));
            if taken.last {
                // Readers go first, so that closing the writer folds the write-ahead log into the file.
                self.readers.close_idle();
                return;
            }
        }
    }

    fn write(&self, writer: &mut Writer, lines: &[LogLine]) {
        let mut outcome = writer.write(lines);
        if outcome.as_ref().is_err_and(crate::error::Error::is_corruption) && self.replace_broken(writer) {
            outcome = writer.write(lines);
        }
        match outcome {
            Ok(wrote) => {
                self.metrics.stored.inc_by(lines.len() as u64);
                self.tails.wrote(lines, wrote);
            }
            Err(error) => {
                tracing::error!(%error, lines = lines.len(), "log lines are lost");
                self.metrics.dropped.inc_by(lines.len() as u64);
                if let Err(error) = writer.reload() {
                    tracing::error!(%error, "the log database can't be read");
                }
            }
        }
    }

    fn replace_broken(&self, writer: &mut Writer) -> bool {
        tracing::warn!("the log database is broken: it is kept as logs.db.broken, and an empty one is begun");
        let outcome = writer.replace_broken();
        self.readers.close_idle();
        if let Err(error) = &outcome {
            tracing::error!(%error, "no new log database can be made");
        }
        outcome.is_ok()
    }

    fn trim_by_age(&self, writer: &mut Writer) {
        if let Err(error) = writer.trim_older(self.clock.now() - self.config.max_age) {
            tracing::error!(%error, "old log lines can't be deleted");
        }
    }

    /// Runs `read` on a thread that may block, once a place is free.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let place = tokio::time::timeout(self.config.read_wait, self.places.acquire()).await;
        let Ok(Ok(_place)) = place else {
            return Err(Error::new(Code::Overloaded, "too many queries of logs wait; try again")
                .with_retry_after(Duration::from_secs(1)));
        };
        let inner = Arc::clone(self);
        let outcome = lyra_kit::tasks::blocking(move || {
            inner.readers.with(read).inspect_err(|error| {
                if error.is_corruption() {
                    inner.broken.store(true, Ordering::Release);
                }
            })
        });
        match outcome.await {
            Ok(outcome) => Ok(outcome?),
            Err(error) => {
                tracing::error!(%error, "a query of logs failed");
                Err(Error::internal("the query failed"))
            }
        }
    }

    /// The newest lines of a query, with all that was offered before.
    pub(crate) async fn newest(self: &Arc<Self>, query: Query) -> Result<Batch> {
        check(&query)?;
        let inner = Arc::clone(self);
        // On a blocking thread, so that virtual time stands still while the writer's thread works.
        let flushed = lyra_kit::tasks::blocking(move || inner.queue.flush(inner.config.read_wait)).await;
        if !matches!(flushed, Ok(true)) {
            return Err(Error::new(Code::Unavailable, "the log service is too far behind to answer; try again")
                .with_retry_after(Duration::from_secs(1)));
        }
        let limit = query.limit.min(self.config.max_answer_lines);
        let max_bytes = self.config.max_answer_bytes;
        self.read(move |connection| read::newest(connection, &query, limit, max_bytes)).await
    }
}

/// Refuses a query that no index leads to.
///
/// # Errors
/// [`Code::BadRequest`].
pub(crate) fn check(query: &Query) -> Result<()> {
    let Query { function, session, application, instance, .. } = query;
    if function.is_some() || session.is_some() || application.is_some() || instance.is_some() {
        return Ok(());
    }
    Err(Error::new(Code::BadRequest, "a function, session, application or instance must be named"))
}

#[async_trait]
impl Logs for Service {
    fn offer(&self, line: LogLine) {
        if !self.inner.queue.offer(line) {
            self.inner.metrics.dropped.inc();
        }
    }

    async fn query(&self, query: Query) -> Result<Vec<LogLine>> {
        Ok(self.inner.newest(query).await?.lines)
    }

    async fn follow(&self, query: Query) -> Result<BoxStream<'static, Result<LogLine>>> {
        follow::follow(Arc::clone(&self.inner), query).await
    }

    async fn forget(&self, tenant: &TenantName, function: &FunctionName) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        if !self.inner.queue.command(Command::Forget((tenant.clone(), function.clone()), reply)) {
            return Err(Error::new(Code::Unavailable, "the log service takes no more work now; try again")
                .with_retry_after(Duration::from_secs(1)));
        }
        match answer.await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(Error::new(Code::Unavailable, "the log service is stopping")),
        }
    }
}
