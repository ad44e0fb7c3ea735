//! Tasks that are runs themselves: sub-workflows here, and parts of a workflow on another Lyra.
//!
//! What must hold: a sub-run is made once for each try, also when the engine is killed in between; it is cancelled when
//! its try is given up, here or elsewhere, and stands still while the run around it does; how deep runs nest is bounded,
//! over all Lyras. Only the data of a cut's edges cross.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_afcl::graph::CUT_TYPE;
use lyra_kit::Tasks;
use lyra_types::account::Secret;
use lyra_types::workflow::{Parent, Run, RunStatus};
use lyra_types::{Code, Error, RunId, TenantName, WorkflowName};
use lyra_wire::Workflows;
use lyra_wire::workflows::{NewRun, RunCommand};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::config::CutToken;
use crate::enact::function;
use crate::enact::http::Http;
use crate::enact::{Enactment, Failure, Nested};
use crate::engine::Handle;
use crate::service::{Origin, Service, WeakService};

/// How deep runs may stand in one another.
pub(crate) const DEPTH: u32 = 16;
/// Longest wait of one look at a sub-run.
const LOOK: Duration = Duration::from_secs(60);
/// Wait before a sub-run is started again for which a quota had no room.
const ROOM: Duration = Duration::from_millis(250);
/// Longest time to cancel a part on another Lyra, and the waits between tries of that.
const GIVE_UP: Duration = Duration::from_secs(30);
const AGAIN: [Duration; 4] =
    [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(8)];

/// Runs tasks that are runs.
pub(crate) struct NestedRuns {
    service: OnceLock<WeakService>,
    http: Arc<Http>,
    tokens: BTreeMap<String, CutToken>,
    tasks: Tasks,
}

impl NestedRuns {
    pub(crate) fn new(http: Arc<Http>, tokens: BTreeMap<String, CutToken>, tasks: Tasks) -> NestedRuns {
        NestedRuns { service: OnceLock::new(), http, tokens, tasks }
    }

    /// The token of that name, for the Lyra at `url` and nowhere else.
    async fn token(&self, enactment: &Enactment, name: &str, url: &str) -> Result<Secret, Failure> {
        let refused = |why: &str| Failure::lasting("unauthenticated", format!("the token \"{name}\" {why}"));
        let known = self.tokens.get(name);
        let known = known.filter(|token| token.tenants.is_empty() || token.tenants.contains(&enactment.tenant));
        let token = known.ok_or_else(|| refused("is none that the workflow role has for this tenant"))?;
        if token.url.trim_end_matches('/') != url.trim_end_matches('/') {
            return Err(refused("is for another Lyra than the one that is called"));
        }
        let file = token.file.clone();
        let read = lyra_kit::tasks::blocking(move || std::fs::read_to_string(file)).await;
        let text = read.map_err(|_| Failure::passing("unavailable", "the platform stops"))?;
        match text {
            Ok(text) if !text.trim().is_empty() => Ok(Secret::new(text.trim())),
            Ok(_) => Err(refused("is empty")),
            Err(error) => {
                tracing::warn!(name, %error, "a token for another Lyra can't be read");
                Err(Failure { retryable: true, ..refused("can't be read by the workflow role") })
            }
        }
    }

    /// Says who starts sub-runs; once.
    pub(crate) fn belongs_to(&self, service: &Service) {
        // Set once; a second service would be another one's.
        let _ = self.service.set(service.downgrade());
    }

    fn service(&self) -> Result<Service, Failure> {
        self.service
            .get()
            .and_then(WeakService::upgrade)
            .ok_or_else(|| Failure::passing("unavailable", "the workflow role is starting"))
    }
}

impl Service {
    /// Does something to a run, whatever process has it.
    async fn command_anywhere(&self, tenant: &TenantName, id: &RunId, command: RunCommand) -> lyra_types::Result<()> {
        match (self.command(tenant, id, command).await, self.everyone()) {
            (Err(error), Some(everyone)) if error.code == Code::Unavailable => {
                everyone.command(tenant, id, command).await.map(drop)
            }
            (outcome, _) => outcome.map(drop),
        }
    }
}

/// The id of the sub-run of one try: the same when the try is repeated.
fn sub_run(enactment: &Enactment) -> Result<RunId, Failure> {
    let hash = hex::encode(&Sha256::digest(enactment.key.as_bytes())[..8]);
    let readable = format!("{}.{hash}", enactment.run);
    let text = if readable.len() <= RunId::MAX_LEN { readable } else { format!("sub_{hash}") };
    RunId::new(&text).map_err(|error| Failure::lasting("internal", error.detail))
}

fn failure_of(error: Error) -> Failure {
    function::failure_of(&error)
}

#[async_trait]
impl Nested for NestedRuns {
    async fn workflow(&self, enactment: &Enactment, name: &str) -> Result<Bytes, Failure> {
        let service = self.service()?;
        let (name, version) = named(name)?;
        let depth = deeper(service.active(&enactment.tenant, &enactment.run).map_or(0, |run| run.depth))?;
        let input: Map<String, Value> = serde_json::from_slice(&enactment.input)
            .map_err(|error| Failure::lasting("invalid_input", error.to_string()))?;
        let id = sub_run(enactment)?;
        let parent = Parent { run: enactment.run.clone(), task: enactment.task.clone() };
        let origin = Origin { parent: Some(parent), schedule: None, depth };
        let user = enactment.user.clone();
        let traceparent = Some(enactment.traceparent.clone());
        let new = NewRun { input, id: Some(id.clone()), version, traceparent, user, ..NewRun::default() };
        let clock = service.clock().clone();
        let deadline = clock.instant() + enactment.timeout;
        // Before the start: given up in the middle of it, there may be a run.
        let guard = Given { service: &service, tasks: &self.tasks, run: Some((enactment.tenant.clone(), id.clone())) };
        while let Err(error) = service.start_run(&enactment.tenant, &name, new.clone(), origin.clone()).await {
            match error.code {
                // Others of the tenant have to end first. A run of many sub-runs is not to fail by its own quota.
                Code::LimitReached if clock.instant() + ROOM < deadline => {
                    clock.sleep(ROOM).await;
                    continue;
                }
                // Perhaps it was started, and only the answer is lost.
                Code::Unavailable | Code::Internal => drop(guard),
                // A run with that id would be somebody else's.
                _ => guard.ended(),
            }
            return Err(failure_of(error));
        }
        let ended = async {
            loop {
                let run = service.run(&enactment.tenant, &id, LOOK).await.map_err(failure_of)?;
                if run.status.is_final() {
                    return Ok::<Run, Failure>(run);
                }
            }
        };
        let (here, sub) = (&service, &id);
        let tell = |command: RunCommand| async move {
            match here.command_anywhere(&enactment.tenant, sub, command).await {
                Ok(()) => Told::Done,
                Err(error) if error.code == Code::Unavailable => Told::Again,
                Err(_) => Told::Over,
            }
        };
        let run = tokio::select! {
            run = ended => run?,
            never = in_step(&service, enactment, tell) => match never {},
        };
        guard.ended();
        output_of(run)
    }

    async fn stands_for(&self, tenant: &TenantName, name: &str) -> Result<String, Failure> {
        let (name, version) = named(name)?;
        let found = self.service()?.definitions().version(tenant, &name, version).await.map_err(failure_of)?;
        Ok(found.program)
    }

    async fn cut(&self, enactment: &Enactment, url: &str, token: Option<&str>) -> Result<Bytes, Failure> {
        let token = match token {
            Some(name) => Some(self.token(enactment, name, url).await?),
            None => None,
        };
        let name = enactment.function_type.strip_prefix(CUT_TYPE).unwrap_or_default();
        let service = self.service()?;
        let active = service.active(&enactment.tenant, &enactment.run);
        let active = active.ok_or_else(|| Failure::passing("unavailable", "the run has gone"))?;
        deeper(active.depth)?;
        let program = &active.program;
        let graph = program
            .cuts
            .get(name)
            .ok_or_else(|| Failure::lasting("not_found", format!("the workflow has no cut \"{name}\"")))?;
        let input: Value = serde_json::from_slice(&enactment.input)
            .map_err(|error| Failure::lasting("invalid_input", error.to_string()))?;
        let id = sub_run(enactment)?;
        let mut body = json!({ "id": id, "graph": graph, "mappings": program.mapping, "input": input });
        if active.depth > 0 {
            body["depth"] = json!(active.depth);
        }
        let sent = Enactment { input: Bytes::from(body.to_string()), ..enactment.clone() };
        // Asked again with the same id, the other side waits for the same run.
        let url = url.trim_end_matches('/');
        let address = format!("{url}/v1/cuts?wait={}", LOOK.as_secs() / 2);
        let elsewhere =
            Elsewhere { cancel: format!("{url}/v1/runs/{id}/cancel"), token: token.clone(), sent: sent.clone() };
        let guard = Sent { http: &self.http, tasks: &self.tasks, part: Some(elsewhere) };
        let ended = async {
            loop {
                let answer = self.http.enact_as(&sent, &address, Some(LOOK), token.as_ref()).await?;
                let run: Run = serde_json::from_slice(&answer).map_err(|error| {
                    Failure::lasting("invalid_response", format!("the other Lyra's answer is no run: {error}"))
                })?;
                if run.status.is_final() {
                    return Ok::<Run, Failure>(run);
                }
            }
        };
        let asked = Enactment { input: Bytes::from_static(b"{}"), timeout: GIVE_UP, ..sent.clone() };
        let (asked, token) = (&asked, token.as_ref());
        let tell = |command: RunCommand| {
            let verb = if command == RunCommand::Pause { "pause" } else { "resume" };
            let address = format!("{url}/v1/runs/{id}/{verb}");
            async move {
                match self.http.enact_as(asked, &address, None, token).await {
                    Ok(_) => Told::Done,
                    // What is not there may be about to be started.
                    Err(error) if error.retryable || error.cause.code == "http_404" => Told::Again,
                    Err(_) => Told::Over,
                }
            }
        };
        let run = tokio::select! {
            run = ended => run?,
            never = in_step(&service, enactment, tell) => match never {},
        };
        guard.ended();
        output_of(run)
    }
}

/// `NAME` or `NAME@VERSION`.
fn named(name: &str) -> Result<(WorkflowName, Option<u64>), Failure> {
    let (name, version) = match name.split_once('@') {
        None => (name, None),
        Some((name, version)) => {
            let wrong = |_| Failure::lasting("invalid_field", format!("\"{version}\" is no version of a workflow"));
            (name, Some(version.parse::<u64>().map_err(wrong)?))
        }
    };
    Ok((WorkflowName::new(name).map_err(failure_of)?, version))
}

/// What came of telling a sub-run something.
enum Told {
    Done,
    /// It can't be told now.
    Again,
    /// There is nobody to be told any more.
    Over,
}

/// Has a sub-run stand still while the run around it is paused, by `tell`, and go on with it. Whoever paused a sub-run alone finds it
/// paused until the run around it is resumed. Never returns.
async fn in_step<F>(service: &Service, enactment: &Enactment, tell: impl Fn(RunCommand) -> F) -> Infallible
where
    F: Future<Output = Told>,
{
    let Some(Handle { mut seen, .. }) = service.active(&enactment.tenant, &enactment.run) else {
        return std::future::pending().await;
    };
    let mut stands = false;
    loop {
        let paused = seen.borrow_and_update().status == RunStatus::Paused;
        if paused == stands {
            if seen.changed().await.is_err() {
                return std::future::pending().await;
            }
            continue;
        }
        match tell(if paused { RunCommand::Pause } else { RunCommand::Resume }).await {
            Told::Done => stands = paused,
            Told::Again => service.clock().sleep(AGAIN[0]).await,
            Told::Over => return std::future::pending().await,
        }
    }
}

/// How many runs stand around one that a run of this depth starts.
fn deeper(depth: u32) -> Result<u32, Failure> {
    if depth >= DEPTH {
        return Err(Failure::lasting("limit_reached", format!("workflows stand in one another {DEPTH} deep")));
    }
    Ok(depth + 1)
}

/// The output of a run that has ended; else a failure with the run's own cause.
fn output_of(run: Run) -> Result<Bytes, Failure> {
    match (run.status, run.output, run.error) {
        (RunStatus::Succeeded, Some(output), _) => serde_json::to_vec(&output)
            .map(Bytes::from)
            .map_err(|error| Failure::lasting("internal", error.to_string())),
        (RunStatus::Failed, _, Some(error)) => {
            let place = error.task.map(|task| format!(" at task {task}")).unwrap_or_default();
            let message = format!("run {} failed{place}: {}", run.id, error.cause.message);
            let mut failure = Failure::lasting(error.cause.code, message);
            failure.cause.name = error.cause.name;
            Err(failure)
        }
        (RunStatus::Cancelled, ..) => Err(Failure::lasting("cancelled", format!("run {} was cancelled", run.id))),
        (status, ..) => Err(Failure::passing("timeout", format!("run {} is still {status}", run.id))),
    }
}

/// Cancels a sub-run whose task is given up. One whose process stops is left: the task takes it up again.
struct Given<'a> {
    service: &'a Service,
    tasks: &'a Tasks,
    run: Option<(TenantName, RunId)>,
}

impl Given<'_> {
    fn ended(mut self) {
        self.run = None;
    }
}

impl Drop for Given<'_> {
    fn drop(&mut self) {
        let Some((tenant, id)) = self.run.take() else { return };
        if self.tasks.stopping().is_cancelled() {
            return;
        }
        let service = self.service.clone();
        self.tasks.spawn_cancellable("cancel a sub-run", async move {
            if let Err(error) = service.command_anywhere(&tenant, &id, RunCommand::Cancel).await {
                tracing::debug!(%error, run = %id, "a sub-run could not be cancelled; it may have ended");
            }
        });
    }
}

/// A part on another Lyra.
struct Elsewhere {
    /// Where it is cancelled.
    cancel: String,
    token: Option<Secret>,
    sent: Enactment,
}

impl Elsewhere {
    async fn cancel(self, http: &Http) {
        let asked = Enactment { input: Bytes::from_static(b"{}"), timeout: GIVE_UP, ..self.sent };
        let mut waits = AGAIN.iter();
        loop {
            let error = match http.enact_as(&asked, &self.cancel, None, self.token.as_ref()).await {
                Ok(_) => return,
                Err(error) => error,
            };
            // What was not found may be about to be started: the request was broken off on its way.
            let again = waits.next().filter(|_| error.retryable || error.cause.code == "http_404");
            let Some(wait) = again else {
                let (code, message) = (error.cause.code, error.cause.message);
                tracing::debug!(at = self.cancel, code, message, "a part was not cancelled; it may have ended");
                return;
            };
            tokio::time::sleep(*wait).await;
        }
    }
}

/// Cancels a part on another Lyra whose task is given up, as [`Given`] does here.
struct Sent<'a> {
    http: &'a Arc<Http>,
    tasks: &'a Tasks,
    part: Option<Elsewhere>,
}

impl Sent<'_> {
    fn ended(mut self) {
        self.part = None;
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        let Some(part) = self.part.take() else { return };
        if self.tasks.stopping().is_cancelled() {
            return;
        }
        let (http, cancel) = (Arc::clone(self.http), part.cancel.clone());
        self.tasks.spawn("cancel a part elsewhere", async move {
            if tokio::time::timeout(GIVE_UP, part.cancel(&http)).await.is_err() {
                tracing::warn!(at = cancel, "a part on another Lyra can't be cancelled; it goes on there");
            }
        });
    }
}

#[cfg(test)]
mod tests;
