//! The processes of a sandbox, found by descent: for machines without cgroups, where nobody else knows them.
//!
//! A process that lost its parent becomes a child of the sandbox's first process, so descent misses none but for the
//! moment in which one is forked. What is computed here is an estimate; the kernel's own counts are used where there are.

use std::fs;
use std::time::Duration;

use crate::Usage;

/// Processes that descend from `roots`, which are included.
pub(super) fn descendants(roots: &[i32]) -> Vec<i32> {
    let mut found = roots.to_vec();
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        found.extend(children(pid));
    }
    found
}

/// Processes that `pid` has started, and orphans that it was given.
pub(super) fn children(pid: i32) -> Vec<i32> {
    let mut found = Vec::new();
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return found };
    for task in tasks.flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(children.split_whitespace().filter_map(|child| child.parse::<i32>().ok()));
    }
    found
}

/// How a process is called in lists of processes.
pub(super) fn name(pid: i32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|name| name.trim_end().to_owned())
}

/// What the processes hold and have used.
pub(super) fn usage(processes: &[i32]) -> Usage {
    let mut sum = Usage::default();
    for pid in processes {
        let one = of_one(*pid).unwrap_or_default();
        sum.memory += one.memory;
        sum.cpu += one.cpu;
    }
    sum
}

const PAGE: u64 = 4096;

/// Length of the kernel's tick as user programs see it.
const TICK: Duration = Duration::from_millis(10);

fn of_one(pid: i32) -> Option<Usage> {
    let pages = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let resident: u64 = pages.split(' ').nth(1)?.parse().ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(Usage { memory: resident * PAGE, cpu: TICK * user.saturating_add(system) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_found_and_counted() {
        let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(descendants(&[own]).contains(&pid));
        assert!(usage(&[own, pid]).memory > usage(&[pid]).memory);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
