//! Tasks that are runs themselves: sub-workflows here, and parts of a workflow on another Lyra.
//!
//! What must hold: a sub-run is made once for each try, also when the engine is killed in between; it is cancelled when
//! its task is given up; how deep runs nest is bounded. Only the data of a cut's edges cross.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_afcl::graph::CUT_TYPE;
use lyra_kit::Tasks;
use lyra_types::workflow::{Parent, Run, RunStatus};
use lyra_types::{Error, RunId, TenantName, WorkflowName};
use lyra_wire::Workflows;
use lyra_wire::workflows::{NewRun, RunCommand};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::enact::function;
use crate::enact::http::Http;
use crate::enact::{Enactment, Failure, Nested};
use crate::service::{Origin, Service, WeakService};

/// How deep runs may stand in one another.
const DEPTH: u32 = 16;
/// Longest wait of one look at a sub-run.
const LOOK: Duration = Duration::from_secs(60);

/// Runs tasks that are runs.
pub(crate) struct NestedRuns {
    service: OnceLock<WeakService>,
    http: Arc<Http>,
    tasks: Tasks,
}

impl NestedRuns {
    pub(crate) fn new(http: Arc<Http>, tasks: Tasks) -> NestedRuns {
        NestedRuns { service: OnceLock::new(), http, tasks }
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
        let (name, version) = match name.split_once('@') {
            None => (name, None),
            Some((name, version)) => {
                let version = version.parse().map_err(|_| {
                    Failure::lasting("invalid_field", format!("\"{version}\" is no version of a workflow"))
                })?;
                (name, Some(version))
            }
        };
        let name = WorkflowName::new(name).map_err(failure_of)?;
        let depth = service.active(&enactment.tenant, &enactment.run).map_or(0, |run| run.depth) + 1;
        if depth > DEPTH {
            return Err(Failure::lasting("limit_reached", format!("workflows stand in one another {DEPTH} deep")));
        }
        let input: Map<String, Value> = serde_json::from_slice(&enactment.input)
            .map_err(|error| Failure::lasting("invalid_input", error.to_string()))?;
        let id = sub_run(enactment)?;
        let parent = Parent { run: enactment.run.clone(), task: enactment.task.clone() };
        let origin = Origin { parent: Some(parent), schedule: None, depth };
        let new = NewRun { input, id: Some(id.clone()), version };
        service.start_run(&enactment.tenant, &name, new, origin).await.map_err(failure_of)?;
        let guard = Given { service: &service, tasks: &self.tasks, run: Some((enactment.tenant.clone(), id.clone())) };
        let run = loop {
            let run = service.run(&enactment.tenant, &id, LOOK).await.map_err(failure_of)?;
            if run.status.is_final() {
                break run;
            }
        };
        guard.ended();
        output_of(run)
    }

    async fn cut(&self, enactment: &Enactment, url: &str) -> Result<Bytes, Failure> {
        let name = enactment.function_type.strip_prefix(CUT_TYPE).unwrap_or_default();
        let active = self.service()?.active(&enactment.tenant, &enactment.run);
        let program =
            active.map(|run| run.program).ok_or_else(|| Failure::passing("unavailable", "the run has gone"))?;
        let graph = program
            .cuts
            .get(name)
            .ok_or_else(|| Failure::lasting("not_found", format!("the workflow has no cut \"{name}\"")))?;
        let input: Value = serde_json::from_slice(&enactment.input)
            .map_err(|error| Failure::lasting("invalid_input", error.to_string()))?;
        let id = sub_run(enactment)?;
        let body = json!({ "id": id, "graph": graph, "mappings": program.mapping, "input": input });
        let sent = Enactment { input: Bytes::from(body.to_string()), ..enactment.clone() };
        // Asked again with the same id, the other side waits for the same run.
        let address = format!("{}/v1/cuts?wait={}", url.trim_end_matches('/'), LOOK.as_secs() / 2);
        let run = loop {
            let answer = self.http.enact(&sent, &address, Some(LOOK)).await?;
            let run: Run = serde_json::from_slice(&answer).map_err(|error| {
                Failure::lasting("invalid_response", format!("the other Lyra's answer is no run: {error}"))
            })?;
            if run.status.is_final() {
                break run;
            }
        };
        output_of(run)
    }
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
            if let Err(error) = service.command(&tenant, &id, RunCommand::Cancel).await {
                tracing::debug!(%error, run = %id, "a sub-run could not be cancelled; it may have ended");
            }
        });
    }
}
