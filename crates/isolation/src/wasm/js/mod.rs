//! The `js` runtime: JavaScript on QuickJS-NG, itself compiled to WebAssembly.
//!
//! One module of machine code, the base, serves all functions. A deploy evaluates a source in an instance of it and
//! keeps how the instance's memory changed; starting an instance is a copy-on-write view of the base with these changes
//! written into it. So source is never parsed on the way of a call, and no state passes from one instance to the next.

mod base;
mod encoding;
mod guest;
mod host;
mod image;
mod prepare;
mod sandbox;
mod source;
mod stack;
mod url;

use std::path::PathBuf;
use std::sync::Arc;

use lyra_kit::{Clock, Random};
use lyra_types::Error;
use lyra_types::function::Contract;

use self::base::{Bases, Pending};
use self::image::Image;
use self::prepare::Preparation;
use self::sandbox::Function;
use super::engine::{Engine, EngineError};
use super::hosting::Hosts;
use super::images::ImageError;
use crate::{Code, ImageKey, Template};

/// The `js` runtime.
pub(super) struct Functions {
    engine: Engine,
    bases: Pending,
    hosts: Arc<Hosts>,
    clock: Clock,
    random: Random,
}

impl Functions {
    /// Starts the runtime. The base is made ready in the background.
    pub(super) fn new(
        engine: &Engine,
        hosts: Arc<Hosts>,
        clock: Clock,
        random: Random,
    ) -> Result<Functions, EngineError> {
        let bases = Pending::start(engine, clock.clone(), random.clone()).map_err(EngineError::Thread)?;
        Ok(Functions { engine: engine.clone(), bases, hosts, clock, random })
    }

    fn path(&self, bases: &Bases, key: &ImageKey) -> PathBuf {
        self.engine.images().path(key, "js", bases.digest())
    }

    /// Evaluates a source and keeps its image.
    ///
    /// # Errors
    /// [`lyra_types::Code::InvalidCode`] when it can't be loaded.
    pub(super) async fn prepare(&self, code: &Code) -> Result<Contract, Error> {
        let bases = self.bases.get().await?;
        let path = self.path(&bases, &code.key);
        if self.engine.images().exists(&path).map_err(|error| broken(&error))? {
            return Ok(Contract::Handler);
        }
        let base = Arc::clone(bases.for_sources());
        let preparation = Preparation { base, clock: self.clock.clone(), random: self.random.clone() };
        let image = preparation.run(code).await?;
        let engine = self.engine.clone();
        let written = lyra_kit::tasks::blocking(move || {
            let [head, bytes, sum] = image.encode();
            engine.images().write(&path, &[&head, &bytes, &sum])
        });
        let written = written.await.map_err(|_| Error::internal("writing the image was given up"))?;
        written.map_err(|error| broken(&error))?;
        Ok(Contract::Handler)
    }

    /// Reads a function's image.
    ///
    /// # Errors
    /// [`lyra_types::Code::Internal`] when it can't be read.
    pub(super) async fn load(&self, key: &ImageKey) -> Result<Option<Arc<dyn Template>>, Error> {
        let bases = self.bases.get().await?;
        let path = self.path(&bases, key);
        let engine = self.engine.clone();
        let read = lyra_kit::tasks::blocking(move || {
            let Some(file) = engine.images().read(&path)? else { return Ok(None) };
            let image = Image::decode(&file);
            if image.is_none() {
                tracing::warn!(path = %path.display(), "an image is damaged; it will be made again");
                engine.images().remove(&path)?;
            }
            Ok(image)
        });
        let read: Result<_, ImageError> = read.await.map_err(|_| Error::internal("reading the image was given up"))?;
        let Some(image) = read.map_err(|error| broken(&error))? else { return Ok(None) };
        let base = Arc::clone(bases.of(&image));
        let function = Function {
            base,
            image,
            hosts: Arc::clone(&self.hosts),
            clock: self.clock.clone(),
            random: self.random.clone(),
            texts: key.result.is_text(),
        };
        Ok(Some(Arc::new(function)))
    }
}

/// The error for an image that can't be read or written; the log says why.
fn broken(error: &ImageError) -> Error {
    tracing::error!(error = error as &dyn std::error::Error, "an image can't be used");
    Error::internal("the image of the function can't be used; the log of the worker says why")
}
