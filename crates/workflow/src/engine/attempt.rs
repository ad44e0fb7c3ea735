//! One try of one task: a place to run in, a deadline, one resource or several of which the first wins.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use lyra_afcl::graph::Settings;
use lyra_types::workflow::RunStatus;
use lyra_types::{RunId, TenantName, Timestamp};
use lyra_wire::spans::TraceIds;
use lyra_wire::workflows::callback_run;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::actor::{Answer, Answered as Outcome, Message};
use super::program::{CALLBACK, DELAY, Program};
use super::values;
use super::{Handle, Inner};
use crate::config::Extraction;
use crate::core::{Enact, TaskKey};
use crate::enact::{Enactment, Failure};
use crate::mapping::Resource;

pub(super) struct Attempt {
    pub inner: Arc<Inner>,
    pub program: Arc<Program>,
    pub tenant: TenantName,
    pub run: RunId,
    /// The task's name with its place.
    pub place: String,
    pub settings: Settings,
    /// Names of the run's spans.
    pub ids: Arc<TraceIds>,
    /// By which the run's references are known.
    pub secret: Arc<str>,
    /// Who is charged for it.
    pub user: Option<Arc<str>>,
    /// The run.
    pub mail: mpsc::WeakSender<Message>,
    /// When the run began.
    pub begun: Timestamp,
    /// When this try was scheduled, which may have been in another process.
    pub since: Timestamp,
    pub enact: Enact,
}

impl Attempt {
    /// Makes the try. Dropping the future gives it up.
    pub(super) async fn make(&self) -> Outcome {
        let deps = &self.inner.deps;
        let now = deps.clock.now();
        if self.settings.latest_start.is_some_and(|latest| now.since(self.begun) > latest) {
            return Err(Failure::lasting(
                "latest_start_passed",
                "it could not start in the time that the document gives it",
            ));
        }
        let left = self.settings.latest_end.map(|latest| latest.saturating_sub(now.since(self.begun)));
        let limited = self.limited();
        let Some(left) = left else { return limited.await };
        tokio::select! {
            outcome = limited => outcome,
            () = deps.clock.sleep(left) => {
                Err(Failure::lasting("latest_end_passed", "it did not end in the time that the document gives it"))
            }
        }
    }

    async fn limited(&self) -> Outcome {
        match &*self.enact.function_type {
            DELAY => self.delay().await,
            CALLBACK => self.callback().await,
            _ => self.first_of_all().await,
        }
    }

    /// The first resource that succeeds; a failure when all have failed, the last one's.
    async fn first_of_all(&self) -> Outcome {
        let resources = self.program.resources(&self.enact.function_type);
        let chosen = self.enact.picks.iter().filter_map(|pick| resources.get(*pick as usize));
        let mut calls: FuturesUnordered<_> = chosen.map(|resource| self.call(resource)).collect();
        let mut last = Failure::lasting("no_resource", format!("\"{}\" has no resource", self.enact.function_type));
        while let Some(outcome) = calls.next().await {
            match outcome {
                Ok(done) => return Ok(done),
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    async fn call(&self, resource: &Resource) -> Outcome {
        let deps = &self.inner.deps;
        let memo = self.memo_key(resource).await;
        if let Some(key) = memo
            && let Ok(Some(kept)) = deps.runs.memo(self.tenant.clone(), key, deps.clock.now()).await
            && let Ok(output) = serde_json::from_slice(&kept)
        {
            return self.leave(Some("memo".to_owned()), output, resource.transmission.outputs).await;
        }
        // Under quotas first: whoever is held back by one takes none of the places that all tenants share.
        let _pass = deps.enact.admit(&self.tenant, resource).await?;
        let _permit = self.permit(resource).await?;
        deps.metrics.in_flight.inc();
        let _counted = Counted(&self.inner);
        let timeout = self.settings.timeout.or_else(|| resource.timeout()).unwrap_or(deps.config.task_timeout);
        let input = match resource.transmission.references_above {
            Some(above) => self.lend(above, timeout).await?,
            None => {
                let written =
                    values::written(&self.enact.input, &self.secret, deps.blobs.as_ref(), deps.config.max_result_bytes)
                        .await;
                written.map_err(|error| fetched(&error.into()))?
            }
        };
        let enactment = Enactment {
            tenant: self.tenant.clone(),
            run: self.run.clone(),
            task: self.place.clone(),
            key: idempotency_key(&self.run, &self.enact.key, self.enact.attempt),
            attempt: self.enact.attempt,
            function_type: self.enact.function_type.to_string(),
            input,
            timeout,
            traceparent: self.ids.traceparent(&self.place, self.enact.attempt),
            user: self.user.clone(),
        };
        let called = deps.enact.enact(&enactment, resource);
        let late = async {
            match resource.is_run() {
                true => self.going_on_for(timeout).await,
                false => deps.clock.sleep(timeout).await,
            }
        };
        let outcome = tokio::select! {
            outcome = called => outcome,
            () = late => Err(Failure::passing("timeout", format!("there was no answer within {}", shown(timeout)))),
        };
        let id = resource.id();
        let output = match outcome.and_then(|bytes| read(&bytes, deps.config.max_value_bytes)) {
            Ok(output) if resource.transmission.references_above.is_some() => self.take_back(output, timeout).await,
            read => read,
        };
        let output = output.map_err(|mut failure| {
            failure.cause.resource.get_or_insert_with(|| id.clone());
            failure
        })?;
        // Who was called in the middle of a deploy is not known.
        if let Some(key) = memo
            && self.memo_key(resource).await == Some(key)
        {
            self.keep(key, &output).await;
        }
        self.leave(Some(id), output, resource.transmission.outputs).await
    }

    /// Waits until the run has gone on for so long, not counting the time in which it is paused: a sub-run stands still with it.
    async fn going_on_for(&self, time: Duration) {
        let clock = &self.inner.deps.clock;
        let handle = self.inner.active.lock().get(&(self.tenant.clone(), self.run.clone())).cloned();
        let Some(Handle { mut seen, .. }) = handle else { return clock.sleep(time).await };
        let mut left = time;
        loop {
            let gone = seen.wait_for(|seen| seen.status != RunStatus::Paused).await.is_err();
            let since = clock.instant();
            tokio::select! {
                () = clock.sleep(left) => return,
                _ = seen.wait_for(|seen| seen.status == RunStatus::Paused), if !gone => {
                    left = left.saturating_sub(clock.instant().duration_since(since));
                }
            }
        }
    }

    /// A place among all calls of this host, for what takes one: a run that waits for tasks of its own in a place that these
    /// need would wait for ever.
    async fn permit(&self, resource: &Resource) -> Result<Option<OwnedSemaphorePermit>, Failure> {
        if resource.is_run() {
            return Ok(None);
        }
        let permit = Arc::clone(&self.inner.permits).acquire_owned().await;
        permit.map(Some).map_err(|_| Failure::passing("unavailable", "the platform stops"))
    }

    /// The answer, with what is large and only handed on left in the blob store.
    async fn leave(
        &self,
        resource: Option<String>,
        output: Map<String, Value>,
        extraction: Option<Extraction>,
    ) -> Outcome {
        let deps = &self.inner.deps;
        let mut answer = Answer::new(resource, output);
        let transmission = deps.config.transmission;
        if extraction.unwrap_or(transmission.extraction) == Extraction::Home {
            return Ok(answer);
        }
        let task = self.enact.key.task;
        for (name, value) in &mut answer.output {
            let is_small = values::size_of(value) <= transmission.reference_bytes;
            // What came back by the run's own URL stands in the blob store already.
            let is_there = values::named_by(value, &self.secret).is_some();
            if is_small || is_there || !self.program.plan.may_stay(task, name) {
                continue;
            }
            let left = values::leave(value, &self.secret, deps.blobs.as_ref(), &deps.random).await;
            let (reference, digest) = left.map_err(|error| fetched(&error))?;
            *value = reference;
            answer.left.push(digest);
        }
        Ok(answer)
    }

    /// The key under which the result is kept, where the document wants that: what is called, with the version that it is now, and
    /// with what. None, too, where nothing is there to be called.
    async fn memo_key(&self, resource: &Resource) -> Option<[u8; 32]> {
        let memo = self.settings.memo.as_ref()?;
        let version = self.inner.deps.enact.stands_for(&self.tenant, resource).await.ok()?;
        let mut hash = Sha256::new();
        hash.update(self.enact.function_type.as_bytes());
        hash.update([0]);
        hash.update(resource.id().as_bytes());
        hash.update([0]);
        hash.update(version.as_bytes());
        for (name, value) in &self.enact.input {
            if memo.keys.is_empty() || memo.keys.contains(name) {
                hash.update([0]);
                hash.update(name.as_bytes());
                hash.update([0]);
                hash.update(value.to_string().as_bytes());
            }
        }
        Some(hash.finalize().into())
    }

    async fn keep(&self, key: [u8; 32], output: &Map<String, Value>) {
        let deps = &self.inner.deps;
        let ttl = self.settings.memo.as_ref().and_then(|memo| memo.ttl).unwrap_or(deps.config.retention);
        let Ok(bytes) = serde_json::to_vec(output) else { return };
        let kept = deps.runs.keep_memo(self.tenant.clone(), key, Bytes::from(bytes), deps.clock.now() + ttl).await;
        if let Err(error) = kept {
            tracing::warn!(%error, "a task's result could not be kept for the next time");
        }
    }

    /// Waits until `seconds` after the task was scheduled, also over a restart.
    async fn delay(&self) -> Outcome {
        let deps = &self.inner.deps;
        let seconds = self.enact.input.get("seconds").and_then(Value::as_f64);
        let wait = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let Some(wait) = wait else {
            return Err(Failure::lasting("invalid_input", "a delay needs \"seconds\", a number from 0"));
        };
        let until = self.since + wait;
        // In parts, so that a clock that is set does not make it late by more than one.
        loop {
            let left = until.since(deps.clock.now());
            if left.is_zero() {
                return Ok(Answer::new(None, self.enact.input.clone()));
            }
            deps.clock.sleep(left.min(Duration::from_secs(60))).await;
        }
    }

    /// Waits until somebody completes it, which the run is told directly; or until it is too late.
    async fn callback(&self) -> Outcome {
        let Some(timeout) = self.settings.timeout else { return futures::future::pending().await };
        let deps = &self.inner.deps;
        let left = (self.since + timeout).since(deps.clock.now());
        deps.clock.sleep(left).await;
        Err(Failure::lasting("timeout", format!("nobody completed it within {}", shown(timeout))))
    }
}

/// A large value that can't be read or written. The blob store may only be away.
pub(super) fn fetched(error: &lyra_types::Error) -> Failure {
    if error.code == lyra_types::Code::TooLarge {
        return Failure::lasting("limit_reached", error.detail.clone());
    }
    Failure::passing(error.code.as_str(), format!("a large value can't be had: {}", error.detail))
}

pub(super) fn shown(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

/// An answer as a JSON object.
fn read(bytes: &Bytes, most: usize) -> Result<Map<String, Value>, Failure> {
    if bytes.len() > most {
        let detail = format!("the answer has {} bytes, more than the limit of {most}", bytes.len());
        return Err(Failure::lasting("result_too_large", detail));
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(output)) => Ok(output),
        Ok(_) => Err(Failure::lasting("invalid_response", "the answer is no JSON object")),
        Err(error) => Err(Failure::passing("invalid_response", format!("the answer is no JSON: {error}"))),
    }
}

/// The same for the same try of the same task, also when another process repeats it.
pub(super) fn idempotency_key(run: &RunId, key: &TaskKey, attempt: u32) -> String {
    let path: Vec<String> = key.path.iter().map(u32::to_string).collect();
    format!("{run}/{}/{}/{attempt}", key.task.0, path.join("."))
}

/// What completes a task: says which, and can't be made by anybody who does not know the run's secret.
pub(crate) fn callback_token(tenant: &TenantName, run: &RunId, key: &TaskKey, attempt: u32, secret: &str) -> String {
    let path: Vec<String> = key.path.iter().map(u32::to_string).collect();
    let what = format!("cb_{tenant}~{run}~{}~{}~{attempt}", key.task.0, path.join("."));
    let mut hash = Sha256::new();
    hash.update(secret.as_bytes());
    hash.update([0]);
    hash.update(what.as_bytes());
    let proof = hex::encode(&hash.finalize()[..16]);
    format!("{what}~{proof}")
}

/// What a token of a callback says; whether it may say so is to be compared with [`callback_token`].
pub(crate) fn parse_callback(token: &str) -> Option<(TenantName, RunId, TaskKey, u32)> {
    let (tenant, run) = callback_run(token)?;
    let mut parts = token.split('~').skip(2);
    let task = lyra_afcl::graph::TaskId(parts.next()?.parse().ok()?);
    let path = parts.next()?;
    let path =
        path.split('.').filter(|index| !index.is_empty()).map(|index| index.parse().ok()).collect::<Option<_>>()?;
    let attempt = parts.next()?.parse().ok()?;
    parts.next()?;
    parts.next().is_none().then_some((tenant, run, TaskKey { task, path }, attempt))
}

struct Counted<'a>(&'a Inner);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.deps.metrics.in_flight.dec();
    }
}
