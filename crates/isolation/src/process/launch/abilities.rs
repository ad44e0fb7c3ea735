//! What a machine lets Lyra's sandboxes do.

use serde::{Deserialize, Serialize};

/// What this machine lets us do, found out when the launcher starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abilities {
    /// With whose rights sandboxes are made.
    pub privilege: Privilege,
    /// How memory, processor time and processes are bounded.
    pub cgroups: Cgroups,
    /// The version of Landlock that the kernel has, 0 without.
    pub landlock: u32,
}

/// With whose rights sandboxes are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Privilege {
    /// As root: each sandbox runs as a user of its own that nobody else is.
    Root,
    /// As an ordinary user, by user namespaces: sandboxes run as this user, apart by namespaces only.
    UserNamespace,
}

/// How memory, processor time and processes are bounded. Without a controller, a limit holds as follows: memory by
/// watching the resident memory ten times a second, processes by `RLIMIT_NPROC`, processor time not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroups {
    /// Version of the interface: 1, 2, or 0 where there is no cgroup that Lyra may use.
    pub version: u8,
    /// Memory is bounded and counted.
    pub memory: bool,
    /// Processor time is bounded and counted.
    pub cpu: bool,
    /// The number of processes is bounded.
    pub pids: bool,
    /// Sandboxes can be frozen by the kernel, otherwise by `SIGSTOP`.
    pub freezer: bool,
}
