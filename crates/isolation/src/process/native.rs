//! Programs that speak the AWS Lambda Runtime API themselves: an executable `bootstrap`, with any language behind it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_types::function::Contract;
use lyra_types::{Code, Error, FunctionVersion, InstanceId};
use tokio::task::JoinHandle;

use super::Shared;
use super::instance::{Instance, gone, never_ready, resource_name};
use super::launch::Plan;
use super::package::{BOOTSTRAP, Package};
use super::plan::{API_PORT, Ground, TASK_ROOT, env_of};
use super::runtime_api::{Api, Invocation};
use crate::{Body, CallContext, Grant, Sandbox, Served, Template, Usage};

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
        let mut env = env_of(id, version, version.handler.as_deref().unwrap_or(USUAL_HANDLER));
        env.push(("AWS_LAMBDA_RUNTIME_API".to_owned(), format!("127.0.0.1:{API_PORT}")));
        shared.driver().tell(&mut env, grant);
        let interpreters = shared.interpreters().await;
        let interpreters = interpreters.iter().collect();
        let ground = Ground { config: &shared.config, support: &shared.support, interpreters };
        let program = vec![format!("{TASK_ROOT}/{BOOTSTRAP}")];
        let plan = ground.plan_for(id, &self.package, version, program, env);
        let mut plan = Plan { listen: vec![API_PORT], ..plan };
        shared.driver().add(&mut plan, grant);
        let (instance, listeners) = Instance::spawn_for(shared, version, plan).await?;
        let listener = super::instance::listener(listeners.into_iter().next())?;
        let api = Api::new();
        let server = lyra_kit::tasks::spawn("runtime-api", Arc::clone(&api).serve(listener));
        let mut sandbox = NativeSandbox { instance, api, server, failed: None, usable: true };
        sandbox.failed = sandbox.get_ready(shared.config.settings.init_timeout, version.memory_mb).await.err();
        sandbox.usable = sandbox.failed.is_none();
        Ok(Box::new(sandbox))
    }
}

/// An instance of such a program.
struct NativeSandbox {
    instance: Instance,
    api: Arc<Api>,
    server: JoinHandle<()>,
    /// Why it did not get ready; told to the first call, whose log has what was written until then.
    failed: Option<Error>,
    usable: bool,
}

impl NativeSandbox {
    async fn get_ready(&self, limit: Duration, memory_mb: u32) -> Result<(), Error> {
        tokio::select! {
            biased;
            ready = self.api.ready() => ready,
            _ = self.instance.process().wait() => Err(self.instance.failure(memory_mb).await),
            () = tokio::time::sleep(limit) => {
                self.instance.kill();
                Err(never_ready(limit, "its bootstrap has not asked for an invocation"))
            }
        }
    }
}

impl NativeSandbox {
    /// The error for an instance that broke its work off and lives on; it is ended.
    fn hung_up(&self) -> Error {
        self.instance.kill();
        self.instance.output().drain();
        let detail =
            "the instance crashed: it closed its connection to the runtime interface, did not come back, and was ended";
        Error::new(Code::InstanceCrashed, detail)
    }

    fn timed_out(&self, context: &CallContext) -> Error {
        let is_gone = self.api.connections() == 0;
        let mut error = self.instance.timed_out(context);
        if is_gone {
            error.detail.push_str("; it had no connection to the runtime interface any more");
        }
        error
    }
}

#[async_trait]
impl Sandbox for NativeSandbox {
    async fn call(&mut self, context: CallContext, event: Bytes) -> Result<Bytes, Error> {
        self.instance.output().begin(&context.logs);
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if !std::mem::replace(&mut self.usable, false) {
            return Err(gone());
        }
        let answer = self.api.hand(Invocation {
            id: context.invocation.to_string(),
            deadline_ms: context.deadline_ms,
            resource_name: resource_name(&context.version),
            event: if event.is_empty() { Bytes::from_static(b"null") } else { event },
            max_result: context.max_result,
        });
        let outcome = tokio::select! {
            biased;
            answer = answer => answer.unwrap_or_else(|_| Err(gone())),
            () = tokio::time::sleep_until(context.deadline) => return Err(self.timed_out(&context)),
            _ = self.instance.process().wait() => {
                return Err(self.instance.failure(context.version.memory_mb).await);
            }
            () = self.api.abandoned() => return Err(self.hung_up()),
        };
        self.usable = true;
        self.instance.output().drain();
        outcome
    }

    async fn serve(self: Box<Self>, _: CallContext, _: http::Request<Body>) -> Result<Served, Error> {
        Err(Error::internal("a handler was given an HTTP request"))
    }

    fn is_reusable(&self) -> bool {
        self.usable && self.instance.is_alive()
    }

    fn usage(&self) -> Usage {
        self.instance.usage()
    }

    async fn probe(&mut self) -> bool {
        self.is_reusable() && tokio::time::timeout(PROBE, self.api.asks()).await.is_ok()
    }

    async fn hibernate(&mut self) -> bool {
        self.instance.hibernate().await
    }

    async fn wake(&mut self) -> bool {
        self.instance.wake().await
    }

    async fn stop(self: Box<Self>, limit: Duration) {
        self.instance.stop(limit).await;
    }
}

impl Drop for NativeSandbox {
    fn drop(&mut self) {
        self.server.abort();
    }
}
