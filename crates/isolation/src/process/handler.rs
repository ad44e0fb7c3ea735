//! Python and Node.js functions, called over frames by Lyra's own bootstraps.
//!
//! What must hold: a call ends by its deadline, with the instance killed; whatever an instance sends, a caller gets a
//! result or one error that says what went wrong; an instance that failed in any other way than by throwing is not called
//! again.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_types::error::Thrown;
use lyra_types::function::Contract;
use lyra_types::{Code, Error, FunctionVersion, InstanceId, Network};
use serde::Deserialize;

use super::Shared;
use super::cells::{self, Cell, Cells};
use super::frames::{Frames, Kind, ReadError};
use super::hosting::{self, Start};
use super::instance::{Instance, never_ready, result_too_large};
use super::interpreter::Language;
use super::kept::{Called, Caller, Kept};
use super::launch::{Plan, Program};
use super::package::Package;
use super::plan::{API_PORT, Assignment, Ground, TASK_ROOT, base_env, env_of, is_early, limits_of, secret_files};
use crate::{CallContext, Grant, Hosted, Hosting, Sandbox, Template};

/// Largest error or other message that is not a result, in bytes.
const MAX_MESSAGE: usize = 2 << 20;

/// Longest wait for an idle instance's sign of life.
const PROBE: Duration = Duration::from_secs(1);

/// A Python or Node.js package.
pub(super) struct HandlerTemplate {
    pub(super) shared: Arc<Shared>,
    pub(super) cells: Arc<Cells>,
    pub(super) package: Package,
    pub(super) file: String,
    pub(super) function: String,
}

#[async_trait]
impl Template for HandlerTemplate {
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
        let mut env = env_of(id, version, &format!("{}.{}", stem(&self.file), self.function), grant);
        self.shared.driver().tell(&mut env, grant);
        // What an interpreter reads only when it starts, the places of a driver's libraries among it.
        let mut names = version.env.keys().map(String::as_str).chain(grant.secret_env().map(|(name, _)| name));
        let is_early = names.any(is_early) || !grant.gpus.is_empty();
        // Node.js has to be told of its way out from the start, and files with secrets are put where nothing was seen before.
        let has_files = version.secrets.iter().any(|secret| secret.file.is_some());
        let needs_own = is_early || version.network != Network::None || has_files;
        let cell = match if needs_own { None } else { self.cells.take() } {
            Some(cell) => self.assigned(cell, version).await,
            None => self.spawned(id, version, &env, !is_early, grant).await,
        };
        let Cell { instance, mut frames } = cell?;
        let assignment = Assignment::new(id, version, &self.file, &self.function, &env);
        let assignment = serde_json::to_vec(&assignment).map_err(|error| Error::internal(error.to_string()))?;
        let limit = self.shared.config.settings.init_timeout;
        let ready = async {
            frames.send(Kind::Assign, &[], &assignment).await.map_err(|_| ReadError::Closed)?;
            frames.receive(MAX_MESSAGE).await
        };
        let ready = match tokio::time::timeout(limit, ready).await {
            Ok(Ok((Kind::Ready, _))) => Ok(()),
            Ok(Ok((Kind::Fatal, what))) => Err(thrown(&what)),
            Ok(Ok(_) | Err(ReadError::Nonsense | ReadError::TooLarge)) => Err(confused(&instance)),
            Ok(Err(ReadError::Closed)) => Err(instance.failure(version.memory_mb).await),
            Err(_) => {
                instance.kill();
                Err(never_ready(limit, "its code was still being loaded"))
            }
        };
        Ok(Box::new(Kept::new(instance, FrameCaller { frames }, ready)))
    }

    async fn host(
        &self,
        id: InstanceId,
        version: &Arc<FunctionVersion>,
        grant: &Grant,
        hosting: Hosting,
    ) -> Result<Box<dyn Hosted>, Error> {
        let program = self.as_program();
        let (shared, package) = (&self.shared, &self.package);
        hosting::host(shared, Start { id, version, grant, hosting, package, program }).await
    }
}

impl HandlerTemplate {
    /// The handler's file as the main program of its interpreter.
    fn as_program(&self) -> Vec<String> {
        let mut file = self.file.clone();
        if !self.package.root.join(&file).exists() {
            // A package of Python's.
            file = format!("{}/__init__.py", stem(&file));
        }
        let interpreter = self.cells.interpreter();
        let mut words = vec![interpreter.program.display().to_string()];
        if interpreter.language == Language::Python {
            // Lines are logs at once, and nothing can be written beside the code anyway.
            words.push("-uB".to_owned());
        }
        words.push(format!("{TASK_ROOT}/{file}"));
        words
    }

    /// Makes a cell one of this package's.
    async fn assigned(&self, cell: Cell, version: &FunctionVersion) -> Result<Cell, Error> {
        let process = cell.instance.process();
        let limits = limits_of(&self.shared.config, version);
        let (code, limits) =
            tokio::join!(process.bind(&self.package.root, TASK_ROOT.as_ref()), process.set_limits(limits));
        if let Err(error) = code {
            tracing::error!(%error, "a stem cell could not be given its code");
            return Err(Error::internal("this worker could not start an instance; its log says why"));
        }
        if let Err(error) = limits {
            tracing::warn!(%error, "a stem cell could not be given its limits");
            let detail = format!("{} MiB of memory are less than the interpreter itself needs", version.memory_mb);
            return Err(Error::new(Code::OutOfMemory, detail));
        }
        Ok(cell)
    }

    async fn spawned(
        &self,
        id: InstanceId,
        version: &FunctionVersion,
        env: &[(String, String)],
        forked: bool,
        grant: &Grant,
    ) -> Result<Cell, Error> {
        let config = &self.shared.config;
        let interpreter = self.cells.interpreter();
        let ground = Ground { config, support: &self.shared.support, interpreters: vec![interpreter] };
        let program = cells::program(interpreter, forked);
        // An interpreter that is forked sees what it is asked for, and its forks what it has seen: what is the function's own is
        // told to the fork alone, by its assignment.
        let env = if matches!(program, Program::Python { .. }) { base_env() } else { env.to_vec() };
        let plan = ground.plan_for(id, &self.package, version, program, env);
        let mut plan = Plan { listen: vec![API_PORT], secrets: secret_files(grant), ..plan };
        self.shared.driver().add(&mut plan, grant);
        let spawned = Instance::spawn_for(&self.shared, version, plan).await?;
        cells::connect(spawned, version.memory_mb, config.settings.init_timeout).await
    }
}

/// A file's name without its ending.
fn stem(file: &str) -> &str {
    file.rsplit_once('.').map_or(file, |(stem, _)| stem)
}

/// Calls an instance of a Python or Node.js function.
struct FrameCaller {
    frames: Frames,
}

impl Caller for FrameCaller {
    async fn call(&mut self, instance: &Instance, context: &CallContext, event: Bytes) -> Called {
        let mut head = Vec::with_capacity(40);
        head.extend_from_slice(context.invocation.to_string().as_bytes());
        head.extend_from_slice(&context.deadline_ms.to_le_bytes());
        // A trace context has 55 bytes; what is longer than any is none.
        let trace = context.trace.as_deref().unwrap_or_default().as_bytes();
        let length = u8::try_from(trace.len()).unwrap_or(0);
        head.push(length);
        head.extend_from_slice(&trace[..usize::from(length)]);
        let exchange = async {
            self.frames.send(Kind::Call, &head, &event).await.map_err(|_| ReadError::Closed)?;
            self.frames.receive(context.max_result.max(MAX_MESSAGE)).await
        };
        let Ok(answer) = tokio::time::timeout_at(context.deadline, exchange).await else {
            return Called { outcome: Err(instance.timed_out(context)), usable: false };
        };
        let (outcome, usable) = match answer {
            Ok((Kind::Result, result)) if result.len() > context.max_result => {
                (Err(result_too_large(context.max_result)), true)
            }
            Ok((Kind::Result, result)) => (Ok(result), true),
            Ok((Kind::Thrown, what)) => (Err(thrown(&what)), true),
            Ok((Kind::Fatal, what)) => (Err(thrown(&what)), false),
            Ok((Kind::NoJson, why)) => (Err(no_json(&why)), true),
            Ok((Kind::Ready | Kind::Pong | Kind::Assign | Kind::Call | Kind::Ping | Kind::Stop, _))
            | Err(ReadError::Nonsense) => (Err(confused(instance)), false),
            Err(ReadError::TooLarge) => {
                instance.kill();
                (Err(result_too_large(context.max_result)), false)
            }
            Err(ReadError::Closed) => (Err(instance.failure(context.version.memory_mb).await), false),
        };
        Called { outcome, usable }
    }

    fn is_quiet(&self) -> bool {
        self.frames.is_quiet()
    }

    async fn probe(&mut self) -> bool {
        let answer = async {
            self.frames.send(Kind::Ping, &[], &[]).await.map_err(|_| ReadError::Closed)?;
            self.frames.receive(MAX_MESSAGE).await
        };
        matches!(tokio::time::timeout(PROBE, answer).await, Ok(Ok((Kind::Pong, _))))
    }

    async fn stop(&mut self, instance: &Instance, limit: Duration) {
        if self.frames.send(Kind::Stop, &[], &[]).await.is_ok() {
            instance.gone(limit).await;
        }
    }
}

/// What an interpreter says was thrown.
fn thrown(what: &[u8]) -> Error {
    #[derive(Deserialize)]
    struct What {
        name: String,
        message: String,
        stack: String,
    }
    match serde_json::from_slice(what) {
        Ok(What { name, message, stack }) => Error::thrown(Thrown { name, message, stack }),
        Err(_) => Error::thrown(Thrown {
            name: "Error".to_owned(),
            message: "the function failed, and what it threw could not be read".to_owned(),
            stack: String::new(),
        }),
    }
}

fn no_json(why: &[u8]) -> Error {
    let why = String::from_utf8_lossy(&why[..why.len().min(1 << 10)]);
    Error::new(Code::InvalidResult, format!("the function's result can't be made JSON: {why}"))
}

/// The error for an instance that speaks out of turn; it is ended.
fn confused(instance: &Instance) -> Error {
    instance.kill();
    Error::new(
        Code::InstanceCrashed,
        "the instance wrote to its connection to the runtime interface what does not belong there, and was ended",
    )
}
