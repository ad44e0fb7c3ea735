//! The roles that a process can play.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// A part of the platform that can be a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Functions, jobs, the registry of workers, logs.
    Control,
    /// Runs calls.
    Worker,
    /// The public HTTP interface.
    Gateway,
    /// Says how many workers there shall be, and has them made and ended.
    Scaler,
    /// Runs workflows.
    Workflow,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 5] = [Role::Control, Role::Worker, Role::Gateway, Role::Scaler, Role::Workflow];

    /// The name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Control => "control",
            Role::Worker => "worker",
            Role::Gateway => "gateway",
            Role::Scaler => "scaler",
            Role::Workflow => "workflow",
        }
    }

    /// The role of that name.
    pub fn parse(text: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// Roles as a list for people: `control, worker`.
    pub fn list(roles: &BTreeSet<Role>) -> String {
        roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ")
    }
}
