//! Workers and their instances: what they hold, and every single operation on one of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use futures::future::join_all;
use lyra_types::api::{
    CharacteristicsView, CleanedView, Drained, EstimateView, Health, InstanceView, Page, PrewarmRequest, PrewarmedView,
    WorkerView,
};
use lyra_types::name::Qualifier;
use lyra_types::{Code, Error, InstanceId, Result};
use lyra_wire::registry::MemberState;
use lyra_wire::worker::{Characteristics, Estimate, InstanceCommand, InstanceState, InstanceStatus, Status};
use lyra_wire::workers::Known;
use lyra_wire::{Operated, Worker};

use super::{Answer, invoke, page};
use crate::body;
use crate::extract::{Scope, expect_json, parse_json, part, path_params};
use crate::openapi::{Busy, Failed, Missing, Owner, Paging, Refused};
use crate::service::App;

/// Longest that a drain waits for calls to end.
const MAX_DRAIN: Duration = Duration::from_secs(15 * 60);

/// Wait of a drain when none is given.
const DRAIN: Duration = Duration::from_secs(30);

/// Most instances of one pre-warm.
const MAX_PREWARM: u32 = 1_000;

fn worker(app: &App, name: &str) -> Result<Arc<dyn Operated>> {
    Ok(app.workers.find(name)?.worker)
}

/// What is shown of a worker. One that can't be asked is shown as lost.
async fn show(known: Known) -> WorkerView {
    match known.worker.status().await {
        Ok(status) => view(&known, &status),
        Err(error) => {
            tracing::debug!(worker = known.name, %error, "a worker can't be asked");
            view(&Known { state: MemberState::Lost, ..known }, &Status::default())
        }
    }
}

fn view(known: &Known, status: &Status) -> WorkerView {
    let (holdings, machine) = (&status.holdings, &status.machine);
    let counted = InstanceState::ALL.into_iter().filter(|state| *state != InstanceState::Terminated);
    WorkerView {
        name: known.name.clone(),
        address: known.address.clone(),
        state: if machine.cordoned { MemberState::Cordoned } else { known.state }.as_str().to_owned(),
        running: status.running,
        queued: status.queued,
        held: status.held,
        concurrency_limit: status.concurrency_limit,
        queue_policy: status.queue_policy.clone(),
        keep_alive: holdings.keep_alive.clone(),
        idle_instances: status.idle_instances,
        instances: counted.map(|state| (state.as_str().to_owned(), holdings.instances.of(state))).collect(),
        memory: holdings.memory,
        cpu: holdings.cpu,
        gpu: holdings.gpu,
        gpus: holdings.gpus.clone(),
        load: machine.load,
        uptime_s: machine.uptime.as_secs(),
        backends: machine.backends.clone(),
    }
}

fn instance(worker: &str, of: &InstanceStatus) -> InstanceView {
    InstanceView {
        id: of.id.to_string(),
        worker: worker.to_owned(),
        tenant: of.tenant.to_string(),
        function: of.function.to_string(),
        version: of.version,
        runtime: of.runtime,
        state: of.state.as_str().to_owned(),
        since: of.since,
        memory: of.memory,
        served: of.served,
        gpus: of.gpus.clone(),
        application: of.application.clone(),
        session: of.session.clone(),
    }
}

fn characteristics(of: &Characteristics) -> CharacteristicsView {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let estimate = |of: Estimate| EstimateView {
        samples: of.samples,
        average_ms: ms(of.average),
        recent_median_ms: ms(of.recent_median),
        recent_max_ms: ms(of.recent_max),
    };
    let measured = [
        ("cold", of.cold),
        ("prewarmed", of.prewarmed),
        ("warm", of.warm),
        ("exec", of.exec),
        ("end_to_end", of.end_to_end),
        ("inter_arrival", of.inter_arrival),
    ];
    let times: BTreeMap<_, _> =
        measured.into_iter().filter_map(|(name, time)| Some((name.to_owned(), estimate(time?)))).collect();
    CharacteristicsView {
        tenant: of.tenant.to_string(),
        function: of.function.to_string(),
        version: of.version,
        calls: of.calls,
        memory: of.memory,
        times,
    }
}

/// List workers.
#[utoipa::path(
    get, path = "/v1/workers", tag = "workers", operation_id = "listWorkers",
    params(Paging),
    responses((status = 200, description = "A page", body = Page<WorkerView>), Refused)
)]
pub(crate) async fn list(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let all = join_all(app.workers.all().into_iter().map(show)).await;
    Ok(Json(page(all, &scope.params(), |worker| worker.name.clone())?).into_response())
}

/// Show a worker: what it has, what it does.
#[utoipa::path(
    get, path = "/v1/workers/{worker}", tag = "workers", operation_id = "getWorker",
    params(("worker" = String, Path, description = "Worker", example = "local")),
    responses((status = 200, description = "The worker", body = WorkerView), Refused, Missing)
)]
pub(crate) async fn get(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    Ok(Json(show(app.workers.find(scope.part("worker"))?).await).into_response())
}

/// What a worker knows of each version from its calls: times, memory.
#[utoipa::path(
    get, path = "/v1/workers/{worker}/characteristics", tag = "workers", operation_id = "getCharacteristics",
    params(
        ("worker" = String, Path, description = "Worker", example = "local"),
        ("function" = Option<String>, Query, description = "Only of this function"),
        Paging,
        Owner,
    ),
    responses((status = 200, description = "A page", body = Page<CharacteristicsView>), Refused, Missing)
)]
pub(crate) async fn known(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let status = worker(&app, scope.part("worker"))?.status().await?;
    let params = scope.params();
    let function = params.text("function")?;
    let mut all: Vec<&Characteristics> = status
        .characteristics
        .iter()
        .filter(|of| of.tenant == scope.tenant && function.is_none_or(|name| of.function.as_str() == name))
        .collect();
    all.sort_by(|a, b| (&a.function, a.version, a.generation).cmp(&(&b.function, b.version, b.generation)));
    let key = |of: &&Characteristics| format!("{}@{}.{}", of.function, of.version, of.generation);
    Ok(Json(page(all, &params, key)?.map(characteristics)).into_response())
}

/// Whether a worker works. Needs nothing from outside of the worker.
#[utoipa::path(
    get, path = "/v1/workers/{worker}/health", tag = "workers", operation_id = "getWorkerHealth",
    params(("worker" = String, Path, description = "Worker", example = "local")),
    responses((status = 200, description = "Each check; `healthy` says whether all passed", body = Health), Refused, Missing)
)]
pub(crate) async fn health(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    Ok(Json(worker(&app, scope.part("worker"))?.health().await?).into_response())
}

/// Have a worker take no more calls and start no more instances. What runs or waits goes on.
#[utoipa::path(
    post, path = "/v1/workers/{worker}/cordon", tag = "workers", operation_id = "cordonWorker",
    params(("worker" = String, Path, description = "Worker", example = "local")),
    responses((status = 200, description = "The worker", body = WorkerView), Refused, Missing)
)]
pub(crate) async fn cordon(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let known = app.workers.find(scope.part("worker"))?;
    known.worker.cordon().await?;
    Ok(Json(show(known).await).into_response())
}

/// Have a worker take calls again.
#[utoipa::path(
    post, path = "/v1/workers/{worker}/uncordon", tag = "workers", operation_id = "uncordonWorker",
    params(("worker" = String, Path, description = "Worker", example = "local")),
    responses((status = 200, description = "The worker", body = WorkerView), Refused, Missing)
)]
pub(crate) async fn uncordon(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let known = app.workers.find(scope.part("worker"))?;
    known.worker.uncordon().await?;
    Ok(Json(show(known).await).into_response())
}

/// Cordon a worker, wait for its calls to end, then end its idle instances. It stays cordoned.
#[utoipa::path(
    post, path = "/v1/workers/{worker}/drain", tag = "workers", operation_id = "drainWorker",
    params(
        ("worker" = String, Path, description = "Worker", example = "local"),
        ("wait" = Option<f64>, Query, description = "Longest wait for calls, in seconds: up to 900, default 30"),
    ),
    responses((status = 200, description = "How it went", body = Drained), Refused, Missing)
)]
pub(crate) async fn drain(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let worker = worker(&app, scope.part("worker"))?;
    let params = scope.params();
    let limit = if params.text("wait")?.is_some() { params.wait(MAX_DRAIN)? } else { DRAIN };
    Ok(Json(worker.drain(limit).await?).into_response())
}

/// End every idle instance of a worker and drop all loaded code. Both come back when they are needed.
#[utoipa::path(
    post, path = "/v1/workers/{worker}/clean", tag = "workers", operation_id = "cleanWorker",
    params(("worker" = String, Path, description = "Worker", example = "local")),
    responses((status = 200, description = "What went", body = CleanedView), Refused, Missing)
)]
pub(crate) async fn clean(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let instances = worker(&app, scope.part("worker"))?.clean().await?;
    Ok(Json(CleanedView { instances }).into_response())
}

/// The instance that a path names.
fn instance_id(scope: &Scope) -> Result<InstanceId> {
    scope.part("instance").parse().map_err(|_| Error::not_found("instance", scope.part("instance")))
}

async fn instruct(app: &App, scope: &Scope, command: InstanceCommand) -> Answer {
    let worker = worker(app, scope.part("worker"))?;
    let id = instance_id(scope)?;
    // An instance of another tenant is none.
    let theirs = worker.instances().await?.into_iter().any(|of| of.id == id && of.tenant == scope.tenant);
    if !theirs {
        return Err(Error::not_found("instance", id).into());
    }
    worker.instruct(id, command).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// End an idle instance.
#[utoipa::path(
    delete, path = "/v1/workers/{worker}/instances/{instance}", tag = "workers", operation_id = "terminateInstance",
    params(
        ("worker" = String, Path, description = "Worker", example = "local"),
        ("instance" = String, Path, description = "Instance, as `GET /v1/instances` lists it"),
        Owner,
    ),
    responses((status = 204, description = "It is gone"), Refused, Missing)
)]
pub(crate) async fn terminate(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    instruct(&app, &scope, InstanceCommand::Terminate).await
}

/// Hibernate an idle instance: it is stopped where it stands, and gives its memory back as far as it can.
#[utoipa::path(
    post, path = "/v1/workers/{worker}/instances/{instance}/hibernate", tag = "workers",
    operation_id = "hibernateInstance",
    params(
        ("worker" = String, Path, description = "Worker", example = "local"),
        ("instance" = String, Path, description = "Instance, as `GET /v1/instances` lists it"),
        Owner,
    ),
    responses((status = 204, description = "It sleeps"), Refused, Missing)
)]
pub(crate) async fn hibernate(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    instruct(&app, &scope, InstanceCommand::Hibernate).await
}

/// Wake a hibernated instance ahead of its next call.
#[utoipa::path(
    post, path = "/v1/workers/{worker}/instances/{instance}/activate", tag = "workers",
    operation_id = "activateInstance",
    params(
        ("worker" = String, Path, description = "Worker", example = "local"),
        ("instance" = String, Path, description = "Instance, as `GET /v1/instances` lists it"),
        Owner,
    ),
    responses((status = 204, description = "It is awake"), Refused, Missing, Busy)
)]
pub(crate) async fn activate(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    instruct(&app, &scope, InstanceCommand::Activate).await
}

/// Load a version's code ahead of its first call and, where its instances are kept, start them.
#[utoipa::path(
    post, path = "/v1/workers/{worker}/prewarm", tag = "workers", operation_id = "prewarmWorker",
    params(
        ("worker" = String, Path, description = "Worker", example = "local"),
        Owner,
    ),
    request_body(content = PrewarmRequest, example = json!({"function": "hello@live", "instances": 2})),
    responses((status = 200, description = "What is warm", body = PrewarmedView), Refused, Missing, Busy)
)]
pub(crate) async fn prewarm(State(app): State<Arc<App>>, scope: Scope, body: Body) -> Answer {
    let worker = worker(&app, scope.part("worker"))?;
    expect_json(&scope.headers)?;
    let body = body::read(&app, &scope.headers, body, app.config.max_json_bytes).await?;
    let request: PrewarmRequest = parse_json(&body.bytes)?;
    let (name, qualifier) = Qualifier::split(&request.function)?;
    let instances = request.instances.unwrap_or(1);
    if !(1..=MAX_PREWARM).contains(&instances) {
        let reason = format!("{instances} is not between 1 and {MAX_PREWARM}");
        return Err(Error::field(Code::InvalidField, "instances", reason).into());
    }
    let route = app.table.find(scope.tenant.as_str(), name.as_str(), app.config.route_wait).await?;
    let version = Arc::clone(route.resolve(&qualifier, app.random.u64())?);
    worker.prewarm(Arc::clone(&version), instances).await?;
    let waits = |of: &&InstanceStatus| {
        let same = of.tenant == version.tenant && of.function == version.function && of.version == version.version;
        same && of.state == InstanceState::Standby
    };
    let instances = worker.instances().await?.iter().filter(waits).count();
    let view = PrewarmedView { function: version.function.to_string(), version: version.version, instances };
    Ok(Json(view).into_response())
}

/// Call a function on this worker.
///
/// As `POST /v1/functions/{name}/invoke`, without the choice of a worker; never as a job.
#[utoipa::path(
    post, path = "/v1/workers/{worker}/functions/{name}/invoke", tag = "workers", operation_id = "invokeOnWorker",
    params(
        ("worker" = String, Path, description = "Worker", example = "local"),
        ("name" = String, Path, description = "Function", example = "hello"),
        ("version" = Option<u64>, Query, description = "This version instead of the alias `live`"),
        ("alias" = Option<String>, Query, description = "This alias instead of `live`"),
        Owner,
    ),
    request_body(content = serde_json::Value, description = "The event, up to 6 MiB", example = json!({"name": "Ada"})),
    responses((status = 200, description = "The result", body = serde_json::Value), Failed, Refused, Missing, Busy)
)]
pub(crate) async fn invoke_on(State(app): State<Arc<App>>, request: Request) -> Answer {
    let (mut parts, body) = request.into_parts();
    let path = path_params(&mut parts, &app).await?;
    let worker: Arc<dyn Worker> = worker(&app, part(&path, "worker"))?;
    invoke::now(&app, &worker, &parts, part(&path, "name"), body).await
}

/// List instances that are kept or have resources of their own, on all workers that answer.
#[utoipa::path(
    get, path = "/v1/instances", tag = "workers", operation_id = "listInstances",
    params(
        ("function" = Option<String>, Query, description = "Only of this function"),
        ("state" = Option<String>, Query, description = "Only in this state"),
        Paging,
        Owner,
    ),
    responses((status = 200, description = "A page", body = Page<InstanceView>), Refused)
)]
pub(crate) async fn instances(State(app): State<Arc<App>>, scope: Scope) -> Answer {
    let params = scope.params();
    let (function, state) = (params.text("function")?, params.text("state")?);
    if let Some(state) = state
        && !InstanceState::ALL.iter().any(|known| known.as_str() == state)
    {
        let known = InstanceState::ALL.map(InstanceState::as_str).join(", ");
        return Err(Error::field(Code::BadRequest, "state", format!("is none of {known}")).into());
    }
    let wanted = |of: &InstanceStatus| {
        of.tenant == scope.tenant
            && function.is_none_or(|name| of.function.as_str() == name)
            && state.is_none_or(|state| of.state.as_str() == state)
    };
    let listed =
        join_all(app.workers.all().into_iter().map(async |known| (known.worker.instances().await, known.name)));
    let mut all = Vec::new();
    for (instances, worker) in listed.await {
        match instances {
            Ok(instances) => all.extend(instances.iter().filter(|of| wanted(of)).map(|of| instance(&worker, of))),
            Err(error) => tracing::debug!(worker, %error, "a worker can't be asked"),
        }
    }
    all.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(Json(page(all, &params, |of| of.id.clone())?).into_response())
}
