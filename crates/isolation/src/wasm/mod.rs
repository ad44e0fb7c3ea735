//! WebAssembly: the runtimes `js` and `wasm` on Wasmtime.
//!
//! Both share one [`Engine`]: its pool of places for instances, its memory budget and its share of the processor. An
//! instance is a linear memory that starts as a copy-on-write view of an image, so a fresh one costs microseconds
//! and none needs to be kept warm.

pub mod compiler;
mod component;
pub mod engine;
pub mod governor;
mod hosting;
pub mod images;
mod js;

use std::sync::Arc;

use async_trait::async_trait;
use lyra_kit::{Clock, Random};
use lyra_types::function::Contract;
use lyra_types::{Error, Runtime};

pub use engine::{Config, Engine, EngineError};

use crate::{Code, ImageKey, Isolation, Template};
use component::Components;
use hosting::Hosts;
use js::Functions;

/// The Wasm back end.
pub struct Wasm {
    engine: Engine,
    functions: Functions,
    components: Components,
}

impl Wasm {
    /// Starts the back end. Returns at once; what has to be compiled is compiled in the background.
    ///
    /// # Errors
    /// [`EngineError`] when the engine can't be made.
    pub fn new(config: &Config, clock: Clock, random: Random) -> Result<Wasm, EngineError> {
        let engine = Engine::new(config)?;
        let hosts = Arc::new(Hosts::new(&config.images_dir, clock.clone(), random.clone()));
        let functions = Functions::new(&engine, Arc::clone(&hosts), clock, random)?;
        let components = Components::new(&engine, hosts)?;
        Ok(Wasm { engine, functions, components })
    }

    /// The engine, for its figures.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

#[async_trait]
impl Isolation for Wasm {
    fn name(&self) -> &'static str {
        "wasm"
    }

    fn runtimes(&self) -> &'static [Runtime] {
        &[Runtime::Js, Runtime::Wasm]
    }

    async fn prepare(&self, code: &Code) -> Result<Contract, Error> {
        match code.key.runtime {
            Runtime::Js => self.functions.prepare(code).await,
            Runtime::Wasm => self.components.prepare(code).await,
            other => Err(not_wasm(other)),
        }
    }

    async fn load(&self, key: &ImageKey) -> Result<Option<Arc<dyn Template>>, Error> {
        match key.runtime {
            Runtime::Js => self.functions.load(key).await,
            Runtime::Wasm => self.components.load(key).await,
            other => Err(not_wasm(other)),
        }
    }
}

fn not_wasm(runtime: Runtime) -> Error {
    Error::internal(format!("code for {runtime} was given to the Wasm back end"))
}
