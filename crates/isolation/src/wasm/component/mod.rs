//! The runtime `wasm`: WebAssembly components and core modules as functions.
//!
//! A component of the world `wasi:http/proxy` is called by HTTP, streaming both ways; a WASI command (a component of
//! `wasi:cli/command`, or a core module with `_start`) reads the event on stdin and writes its result to stdout.
//! Code is checked, compiled, linked and started once at deploy; a call makes a fresh instance from what was compiled.

mod body;
mod command;
mod failure;
mod host;
mod http;
mod image;
mod stdio;
mod streaming;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lyra_types::Error;
use lyra_types::function::Contract;
use tokio::sync::Semaphore;
use wasmtime::component::Component;
use wasmtime::{Module, Store};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use super::engine::{Engine, EngineError};
use super::hosting::Hosts;
use crate::{Code, ImageKey, Template};
use command::CommandTemplate;
use host::Host;
use http::HttpTemplate;

/// Size of compiled code from which it is read off the async threads, in bytes.
const LARGE: u64 = 1 << 20;

/// The runtime.
pub(crate) struct Components {
    engine: Engine,
    linkers: Arc<Linkers>,
    hosts: Arc<Hosts>,
    compiling: Arc<Semaphore>,
}

/// Everything that guests may import, looked up once for each program.
struct Linkers {
    component: wasmtime::component::Linker<Host>,
    core: wasmtime::Linker<Host>,
}

/// A program that is linked: ready to be instantiated.
enum Program {
    Http(ProxyPre<Host>),
    Command(CommandPre<Host>),
    Core(wasmtime::InstancePre<Host>),
}

impl Components {
    /// Makes the runtime.
    ///
    /// # Errors
    /// [`EngineError::Configure`] when the engine lacks what WASI needs.
    pub(crate) fn new(engine: &Engine, hosts: Arc<Hosts>) -> Result<Components, EngineError> {
        let component = host::component_linker(engine.wasmtime()).map_err(EngineError::Configure)?;
        let core = host::core_linker(engine.wasmtime()).map_err(EngineError::Configure)?;
        Ok(Components {
            engine: engine.clone(),
            linkers: Arc::new(Linkers { component, core }),
            hosts,
            compiling: Arc::new(Semaphore::new(image::COMPILE_PERMITS)),
        })
    }
}

impl Components {
    /// Checks and compiles code and keeps the image.
    ///
    /// # Errors
    /// [`lyra_types::Code::InvalidCode`] when it can't run here.
    pub(crate) async fn prepare(&self, code: &Code) -> Result<Contract, Error> {
        if let Some((contract, _)) = self.find(&code.key)? {
            image::check_reuse(contract, code.reuse)?;
            return Ok(contract);
        }
        let compiled = image::compile(&self.engine, &self.linkers, &self.compiling, code).await?;
        let path = self.path(&code.key, compiled.program.part());
        let engine = self.engine.clone();
        let written = lyra_kit::tasks::blocking(move || engine.images().write(&path, &[&compiled.bytes])).await;
        match written {
            Ok(Ok(())) => Ok(compiled.contract),
            Ok(Err(error)) => Err(unusable(&error)),
            Err(error) => Err(unusable(&error)),
        }
    }

    /// Loads an image; `None` when there is none.
    ///
    /// # Errors
    /// [`lyra_types::Code::Internal`] when it can't be read.
    pub(crate) async fn load(&self, key: &ImageKey) -> Result<Option<Arc<dyn Template>>, Error> {
        let Some((_, part)) = self.find(key)? else { return Ok(None) };
        let path = self.path(key, part);
        // Mapping a small file and linking it takes less time than handing it to another thread.
        let size = std::fs::metadata(&path).map_err(|error| unusable(&error))?.len();
        let (engine, linkers, file) = (self.engine.clone(), Arc::clone(&self.linkers), path.clone());
        let hosts = Arc::clone(&self.hosts);
        let load = move || load(&engine, &linkers, &hosts, part, &file);
        let loaded = if size < LARGE {
            load()
        } else {
            lyra_kit::tasks::blocking(load).await.map_err(|error| unusable(&error))?
        };
        match loaded {
            Ok(template) => Ok(Some(template)),
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "a damaged image is thrown away, to be made again");
                std::fs::remove_file(&path).map_err(|error| unusable(&error))?;
                Ok(None)
            }
        }
    }

    fn path(&self, key: &ImageKey, part: &str) -> PathBuf {
        self.engine.images().path(key, part, &[])
    }

    /// The image of `key`: how it is called, and the part that it is kept as.
    fn find(&self, key: &ImageKey) -> Result<Option<(Contract, &'static str)>, Error> {
        for (contract, part) in PARTS {
            if self.engine.images().exists(&self.path(key, part)).map_err(|error| unusable(&error))? {
                return Ok(Some((contract, part)));
            }
        }
        Ok(None)
    }
}

/// What an image may be, and its file's extension.
const PARTS: [(Contract, &str); 3] = [(Contract::Http, HTTP), (Contract::Command, COMMAND), (Contract::Command, CORE)];
const HTTP: &str = "http";
const COMMAND: &str = "command";
const CORE: &str = "core";

fn unusable(error: &(dyn std::error::Error + 'static)) -> Error {
    tracing::error!(error, "an image can't be used");
    Error::internal("the function's image can't be used")
}

fn load(
    engine: &Engine,
    linkers: &Linkers,
    hosts: &Arc<Hosts>,
    part: &str,
    path: &Path,
) -> wasmtime::Result<Arc<dyn Template>> {
    let wasmtime = engine.wasmtime();
    // SAFETY: the file is an image that this process or an earlier one of the same user and engine wrote; `Images`
    // keeps everybody else from writing there, and has checked its owner.
    // JUSTIFICATION: there is no safe way to run code that was compiled before.
    #[expect(unsafe_code, reason = "compiled code is trusted by its origin")]
    let (program, size) = match part {
        CORE => {
            let module = unsafe { Module::deserialize_file(wasmtime, path) }?;
            let range = module.image_range();
            (Program::module(linkers, &module)?, range.end as usize - range.start as usize)
        }
        _ => {
            let component = unsafe { Component::deserialize_file(wasmtime, path) }?;
            let range = component.image_range();
            let contract = if part == HTTP { Contract::Http } else { Contract::Command };
            (Program::component(linkers, &component, contract)?, range.end as usize - range.start as usize)
        }
    };
    Ok(match program {
        Program::Http(pre) => Arc::new(HttpTemplate::new(engine, hosts, pre, size)),
        program => Arc::new(CommandTemplate::new(engine, program, size)),
    })
}

impl Program {
    fn component(linkers: &Linkers, component: &Component, contract: Contract) -> wasmtime::Result<Program> {
        let pre = linkers.component.instantiate_pre(component)?;
        Ok(match contract {
            Contract::Http => Program::Http(ProxyPre::new(pre)?),
            _ => Program::Command(CommandPre::new(pre)?),
        })
    }

    fn module(linkers: &Linkers, module: &Module) -> wasmtime::Result<Program> {
        linkers.core.instantiate_pre(module).map(Program::Core)
    }

    /// The part of an image that it is kept as.
    fn part(&self) -> &'static str {
        match self {
            Program::Http(_) => HTTP,
            Program::Command(_) => COMMAND,
            Program::Core(_) => CORE,
        }
    }

    /// Makes an instance; runs what the code runs at its start.
    async fn instantiate(&self, store: &mut Store<Host>) -> wasmtime::Result<Instance> {
        Ok(match self {
            Program::Http(pre) => pre.instantiate_async(store).await.map(|_| Instance::Http)?,
            Program::Command(pre) => Instance::Command(pre.instantiate_async(store).await?),
            Program::Core(pre) => {
                let instance = pre.instantiate_async(&mut *store).await?;
                Instance::Core(instance.get_typed_func(store, "_start")?)
            }
        })
    }
}

/// What a program becomes in a store.
enum Instance {
    /// Called through [`HttpTemplate`] only.
    Http,
    Command(wasmtime_wasi::p2::bindings::Command),
    Core(wasmtime::TypedFunc<(), ()>),
}
