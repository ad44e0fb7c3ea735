//! How many tasks a resource may have at a time. Apollo's `CapacityCalculatorNone` and `TaskNumber`.

use serde::{Deserialize, Serialize};

use crate::mapping::Resource;

/// Which calculator says a resource's capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "limit", rename_all = "snake_case", deny_unknown_fields)]
pub enum Limit {
    /// Any number of tasks.
    #[default]
    None,
    /// This machine takes so many tasks of functions, whatever they are; what is elsewhere takes any number.
    TaskNumber {
        /// Most tasks, from 1.
        #[serde(default = "four")]
        max: u32,
    },
}

fn four() -> u32 {
    4
}

impl Limit {
    /// Most tasks of the resource; any number where none.
    pub fn capacity(&self, resource: &Resource) -> Option<u32> {
        match self {
            Limit::TaskNumber { max } if resource.is_local() => Some((*max).max(1)),
            Limit::None | Limit::TaskNumber { .. } => None,
        }
    }
}
