//! What can be set on the process back end.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::egress::Policy;
use super::launch;

/// What the back end is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where packages are unpacked. Only this process may write there.
    pub dir: PathBuf,
    /// The launcher.
    pub launch: launch::Config,
    /// Where interpreters are looked for, in the form of `$PATH`.
    pub path: String,
    /// The rest.
    pub settings: Settings,
}

impl Config {
    /// The defaults, with packages in `dir`.
    pub fn new(dir: impl Into<PathBuf>, launch: launch::Config) -> Config {
        Config { dir: dir.into(), launch, path: String::new(), settings: Settings::default() }
    }
}

/// What an operator may choose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether functions may run as processes at all.
    pub enabled: bool,
    /// python3; `None`: the one of the system, or the first in `$PATH`.
    pub python: Option<PathBuf>,
    /// node; `None`: the one of the system, or the first in `$PATH`.
    pub node: Option<PathBuf>,
    /// Started interpreters that wait for a function, of each language.
    pub cells: usize,
    /// Most memory of one of them, in bytes.
    pub cell_memory: u64,
    /// Longest time for loading a function's code.
    #[serde(with = "humantime_serde")]
    pub init_timeout: Duration,
    /// Size of an instance's `/tmp`, and of the largest file, in bytes.
    pub tmp_bytes: u64,
    /// Most processes and threads of an instance.
    pub pids: u32,
    /// Most open files of a process.
    pub open_files: u64,
    /// Use cgroups where there are any. Without, limits are watched and softer.
    pub cgroups: bool,
    /// As root, have the kernel move processes between cgroups quickly (`favordynmods`), on the whole machine.
    pub favor_dynmods: bool,
    /// Where NVIDIA's driver is: its nodes are looked for in `dev` below it, its libraries in `usr/lib` and the like.
    pub driver_root: PathBuf,
    /// What instances with `network: egress` may reach.
    pub egress: Policy,
    /// How long instances of sessions go on without a worker before they are ended.
    #[serde(with = "humantime_serde")]
    pub orphan_grace: Duration,
    /// Most TCP connections of a session at a time, over its exposed ports.
    pub session_connections: u32,
    /// Most UDP clients of a session at a time, over its exposed ports.
    pub session_clients: u32,
    /// How long a UDP client of a session is remembered that says nothing and is told nothing.
    #[serde(with = "humantime_serde")]
    pub session_client_idle: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            enabled: true,
            python: None,
            node: None,
            cells: 2,
            cell_memory: 128 << 20,
            init_timeout: Duration::from_secs(15),
            tmp_bytes: 512 << 20,
            pids: 256,
            open_files: 1024,
            cgroups: true,
            favor_dynmods: true,
            driver_root: PathBuf::from("/"),
            egress: Policy::default(),
            orphan_grace: Duration::from_secs(120),
            session_connections: 1024,
            session_clients: 1024,
            session_client_idle: Duration::from_secs(60),
        }
    }
}

/// Least processes, open files and bytes with which an interpreter starts.
const LEAST: (u32, u64, u64) = (16, 64, 64 << 10);

/// Most cells of a language.
const MOST_CELLS: usize = 64;

/// Longest time without a worker.
const MOST_GRACE: Duration = Duration::from_secs(24 * 3600);

impl Settings {
    /// Refuses what no instance could be started with.
    ///
    /// # Errors
    /// The setting, and why.
    pub fn check(&self) -> Result<(), String> {
        let (pids, open_files, tmp_bytes) = LEAST;
        let least = [
            ("pids", u64::from(self.pids), u64::from(pids)),
            ("open_files", self.open_files, open_files),
            ("tmp_bytes", self.tmp_bytes, tmp_bytes),
            ("cell_memory", self.cell_memory, 16 << 20),
            ("session_connections", u64::from(self.session_connections), 1),
            ("session_clients", u64::from(self.session_clients), 1),
            ("session_client_idle (in ms)", u64::try_from(self.session_client_idle.as_millis()).unwrap_or(u64::MAX), 1),
            ("init_timeout (in ms)", u64::try_from(self.init_timeout.as_millis()).unwrap_or(u64::MAX), 1),
        ];
        if let Some((name, value, least)) = least.into_iter().find(|(_, value, least)| value < least) {
            return Err(format!("{name}: {value} is too little for any program, the least is {least}"));
        }
        if self.orphan_grace > MOST_GRACE {
            return Err(format!("orphan_grace: longer than the longest, {} s", MOST_GRACE.as_secs()));
        }
        if self.cells > MOST_CELLS {
            return Err(format!("cells: {} are more than the most, {MOST_CELLS}", self.cells));
        }
        let paths = [Some(&self.driver_root), self.python.as_ref(), self.node.as_ref()];
        match paths.into_iter().flatten().find(|path| !path.is_absolute()) {
            Some(path) => Err(format!("{} is no absolute path", path.display())),
            None => Ok(()),
        }
    }

    /// Bytes of memory that waiting interpreters may hold together, of both languages; nothing else may count on them.
    pub fn reserved_memory(&self) -> u64 {
        if !self.enabled {
            return 0;
        }
        let cells = u64::try_from(self.cells).unwrap_or(u64::MAX).saturating_mul(LANGUAGES);
        cells.saturating_mul(self.cell_memory).saturating_add(ZYGOTE_MEMORY)
    }

    /// The same with fewer cells, or none, where they would take more than `most` bytes.
    #[must_use]
    pub fn within(mut self, most: u64) -> Settings {
        while self.cells > 0 && self.reserved_memory() > most {
            self.cells -= 1;
        }
        self
    }
}

/// Languages that have cells.
const LANGUAGES: u64 = 2;

/// Memory of the interpreter that Python's cells are forked from, in bytes, with room to spare.
const ZYGOTE_MEMORY: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nothing_could_run_with_is_refused_by_name() {
        Settings::default().check().expect("the defaults are in order");
        let refused = |change: fn(&mut Settings), name: &str| {
            let mut settings = Settings::default();
            change(&mut settings);
            let said = settings.check().expect_err(name);
            assert!(said.contains(name), "{said}");
        };
        refused(|of| of.pids = 1, "pids");
        refused(|of| of.open_files = 3, "open_files");
        refused(|of| of.tmp_bytes = 0, "tmp_bytes");
        refused(|of| of.cell_memory = 1 << 20, "cell_memory");
        refused(|of| of.cells = 65, "cells");
        refused(|of| of.init_timeout = Duration::ZERO, "init_timeout");
        refused(|of| of.session_connections = 0, "session_connections");
        refused(|of| of.orphan_grace = Duration::MAX, "orphan_grace");
        refused(|of| of.node = Some("bin/node".into()), "bin/node");
    }

    #[test]
    fn cells_never_reserve_more_than_they_may() {
        let settings = Settings { cells: 4, cell_memory: 100 << 20, ..Settings::default() };
        assert_eq!(settings.reserved_memory(), (800 << 20) + ZYGOTE_MEMORY);
        assert_eq!(settings.clone().within(u64::MAX).cells, 4);
        let fewer = settings.clone().within(500 << 20);
        assert_eq!((fewer.cells, fewer.reserved_memory() <= 500 << 20), (2, true));
        assert_eq!(settings.within(0).cells, 0);
    }
}
