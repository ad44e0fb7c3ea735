//! Settings of the scaler: the section `[scaler]`.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::decide::{Bounds, Mode};

/// Settings of the scaler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The rule.
    pub mode: Mode,
    /// Time between two looks.
    #[serde(with = "humantime_serde")]
    pub every: Duration,
    /// Fewest workers, from 1.
    pub min: u32,
    /// Most workers.
    pub max: u32,
    /// Shortest time from a change to one that makes workers more.
    #[serde(with = "humantime_serde")]
    pub up_cooldown: Duration,
    /// Shortest time from a change to one that makes workers fewer.
    #[serde(with = "humantime_serde")]
    pub down_cooldown: Duration,
    /// `doubling`: with more that waits than this, workers are doubled.
    pub grow_above: u64,
    /// `doubling`: with less that waits than this, workers are halved.
    pub shrink_below: u64,
    /// What runs counts: there are never made fewer workers than this many running calls for each ask for.
    pub running_per_worker: u32,
    /// `queue` and `prediction`: jobs and calls, waiting and running, that each worker is to have.
    pub queue_per_worker: u32,
    /// `wait`: how long what is accepted may wait.
    #[serde(with = "humantime_serde")]
    pub wait: Duration,
    /// `utilisation`: share of places and processors that is to be in use.
    pub utilisation: f64,
    /// `prediction`: how much more than was seen at this hour is made ready for, as a factor.
    pub safety: f64,
    /// `prediction`: how far ahead workers are made.
    #[serde(with = "humantime_serde")]
    pub lead: Duration,
    /// Decide, and do nothing.
    pub dry_run: bool,
    /// Longest time that a worker has for its jobs, calls and sessions to end before it is ended.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    /// What makes and ends workers.
    pub backend: Backing,
    /// Worker processes of this machine.
    pub local: LocalWorkers,
    /// A program that is told how many.
    pub hook: Hook,
    /// A scale of Kubernetes.
    pub kubernetes: Kubernetes,
    /// The classic system's platform.
    pub kumori: Kumori,
}

/// What makes and ends workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backing {
    /// Worker processes of this machine.
    #[default]
    Local,
    /// A program that is told how many.
    Hook,
    /// A scale of Kubernetes.
    Kubernetes,
    /// The classic system's platform.
    Kumori,
}

impl Backing {
    /// The name in settings and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Backing::Local => "local",
            Backing::Hook => "hook",
            Backing::Kubernetes => "kubernetes",
            Backing::Kumori => "kumori",
        }
    }
}

/// Worker processes of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LocalWorkers {
    /// What their names begin with, before `-1`, `-2`, …; empty: the scaler's name.
    pub prefix: String,
    /// Further flags of `lyra node --role worker`, such as `--blobs`.
    pub args: Vec<String>,
    /// Where each serves gRPC; port 0: a free one.
    pub listen: String,
    /// They go on when the scaler ends, for its next start to take up; else they end with it.
    pub live_on: bool,
    /// Shortest and longest wait before one that has crashed is started again.
    #[serde(with = "humantime_serde")]
    pub restart_after: Duration,
    /// See `restart_after`.
    #[serde(with = "humantime_serde")]
    pub restart_at_most: Duration,
}

/// A program that is told how many workers there shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hook {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Longest time that it may take; then it is killed.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Whether the scaler says which workers go, and empties them before.
    pub choose: bool,
    /// How long workers that it was told to make may take to join; until then they count as there.
    #[serde(with = "humantime_serde")]
    pub settle: Duration,
}

/// A scale of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kubernetes {
    /// The API server.
    pub server: String,
    /// Namespace of the workers.
    pub namespace: String,
    /// `StatefulSet` or `Deployment`.
    pub kind: String,
    /// Its name. Pods of a StatefulSet are `NAME-0`, `NAME-1`, …, and so have to be its workers.
    pub name: String,
    /// File of the bearer token; read anew for each request.
    pub token_file: PathBuf,
    /// File of the certificates by which the API server is known; empty: the system's.
    pub ca_file: PathBuf,
    /// Longest time that an answer may take.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

/// The classic system's platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kumori {
    /// Two lines: the user's name, the password. It may come after the scaler's start.
    pub credentials: PathBuf,
    /// `kumorictl`.
    pub program: PathBuf,
    /// The directory with `manifests/`, in which `kumorictl` is run.
    pub directory: PathBuf,
    /// Name of the deployment.
    pub deployment: String,
    /// Its manifest, below the directory.
    pub manifest: PathBuf,
    /// The variable file, below the directory.
    pub variable: PathBuf,
    /// Longest time that a command may take; then it is killed.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for Config {
    fn default() -> Config {
        let seconds = Duration::from_secs;
        Config {
            mode: Mode::Doubling,
            every: seconds(5),
            min: 1,
            max: 64,
            up_cooldown: seconds(5),
            down_cooldown: seconds(30),
            grow_above: 32,
            shrink_below: 2,
            running_per_worker: 8,
            queue_per_worker: 8,
            wait: seconds(1),
            utilisation: 0.7,
            safety: 1.2,
            lead: seconds(600),
            dry_run: false,
            // More than the longest call may take.
            drain: seconds(16 * 60),
            backend: Backing::Local,
            local: LocalWorkers::default(),
            hook: Hook::default(),
            kubernetes: Kubernetes::default(),
            kumori: Kumori::default(),
        }
    }
}

impl Default for LocalWorkers {
    fn default() -> LocalWorkers {
        LocalWorkers {
            prefix: String::new(),
            args: Vec::new(),
            listen: "127.0.0.1:0".to_owned(),
            live_on: false,
            restart_after: Duration::from_secs(1),
            restart_at_most: Duration::from_secs(60),
        }
    }
}

impl Default for Hook {
    fn default() -> Hook {
        let (timeout, settle) = (Duration::from_secs(30), Duration::from_secs(120));
        Hook { command: Vec::new(), timeout, choose: true, settle }
    }
}

impl Default for Kubernetes {
    fn default() -> Kubernetes {
        let mounted = PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount");
        Kubernetes {
            server: "https://kubernetes.default.svc".to_owned(),
            namespace: "default".to_owned(),
            kind: "StatefulSet".to_owned(),
            name: "lyra-worker".to_owned(),
            token_file: mounted.join("token"),
            ca_file: mounted.join("ca.crt"),
            timeout: Duration::from_secs(10),
        }
    }
}

impl Default for Kumori {
    fn default() -> Kumori {
        Kumori {
            credentials: PathBuf::from("KUMORI_CREDENTIALS"),
            program: PathBuf::from("kumorictl"),
            directory: PathBuf::from("."),
            deployment: "joarosa.faas/faasdep".to_owned(),
            manifest: PathBuf::from("./manifests/deployment"),
            variable: PathBuf::from("manifests/variables/num_workers/manifest.cue"),
            timeout: Duration::from_secs(120),
        }
    }
}

impl Config {
    /// The bounds of the settings.
    pub fn bounds(&self) -> Bounds {
        Bounds { min: self.min, max: self.max }
    }

    /// Finds what cannot work: the setting's name, and what is wrong with it.
    ///
    /// # Errors
    /// For people: `NAME: REASON`.
    pub fn check(&self) -> Result<(), String> {
        let above_zero = |name: &str, time: Duration| match time.is_zero() {
            true => Err(format!("{name}: must be above 0")),
            false => Ok(()),
        };
        above_zero("every", self.every)?;
        above_zero("hook.timeout", self.hook.timeout)?;
        above_zero("kubernetes.timeout", self.kubernetes.timeout)?;
        above_zero("kumori.timeout", self.kumori.timeout)?;
        above_zero("wait", self.wait)?;
        if self.every > Duration::from_secs(120) {
            return Err("every: must be 2 min at most".to_owned());
        }
        if self.min == 0 || self.min > self.max || self.max > lyra_wire::scaler::MAX_WORKERS {
            let most = lyra_wire::scaler::MAX_WORKERS;
            return Err(format!("min, max: must be 1 to {most}, and min no more than max"));
        }
        if self.shrink_below > self.grow_above {
            return Err("shrink_below: must be no more than grow_above".to_owned());
        }
        if self.running_per_worker == 0 || self.queue_per_worker == 0 {
            return Err("running_per_worker, queue_per_worker: must be above 0".to_owned());
        }
        if !(self.utilisation > 0.0 && self.utilisation <= 1.0) {
            return Err("utilisation: must be above 0, 1 at most".to_owned());
        }
        if !(self.safety >= 1.0 && self.safety <= 10.0) {
            return Err("safety: must be 1 to 10".to_owned());
        }
        match self.backend {
            Backing::Hook if self.hook.command.is_empty() => Err("hook.command: names no program".to_owned()),
            Backing::Kubernetes if !matches!(self.kubernetes.kind.as_str(), "StatefulSet" | "Deployment") => {
                Err("kubernetes.kind: must be StatefulSet or Deployment".to_owned())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_rule_of_the_classic_system() {
        let config = Config::default();
        assert_eq!(config.check(), Ok(()));
        assert_eq!((config.mode, config.every.as_secs()), (Mode::Doubling, 5));
        assert_eq!((config.grow_above, config.shrink_below, config.min, config.max), (32, 2, 1, 64));
    }

    #[test]
    fn what_cannot_work_is_named() {
        let with = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check().unwrap_err()
        };
        assert!(with(|config| config.every = Duration::ZERO).starts_with("every:"));
        assert!(with(|config| config.min = 0).starts_with("min, max:"));
        assert!(with(|config| (config.min, config.max) = (9, 8)).starts_with("min, max:"));
        assert!(with(|config| config.utilisation = f64::NAN).starts_with("utilisation:"));
        assert!(with(|config| config.safety = 0.5).starts_with("safety:"));
        assert!(with(|config| config.backend = Backing::Hook).starts_with("hook.command:"));
        assert!(with(|config| config.shrink_below = 33).starts_with("shrink_below:"));
    }
}
