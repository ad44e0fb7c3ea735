//! Calling a WASI command: event on stdin, result on stdout, one call for each instance.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::Request;
use lyra_types::function::Contract;
use lyra_types::{Error, FunctionVersion, InstanceId};
use wasmtime::Store;

use super::host::{self, Host};
use super::stdio::Stdio;
use super::{Instance, Program, failure};
use crate::wasm::engine::Engine;
use crate::wasm::governor::{Governed, Share};
use crate::{Body, CallContext, Grant, Sandbox, Served, Template};

/// A command in memory.
pub(super) struct CommandTemplate {
    engine: Engine,
    program: Program,
    size: usize,
}

impl CommandTemplate {
    pub(super) fn new(engine: &Engine, program: Program, size: usize) -> CommandTemplate {
        CommandTemplate { engine: engine.clone(), program, size }
    }
}

#[async_trait]
impl Template for CommandTemplate {
    fn contract(&self) -> Contract {
        Contract::Command
    }

    fn weight(&self) -> usize {
        self.size
    }

    async fn start(&self, id: InstanceId, version: &Arc<FunctionVersion>) -> Result<Box<dyn Sandbox>, Error> {
        self.start_with(id, version, &Grant::default()).await
    }

    async fn start_with(
        &self,
        _id: InstanceId,
        version: &Arc<FunctionVersion>,
        grant: &Grant,
    ) -> Result<Box<dyn Sandbox>, Error> {
        let stdio = Stdio::collecting();
        let mut store = host::store(&self.engine, Some(version), version.memory_bytes(), &stdio, grant, None)?;
        let share = store.data_mut().governor().share();
        let started = share.run(self.program.instantiate(&mut store));
        let instance = tokio::time::timeout(version.timeout(), started)
            .await
            .map_err(|_| failure::start_timeout(version))?
            .map_err(|error| failure::of_start(&error))?;
        Ok(Box::new(CommandSandbox { live: Some(Live { store, instance, share, stdio }), ended: None }))
    }
}

struct Live {
    store: Store<Host>,
    instance: Instance,
    share: Arc<Share>,
    stdio: Stdio,
}

/// An instance that was not called yet, or one that has ended.
struct CommandSandbox {
    live: Option<Live>,
    /// It goes when the sandbox is dropped, which need not be before its result is sent.
    ended: Option<Live>,
}

impl Live {
    async fn run(&mut self) -> wasmtime::Result<Result<(), ()>> {
        match &self.instance {
            Instance::Command(command) => command.wasi_cli_run().call_run(&mut self.store).await,
            Instance::Core(start) => start.call_async(&mut self.store, ()).await.map(Ok),
            Instance::Http => Err(wasmtime::Error::msg("a component of wasi:http is not a command")),
        }
    }
}

#[async_trait]
impl Sandbox for CommandSandbox {
    async fn call(&mut self, context: CallContext, event: Bytes) -> Result<Bytes, Error> {
        let mut live = self.live.take().ok_or_else(|| Error::internal("a command was called twice"))?;
        let (share, stdio) = (Arc::clone(&live.share), live.stdio.clone());
        stdio.begin(&context.logs);
        stdio.feed(event, context.max_result);
        let ended = tokio::time::timeout_at(context.deadline, share.run_metered(&context.cpu, live.run())).await;
        let outcome = match ended {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(()))) => Err(failure::exit(1, &stdio)),
            Ok(Err(error)) if failure::exit_status(&error) == Some(0) => Ok(()),
            Ok(Err(error)) => {
                let oom = live.store.data_mut().governor().oom();
                Err(failure::of_call(&error, oom, &context, &stdio))
            }
            Err(_) => Err(failure::timeout(&context)),
        };
        stdio.end();
        outcome?;
        self.ended = Some(live);
        stdio.take_result().ok_or_else(|| failure::result_too_large(context.max_result))
    }

    async fn serve(self: Box<Self>, _context: CallContext, _request: Request<Body>) -> Result<Served, Error> {
        Err(Error::internal("a command is not called by HTTP"))
    }

    fn is_reusable(&self) -> bool {
        false
    }
}
