//! What a worker tells the control role, and does for it: who it is, that it lives, what it holds; and what it is told to
//! hold.
//!
//! One conversation with each control process (`talk`), begun again whenever it breaks; which ones there are, they tell.
//! Each change of what the worker holds gets the next revision, is stored (`store`), then told to all (`journal`). Calls do not
//! depend on any of them: a worker that is cut off from control serves on and holds up what it was told last, also over a
//! restart.

mod desk;
pub(crate) mod entry;
pub(crate) mod journal;
mod store;
mod talk;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lyra_kit::{Clock, Random, Tasks};
use lyra_types::Result;
use lyra_wire::Registry;
use lyra_wire::registry::Controls;
use parking_lot::Mutex;

use crate::Service;
use desk::Desk;
pub(crate) use store::SavedSessions;
pub use store::{NodeStore, NodeStoreError};
use talk::Talk;

/// Longest wait for the parting word to be sent.
const PART: Duration = Duration::from_secs(2);
/// How often it is looked whether instances have changed.
const LOOK: Duration = Duration::from_millis(100);
/// Most control processes that are talked with.
const MOST: usize = 32;

/// Who a worker is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its name, which no other worker has.
    pub name: String,
    /// Where calls reach it, `HOST:PORT`.
    pub address: String,
}

/// Reaches the control process at an address, `HOST:PORT`.
pub type Reach = dyn Fn(&str) -> Result<Arc<dyn Registry>> + Send + Sync;

/// What an agent is made of.
pub struct AgentDeps {
    /// The worker.
    pub worker: Service,
    /// What it remembers of itself.
    pub store: NodeStore,
    /// The control process of this very process, if there is one.
    pub own: Option<Arc<dyn Registry>>,
    /// Addresses of control processes to begin with.
    pub seeds: Vec<String>,
    /// How others are reached.
    pub reach: Box<Reach>,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
}

/// Keeps the control role informed, and does what it says.
pub struct Agent {
    tasks: Tasks,
}

/// What all conversations share.
struct Shared {
    identity: Identity,
    incarnation: u64,
    desk: Arc<Desk>,
    reach: Box<Reach>,
    clock: Clock,
    random: Random,
    tasks: Tasks,
    /// Addresses that are talked with, or tried; of the seeds for ever.
    addresses: Mutex<BTreeMap<String, Standing>>,
    /// The address under which each control process is talked with now.
    talking: Mutex<BTreeMap<u64, String>>,
}

/// Why an address is talked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Seed,
    /// A control process told of it.
    Told,
}

impl Agent {
    /// Takes up what the worker held when it ended, and begins the conversations.
    pub async fn start(identity: Identity, deps: AgentDeps) -> Agent {
        let tasks = Tasks::new();
        let desk = Arc::new(Desk::open(deps.worker, deps.store, deps.clock.clone(), &tasks).await);
        let shared = Arc::new(Shared {
            identity,
            incarnation: deps.random.u64(),
            desk: Arc::clone(&desk),
            reach: deps.reach,
            clock: deps.clock,
            random: deps.random,
            tasks: tasks.clone(),
            addresses: Mutex::default(),
            talking: Mutex::default(),
        });
        tasks.every("report-instances", LOOK, move || {
            let desk = Arc::clone(&desk);
            async move { desk.report().await }
        });
        if let Some(own) = deps.own {
            shared.converse(String::new(), own);
        }
        for seed in deps.seeds {
            shared.meet(&seed, Standing::Seed);
        }
        Agent { tasks }
    }

    /// Takes leave: control sends no more calls.
    pub async fn stop(&self) {
        if !self.tasks.stop(PART).await {
            tracing::warn!("control was not told that this worker ends");
        }
    }
}

impl Shared {
    /// Begins to talk with the control process at `address`, unless that is done already.
    fn meet(self: &Arc<Self>, address: &str, standing: Standing) {
        {
            let mut addresses = self.addresses.lock();
            if addresses.contains_key(address) || addresses.len() >= MOST {
                return;
            }
            addresses.insert(address.to_owned(), standing);
        }
        match (self.reach)(address) {
            Ok(registry) => self.converse(address.to_owned(), registry),
            Err(error) => tracing::warn!(%error, address, "a control process has an address that is none"),
        }
    }

    fn converse(self: &Arc<Self>, address: String, registry: Arc<dyn Registry>) {
        let talk = Talk { shared: Arc::clone(self), address, registry };
        self.tasks.spawn("talk-with-control", async move { talk.on_and_on().await });
    }

    /// Talks with those that there are.
    fn told(self: &Arc<Self>, controls: &Controls) {
        for address in &controls.addresses {
            self.meet(address, Standing::Told);
        }
        if let Some((epoch, address)) = &controls.leader {
            tracing::debug!(epoch, address, "the control process that leads");
        }
    }

    /// Whether an address may be given up that could not be reached for long: it was told, and nobody tells it any more.
    fn forget(&self, address: &str) -> bool {
        let mut addresses = self.addresses.lock();
        let told = addresses.get(address) == Some(&Standing::Told);
        if told {
            addresses.remove(address);
        }
        told
    }
}
