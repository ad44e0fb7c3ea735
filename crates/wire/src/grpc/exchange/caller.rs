//! The caller's end of exchanges with one worker.
//!
//! A few connections, each with one exchange, made when they are needed and again when they break. A call that could
//! not be sent says so ([`Missed::NotSent`]) and may be tried elsewhere; one that was sent when its connection broke may have
//! run ([`Missed::Lost`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use lyra_kit::Clock;
use lyra_types::function::VersionKey;
use lyra_types::{Error, FunctionVersion};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::super::calls::calls_client::CallsClient;
use super::super::calls::{
    Begin, Cancel, End, Forget, FromCaller, FromWorker, Introduce, Part, Report, end, from_caller, from_worker,
};
use super::super::failure::{causes, chain};
use super::super::fields::{id_bytes, to_error};
use super::super::packed::pack;
use super::super::security::Target;
use super::parts::Pieces;
use super::{Map, WAITING, cut};
use crate::worker::Call;

/// Connections to one worker: one is not enough to keep two cores busy.
const LINES: usize = 2;
/// After a connection could not be made, calls fail at once for so long.
const REST: Duration = Duration::from_millis(250);
/// Versions that an exchange has numbers for; then it starts to count anew.
const MAX_VERSIONS: usize = 10_000;

/// Why a call has no answer from the worker.
#[derive(Debug)]
pub(crate) enum Missed {
    /// It was not sent: it can't have run.
    NotSent(String),
    /// It was sent, and the connection broke: it may have run.
    Lost,
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) report: Report,
    pub(crate) outcome: Result<Bytes, Error>,
}

/// Exchanges with one worker.
#[derive(Debug)]
pub(crate) struct Caller {
    target: Target,
    clock: Clock,
    slots: [Slot; LINES],
    next: AtomicUsize,
}

#[derive(Debug, Default)]
struct Slot {
    line: Mutex<Option<Arc<Line>>>,
    /// Held by whoever connects; what it holds says until when not to try, and why.
    connecting: tokio::sync::Mutex<Option<(Instant, String)>>,
}

impl Caller {
    pub(crate) fn new(target: Target, clock: Clock) -> Caller {
        Caller { target, clock, slots: Default::default(), next: AtomicUsize::new(0) }
    }

    /// Sends a call and waits for its answer. Dropping the future cancels the call.
    pub(crate) async fn call(&self, call: &Call) -> Result<Answer, Missed> {
        let slot = &self.slots[self.next.fetch_add(1, Ordering::Relaxed) % LINES];
        let line = self.line(slot).await?;
        line.call(call).await
    }

    async fn line(&self, slot: &Slot) -> Result<Arc<Line>, Missed> {
        let there = || slot.line.lock().as_ref().filter(|line| !line.is_over()).cloned();
        if let Some(line) = there() {
            return Ok(line);
        }
        let mut failed = slot.connecting.lock().await;
        if let Some(line) = there() {
            return Ok(line);
        }
        if let Some((until, why)) = &*failed
            && self.clock.instant() < *until
        {
            return Err(Missed::NotSent(why.clone()));
        }
        match Line::connect(&self.target).await {
            Ok(line) => {
                *failed = None;
                *slot.line.lock() = Some(Arc::clone(&line));
                Ok(line)
            }
            Err(why) => {
                *failed = Some((self.clock.instant() + REST, why.clone()));
                Err(Missed::NotSent(why))
            }
        }
    }
}

/// One connection with its exchange.
#[derive(Debug)]
struct Line {
    out: mpsc::Sender<FromCaller>,
    state: Arc<Mutex<State>>,
    reader: tokio::task::AbortHandle,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

#[derive(Debug, Default)]
struct State {
    calls: Map<u64, Waiting>,
    versions: Map<VersionKey, u32>,
    next_call: u64,
    /// The connection is gone.
    broken: bool,
    /// The worker is about to end: no call may be begun.
    closing: bool,
    /// Ends this end of the exchange.
    done: CancellationToken,
}

#[derive(Debug)]
struct Waiting {
    reply: oneshot::Sender<Answer>,
    /// A result of which more comes.
    begun: Option<(Report, Pieces)>,
}

impl Line {
    async fn connect(target: &Target) -> Result<Arc<Line>, String> {
        let deadline = super::super::CONNECT;
        let exchange = async {
            let channel =
                target.connect().await.map_err(|error| causes(error.to_string(), std::error::Error::source(&error)))?;
            let (out, messages) = mpsc::channel(WAITING);
            let done = CancellationToken::new();
            let messages = ReceiverStream::new(messages).take_until(done.clone().cancelled_owned());
            let answers = CallsClient::new(channel).exchange(messages).await;
            Ok::<_, String>((out, done, answers.map_err(|status| chain(&status))?.into_inner()))
        };
        let (out, done, mut answers) =
            tokio::time::timeout(deadline, exchange).await.map_err(|_| "no connection in time".to_owned())??;
        let state = Arc::new(Mutex::new(State { done, ..State::default() }));
        let read = Arc::clone(&state);
        let reader = lyra_kit::tasks::spawn("exchange-reader", async move {
            while let Some(Ok(message)) = answers.next().await {
                read.lock().take(message);
            }
            let mut state = read.lock();
            state.broken = true;
            // Whoever waits sees its channel closed.
            state.calls.clear();
        });
        Ok(Arc::new(Line { out, state, reader: reader.abort_handle() }))
    }

    /// Whether no call may be begun here.
    fn is_over(&self) -> bool {
        let state = self.state.lock();
        state.broken || state.closing
    }

    async fn call(&self, call: &Call) -> Result<Answer, Missed> {
        let mut rest = call.event.clone();
        let (event, more) = cut(&mut rest);
        let begin = Begin {
            call: 0,
            version: 0,
            invocation: id_bytes(call.id.number()),
            timeout_us: call.timeout.map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)),
            event,
            more,
        };
        let (number, answer) = self.begin(&call.version, begin).await?;
        let given_up = GivenUp { line: self, number };
        let mut more = more;
        while more {
            let (data, left) = cut(&mut rest);
            let part = Part { call: number, data, more: left };
            self.send(from_caller::What::Part(part)).await.map_err(|_| Missed::Lost)?;
            more = left;
        }
        let answer = answer.await.map_err(|_| Missed::Lost);
        // Nothing waits under that number any more.
        std::mem::forget(given_up);
        answer
    }

    /// Sends the beginning of a call, with its version where that is new to this exchange.
    async fn begin(
        &self,
        version: &FunctionVersion,
        mut begin: Begin,
    ) -> Result<(u64, oneshot::Receiver<Answer>), Missed> {
        let key = version.key();
        loop {
            // Places for all messages are had before the lock is, so that they go out together and in order.
            let known = self.state.lock().versions.contains_key(&key);
            let places = self.out.reserve_many(if known { 1 } else { 3 }).await;
            let mut places = places.map_err(|_| Missed::NotSent("the connection is closed".to_owned()))?;
            let mut send = |what| {
                if let Some(place) = places.next() {
                    place.send(FromCaller { what: Some(what) });
                }
            };
            let mut state = self.state.lock();
            if state.broken || state.closing {
                return Err(Missed::NotSent("the connection is over".to_owned()));
            }
            begin.version = match state.versions.get(&key) {
                Some(number) => *number,
                // The numbers began anew meanwhile.
                None if known => continue,
                None => state.introduce(key, version, &mut send)?,
            };
            state.next_call += 1;
            let number = state.next_call;
            begin.call = number;
            let (reply, answer) = oneshot::channel();
            state.calls.insert(number, Waiting { reply, begun: None });
            send(from_caller::What::Begin(begin));
            return Ok((number, answer));
        }
    }

    async fn send(&self, what: from_caller::What) -> Result<(), mpsc::error::SendError<FromCaller>> {
        self.out.send(FromCaller { what: Some(what) }).await
    }
}

impl State {
    /// Gives a number to a version and tells the worker.
    fn introduce(
        &mut self,
        key: VersionKey,
        version: &FunctionVersion,
        mut send: impl FnMut(from_caller::What),
    ) -> Result<u32, Missed> {
        let specification =
            pack(version).map_err(|error| Missed::NotSent(format!("the version can't be sent: {error}")))?;
        if self.versions.len() >= MAX_VERSIONS {
            self.versions.clear();
            send(from_caller::What::Forget(Forget {}));
        }
        let number = u32::try_from(self.versions.len()).unwrap_or(u32::MAX);
        send(from_caller::What::Introduce(Introduce { version: number, specification }));
        self.versions.insert(key, number);
        Ok(number)
    }

    fn take(&mut self, message: FromWorker) {
        match message.what {
            Some(from_worker::What::End(end)) => self.end(end),
            Some(from_worker::What::Part(part)) => self.part(part),
            Some(from_worker::What::Closing(_)) => {
                self.closing = true;
                self.end_if_done();
            }
            None => {}
        }
    }

    /// Once nothing is left to wait for, an exchange that is closing ends.
    fn end_if_done(&self) {
        if self.closing && self.calls.is_empty() {
            self.done.cancel();
        }
    }

    fn end(&mut self, end: End) {
        let report = end.report.unwrap_or_default();
        match end.outcome {
            Some(end::Outcome::Result(first)) if end.more => {
                if let Some(waiting) = self.calls.get_mut(&end.call) {
                    waiting.begun = Some((report, Pieces::new(&first)));
                }
            }
            Some(end::Outcome::Result(result)) => self.answer(end.call, report, Ok(result)),
            Some(end::Outcome::Error(error)) => self.answer(end.call, report, Err(to_error(&error))),
            None => self.answer(end.call, report, Err(Error::internal("the worker sent an answer without an outcome"))),
        }
    }

    fn part(&mut self, part: Part) {
        let Some(waiting) = self.calls.get_mut(&part.call) else { return };
        let Some((report, mut pieces)) = waiting.begun.take() else { return };
        match pieces.add(&part.data) {
            Ok(()) if part.more => waiting.begun = Some((report, pieces)),
            Ok(()) => self.answer(part.call, report, Ok(pieces.whole())),
            Err(_) => self.answer(part.call, report, Err(Error::internal("the worker sent a result without end"))),
        }
    }

    fn answer(&mut self, call: u64, report: Report, outcome: Result<Bytes, Error>) {
        if let Some(waiting) = self.calls.remove(&call) {
            // Who gave up needs no answer.
            let _ = waiting.reply.send(Answer { report, outcome });
        }
        self.end_if_done();
    }
}

/// Tells the worker that nobody waits for a call any more.
struct GivenUp<'a> {
    line: &'a Line,
    number: u64,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        let mut state = self.line.state.lock();
        if state.calls.remove(&self.number).is_none() {
            return;
        }
        state.end_if_done();
        drop(state);
        let cancel = FromCaller { what: Some(from_caller::What::Cancel(Cancel { call: self.number })) };
        if let Err(mpsc::error::TrySendError::Full(cancel)) = self.line.out.try_send(cancel) {
            let out = self.line.out.clone();
            lyra_kit::tasks::spawn("cancel-call", async move {
                let _ = out.send(cancel).await;
            });
        }
    }
}
