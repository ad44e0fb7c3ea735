//! What this machine has.

use std::fs;

/// Memory that this process may use, in bytes: the machine's, or the control group's limit where that is less.
pub(crate) fn memory() -> u64 {
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limit = limits.iter().filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok()).min();
    let machine = fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(total_of);
    // Neither is there only where /proc is not mounted: then as on the smallest machine that Lyra is meant for.
    limit.into_iter().chain(machine).min().unwrap_or(1 << 30)
}

/// Processors that this process may use.
pub(crate) fn cores() -> u64 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64)
}

fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_total_out_of_meminfo() {
        assert_eq!(total_of("MemTotal:       24576 kB\nMemFree: 1 kB\n"), Some(24_576 * 1_024));
        assert_eq!(total_of("nothing"), None);
        assert!(memory() > 1 << 28);
    }
}
