//! What a machine lets Lyra's sandboxes do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What this machine lets us do, found out when the launcher starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abilities {
    /// With whose rights sandboxes are made.
    pub privilege: Privilege,
    /// How memory, processor time and processes are bounded.
    pub cgroups: Cgroups,
    /// Whether the kernel moves processes between cgroups without waiting for all processors first.
    #[serde(default)]
    pub favor_dynmods: bool,
    /// The version of Landlock that the kernel has, 0 without.
    pub landlock: u32,
}

impl Abilities {
    /// Each by its name, for people.
    pub fn described(&self) -> BTreeMap<String, String> {
        let (privilege, users) = match self.privilege {
            Privilege::Root => {
                let last = FIRST_USER + (USERS - 1);
                ("root", format!("{FIRST_USER} to {last}, one for each sandbox"))
            }
            Privilege::UserNamespace => ("unprivileged, by user namespaces", "the same for all sandboxes".to_owned()),
        };
        let landlock = match self.landlock {
            0 => "not in this kernel".to_owned(),
            version => format!("version {version}, not needed"),
        };
        let moves = if self.favor_dynmods { "quick (favordynmods)" } else { "slow: each waits for all processors" };
        let words = [
            ("privilege", privilege.to_owned()),
            ("users", users),
            ("namespaces", "user, mount, pid, network, ipc, uts, cgroup".to_owned()),
            ("cgroups", self.cgroups.described()),
            ("cgroup_moves", moves.to_owned()),
            ("seccomp", "allow-list".to_owned()),
            ("landlock", landlock),
        ];
        words.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// First of the users that sandboxes run as when Lyra is root. It lies in a range (from 0x7000_0000) that neither
/// distributions nor service managers nor container engines hand out.
pub(super) const FIRST_USER: u32 = 0x7001_0000;

/// How many of them are taken in turn. None of two live sandboxes is the same.
pub(super) const USERS: u32 = 1 << 16;

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

impl Cgroups {
    fn described(&self) -> String {
        let controllers = [("memory", self.memory), ("cpu", self.cpu), ("pids", self.pids), ("freezer", self.freezer)];
        let list = |wanted: bool| {
            let names: Vec<_> = controllers.iter().filter(|(_, has)| *has == wanted).map(|(name, _)| *name).collect();
            names.join(", ")
        };
        match (self.version, list(false)) {
            (0, _) => "none: memory is watched, processes are counted, processors are not bounded".to_owned(),
            (version, without) if without.is_empty() => format!("version {version}: {}", list(true)),
            (version, without) => format!("version {version}: {}; without {without}", list(true)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_lacks_is_said() {
        let cgroups = Cgroups { version: 2, memory: true, cpu: false, pids: true, freezer: true };
        assert_eq!(cgroups.described(), "version 2: memory, pids, freezer; without cpu");
        let none = Cgroups { version: 0, memory: false, cpu: false, pids: false, freezer: false };
        let words = Abilities { privilege: Privilege::UserNamespace, cgroups: none, favor_dynmods: false, landlock: 0 };
        let words = words.described();
        assert!(words["cgroups"].starts_with("none") && words["privilege"].starts_with("unprivileged"), "{words:?}");
        assert_eq!(words["landlock"], "not in this kernel");
    }
}
