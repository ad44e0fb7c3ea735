//! One run: takes messages in, moves the core, writes the journal, then has done what the core wants done.

mod places;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lyra_store::RunsError;
use lyra_store::runs::{Append, RunUpdate};
use lyra_types::workflow::{Cause, RunError, RunStatus, no_such_run};
use lyra_types::{Code, Error, Result, RunId, TenantName, Timestamp};
use lyra_wire::workflows::{Completion, RunCommand, Waiting};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::failure::{self, Tried};
use super::program::{CALLBACK, Program};
use super::{Begin, Handle, Head, Inner, MAILBOX, Snapshot, Summary, attempt, journal};
use crate::core::entry::Stored;
use crate::core::{Core, Effect, Enact, Entry, Event, Next, Outcome, TaskKey};
use crate::enact::Failure;
use places::Places;

/// Entries of one batch, about: what is computed at once is written in parts.
const BATCH: usize = 4_096;
/// Messages taken in before the journal is written.
const INTAKE: usize = 512;
/// Waits between tries to write a journal.
const REWRITE: lyra_kit::retry::Backoff =
    lyra_kit::retry::Backoff { first: Duration::from_millis(50), max: Duration::from_secs(5) };

/// How a try ended: the resource that answered with its output, or why there is none.
pub(crate) type Answered = Result<(Option<String>, Map<String, Value>), Failure>;

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
    /// It is on the list of those that wait for a place.
    listed: bool,
    /// It was told of a place.
    freed: bool,
    /// Times at which tasks are tried again.
    timers: BinaryHeap<Reverse<(i64, TaskKey)>>,
    /// The status that the record has.
    recorded: RunStatus,
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
            listed: false,
            freed: false,
            timers: BinaryHeap::new(),
            recorded: RunStatus::Running,
        };
        (actor, sender)
    }

    /// The first entries, not yet written.
    pub(super) fn begin(&mut self) {
        self.record(Event::Begun);
        self.turn();
    }

    /// The state after these entries, which are written.
    pub(super) fn replay(&mut self, entries: &[Entry], batches: u64, created_at: Timestamp) {
        for entry in entries {
            self.core.apply(entry);
        }
        self.core.take_effects();
        self.batches = batches;
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

    /// The entries that are not written, as a batch that is the caller's to write.
    pub(super) async fn take_batch(&mut self) -> Result<Bytes> {
        let deps = &self.inner.deps;
        let batch = journal::write(&self.entries, deps.blobs.as_ref(), deps.config.inline_bytes).await?;
        deps.metrics.batches.inc();
        deps.metrics.entries.inc_by(self.entries.len() as u64);
        self.entries.clear();
        self.batches += 1;
        Ok(batch)
    }

    pub(super) fn summary(&self) -> Bytes {
        let error = match self.core.outcome() {
            Some(Outcome::Failed(error)) => Some(error.clone()),
            _ => None,
        };
        let summary = Summary {
            counts: self.core.counts(),
            error,
            parent: self.head.parent.clone(),
            schedule: self.head.schedule.clone(),
        };
        Bytes::from(serde_json::to_vec(&summary).unwrap_or_default())
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
            if !self.entries.is_empty() {
                continue;
            }
            self.listen().await;
            self.turn();
        }
        for call in self.calls.values() {
            call.cancel();
        }
        for _ in self.leases.drain() {
            self.inner.chooser.freed();
        }
        let gone = self.id.clone();
        for reply in self.replies.drain(..) {
            // Nobody may be listening any more.
            drop(reply.send(Err(no_such_run(&gone))));
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
        let outcome = outcome.and_then(|(resource, output)| match self.core.keep_declared(key, output) {
            Ok(output) => Ok((resource, output)),
            Err(name) => {
                let detail = format!("the output has no \"{name}\", which the document declares");
                let mut failure = Failure::lasting("missing_output", detail);
                failure.cause.resource = resource;
                Err(failure)
            }
        });
        match outcome {
            Ok((resource, output)) => {
                self.inner.deps.metrics.attempts.with_label_values(&["ok"]).inc();
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
                Ok(output) => Ok((None, output)),
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
        let resource = self.program.resources(&enact.function_type).get(*pick as usize)?;
        let outcome = self.inner.deps.enact.at_once(&enact.function_type, resource, &enact.input)?;
        Some(outcome.map(|output| (Some(resource.id()), output)))
    }

    /// Where the run stands now.
    fn status(&self) -> RunStatus {
        match self.core.outcome() {
            Some(Outcome::Succeeded(_)) => RunStatus::Succeeded,
            Some(Outcome::Failed(_)) => RunStatus::Failed,
            Some(Outcome::Cancelled) => RunStatus::Cancelled,
            None if self.core.is_paused() => RunStatus::Paused,
            None => RunStatus::Running,
        }
    }

    /// Writes what is not written. Tries again for as long as the store fails: nothing is done meanwhile.
    async fn commit(&mut self) -> Result<(), Lost> {
        let status = self.status();
        if self.entries.is_empty() && status == self.recorded {
            return Ok(());
        }
        let deps = &self.inner.deps;
        let output = match self.core.outcome() {
            Some(Outcome::Succeeded(output)) => Some(Bytes::from(serde_json::to_vec(output).unwrap_or_default())),
            _ => None,
        };
        let ended_at = status.is_final().then(|| deps.clock.now());
        let update = (status != self.recorded).then(|| RunUpdate { status, ended_at, summary: self.summary(), output });
        let mut tries = 0;
        loop {
            let outcome = match journal::write(&self.entries, deps.blobs.as_ref(), deps.config.inline_bytes).await {
                Ok(batch) => self.append(batch, update.clone()).await,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(()) => break,
                Err(error) if error.code == Code::NotFound => return Err(Lost),
                Err(error) => {
                    tries += 1;
                    tracing::warn!(tenant = %self.tenant, run = %self.id, %error, "a journal can't be written; the run waits");
                    deps.clock.sleep(REWRITE.delay(tries, &deps.random)).await;
                }
            }
        }
        deps.metrics.entries.inc_by(self.entries.len() as u64);
        deps.metrics.batches.inc();
        self.batches += u64::from(!self.entries.is_empty());
        self.entries.clear();
        self.recorded = status;
        Ok(())
    }

    /// Appends a batch. A run that is no longer this process's, or is gone, is [`Code::NotFound`].
    async fn append(&self, batch: Bytes, update: Option<RunUpdate>) -> Result<()> {
        let append = Append {
            tenant: self.tenant.clone(),
            id: self.id.clone(),
            fence: self.fence,
            number: self.batches,
            batch,
            update,
        };
        match self.inner.deps.runs.append(append).await {
            Ok(()) => Ok(()),
            Err(RunsError::Fenced(id) | RunsError::NotFound(id)) => Err(no_such_run(&id)),
            Err(error) => Err(error.into()),
        }
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
    }
}
