//! The runtime `simulated`: functions without code, whose times, memory and failures are parameters.
//!
//! For tests, for load, and for simulating days of traffic: all waiting goes through the kit's clock and all chance
//! through its randomness, so a whole worker over this back end runs under virtual time and repeats by its seed.
//! Memory is accounted, never allocated. A call of zero duration does nothing at all, which makes it the measure of what
//! everything around it costs. The parameters stand in `docs/reference/simulated.md`.
//!
//! What it does not do: use the processor. A thousand instances that "execute" only sleep.

mod hosted;
mod instance;
mod ledger;
mod parameters;
mod spread;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use lyra_kit::{Clock, Random};
use lyra_types::function::Contract;
use lyra_types::{Error, Runtime};
use parking_lot::Mutex;

pub use ledger::Figures;
pub use spread::{Spread, normal};

use crate::{Code, Hosted, ImageKey, Isolation, Template};
use hosted::Left;
use instance::Function;
use ledger::Ledger;
use parameters::Parameters;

/// Functions whose parameters are kept; those of the longest known go first, and are read again when they are called.
const MAX_IMAGES: usize = 10_000;

/// The back end.
pub struct Simulated {
    images: Mutex<Images>,
    ledger: Ledger,
    clock: Clock,
    random: Random,
    /// Instances of sessions that a worker has left.
    left: Arc<Left>,
}

#[derive(Default)]
struct Images {
    by_key: HashMap<ImageKey, Arc<Parameters>>,
    order: VecDeque<ImageKey>,
}

impl Simulated {
    /// A back end that waits by `clock` and draws from `random`.
    pub fn new(clock: Clock, random: Random) -> Simulated {
        Simulated { images: Mutex::default(), ledger: Ledger::new(clock.clone()), clock, random, left: Arc::default() }
    }

    /// What all instances hold and held.
    pub fn figures(&self) -> Figures {
        self.ledger.figures()
    }
}

#[async_trait]
impl Isolation for Simulated {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn runtimes(&self) -> &'static [Runtime] {
        &[Runtime::Simulated]
    }

    async fn prepare(&self, code: &Code) -> Result<Contract, Error> {
        let parameters = Parameters::parse(&code.bytes, code.key.memory_mb)?;
        let mut images = self.images.lock();
        if images.by_key.insert(code.key.clone(), Arc::new(parameters)).is_none() {
            images.order.push_back(code.key.clone());
        }
        if images.order.len() > MAX_IMAGES
            && let Some(oldest) = images.order.pop_front()
        {
            images.by_key.remove(&oldest);
        }
        Ok(Contract::Handler)
    }

    async fn load(&self, key: &ImageKey) -> Result<Option<Arc<dyn Template>>, Error> {
        let parameters = self.images.lock().by_key.get(key).cloned();
        Ok(parameters.map(|parameters| {
            let (ledger, clock, random) = (self.ledger.clone(), self.clock.clone(), self.random.clone());
            let left = Arc::clone(&self.left);
            Arc::new(Function { parameters, ledger, clock, random, left }) as Arc<dyn Template>
        }))
    }

    async fn adopt(&self) -> Vec<Box<dyn Hosted>> {
        self.left.take()
    }
}
