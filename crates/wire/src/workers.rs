//! The workers that a role knows, by name.

use std::sync::Arc;

use lyra_types::{Error, Result};

use crate::Operated;
use crate::registry::MemberState;

/// Name of the worker where there is but one, in the same process.
pub const LOCAL: &str = "local";

/// A worker by name.
#[derive(Clone)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// Where calls reach it, `HOST:PORT`; none where it is in the same process.
    pub address: Option<String>,
    /// Whether calls are sent there.
    pub state: MemberState,
    /// The worker.
    pub worker: Arc<dyn Operated>,
}

/// All workers that a role knows.
pub trait Workers: Send + Sync + 'static {
    /// All, by name.
    fn all(&self) -> Vec<Known>;

    /// One of them.
    ///
    /// # Errors
    /// [`lyra_types::Code::NotFound`].
    fn find(&self, name: &str) -> Result<Known> {
        let mut all = self.all().into_iter();
        all.find(|known| known.name == name).ok_or_else(|| Error::not_found("worker", name))
    }
}

/// The one worker of a process that runs all roles.
pub struct Sole(pub Arc<dyn Operated>);

impl Workers for Sole {
    fn all(&self) -> Vec<Known> {
        vec![Known { name: LOCAL.to_owned(), address: None, state: MemberState::Ready, worker: Arc::clone(&self.0) }]
    }
}
