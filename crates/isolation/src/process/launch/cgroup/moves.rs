//! How long it takes to move a process into a group.
//!
//! The kernel keeps forks and exits cheap by making moves dear: unless told otherwise, each move waits until every processor
//! has passed a quiet state, for 5 to 20 ms. A host of sandboxes moves a process for each sandbox, and its launcher stands
//! still meanwhile. The option `favordynmods` of cgroup2 (Documentation/admin-guide/cgroup-v2.rst, since Linux 6.0) turns that
//! round, for the whole machine and both versions.

use std::fs;
use std::path::PathBuf;

use super::super::system;
use super::mount_points;

const OPTION: &str = "favordynmods";

/// Whether moves are quick; where they are not and `may_ask` says so, asks the kernel to make them so first. That stays
/// so when this process has ended: others may have come to rely on it.
pub(in super::super) fn favor_moves(may_ask: bool) -> bool {
    match mounted() {
        Some((_, options)) if has_option(&options) => true,
        _ if !may_ask => false,
        // A remount replaces all options, so the others are said again.
        Some((point, options)) => {
            let asked = options_to_say(&options);
            system::reconfigure_mount(&point, &asked).is_ok() && mounted().is_some_and(|(_, now)| has_option(&now))
        }
        // Options belong to the one tree that there is, whether it is mounted anywhere or not.
        None => system::make_file_system(c"cgroup2", &[OPTION]).is_ok(),
    }
}

/// Where version 2 is mounted, and its options.
fn mounted() -> Option<(PathBuf, String)> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let found = mount_points(&mounts, "cgroup2").next();
    found.map(|(point, _, options)| (point, options.to_owned()))
}

fn has_option(options: &str) -> bool {
    options.split(',').any(|option| option == OPTION)
}

fn options_to_say(options: &str) -> Vec<&str> {
    options.split(',').filter(|option| !matches!(*option, "rw" | "ro" | "")).chain([OPTION]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_stand_are_said_again() {
        assert_eq!(
            options_to_say("rw,nsdelegate,memory_recursiveprot"),
            ["nsdelegate", "memory_recursiveprot", OPTION]
        );
        assert_eq!(options_to_say("rw"), [OPTION]);
        assert!(has_option("rw,nsdelegate,favordynmods") && !has_option("rw,nofavordynmods") && !has_option("rw"));
    }
}
