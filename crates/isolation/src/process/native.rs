//! Programs that speak the AWS Lambda Runtime API themselves: an executable `bootstrap`, with any language behind it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_types::function::Contract;
use lyra_types::{Code, Error, FunctionVersion, InstanceId};
use tokio::task::JoinHandle;

use super::Shared;
use super::hosting::{self, Start};
use super::instance::{Instance, gone, never_ready, resource_name};
use super::kept::{Called, Caller, Kept};
use super::launch::Plan;
use super::package::{BOOTSTRAP, Package};
use super::plan::{API_PORT, Ground, TASK_ROOT, env_of, secret_files};
use super::runtime_api::{Api, Invocation};
use crate::{CallContext, Grant, Hosted, Hosting, Sandbox, Template};

/// Longest wait for an idle instance's sign of life.
const PROBE: Duration = Duration::from_secs(1);

/// What `_HANDLER` says when a deploy does not.
const USUAL_HANDLER: &str = "function.handler";

/// A package with a `bootstrap`.
pub(super) struct NativeTemplate {
    pub(super) shared: Arc<Shared>,
    pub(super) package: Package,
}

#[async_trait]
impl Template for NativeTemplate {
    fn contract(&self) -> Contract {
        Contract::Handler
    }

    fn weight(&self) -> usize {
        1 << 10
    }

    async fn start(&self, id: InstanceId, version: &Arc<FunctionVersion>) -> Result<Box<dyn Sandbox>, Error> {
        self.start_with(id, version, &Grant::default()).await
    }

    async fn start_with(
        &self,
        id: InstanceId,
        version: &Arc<FunctionVersion>,
        grant: &Grant,
    ) -> Result<Box<dyn Sandbox>, Error> {
        let shared = &self.shared;
        let mut env = env_of(id, version, version.handler.as_deref().unwrap_or(USUAL_HANDLER), grant);
        env.push(("AWS_LAMBDA_RUNTIME_API".to_owned(), format!("127.0.0.1:{API_PORT}")));
        shared.driver().tell(&mut env, grant);
        let interpreters = shared.interpreters().await;
        let interpreters = interpreters.iter().collect();
        let ground = Ground { config: &shared.config, support: &shared.support, interpreters };
        let program = vec![format!("{TASK_ROOT}/{BOOTSTRAP}")];
        let plan = ground.plan_for(id, &self.package, version, program, env);
        let mut plan = Plan { listen: vec![API_PORT], secrets: secret_files(grant), ..plan };
        shared.driver().add(&mut plan, grant);
        let (instance, listeners) = Instance::spawn_for(shared, version, plan).await?;
        let listener = super::instance::listener(listeners.into_iter().next())?;
        let api = Api::new();
        let server = lyra_kit::tasks::spawn("runtime-api", Arc::clone(&api).serve(listener));
        let caller = ApiCaller { api, server };
        let ready = caller.get_ready(&instance, shared.config.settings.init_timeout, version.memory_mb).await;
        Ok(Box::new(Kept::new(instance, caller, ready)))
    }

    async fn host(
        &self,
        id: InstanceId,
        version: &Arc<FunctionVersion>,
        grant: &Grant,
        hosting: Hosting,
    ) -> Result<Box<dyn Hosted>, Error> {
        let program = vec![format!("{TASK_ROOT}/{BOOTSTRAP}")];
        let (shared, package) = (&self.shared, &self.package);
        hosting::host(shared, Start { id, version, grant, hosting, package, program }).await
    }
}

/// Calls an instance of such a program.
struct ApiCaller {
    api: Arc<Api>,
    server: JoinHandle<()>,
}

impl ApiCaller {
    async fn get_ready(&self, instance: &Instance, limit: Duration, memory_mb: u32) -> Result<(), Error> {
        tokio::select! {
            biased;
            ready = self.api.ready() => ready,
            _ = instance.process().wait() => Err(instance.failure(memory_mb).await),
            () = tokio::time::sleep(limit) => {
                instance.kill();
                Err(never_ready(limit, "its bootstrap has not asked for an invocation"))
            }
        }
    }

    fn timed_out(&self, instance: &Instance, context: &CallContext) -> Error {
        let is_gone = self.api.connections() == 0;
        let mut error = instance.timed_out(context);
        if is_gone {
            error.detail.push_str("; it had no connection to the runtime interface any more");
        }
        error
    }
}

/// The error for an instance that broke its work off and lives on; it is ended.
fn hung_up(instance: &Instance) -> Error {
    instance.kill();
    let detail =
        "the instance crashed: it closed its connection to the runtime interface, did not come back, and was ended";
    Error::new(Code::InstanceCrashed, detail)
}

impl Caller for ApiCaller {
    async fn call(&mut self, instance: &Instance, context: &CallContext, event: Bytes) -> Called {
        let answer = self.api.hand(Invocation {
            id: context.invocation.to_string(),
            deadline_ms: context.deadline_ms,
            resource_name: resource_name(&context.version),
            event: if event.is_empty() { Bytes::from_static(b"null") } else { event },
            max_result: context.max_result,
            trace: context.trace.clone(),
        });
        let failure = tokio::select! {
            biased;
            answer = answer => {
                return Called { outcome: answer.unwrap_or_else(|_| Err(gone())), usable: true };
            }
            () = tokio::time::sleep_until(context.deadline) => self.timed_out(instance, context),
            _ = instance.process().wait() => instance.failure(context.version.memory_mb).await,
            () = self.api.abandoned() => hung_up(instance),
        };
        Called { outcome: Err(failure), usable: false }
    }

    async fn probe(&mut self) -> bool {
        tokio::time::timeout(PROBE, self.api.asks()).await.is_ok()
    }

    async fn stop(&mut self, instance: &Instance, limit: Duration) {
        instance.stop(limit).await;
    }
}

impl Drop for ApiCaller {
    fn drop(&mut self) {
        self.server.abort();
    }
}
