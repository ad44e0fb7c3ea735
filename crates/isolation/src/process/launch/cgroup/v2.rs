//! Version 2: one tree for all controllers.
//!
//! A directory whose children have controllers may hold no process itself. Where Lyra's own directory is not the root of
//! the tree, Lyra and its launcher therefore move into a child of it, `lyra-supervisor`; they do so only where no other
//! process is in it, which is what a service manager gives a unit that it delegates to (`Delegate=yes`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::abilities::Cgroups;
use super::super::plan::Limits;
use super::{CpuClock, directory_of, field, mount_points, read, sweep};

/// Controllers that are used, where they are.
const WANTED: [&str; 3] = ["memory", "cpu", "pids"];

/// Length of the period over which processor time is shared out, in µs.
const PERIOD: u64 = 100_000;

/// Least quota in a period that the kernel takes, in µs.
const MIN_QUOTA: u64 = 1_000;

/// This Lyra's directory.
#[derive(Debug)]
pub(in super::super) struct Tree {
    directory: PathBuf,
    controllers: Vec<String>,
}

impl Tree {
    /// Finds the tree, switches the controllers on for the directory `name` in it; `None` where there is no controller.
    pub(super) fn find(mounts: &str, membership: &str, name: &str, parent: i32) -> Option<Tree> {
        let (point, root, _) = mount_points(mounts, "cgroup2").next()?;
        let own = directory_of(&point, &root, membership.lines().find_map(|line| line.strip_prefix("0::"))?)?;
        // An earlier start may have moved us down already.
        let own = if own.ends_with(SUPERVISOR) { own.parent()?.to_owned() } else { own };
        Tree::make(&own, name, &[parent, i32::try_from(std::process::id()).ok()?])
    }

    /// The same in a given directory, where the processes `ours` are.
    fn make(own: &Path, name: &str, ours: &[i32]) -> Option<Tree> {
        let offered = read(own, "cgroup.controllers");
        let wanted: Vec<&str> = offered.split_whitespace().filter(|one| WANTED.contains(one)).collect();
        if wanted.is_empty() || !hand_down(own, &wanted, ours) {
            return None;
        }
        let directory = own.join(name);
        sweep(&directory);
        let tree = Tree { directory, controllers: wanted.into_iter().map(str::to_owned).collect() };
        tree.restore().then_some(tree)
    }

    /// Makes the directory, where it is not there, and hands it the controllers.
    pub(super) fn restore(&self) -> bool {
        let controllers: Vec<&str> = self.controllers.iter().map(String::as_str).collect();
        fs::create_dir_all(&self.directory).is_ok() && hand_down(&self.directory, &controllers, &[])
    }

    pub(super) fn abilities(&self) -> Cgroups {
        let has = |controller: &str| self.controllers.iter().any(|one| one == controller);
        Cgroups { version: 2, memory: has("memory"), cpu: has("cpu"), pids: has("pids"), freezer: true }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn group(&self, id: &str) -> super::Group {
        super::Group::Two(Group { directory: self.directory.join(id), controllers: self.controllers.clone() })
    }
}

const SUPERVISOR: &str = "lyra-supervisor";

/// Gives the children of a directory its controllers.
fn hand_down(directory: &Path, controllers: &[&str], ours: &[i32]) -> bool {
    let switches = controllers.iter().map(|one| format!("+{one}")).collect::<Vec<_>>().join(" ");
    let control = directory.join("cgroup.subtree_control");
    if fs::write(&control, &switches).is_ok() {
        return true;
    }
    let members = read(directory, "cgroup.procs");
    let members: Vec<i32> = members.lines().filter_map(|line| line.parse().ok()).collect();
    if members.is_empty() || !members.iter().all(|member| ours.contains(member)) {
        return false;
    }
    let below = directory.join(SUPERVISOR);
    let moved = fs::create_dir_all(&below)
        .and_then(|()| members.iter().try_for_each(|pid| fs::write(below.join("cgroup.procs"), pid.to_string())));
    moved.is_ok() && fs::write(&control, &switches).is_ok()
}

/// A sandbox's directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in super::super) struct Group {
    directory: PathBuf,
    controllers: Vec<String>,
}

impl Group {
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|one| one == controller)
    }

    fn set(&self, file: &str, value: impl AsRef<[u8]>) -> io::Result<()> {
        fs::write(self.directory.join(file), value)
    }

    pub(super) fn set_limits(&self, limits: &Limits) -> io::Result<()> {
        if self.has("memory") {
            self.set("memory.max", limits.memory_bytes.to_string())?;
            // Kernels without swap accounting do not have the file; all processes of a sandbox end together.
            let _optional = self.set("memory.swap.max", "0");
            let _optional = self.set("memory.oom.group", "1");
        }
        if self.has("cpu") {
            let quota = (u64::from(limits.cpu_millis) * PERIOD / 1000).max(MIN_QUOTA);
            self.set("cpu.max", format!("{quota} {PERIOD}"))?;
        }
        if self.has("pids") {
            self.set("pids.max", limits.pids.to_string())?;
        }
        Ok(())
    }

    pub(super) fn bounds_memory(&self) -> bool {
        self.has("memory")
    }

    pub(super) fn ran_out_of_memory(&self) -> bool {
        field(&read(&self.directory, "memory.events"), "oom_kill ").unwrap_or(0) > 0
    }

    pub(super) fn usage(&self) -> (Option<u64>, Option<Duration>) {
        let memory = read(&self.directory, "memory.current").trim().parse::<u64>().ok().map(|used| {
            // What the kernel can have back at once is not held by the sandbox.
            let cached = field(&read(&self.directory, "memory.stat"), "inactive_file ").unwrap_or(0);
            used.saturating_sub(cached)
        });
        (memory, self.clock().and_then(|clock| clock.read()))
    }

    pub(super) fn clock(&self) -> Option<CpuClock> {
        CpuClock::open(&self.directory.join("cpu.stat"), "usage_usec ", Duration::from_micros)
    }

    pub(super) fn set_frozen(&self, frozen: bool) -> io::Result<bool> {
        self.set("cgroup.freeze", if frozen { "1" } else { "0" }).map(|()| true)
    }

    pub(super) fn is_frozen(&self) -> bool {
        field(&read(&self.directory, "cgroup.events"), "frozen ") == Some(1)
    }

    pub(super) fn reclaim(&self) -> io::Result<()> {
        let all = read(&self.directory, "memory.current");
        match self.set("memory.reclaim", all.trim()) {
            // It has taken what it could; or the kernel (before 5.19) can't be asked.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES | libc::ENOENT)) => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(directory: &Path, contents: &[(&str, &str)]) {
        for (file, text) in contents {
            fs::write(directory.join(file), text).unwrap();
        }
    }

    #[test]
    fn limits_are_written_for_the_controllers_that_there_are() {
        let own = tempfile::tempdir().unwrap();
        files(own.path(), &[("cgroup.controllers", "cpuset cpu memory io"), ("cgroup.procs", "")]);
        let tree = Tree::make(own.path(), "lyra-test", &[]).unwrap();
        assert_eq!(read(own.path(), "cgroup.subtree_control"), "+cpu +memory");
        let abilities = tree.abilities();
        assert!(abilities.memory && abilities.cpu && !abilities.pids);
        let super::super::Group::Two(group) = tree.group("one") else { panic!("another version") };
        fs::create_dir(group.directory()).unwrap();
        let limits = Limits { memory_bytes: 1 << 26, cpu_millis: 250, ..Limits::default() };
        group.set_limits(&limits).unwrap();
        assert_eq!(read(group.directory(), "memory.max"), "67108864");
        assert_eq!(read(group.directory(), "cpu.max"), "25000 100000");
        assert!(!group.directory().join("pids.max").exists());
    }

    #[test]
    fn usage_and_the_end_of_memory_are_read() {
        let own = tempfile::tempdir().unwrap();
        let group = Group { directory: own.path().to_owned(), controllers: vec!["memory".to_owned()] };
        assert!(!group.ran_out_of_memory());
        files(
            own.path(),
            &[
                ("memory.current", "5000\n"),
                ("memory.stat", "anon 3000\ninactive_file 1000\n"),
                ("cpu.stat", "usage_usec 1500\nuser_usec 1000\n"),
                ("memory.events", "low 0\noom 1\noom_kill 1\n"),
                ("cgroup.events", "populated 1\nfrozen 1\n"),
            ],
        );
        assert_eq!(group.usage(), (Some(4000), Some(Duration::from_micros(1500))));
        assert!(group.ran_out_of_memory() && group.is_frozen());
    }

    #[test]
    fn a_directory_that_others_share_is_left_alone() {
        let own = tempfile::tempdir().unwrap();
        // A directory in place of the file: writing to it fails as in a group that has processes.
        fs::create_dir(own.path().join("cgroup.subtree_control")).unwrap();
        files(own.path(), &[("cgroup.controllers", "memory"), ("cgroup.procs", "1\n2\n")]);
        assert!(Tree::make(own.path(), "lyra-test", &[2]).is_none());
        assert!(!own.path().join(SUPERVISOR).exists());
    }
}
