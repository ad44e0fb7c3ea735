//! One run: takes messages in, moves the core, writes the journal, then has done what the core wants done.

mod moving;
mod places;
mod writing;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lyra_types::workflow::{Cause, RunError, RunStatus};
use lyra_types::{Code, Error, Result, RunId, TenantName, Timestamp};
use lyra_wire::spans::TraceIds;
use lyra_wire::workflows::{Completion, RunCommand, Waiting};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::failure::{self, Tried};
use super::journal::TURN;
use super::program::{CALLBACK, Program};
use super::{Begin, Handle, Head, Inner, MAILBOX, Snapshot, attempt, guard};
use crate::core::datum::DEPTH;
use crate::core::entry::Stored;
use crate::core::{Core, Effect, Enact, Entry, Event, Extent, Next, TaskKey};
use crate::enact::Failure;
use places::Places;

/// Entries of one batch, about, and bytes of the outputs in them: what is computed at once is written in parts.
const BATCH: usize = 4_096;
const BATCH_BYTES: u64 = 16 << 20;
/// Messages taken in before the journal is written.
const INTAKE: usize = 512;
/// How a try ended: its output, or why there is none.
pub(crate) type Answered = Result<Answer, Failure>;

/// What a try gave.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The resource that answered.
    pub resource: Option<String>,
    /// The output, with references where values were left in the blob store.
    pub output: Map<String, Value>,
    /// The digests of those.
    pub left: Vec<String>,
}

impl Answer {
    pub(crate) fn new(resource: Option<String>, output: Map<String, Value>) -> Answer {
        Answer { resource, output, left: Vec::new() }
    }
}

/// What a run is told.
pub(crate) enum Message {
    /// A try has ended.
    Ended { key: TaskKey, attempt: u32, outcome: Answered },
    /// Its owner wants something.
    Command(RunCommand, oneshot::Sender<Result<()>>),
    /// Somebody outside completes a task.
    Complete { token: String, completion: Completion, reply: oneshot::Sender<Result<()>> },
    /// A place has become free that this run may have waited for.
    Freed,
    /// This process was not heard of for so long that another one may have the run: it is to make sure.
    MakeSure,
    /// All runs together hold too much: each is to look at what it holds itself.
    Weigh,
    /// What a try gives by URL is in the blob store; it is told once the journal says so.
    Lent(Vec<String>, oneshot::Sender<Result<()>>),
    /// Which tasks wait for somebody outside?
    Waiting(oneshot::Sender<Vec<Waiting>>),
}

/// The run was taken over by another process.
struct Lost;

pub(super) struct Actor {
    inner: Arc<Inner>,
    program: Arc<Program>,
    pub(super) tenant: TenantName,
    pub(super) id: RunId,
    head: Head,
    ids: Arc<TraceIds>,
    /// By which references and tokens of this run are known.
    secret: Arc<str>,
    core: Core,
    fence: u64,
    /// Batches written.
    batches: u64,
    created_at: Timestamp,
    /// Since when its time counts: its start, or when it was redriven last.
    counted_from: Timestamp,
    mail: mpsc::Receiver<Message>,
    sender: mpsc::WeakSender<Message>,
    seen: watch::Sender<Snapshot>,
    /// What it holds, as it was counted last.
    weighed: u64,
    /// Entries that are not written yet.
    entries: Vec<Entry>,
    /// Bytes of the outputs in them.
    entry_bytes: u64,
    /// How far the core may be moved before others get their turn.
    budget: u64,
    /// What the core wants done, as far as nobody has looked at it yet.
    effects: VecDeque<Effect>,
    /// What has come while the core was busy: it is taken in once the core stands still.
    deferred: VecDeque<Message>,
    /// What was under way when the journal ended has to be done again, once the core stands still.
    resuming: bool,
    /// Calls to make once they are.
    outward: Vec<Enact>,
    /// Who is told once they are.
    replies: Vec<oneshot::Sender<Result<()>>>,
    /// Calls that are made now: how each is given up.
    calls: HashMap<TaskKey, CancellationToken>,
    /// Places of the tasks that are called.
    leases: HashMap<TaskKey, Places>,
    /// Calls that were under way when the journal ended, and wait for a place here.
    resumed: VecDeque<Enact>,
    /// It is on the list of those that wait for a place.
    listed: bool,
    /// It was told of a place.
    freed: bool,
    /// It has to make sure that the run is still this process's.
    doubted: bool,
    /// Times at which tasks are tried again.
    timers: BinaryHeap<Reverse<(i64, TaskKey)>>,
    /// The status that the record has.
    recorded: RunStatus,
    /// Whether its journal names blobs.
    spilled: bool,
    /// Whether somebody wants to hear of its end; also where that is not known.
    noticed: bool,
}

impl Actor {
    pub(super) fn new(inner: &Arc<Inner>, begin: &Begin) -> (Actor, mpsc::Sender<Message>) {
        let (sender, mail) = mpsc::channel(MAILBOX);
        let limits = begin.head.limits.clone().unwrap_or_else(|| inner.deps.config.limits());
        let core = Core::new(Arc::clone(&begin.program.plan), limits, begin.head.input.clone());
        let snapshot = Snapshot { status: RunStatus::Running, counts: core.counts() };
        let actor = Actor {
            inner: Arc::clone(inner),
            program: Arc::clone(&begin.program),
            tenant: begin.tenant.clone(),
            id: begin.id.clone(),
            head: begin.head.clone(),
            ids: Arc::new(TraceIds::new(&begin.tenant, &begin.id, begin.head.traceparent.as_deref())),
            secret: Arc::from(begin.head.secret.as_str()),
            core,
            fence: 0,
            batches: 0,
            created_at: inner.deps.clock.now(),
            counted_from: inner.deps.clock.now(),
            mail,
            sender: sender.downgrade(),
            seen: watch::Sender::new(snapshot),
            entries: Vec::new(),
            entry_bytes: 0,
            weighed: 0,
            budget: TURN,
            effects: VecDeque::new(),
            deferred: VecDeque::new(),
            resuming: false,
            outward: Vec::new(),
            replies: Vec::new(),
            calls: HashMap::new(),
            leases: HashMap::new(),
            resumed: VecDeque::new(),
            listed: false,
            freed: false,
            doubted: false,
            timers: BinaryHeap::new(),
            recorded: RunStatus::Running,
            spilled: false,
            noticed: begin.notice.is_some(),
        };
        (actor, sender)
    }

    /// The first entries, not yet written.
    pub(super) fn begin(&mut self) {
        self.record(Event::Begun);
        self.turn();
    }

    /// What its journal is read into.
    pub(super) fn core_mut(&mut self) -> &mut Core {
        &mut self.core
    }

    /// Its journal of so many batches is read. `redriven`: when it was redriven last.
    pub(super) fn replayed(&mut self, batches: u64, spilled: bool, created_at: Timestamp, redriven: Option<i64>) {
        self.batches = batches;
        self.spilled = spilled;
        self.noticed = true;
        self.created_at = created_at;
        self.counted_from = redriven.map_or(created_at, Timestamp::from_millis);
        if self.core.is_paused() {
            self.recorded = RunStatus::Paused;
        }
        self.seen.send_replace(Snapshot { status: self.recorded, counts: self.core.counts() });
    }

    /// Has everything done, once it runs, that was under way when the journal ended.
    pub(super) fn resume(&mut self) {
        self.resuming = true;
    }

    /// Goes on after the end.
    pub(super) fn redrive(&mut self) {
        self.record(Event::Redriven);
        self.counted_from = self.inner.deps.clock.now();
        self.turn();
    }

    pub(super) fn owns(&mut self, fence: u64) {
        self.fence = fence;
    }

    /// How others reach it.
    pub(super) fn handle(&self, mail: mpsc::Sender<Message>) -> Handle {
        Handle { mail, seen: self.seen.subscribe(), program: Arc::clone(&self.program), depth: self.head.depth }
    }

    fn now(&self) -> i64 {
        self.inner.deps.clock.now().millis()
    }

    fn record(&mut self, event: Event) {
        let entry = Entry { at: self.now(), event };
        self.core.take(&entry);
        self.entries.push(entry);
        self.advance();
    }

    /// Runs to the end, or until another process has taken over.
    pub(super) async fn run(mut self) {
        loop {
            if let Err(Lost) = self.commit().await {
                tracing::warn!(tenant = %self.tenant, run = %self.id, "another process has taken over the run");
                break;
            }
            self.act();
            if self.core.outcome().is_some() && self.entries.is_empty() {
                self.close();
                break;
            }
            self.go_on().await;
            let ended = self.core.outcome().is_some();
            if ended || self.is_tired() || !self.entries.is_empty() || !self.outward.is_empty() {
                continue;
            }
            self.listen().await;
            self.turn();
        }
        for call in self.calls.values() {
            call.cancel();
        }
        let moved = Error::new(Code::Unavailable, format!("another host has taken over run \"{}\"", self.id))
            .with_retry_after(Duration::from_secs(1));
        for reply in self.replies.drain(..) {
            // Nobody may be listening any more.
            drop(reply.send(Err(moved.clone())));
        }
    }

    /// Waits for a message or a time, and takes in what is there.
    async fn listen(&mut self) {
        let now = self.now();
        let deadline = (self.counted_from + self.longest().0).millis();
        let next = self.timers.peek().map_or(deadline, |Reverse((at, _))| *at).min(deadline);
        let wait = Duration::from_millis(u64::try_from(next.saturating_sub(now)).unwrap_or(0));
        let clock = self.inner.deps.clock.clone();
        if self.deferred.is_empty() {
            tokio::select! {
                message = self.mail.recv() => self.deferred.extend(message),
                () = clock.sleep(wait) => {}
            }
        }
        for _ in 0..INTAKE {
            if self.is_tired() || self.is_full() {
                break;
            }
            match self.deferred.pop_front().or_else(|| self.mail.try_recv().ok()) {
                Some(message) => self.take(message),
                None => break,
            }
        }
        let now = self.now();
        while let Some(Reverse((at, _))) = self.timers.peek() {
            if *at > now {
                break;
            }
            let Some(Reverse((_, key))) = self.timers.pop() else { break };
            self.core.wake_up(&key);
        }
        self.stop_in_time(now);
    }

    fn stop_in_time(&mut self, now: i64) {
        let (limit, whose) = self.longest();
        if now >= (self.counted_from + limit).millis() && self.core.outcome().is_none() {
            let message = format!("the run did not end within {}, {whose}", attempt::shown(limit));
            self.stop(Some(("timeout", &message)));
        }
    }

    /// The longest time that the run may take, and who says so.
    fn longest(&self) -> (Duration, &'static str) {
        let most = self.inner.deps.config.run_timeout;
        match self.head.timeout_ms.map(Duration::from_millis).filter(|own| *own < most) {
            Some(own) => (own, "the time that it was started with"),
            None => (most, "the time that runs have here (workflow.run_timeout)"),
        }
    }

    fn stop(&mut self, error: Option<(&str, &str)>) {
        let error = error.map(|(code, message)| RunError {
            task: None,
            attempts: 0,
            cause: Cause { code: code.to_owned(), message: message.to_owned(), name: None, resource: None },
            causes: Vec::new(),
        });
        let moved = self.core.is_busy().then(|| self.core.moved());
        self.record(Event::Stopped { error, moved });
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Ended { key, attempt, outcome } => {
                self.calls.remove(&key);
                self.ended(&key, attempt, outcome);
            }
            Message::Command(command, reply) => match self.command(command) {
                Ok(()) => self.replies.push(reply),
                Err(error) => drop(reply.send(Err(error))),
            },
            Message::Complete { token, completion, reply } => self.complete(&token, completion, reply),
            Message::Freed => self.freed = true,
            Message::MakeSure => self.doubted = true,
            // It does so on its way.
            Message::Weigh => {}
            Message::Lent(blobs, reply) => {
                self.spilled = true;
                self.record(Event::Left { blobs });
                self.replies.push(reply);
            }
            Message::Waiting(reply) => drop(reply.send(self.waiting())),
        }
    }

    fn command(&mut self, command: RunCommand) -> Result<()> {
        if self.core.outcome().is_some() {
            return Err(Error::new(Code::Conflict, format!("run \"{}\" has ended", self.id)));
        }
        match command {
            RunCommand::Pause if !self.core.is_paused() => self.record(Event::Paused),
            RunCommand::Resume if self.core.is_paused() => self.record(Event::Resumed),
            RunCommand::Pause | RunCommand::Resume => {}
            RunCommand::Cancel => self.stop(None),
            RunCommand::Redrive => {
                let detail =
                    format!("run \"{}\" has not ended; only one that failed or was cancelled is redriven", self.id);
                return Err(Error::new(Code::Conflict, detail));
            }
        }
        Ok(())
    }

    /// A try has ended, one way or the other.
    fn ended(&mut self, key: &TaskKey, attempt: u32, outcome: Answered) {
        let current = self.core.is_in_flight(key, attempt);
        if !current || self.core.outcome().is_some() {
            return;
        }
        let since = self.core.since(key).unwrap_or_default();
        self.release(key, since, &outcome);
        let outcome = outcome.and_then(|answer| match self.core.keep_declared(key, answer.output) {
            Ok(output) => Ok(Answer { output, ..answer }),
            Err(name) => {
                let detail = format!("the output has no \"{name}\", which the document declares");
                let mut failure = Failure::lasting("missing_output", detail);
                failure.cause.resource = answer.resource;
                Err(failure)
            }
        });
        let outcome = outcome.and_then(|answer| {
            let extent = answer.output.values().map(Extent::of).fold(Extent::array(), Extent::with);
            if extent.depth > DEPTH + 1 {
                let detail = format!("the output is nested deeper than {DEPTH}");
                let mut failure = Failure::lasting("invalid_data", detail);
                failure.cause.resource = answer.resource;
                return Err(failure);
            }
            self.entry_bytes += extent.memory;
            Ok(answer)
        });
        match outcome {
            Ok(Answer { resource, output, left }) => {
                self.inner.deps.metrics.attempts.with_label_values(&["ok"]).inc();
                if !left.is_empty() {
                    self.spilled = true;
                    self.record(Event::Left { blobs: left });
                }
                let output = Stored::Value(output);
                self.record(Event::Succeeded { key: key.clone(), attempt, resource, output });
            }
            Err(failure) => {
                self.inner.deps.metrics.attempts.with_label_values(&[failure.cause.code.as_str()]).inc();
                let next = self.decide(key, &failure);
                let cause = failure.cause;
                self.record(Event::Failed { key: key.clone(), attempt, cause, next });
            }
        }
    }

    fn decide(&self, key: &TaskKey, failure: &Failure) -> Next {
        let settings = self.core.settings(key).cloned().unwrap_or_default();
        let (before, alternative) = self.core.tries(key);
        let tried = Tried { of_type: before + 1, alternative };
        let deps = &self.inner.deps;
        failure::decide(&settings, tried, failure, self.now(), deps.config.attempts, &deps.random)
    }

    /// Somebody outside says how a task has ended. Their token is made anew and compared, so that none can be guessed.
    fn complete(&mut self, token: &str, completion: Completion, reply: oneshot::Sender<Result<()>>) {
        let unknown = || Error::new(Code::NotFound, "no task waits for this token");
        let named = attempt::parse_callback(token).filter(|(tenant, run, key, attempt)| {
            let right = attempt::callback_token(tenant, run, key, *attempt, &self.head.secret);
            bool::from(subtle::ConstantTimeEq::ct_eq(right.as_bytes(), token.as_bytes()))
        });
        let Some((_, _, key, attempt)) = named else { return drop(reply.send(Err(unknown()))) };
        if !self.core.is_in_flight(&key, attempt) {
            // Completed before, or given up; a repetition is no error.
            return drop(reply.send(Ok(())));
        }
        let key = &key;
        if let Some(call) = self.calls.remove(key) {
            call.cancel();
        }
        let outcome = match completion {
            Completion::Output(output) => match self.core.keep_declared(key, output) {
                Ok(output) => Ok(Answer::new(None, output)),
                Err(name) => {
                    let detail = format!("the output has no \"{name}\", which the workflow's document declares");
                    drop(reply.send(Err(Error::field(Code::InvalidField, "output", detail))));
                    return;
                }
            },
            Completion::Error { code, message } => Err(Failure::lasting(code, message)),
        };
        self.ended(key, attempt, outcome);
        self.replies.push(reply);
    }

    fn waiting(&self) -> Vec<Waiting> {
        let mut waiting: Vec<Waiting> = self
            .core
            .in_flight()
            .filter(|(key, _)| &*self.core.function_type(key) == CALLBACK)
            .map(|(key, flight)| Waiting {
                run: self.id.clone(),
                task: self.core.place(key),
                token: Some(attempt::callback_token(&self.tenant, &self.id, key, flight.attempt, &self.head.secret)),
                since: Timestamp::from_millis(flight.since),
                input: self.core.input(key).unwrap_or_default(),
            })
            .collect();
        waiting.sort_by(|a, b| (a.since, &a.task).cmp(&(b.since, &b.task)));
        waiting
    }

    /// Does what the written entries ask for.
    fn act(&mut self) {
        let snapshot = Snapshot { status: self.status(), counts: self.core.counts() };
        self.seen.send_if_modified(|seen| std::mem::replace(seen, snapshot) != snapshot);
        for reply in self.replies.drain(..) {
            // Whoever asked may have gone away.
            drop(reply.send(Ok(())));
        }
        for enact in std::mem::take(&mut self.outward) {
            let current = self.core.is_in_flight(&enact.key, enact.attempt);
            if current && self.core.outcome().is_none() {
                self.call(enact);
            }
        }
    }

    fn call(&mut self, enact: Enact) {
        let Some(sender) = self.sender.upgrade() else { return };
        let since = self.core.since(&enact.key).unwrap_or_default();
        let cancel = CancellationToken::new();
        self.calls.insert(enact.key.clone(), cancel.clone());
        let call = attempt::Attempt {
            inner: Arc::clone(&self.inner),
            program: Arc::clone(&self.program),
            tenant: self.tenant.clone(),
            run: self.id.clone(),
            place: self.core.place(&enact.key),
            settings: self.core.settings(&enact.key).cloned().unwrap_or_default(),
            ids: Arc::clone(&self.ids),
            secret: Arc::clone(&self.secret),
            user: self.head.user.clone(),
            mail: self.sender.clone(),
            begun: self.created_at,
            since: Timestamp::from_millis(since),
            enact,
        };
        self.inner.deps.tasks.spawn_cancellable("try of a task", async move {
            let (key, attempt) = (call.enact.key.clone(), call.enact.attempt);
            let made = guard::guarded(async { Ok(call.make().await) });
            if let Some(outcome) = cancel.run_until_cancelled(made).await {
                let outcome = outcome.unwrap_or_else(|fault| Err(Failure::passing(fault.code.as_str(), fault.detail)));
                // A run that has ended needs no answer.
                drop(sender.send(Message::Ended { key, attempt, outcome }).await);
            }
        });
    }

    /// The run has ended and that is written.
    fn close(&mut self) {
        let deps = &self.inner.deps;
        deps.metrics.ended.with_label_values(&[self.status().as_str()]).inc();
        deps.metrics.duration.observe(deps.clock.now().since(self.created_at).as_secs_f64());
        if let Some(ended) = &deps.ended
            && ended.try_send((self.tenant.clone(), self.id.clone())).is_err()
        {
            deps.metrics.spans_dropped.inc();
        }
    }
}

impl Drop for Actor {
    /// Its places are free, however it ended: also when its task is cancelled, or it never began.
    fn drop(&mut self) {
        self.inner.held_bytes.fetch_sub(self.weighed, Ordering::Relaxed);
        let mut free = usize::from(self.freed);
        for (_, places) in std::mem::take(&mut self.leases) {
            free += places.len();
        }
        self.mail.close();
        while let Ok(message) = self.mail.try_recv() {
            free += usize::from(matches!(message, Message::Freed));
        }
        for _ in 0..free {
            self.inner.chooser.freed();
        }
    }
}
