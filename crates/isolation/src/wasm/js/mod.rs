//! The `js` runtime.

use std::sync::Arc;

use lyra_kit::{Clock, Random};
use lyra_types::function::Contract;
use lyra_types::{Code as ErrorCode, Error};

use super::engine::{Engine, EngineError};
use crate::{Code, ImageKey, Template};

/// The `js` runtime.
pub(super) struct Functions {
    engine: Engine,
    clock: Clock,
    random: Random,
}

impl Functions {
    pub(super) fn new(engine: &Engine, clock: Clock, random: Random) -> Result<Functions, EngineError> {
        Ok(Functions { engine: engine.clone(), clock, random })
    }

    pub(super) async fn prepare(&self, code: &Code) -> Result<Contract, Error> {
        let _ = (&self.engine, &self.clock, &self.random, code);
        Err(Error::new(ErrorCode::InvalidCode, "not yet"))
    }

    pub(super) async fn load(&self, key: &ImageKey) -> Result<Option<Arc<dyn Template>>, Error> {
        let _ = key;
        Ok(None)
    }
}
