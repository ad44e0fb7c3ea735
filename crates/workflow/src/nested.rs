//! Tasks that are runs themselves: sub-workflows here, and parts of a workflow on another Lyra.
//!
//! What must hold: a sub-run is made once for each try, also when the engine is killed in between; it is cancelled when
//! its task is given up; how deep runs nest is bounded. Only the data of a cut's edges cross.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_afcl::graph::CUT_TYPE;
use lyra_kit::Tasks;
use lyra_types::account::Secret;
use lyra_types::workflow::{Parent, Run, RunStatus};
use lyra_types::{Error, RunId, TenantName, WorkflowName};
use lyra_wire::Workflows;
use lyra_wire::workflows::NewRun;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::config::CutToken;
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
        let user = enactment.user.clone();
        let traceparent = Some(enactment.traceparent.clone());
        let new = NewRun { input, id: Some(id.clone()), version, traceparent, destinations: None, user };
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

    async fn cut(&self, enactment: &Enactment, url: &str, token: Option<&str>) -> Result<Bytes, Failure> {
        let token = match token {
            Some(name) => Some(self.token(enactment, name, url).await?),
            None => None,
        };
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
            let answer = self.http.enact_as(&sent, &address, Some(LOOK), token.as_ref()).await?;
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
            if let Err(error) = service.cancel_anywhere(&tenant, &id).await {
                tracing::debug!(%error, run = %id, "a sub-run could not be cancelled; it may have ended");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use lyra_kit::Clock;

    use super::*;
    use crate::enact::http;

    fn enactment(tenant: &str) -> Enactment {
        Enactment {
            tenant: TenantName::new(tenant).expect("a name"),
            run: RunId::new("r").expect("an id"),
            task: "edge".to_owned(),
            key: "r/0//1".to_owned(),
            attempt: 1,
            function_type: "lyra:cut/edge".to_owned(),
            input: Bytes::from_static(b"{}"),
            timeout: LOOK,
            traceparent: String::new(),
            user: None,
        }
    }

    #[tokio::test]
    async fn a_token_goes_to_the_lyra_and_from_the_tenant_that_it_is_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("token");
        std::fs::write(&file, "lyra_secret\n").expect("written");
        let token = CutToken { url: "https://cloud.test/".to_owned(), file, tenants: vec![enactment("acme").tenant] };
        let missing = CutToken { file: dir.path().join("none"), ..token.clone() };
        let http = Http::new(http::Config::default(), Clock::system()).expect("a client");
        let tokens = [("cloud".to_owned(), token), ("lost".to_owned(), missing)].into_iter().collect();
        let nested = NestedRuns::new(Arc::new(http), tokens, Tasks::new());
        let found = nested.token(&enactment("acme"), "cloud", "https://cloud.test").await.expect("the token");
        assert_eq!(found.reveal(), "lyra_secret");
        for (tenant, name, url, retryable) in [
            ("acme", "cloud", "https://elsewhere.test", false),
            ("acme", "cloud", "http://cloud.test", false),
            ("other", "cloud", "https://cloud.test", false),
            ("acme", "unknown", "https://cloud.test", false),
            ("acme", "lost", "https://cloud.test", true),
        ] {
            let refused = nested.token(&enactment(tenant), name, url).await.expect_err("no token");
            assert_eq!(
                (refused.cause.code.as_str(), refused.retryable),
                ("unauthenticated", retryable),
                "{name} {url}"
            );
            assert!(!refused.cause.message.contains("secret"), "{}", refused.cause.message);
        }
    }
}
