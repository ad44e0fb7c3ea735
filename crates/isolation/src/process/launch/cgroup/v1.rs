//! Version 1: one tree for each controller, mounted alone or a few together.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::abilities::Cgroups;
use super::super::plan::Limits;
use super::{CpuClock, directory_of, field, mount_points, read, sweep};

/// Controllers that are used, where they are.
const WANTED: [&str; 5] = ["memory", "cpu", "cpuacct", "pids", "freezer"];

/// Length of the period over which processor time is shared out, in µs: what the kernel gives every new group
/// (`Documentation/scheduler/sched-bwc.rst`). To write it again would cost as much as to write the quota.
const PERIOD: u64 = 100_000;

/// Least quota in a period that the kernel takes, in µs.
const MIN_QUOTA: u64 = 1_000;

/// This Lyra's directory in the tree of each controller.
#[derive(Debug)]
pub(in super::super) struct Trees(BTreeMap<String, PathBuf>);

impl Trees {
    /// Finds the trees of the controllers that can be used and makes the directory `name` in each.
    pub(super) fn find(mounts: &str, membership: &str, name: &str) -> Option<Trees> {
        let mut trees = BTreeMap::new();
        for (point, root, options) in mount_points(mounts, "cgroup") {
            for controller in options.split(',').filter(|option| WANTED.contains(option)) {
                let own = membership.lines().find_map(|line| {
                    let mut parts = line.splitn(3, ':').skip(1);
                    let controllers = parts.next()?;
                    controllers.split(',').any(|one| one == controller).then(|| parts.next())?
                });
                let Some(directory) = own.and_then(|path| directory_of(&point, &root, path)) else { continue };
                let directory = directory.join(name);
                sweep(&directory);
                if fs::create_dir_all(&directory).is_ok() && is_writable(&directory) {
                    trees.insert(controller.to_owned(), directory);
                }
            }
        }
        (!trees.is_empty()).then_some(Trees(trees))
    }

    /// These directories, whatever they are.
    #[cfg(test)]
    pub(super) fn in_directories<const N: usize>(directories: [(&str, PathBuf); N]) -> Trees {
        Trees(directories.map(|(controller, directory)| (controller.to_owned(), directory)).into())
    }

    pub(super) fn abilities(&self) -> Cgroups {
        let has = |controller| self.0.contains_key(controller);
        Cgroups { version: 1, memory: has("memory"), cpu: has("cpu"), pids: has("pids"), freezer: has("freezer") }
    }

    pub(super) fn directories(&self) -> Vec<&Path> {
        unique(self.0.values())
    }

    pub(super) fn group(&self, id: &str) -> super::Group {
        let directories = self.0.iter().map(|(controller, directory)| (controller.clone(), directory.join(id)));
        super::Group::One(Group(directories.collect()))
    }
}

fn is_writable(directory: &Path) -> bool {
    fs::OpenOptions::new().write(true).open(directory.join("cgroup.procs")).is_ok()
}

/// Controllers that are mounted together share a directory.
fn unique<'a>(directories: impl Iterator<Item = &'a PathBuf>) -> Vec<&'a Path> {
    let mut unique: Vec<&Path> = directories.map(PathBuf::as_path).collect();
    unique.sort_unstable();
    unique.dedup();
    unique
}

/// A sandbox's directory in the tree of each controller.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in super::super) struct Group(BTreeMap<String, PathBuf>);

impl Group {
    pub(super) fn directories(&self) -> Vec<&Path> {
        unique(self.0.values())
    }

    fn of(&self, controller: &str) -> Option<&Path> {
        self.0.get(controller).map(PathBuf::as_path)
    }

    pub(super) fn set_limits(&self, limits: &Limits) -> io::Result<()> {
        if let Some(memory) = self.of("memory") {
            let bytes = limits.memory_bytes.to_string();
            let (plain, with_swap) = (memory.join("memory.limit_in_bytes"), memory.join("memory.memsw.limit_in_bytes"));
            if with_swap.exists() {
                // The limit with swap may never be the lower one, so growing and shrinking want different orders.
                let _lower_first = fs::write(&plain, &bytes);
                fs::write(&with_swap, &bytes)?;
            }
            fs::write(&plain, &bytes)?;
            // Where swap is not counted: not to swap at all keeps the limit true.
            let _optional = fs::write(memory.join("memory.swappiness"), "0");
        }
        if let Some(cpu) = self.of("cpu") {
            let quota = (u64::from(limits.cpu_millis) * PERIOD / 1000).max(MIN_QUOTA);
            fs::write(cpu.join("cpu.cfs_quota_us"), quota.to_string())?;
        }
        if let Some(pids) = self.of("pids") {
            fs::write(pids.join("pids.max"), limits.pids.to_string())?;
        }
        Ok(())
    }

    pub(super) fn bounds_memory(&self) -> bool {
        self.of("memory").is_some()
    }

    pub(super) fn ran_out_of_memory(&self) -> bool {
        let kills = self.of("memory").and_then(|memory| field(&read(memory, "memory.oom_control"), "oom_kill "));
        kills.unwrap_or(0) > 0
    }

    pub(super) fn usage(&self) -> (Option<u64>, Option<Duration>) {
        let memory = self.of("memory").and_then(|memory| {
            let used: u64 = read(memory, "memory.usage_in_bytes").trim().parse().ok()?;
            // What the kernel can have back at once is not held by the sandbox.
            let cached = field(&read(memory, "memory.stat"), "total_inactive_file ").unwrap_or(0);
            Some(used.saturating_sub(cached))
        });
        (memory, self.clock().and_then(|clock| clock.read()))
    }

    pub(super) fn clock(&self) -> Option<CpuClock> {
        CpuClock::open(&self.of("cpuacct")?.join("cpuacct.usage"), "", Duration::from_nanos)
    }

    pub(super) fn set_frozen(&self, frozen: bool) -> io::Result<bool> {
        let Some(freezer) = self.of("freezer") else { return Ok(false) };
        fs::write(freezer.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" })?;
        Ok(true)
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.of("freezer").is_some_and(|freezer| read(freezer, "freezer.state").trim() == "FROZEN")
    }

    pub(super) fn reclaim(&self) -> io::Result<()> {
        match self.of("memory") {
            Some(memory) => match fs::write(memory.join("memory.force_empty"), "0") {
                // It has taken what it could.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
                other => other,
            },
            None => Ok(()),
        }
    }
}
