//! What a run's journal is made of: everything that does not follow from what stands before it.

use lyra_afcl::graph::TaskId;
use lyra_types::workflow::{Cause, RunError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use smallvec::SmallVec;

use super::{Path, TaskKey};

/// One entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When, in milliseconds since the epoch.
    pub at: i64,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The run has begun.
    Begun,
    /// A function was given resources and is called from now on.
    Scheduled {
        /// The task.
        #[serde(flatten)]
        key: TaskKey,
        /// Which try, from 1.
        attempt: u32,
        /// Places in the type's list of resources.
        picks: SmallVec<[u32; 2]>,
    },
    /// A function gave an output.
    Succeeded {
        /// The task.
        #[serde(flatten)]
        key: TaskKey,
        /// Which try.
        attempt: u32,
        /// The resource that answered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resource: Option<String>,
        /// The output, or where it is kept.
        output: Stored,
    },
    /// Values of a try's output stay in the blob store, and have references in their places. Only those who delete blobs
    /// need to know.
    Left {
        /// Their SHA-256 in hex.
        blobs: Vec<String>,
    },
    /// A try failed.
    Failed {
        /// The task.
        #[serde(flatten)]
        key: TaskKey,
        /// Which try.
        attempt: u32,
        /// Why.
        cause: Cause,
        /// What comes of it.
        next: Next,
    },
    /// No further task is begun.
    Paused,
    /// Tasks are begun again.
    Resumed,
    /// The run was ended from outside.
    Stopped {
        /// Why it has failed; cancelled where there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<RunError>,
        /// How many tokens the run had moved, where some were left: whoever reads it back moves no more before it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        moved: Option<u64>,
    },
    /// A run that had failed or was cancelled goes on where it failed.
    Redriven,
}

/// What comes of a try that failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Next {
    /// Another try at that time (milliseconds since the epoch).
    Again(i64),
    /// Tries of another function type, the n-th of the task's alternatives, at that time.
    Alternative(u32, i64),
    /// The run goes on with this output.
    Caught(Map<String, Value>),
    /// Nothing: the run has failed.
    Fatal,
}

/// A value in a journal: there, or in the blob store when it is large.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stored {
    /// There.
    Value(Map<String, Value>),
    /// In the blob store, under this SHA-256 in hex. Whoever reads a journal puts the value in its place first.
    Blob(String),
}

impl Entry {
    /// How many tokens there had been when it came, where it came before the last one.
    pub fn moved(&self) -> Option<u64> {
        match self.event {
            Event::Stopped { moved, .. } => moved,
            _ => None,
        }
    }
}

impl Event {
    /// Of [`Event::Succeeded`].
    pub fn succeeded(task: u32, path: Path, attempt: u32, output: Map<String, Value>) -> Event {
        let key = TaskKey { task: TaskId(task), path };
        Event::Succeeded { key, attempt, resource: None, output: Stored::Value(output) }
    }
}
