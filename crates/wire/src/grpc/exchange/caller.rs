//! The caller's end of exchanges with one worker.
//!
//! A few connections, each with one exchange, made when they are needed and again when they break. A call that could
//! not be sent says so ([`Missed::NotSent`]) and may be tried elsewhere; one that was sent when its connection broke may have
//! run ([`Missed::Lost`]), and so may one whose worker lives and does not answer in all the time that it may take
//! ([`Missed::Overdue`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
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
use super::{LONGEST_WAIT_KEY, Map, WAITING, cut};
use crate::worker::Call;

/// Connections to one worker: one is not enough to keep two cores busy.
const LINES: usize = 2;
/// After a connection could not be made, calls fail at once for so long.
const REST: Duration = Duration::from_millis(250);
/// How often calls are looked at that have had their time. It is the unit of their time as well, so that no call reads a clock.
const LOOK: Duration = Duration::from_secs(1);
/// What a call is given beyond all that the worker may take for it.
const MARGIN: Duration = Duration::from_secs(10);
/// How long a worker may let a call wait before it runs, where it has not said.
const LONGEST_WAIT: Duration = Duration::from_secs(120);
/// Versions that an exchange has numbers for; then it starts to count anew.
const MAX_VERSIONS: usize = 10_000;

/// Why a call has no answer from the worker.
#[derive(Debug)]
pub(crate) enum Missed {
    /// It was not sent: it can't have run.
    NotSent(String),
    /// It was sent, and the connection broke: it may have run.
    Lost,
    /// It was sent, and the worker has not answered in this time, which is all that the call may take.
    Overdue(Duration),
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
    /// How long the worker may let a call wait before it runs, as it has said last, in milliseconds.
    longest_wait: AtomicU64,
}

#[derive(Debug, Default)]
struct Slot {
    line: Mutex<Option<Arc<Line>>>,
    /// Held by whoever connects; what it holds says until when not to try, and why.
    connecting: tokio::sync::Mutex<Option<(Instant, String)>>,
}

impl Caller {
    pub(crate) fn new(target: Target, clock: Clock) -> Caller {
        let longest_wait = AtomicU64::new(millis(LONGEST_WAIT));
        Caller { target, clock, slots: Default::default(), next: AtomicUsize::new(0), longest_wait }
    }

    /// Sends a call and waits for its answer. Dropping the future cancels the call.
    pub(crate) async fn call(&self, call: &Call) -> Result<Answer, Missed> {
        let slot = &self.slots[self.next.fetch_add(1, Ordering::Relaxed) % LINES];
        let line = self.line(slot).await?;
        let own = call.version.timeout();
        line.call(call, self.limit(call.timeout.map_or(own, |timeout| timeout.min(own)))).await
    }

    /// All the time that a call may take that runs for `timeout` at most.
    pub(crate) fn limit(&self, timeout: Duration) -> Duration {
        timeout + Duration::from_millis(self.longest_wait.load(Ordering::Relaxed)) + MARGIN
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
            Ok((line, longest_wait)) => {
                self.longest_wait.store(millis(longest_wait.unwrap_or(LONGEST_WAIT)), Ordering::Relaxed);
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
    tasks: [tokio::task::AbortHandle; 2],
}

impl Drop for Line {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::AbortHandle::abort);
    }
}

#[derive(Debug, Default)]
struct State {
    calls: Map<u64, Waiting>,
    versions: Map<VersionKey, u32>,
    next_call: u64,
    /// Looks at the calls so far.
    looks: u64,
    /// The connection is gone.
    broken: bool,
    /// The worker is about to end: no call may be begun.
    closing: bool,
    /// Ends this end of the exchange.
    done: CancellationToken,
}

/// A call has waited for all the time that it may take.
#[derive(Debug)]
struct HadItsTime;

#[derive(Debug)]
struct Waiting {
    /// An error where the call has had its time.
    reply: oneshot::Sender<Result<Answer, HadItsTime>>,
    /// The look at which it will have had it.
    due: u64,
    /// A result of which more comes.
    begun: Option<(Report, Pieces)>,
}

impl Line {
    /// Connects; says, too, how long the worker may let a call wait, if it tells.
    async fn connect(target: &Target) -> Result<(Arc<Line>, Option<Duration>), String> {
        let deadline = super::super::CONNECT;
        let exchange = async {
            let channel =
                target.connect().await.map_err(|error| causes(error.to_string(), std::error::Error::source(&error)))?;
            let (out, messages) = mpsc::channel(WAITING);
            let done = CancellationToken::new();
            let messages = ReceiverStream::new(messages).take_until(done.clone().cancelled_owned());
            let answers = CallsClient::new(channel).exchange(messages).await.map_err(|status| chain(&status))?;
            let longest_wait = longest_wait(answers.metadata());
            Ok::<_, String>((out, done, answers.into_inner(), longest_wait))
        };
        let (out, done, answers, longest_wait) =
            tokio::time::timeout(deadline, exchange).await.map_err(|_| "no connection in time".to_owned())??;
        Ok((Line::over(out, done, answers), longest_wait))
    }

    /// An exchange over two streams: what is said by `out`, what is heard of `answers`. `done` ends the former.
    fn over(
        out: mpsc::Sender<FromCaller>,
        done: CancellationToken,
        mut answers: impl Stream<Item = Result<FromWorker, tonic::Status>> + Send + Unpin + 'static,
    ) -> Arc<Line> {
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
        let (looked, cancel) = (Arc::clone(&state), out.downgrade());
        let looker = lyra_kit::tasks::spawn("exchange-deadlines", async move {
            let mut looks = tokio::time::interval(LOOK);
            // While this process did not run, nobody's time has passed.
            looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                looks.tick().await;
                let ended = looked.lock().look();
                let Some(cancel) = cancel.upgrade() else { return };
                for call in ended {
                    // A worker that reads nothing does not hear of it, nor needs to.
                    let _ = cancel.try_send(FromCaller { what: Some(from_caller::What::Cancel(Cancel { call })) });
                }
            }
        });
        Arc::new(Line { out, state, tasks: [reader.abort_handle(), looker.abort_handle()] })
    }

    /// Whether no call may be begun here.
    fn is_over(&self) -> bool {
        let state = self.state.lock();
        state.broken || state.closing
    }

    async fn call(&self, call: &Call, limit: Duration) -> Result<Answer, Missed> {
        let mut rest = call.event.clone();
        let (event, more) = cut(&mut rest);
        let begin = Begin {
            call: 0,
            version: 0,
            invocation: id_bytes(call.id.number()),
            timeout_us: call.timeout.map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)),
            event,
            more,
            user: call.account.user.as_deref().unwrap_or_default().to_owned(),
            counted_by_caller: call.account.by_caller,
            traceparent: call.trace.as_deref().unwrap_or_default().to_owned(),
        };
        let (number, mut answer) = self.begin(&call.version, begin, limit).await?;
        let given_up = GivenUp { line: self, number };
        let mut more = more;
        let mut early = None;
        while more && early.is_none() {
            let (data, left) = cut(&mut rest);
            let part = Part { call: number, data, more: left };
            tokio::select! {
                sent = self.send(from_caller::What::Part(part)) => sent.map_err(|_| Missed::Lost)?,
                // Refused, or it has had its time.
                answer = &mut answer => early = Some(answer),
            }
            more = left;
        }
        let answer = match early {
            Some(answer) => answer,
            None => answer.await,
        };
        // Nothing waits under that number any more.
        std::mem::forget(given_up);
        answer.map_err(|_| Missed::Lost)?.map_err(|HadItsTime| Missed::Overdue(limit))
    }

    /// Sends the beginning of a call, with its version where that is new to this exchange.
    async fn begin(
        &self,
        version: &FunctionVersion,
        mut begin: Begin,
        limit: Duration,
    ) -> Result<(u64, oneshot::Receiver<Result<Answer, HadItsTime>>), Missed> {
        let key = version.key();
        let closed = || Missed::NotSent("the connection is closed".to_owned());
        loop {
            // Places for all messages are had before the lock is, so that they go out together and in order.
            let known = self.state.lock().versions.contains_key(&key);
            let number = if known { 1 } else { 3 };
            let mut places = match self.out.try_reserve_many(number) {
                Ok(places) => places,
                Err(mpsc::error::TrySendError::Closed(())) => return Err(closed()),
                Err(mpsc::error::TrySendError::Full(())) => {
                    let places = tokio::time::timeout(limit, self.out.reserve_many(number)).await;
                    let places = places.map_err(|_| Missed::NotSent("it does not take what is sent".to_owned()))?;
                    places.map_err(|_| closed())?
                }
            };
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
            // One more, since the next look may come at once.
            let due = state.looks + limit.as_secs().div_ceil(LOOK.as_secs()) + 1;
            state.calls.insert(number, Waiting { reply, due, begun: None });
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

    /// Ends the calls that have had their time; returns their numbers.
    fn look(&mut self) -> Vec<u64> {
        self.looks += 1;
        let due: Vec<u64> =
            self.calls.iter().filter(|(_, waiting)| waiting.due <= self.looks).map(|(number, _)| *number).collect();
        for number in &due {
            if let Some(waiting) = self.calls.remove(number) {
                let _ = waiting.reply.send(Err(HadItsTime));
            }
        }
        if !due.is_empty() {
            self.end_if_done();
        }
        due
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
            let _ = waiting.reply.send(Ok(Answer { report, outcome }));
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

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What a worker says of how long it may let a call wait.
fn longest_wait(metadata: &tonic::metadata::MetadataMap) -> Option<Duration> {
    metadata.get(LONGEST_WAIT_KEY)?.to_str().ok()?.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use lyra_types::function::Digest;
    use lyra_types::{FunctionName, InvocationId, Runtime};

    use super::*;
    use crate::worker::Account;

    fn call(event: usize) -> Call {
        let function = FunctionName::new("f").unwrap();
        let version = Arc::new(FunctionVersion::new(function, Runtime::Js, Digest("0".repeat(64))));
        Call {
            id: InvocationId::from_parts(1, 2),
            version,
            event: vec![b'1'; event].into(),
            timeout: None,
            account: Account::default(),
            trace: None,
        }
    }

    /// A worker that reads so many messages and says nothing.
    fn stuck(reads: usize) -> (Arc<Line>, mpsc::Receiver<FromCaller>) {
        let (out, messages) = mpsc::channel(reads);
        (Line::over(out, CancellationToken::new(), futures::stream::pending()), messages)
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_never_answered_ends_when_it_has_had_its_time() {
        let (line, mut heard) = stuck(64);
        let begun = Clock::system().instant();
        let limit = Duration::from_secs(40);
        let (short, long) =
            tokio::join!(async { (line.call(&call(10), limit).await, Clock::system().instant() - begun) }, async {
                (line.call(&call(10), limit * 2).await, Clock::system().instant() - begun)
            });
        for ((missed, took), limit) in [(short, limit), (long, limit * 2)] {
            assert!(matches!(missed, Err(Missed::Overdue(of)) if of == limit), "{missed:?}");
            assert!(took >= limit && took <= limit + LOOK * 3, "{took:?}");
        }
        assert!(line.state.lock().calls.is_empty());
        let mut cancelled = Vec::new();
        while let Ok(message) = heard.try_recv() {
            cancelled.extend(message.what.and_then(|what| match what {
                from_caller::What::Cancel(cancel) => Some(cancel.call),
                _ => None,
            }));
        }
        assert_eq!(cancelled, [1, 2], "the worker is told");
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_reads_nothing_holds_no_call() {
        let limit = Duration::from_secs(40);
        let (line, _heard) = stuck(4);
        // In the middle of its event …
        let missed = line.call(&call(PIECES * super::super::PART), limit).await.unwrap_err();
        assert!(matches!(missed, Missed::Overdue(_)), "{missed:?}");
        // … and before its beginning.
        let missed = line.call(&call(1), limit).await.unwrap_err();
        assert!(matches!(missed, Missed::NotSent(_)), "{missed:?}");
    }

    const PIECES: usize = 20;

    #[test]
    fn a_worker_says_how_long_a_call_may_wait() {
        let mut metadata = tonic::metadata::MetadataMap::new();
        assert_eq!(longest_wait(&metadata), None);
        metadata.insert(LONGEST_WAIT_KEY, "90000".parse().unwrap());
        assert_eq!(longest_wait(&metadata), Some(Duration::from_secs(90)));
        metadata.insert(LONGEST_WAIT_KEY, "soon".parse().unwrap());
        assert_eq!(longest_wait(&metadata), None);
    }
}
