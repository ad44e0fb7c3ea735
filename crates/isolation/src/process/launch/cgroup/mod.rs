//! Control groups: where a sandbox's memory, processor time and processes are bounded and counted.
//!
//! Two interfaces stand side by side in the field: version 1 has one tree of directories for each controller, version 2 one
//! for all. [`Hierarchy`] knows the machine's trees and makes a [`Group`] in them for each sandbox. A group is
//! only paths: launcher and Lyra both work on its files, each after its part.
//!
//! What must hold: all groups of one Lyra lie in a directory of its own, `lyra-<name>`, so that the next start finds what
//! an earlier one left. A group's limits stand before a program is in it.

mod clock;
mod moves;
mod v1;
mod v2;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::abilities::Cgroups;
use super::plan::Limits;
use crate::Usage;

pub(super) use clock::CpuClock;
pub(super) use moves::favor_moves;

/// The machine's trees, as far as Lyra may use them.
#[derive(Debug)]
pub(super) enum Hierarchy {
    /// Version 1.
    One(v1::Trees),
    /// Version 2.
    Two(v2::Tree),
    /// None.
    None,
}

impl Hierarchy {
    /// Finds the trees, makes this Lyra's directories in them, and removes what an earlier run left there.
    ///
    /// `parent` is Lyra's process: version 2 wants a directory with groups below it to hold no process itself.
    pub(super) fn find(name: &str, parent: i32) -> Hierarchy {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let name = format!("lyra-{name}");
        if let Some(tree) = v2::Tree::find(&mounts, &membership, &name, parent) {
            Hierarchy::Two(tree)
        } else if let Some(trees) = v1::Trees::find(&mounts, &membership, &name) {
            Hierarchy::One(trees)
        } else {
            Hierarchy::None
        }
    }

    pub(super) fn abilities(&self) -> Cgroups {
        match self {
            Hierarchy::One(trees) => trees.abilities(),
            Hierarchy::Two(tree) => tree.abilities(),
            Hierarchy::None => Cgroups { version: 0, memory: false, cpu: false, pids: false, freezer: false },
        }
    }

    /// A group for one sandbox, without limits yet.
    pub(super) fn create(&self, id: &str) -> io::Result<Group> {
        let group = match self {
            Hierarchy::One(trees) => trees.group(id),
            Hierarchy::Two(tree) => tree.group(id),
            Hierarchy::None => Group::None,
        };
        let make = || group.directories().into_iter().try_for_each(fs::create_dir);
        let made = match make() {
            // A launcher that an earlier Lyra of the same name left has ended meanwhile, and took the directories along.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.restore() => {
                group.remove();
                make()
            }
            made => made,
        };
        if let Err(error) = made {
            group.remove();
            return Err(error);
        }
        Ok(group)
    }

    /// Makes this Lyra's directories again; false: that was not possible.
    fn restore(&self) -> bool {
        match self {
            Hierarchy::One(trees) => trees.directories().into_iter().try_for_each(fs::create_dir_all).is_ok(),
            Hierarchy::Two(tree) => tree.restore(),
            Hierarchy::None => false,
        }
    }

    /// Removes this Lyra's directories. Only when no group is left.
    pub(super) fn remove(&self) {
        match self {
            Hierarchy::One(trees) => trees.directories().iter().for_each(|directory| drop(fs::remove_dir(directory))),
            Hierarchy::Two(tree) => drop(fs::remove_dir(tree.directory())),
            Hierarchy::None => {}
        }
    }
}

/// One sandbox's control group.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Group {
    /// In trees of version 1.
    One(v1::Group),
    /// In the tree of version 2.
    Two(v2::Group),
    /// There are no cgroups.
    None,
}

impl Group {
    fn directories(&self) -> Vec<&Path> {
        match self {
            Group::One(group) => group.directories(),
            Group::Two(group) => vec![group.directory()],
            Group::None => Vec::new(),
        }
    }

    /// The files that take a process into the group.
    pub(super) fn doors(&self) -> Vec<PathBuf> {
        self.directories().into_iter().map(|directory| directory.join("cgroup.procs")).collect()
    }

    /// Takes a process into the group.
    pub(super) fn admit(&self, pid: i32) -> io::Result<()> {
        let pid = pid.to_string();
        self.doors().into_iter().try_for_each(|door| fs::write(door, &pid))
    }

    pub(super) fn set_limits(&self, limits: &Limits) -> io::Result<()> {
        match self {
            Group::One(group) => group.set_limits(limits),
            Group::Two(group) => group.set_limits(limits),
            Group::None => Ok(()),
        }
    }

    /// Whether memory is bounded here.
    pub(super) fn bounds_memory(&self) -> bool {
        match self {
            Group::One(group) => group.bounds_memory(),
            Group::Two(group) => group.bounds_memory(),
            Group::None => false,
        }
    }

    /// Whether a process of the group was killed because memory was used up.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        match self {
            Group::One(group) => group.ran_out_of_memory(),
            Group::Two(group) => group.ran_out_of_memory(),
            Group::None => false,
        }
    }

    /// What the group uses; `None` for what is not counted here.
    pub(super) fn usage(&self) -> (Option<u64>, Option<Duration>) {
        match self {
            Group::One(group) => group.usage(),
            Group::Two(group) => group.usage(),
            Group::None => (None, None),
        }
    }

    /// The count of processor time that the group has used; `None` where that is not counted here.
    pub(super) fn clock(&self) -> Option<CpuClock> {
        match self {
            Group::One(group) => group.clock(),
            Group::Two(group) => group.clock(),
            Group::None => None,
        }
    }

    /// Stops all processes of the group, or lets them go on. False: this can't be done here.
    pub(super) fn set_frozen(&self, frozen: bool) -> io::Result<bool> {
        match self {
            Group::One(group) => group.set_frozen(frozen),
            Group::Two(group) => group.set_frozen(frozen),
            Group::None => Ok(false),
        }
    }

    /// Whether a request to stop has been carried out.
    pub(super) fn is_frozen(&self) -> bool {
        match self {
            Group::One(group) => group.is_frozen(),
            Group::Two(group) => group.is_frozen(),
            Group::None => false,
        }
    }

    /// Asks the kernel to take back all memory that it can get back.
    pub(super) fn reclaim(&self) -> io::Result<()> {
        match self {
            Group::One(group) => group.reclaim(),
            Group::Two(group) => group.reclaim(),
            Group::None => Ok(()),
        }
    }

    /// Removes the group. False: a process is still leaving it, try again.
    pub(super) fn remove(&self) -> bool {
        self.directories().into_iter().all(is_removed)
    }
}

/// Usage from a group, or from what is known without one.
pub(super) fn usage_or(group: &Group, otherwise: impl FnOnce() -> Usage) -> Usage {
    match group.usage() {
        (Some(memory), Some(cpu)) => Usage { memory, cpu },
        (memory, cpu) => {
            let known = otherwise();
            Usage { memory: memory.unwrap_or(known.memory), cpu: cpu.unwrap_or(known.cpu) }
        }
    }
}

fn is_removed(directory: &Path) -> bool {
    match fs::remove_dir(directory) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Removes the groups that an earlier run left in `directory`, killing what still runs in them.
fn sweep(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
        let group = entry.path();
        // A frozen process of version 1 can't die.
        let _thawed = fs::write(group.join("freezer.state"), "THAWED");
        for _ in 0..SWEEPS {
            for pid in read(&group, "cgroup.procs").lines().filter_map(|line| line.parse().ok()) {
                let _gone = super::system::kill(pid, libc::SIGKILL);
            }
            if is_removed(&group) {
                break;
            }
            lyra_kit::clock::block_for(SWEEP_PAUSE);
        }
    }
}

/// How often an old group is tried to be removed, and the pause between: its processes take a moment to die.
const SWEEPS: u32 = 200;
const SWEEP_PAUSE: Duration = Duration::from_millis(5);

fn read(directory: &Path, file: &str) -> String {
    fs::read_to_string(directory.join(file)).unwrap_or_default()
}

/// The number after a word at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// The line of `mountinfo` that fits: mount point, and which part of the file system is mounted there.
fn mount_points<'a>(mountinfo: &'a str, kind: &'a str) -> impl Iterator<Item = (PathBuf, PathBuf, &'a str)> {
    mountinfo.lines().filter_map(move |line| {
        let (place, what) = line.split_once(" - ")?;
        let mut what = what.split(' ');
        if what.next()? != kind {
            return None;
        }
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, place.next()?);
        Some((PathBuf::from(point), PathBuf::from(root), what.nth(1)?))
    })
}

/// The directory of a group that is called `path` by the kernel, in a mount of its tree that shows only `root`.
fn directory_of(point: &Path, root: &Path, path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    // Inside of a container the paths are often those of the machine, while the mount shows the container's part.
    let below = path.strip_prefix(root).or_else(|_| path.strip_prefix("/")).ok()?;
    Some([point.join(below), point.to_owned()].into_iter().find(|directory| directory.is_dir())?.components().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_from_mountinfo() {
        let text = "36 25 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                    37 25 0:32 /docker/abc /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n\
                    38 25 0:33 / /proc rw - proc proc rw\n";
        let one: Vec<_> = mount_points(text, "cgroup").collect();
        assert_eq!(one, [("/sys/fs/cgroup/memory".into(), "/".into(), "rw,memory")]);
        let two: Vec<_> = mount_points(text, "cgroup2").collect();
        assert_eq!(two, [("/sys/fs/cgroup/unified".into(), "/docker/abc".into(), "rw,nsdelegate")]);
    }

    #[test]
    fn directories_that_another_launcher_took_along_are_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let directory = |controller: &str| dir.path().join(controller).join("lyra-a");
        let hierarchy =
            Hierarchy::One(v1::Trees::in_directories([("cpu", directory("cpu")), ("pids", directory("pids"))]));
        fs::create_dir_all(directory("cpu")).unwrap();
        let group = hierarchy.create("sandbox-1").unwrap();
        assert!(group.directories().into_iter().all(Path::is_dir));
        assert!(group.remove());
        hierarchy.remove();
        assert!(hierarchy.create("sandbox-2").unwrap().directories().into_iter().all(Path::is_dir));
    }

    #[test]
    fn a_number_is_found_by_its_whole_name() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(field(text, "oom_kill "), Some(3));
        assert_eq!(field(text, "absent "), None);
    }
}
