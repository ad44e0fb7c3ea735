//! One run: takes messages in, moves the core, writes the journal, then has done what the core wants done.

mod places;
mod writing;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use lyra_types::workflow::{Cause, RunError, RunStatus};
use lyra_types::{Code, Error, Result, RunId, TenantName, Timestamp};
use lyra_wire::spans::TraceIds;
use lyra_wire::workflows::{Completion, RunCommand, Waiting};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::failure::{self, Tried};
use super::program::{CALLBACK, Program};
use super::{Begin, Handle, Head, Inner, MAILBOX, Snapshot, attempt, values};
use crate::core::entry::Stored;
use crate::core::{Core, Effect, Enact, Entry, Event, Next, TaskKey};
use crate::enact::Failure;
use places::Places;

/// Entries of one batch, about: what is computed at once is written in parts.
const BATCH: usize = 4_096;
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
    mail: mpsc::Receiver<Message>,
    sender: mpsc::WeakSender<Message>,
    seen: watch::Sender<Snapshot>,
    /// Entries that are not written yet.
    entries: Vec<Entry>,
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
        let limits = inner.deps.config.limits();
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
            mail,
            sender: sender.downgrade(),
            seen: watch::Sender::new(snapshot),
            entries: Vec::new(),
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

    /// The state after these entries, which are written.
    pub(super) fn replay(&mut self, entries: &[Entry], batches: u64, spilled: bool, created_at: Timestamp) {
        for entry in entries {
            self.core.apply(entry);
        }
        self.core.take_effects();
        self.batches = batches;
        self.spilled = spilled;
        self.noticed = true;
        self.created_at = created_at;
        if self.core.is_paused() {
            self.recorded = RunStatus::Paused;
        }
        self.seen.send_replace(Snapshot { status: self.recorded, counts: self.core.counts() });
    }

    /// Has everything done that was under way when the journal ended.
    pub(super) fn resume(&mut self) {
        let effects = self.core.resume();
        self.take_in(effects);
        // They had places in the process that is gone, and need new ones.
        self.resumed = std::mem::take(&mut self.outward).into();
        self.turn();
    }

    /// Goes on after the end.
    pub(super) fn redrive(&mut self) {
        self.record(Event::Redriven);
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
        self.core.apply(&entry);
        self.entries.push(entry);
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
            self.turn();
            if !self.entries.is_empty() || !self.outward.is_empty() {
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
        let deadline = (self.created_at + self.inner.deps.config.run_timeout).millis();
        let next = self.timers.peek().map_or(deadline, |Reverse((at, _))| *at).min(deadline);
        let wait = Duration::from_millis(u64::try_from(next.saturating_sub(now)).unwrap_or(0));
        let clock = self.inner.deps.clock.clone();
        tokio::select! {
            message = self.mail.recv() => {
                if let Some(message) = message {
                    self.take(message);
                }
            }
            () = clock.sleep(wait) => {}
        }
        for _ in 0..INTAKE {
            match self.mail.try_recv() {
                Ok(message) => self.take(message),
                Err(_) => break,
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
        if now >= deadline && self.core.outcome().is_none() {
            self.stop(Some(("timeout", "the run did not end in the time that runs have")));
        }
    }

    fn stop(&mut self, error: Option<(&str, &str)>) {
        let error = error.map(|(code, message)| RunError {
            task: None,
            attempts: 0,
            cause: Cause { code: code.to_owned(), message: message.to_owned(), name: None, resource: None },
            causes: Vec::new(),
        });
        self.record(Event::Stopped { error });
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
                token: attempt::callback_token(&self.tenant, &self.id, key, flight.attempt, &self.head.secret),
                since: Timestamp::from_millis(flight.since),
                input: self.core.input(key).unwrap_or_default(),
            })
            .collect();
        waiting.sort_by(|a, b| (a.since, &a.task).cmp(&(b.since, &b.task)));
        waiting
    }

    /// Moves the core as far as it goes without anybody else: schedules what can be scheduled, computes what can be computed
    /// at once. Stops early when there is much to write.
    fn turn(&mut self) {
        loop {
            let effects = self.core.take_effects();
            let more = self.take_in(effects);
            if self.entries.len() >= BATCH || self.core.outcome().is_some() {
                return;
            }
            if !self.schedule_some() && !more {
                return;
            }
        }
    }

    /// Sorts effects: times, calls to make once the journal is written, and what is computed at once. True if there was any
    /// of the last kind.
    fn take_in(&mut self, effects: Vec<Effect>) -> bool {
        let mut computed = false;
        for effect in effects {
            match effect {
                Effect::Wake { key, at } => self.timers.push(Reverse((at, key))),
                Effect::Enact(enact) => match self.at_once(&enact) {
                    Some(outcome) => {
                        computed = true;
                        self.ended(&enact.key, enact.attempt, outcome);
                    }
                    None => self.outward.push(enact),
                },
            }
        }
        computed
    }

    fn at_once(&self, enact: &Enact) -> Option<Answered> {
        let [pick] = enact.picks.as_slice() else { return None };
        // What is not here has to be fetched.
        if values::any(&enact.input) {
            return None;
        }
        let resource = self.program.resources(&enact.function_type).get(*pick as usize)?;
        let outcome = self.inner.deps.enact.at_once(&enact.function_type, resource, &enact.input)?;
        Some(outcome.map(|output| Answer::new(Some(resource.id()), output)))
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
            if let Some(outcome) = cancel.run_until_cancelled(call.make()).await {
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
