//! The `wasm` runtime: components and core modules.

use std::sync::Arc;

use lyra_types::function::Contract;
use lyra_types::{Code as ErrorCode, Error};

use super::engine::{Engine, EngineError};
use crate::{Code, ImageKey, Template};

/// The `wasm` runtime.
pub(crate) struct Components {
    engine: Engine,
}

impl Components {
    /// The runtime on `engine`.
    pub(crate) fn new(engine: &Engine) -> Result<Components, EngineError> {
        Ok(Components { engine: engine.clone() })
    }

    /// Checks and compiles `code`.
    pub(crate) async fn prepare(&self, code: &Code) -> Result<Contract, Error> {
        let _ = (&self.engine, code);
        Err(Error::new(ErrorCode::InvalidCode, "not a WebAssembly file"))
    }

    /// Loads an image.
    pub(crate) async fn load(&self, key: &ImageKey) -> Result<Option<Arc<dyn Template>>, Error> {
        let _ = key;
        Ok(None)
    }
}
