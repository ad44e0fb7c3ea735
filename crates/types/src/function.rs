//! Functions, their immutable versions, and the aliases that point at them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{AliasName, Balancing, FunctionName, SecretUse, SessionBinding, TenantName, Timestamp};

/// Limits on what a deploy may ask for; each is named in the error that it causes.
pub mod limit {
    /// Memory of an instance when none is given, in MiB.
    pub const DEFAULT_MEMORY_MB: u32 = 128;
    /// Least memory of an instance, in MiB.
    pub const MIN_MEMORY_MB: u32 = 16;
    /// Most memory of an instance, in MiB.
    pub const MAX_MEMORY_MB: u32 = 1024;
    /// Deadline of a call when none is given, in ms.
    pub const DEFAULT_TIMEOUT_MS: u64 = 60_000;
    /// Longest deadline of a call, in ms (15 minutes).
    pub const MAX_TIMEOUT_MS: u64 = 900_000;
    /// Calls of one function that run at once when nothing is given.
    pub const DEFAULT_CONCURRENCY: u32 = 1_000;
    /// Tries of a job when none are given.
    pub const DEFAULT_MAX_ATTEMPTS: u32 = 3;
    /// Most tries of a job.
    pub const MAX_ATTEMPTS: u32 = 100;
    /// Largest source text of a `js` function, in bytes (4 MiB).
    pub const MAX_SOURCE: usize = 4 << 20;
    /// Largest WebAssembly file, in bytes (48 MiB).
    pub const MAX_WASM: usize = 48 << 20;
    /// Largest package of the runtimes that run as processes, zipped, in bytes (50 MiB).
    pub const MAX_PACKAGE: usize = 50 << 20;
    /// Largest such package when unpacked, in bytes (250 MiB).
    pub const MAX_UNPACKED: u64 = 250 << 20;
    /// Files and directories in such a package.
    pub const MAX_PACKAGE_FILES: usize = 50_000;
    /// Most memory of an instance that is a process, in MiB.
    pub const MAX_PROCESS_MEMORY_MB: u32 = 10_240;
    /// Processor time of an instance when none is given, in thousandths of a core.
    pub const DEFAULT_CPU_MILLIS: u32 = 1_000;
    /// Most processor time of an instance, in thousandths of a core.
    pub const MAX_CPU_MILLIS: u32 = 64_000;
    /// Most GPUs of an instance.
    pub const MAX_GPUS: u32 = 16;
    /// Largest event of a call and largest result of one, in bytes (6 MiB).
    pub const MAX_EVENT: usize = 6 << 20;
    /// Environment variables of a function.
    pub const MAX_ENV: usize = 128;
    /// Bytes of all names and values of the environment (64 KiB).
    pub const MAX_ENV_BYTES: usize = 64 << 10;
    /// Labels of a function.
    pub const MAX_LABELS: usize = 64;
}

/// Labels of a function that mean something to Lyra.
pub mod label {
    /// When a window opens in which instances are there ahead of calls: a cron pattern.
    pub const PREWARM_CRON: &str = "lyra.dev/prewarm-cron";
    /// A word: instances that are held up of functions of the tenant with the same word are on different workers.
    pub const APART: &str = "lyra.dev/apart";
    /// How the result of a `js` function leaves it: see [`super::ResultForm`].
    pub const RESULT: &str = "lyra.dev/result";
    /// The name of a function that was made through the classic routes, as they know it.
    pub const CLASSIC: &str = "lyra.dev/classic";
}

/// How the result of a `js` function leaves it, as its label [`label::RESULT`] says. The forms of text are for functions that
/// are written for the classic routes: their source is one expression, evaluated as a script of sloppy mode; an array is
/// their arguments, and nothing else is; and what they throw is a text like what they return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResultForm {
    /// As JSON.
    #[default]
    Json,
    /// As `String` shows it, ordinary objects and arrays as JSON.
    Text,
    /// As `String` shows it, whatever it is.
    String,
}

impl ResultForm {
    /// The form of that name; JSON has none, being the form without a label.
    pub fn parse(text: &str) -> Option<ResultForm> {
        [ResultForm::Text, ResultForm::String].into_iter().find(|form| form.as_str() == text)
    }

    /// The name in labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            ResultForm::Json => "json",
            ResultForm::Text => "text",
            ResultForm::String => "string",
        }
    }

    /// The form of a version with these labels, which were checked when it was deployed.
    pub fn of(labels: &BTreeMap<String, String>) -> ResultForm {
        labels.get(label::RESULT).and_then(|text| ResultForm::parse(text)).unwrap_or_default()
    }

    /// Whether results are texts, and what is thrown is one of them.
    pub const fn is_text(self) -> bool {
        !matches!(self, ResultForm::Json)
    }
}

/// What a function's code is written for (interfaces, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// JavaScript source text, run by QuickJS inside of a Wasm sandbox.
    Js,
    /// A `wasi:http/proxy` component, or a WASI command (component or core module).
    Wasm,
    /// Python: a source file or a package, called as `file.function`.
    Python,
    /// JavaScript on Node.js: a source file or a package, called as `file.function`.
    Nodejs,
    /// A package with an executable `bootstrap` that speaks the AWS Lambda Runtime API.
    Native,
    /// A package with a program that listens on `$PORT`.
    Http,
    /// No code at all: durations, memory and failures by parameters, for tests and load.
    Simulated,
}

impl Runtime {
    /// Every runtime that this build has.
    pub const ALL: [Runtime; 7] = [
        Runtime::Js,
        Runtime::Wasm,
        Runtime::Python,
        Runtime::Nodejs,
        Runtime::Native,
        Runtime::Http,
        Runtime::Simulated,
    ];

    /// The name in JSON and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Runtime::Js => "js",
            Runtime::Wasm => "wasm",
            Runtime::Python => "python",
            Runtime::Nodejs => "nodejs",
            Runtime::Native => "native",
            Runtime::Http => "http",
            Runtime::Simulated => "simulated",
        }
    }

    /// The runtime of that name.
    pub fn parse(text: &str) -> Option<Runtime> {
        Runtime::ALL.into_iter().find(|runtime| runtime.as_str() == text)
    }

    /// Whether instances are kept between calls when the deploy does not say.
    pub const fn default_reuse(self) -> bool {
        match self {
            Runtime::Js | Runtime::Wasm => false,
            Runtime::Python | Runtime::Nodejs | Runtime::Native | Runtime::Http | Runtime::Simulated => true,
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a version is called. Found by the worker when it prepares the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Contract {
    /// Takes a JSON event, returns a JSON result.
    Handler,
    /// Takes an HTTP request, returns an HTTP response, streaming both ways.
    Http,
    /// A program: event on stdin, result on stdout.
    Command,
}

/// Hex SHA-256 of a version's code; the key of the code in the blob store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest(pub String);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an instance may reach over the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Nothing but its own loopback.
    #[default]
    None,
    /// Its own loopback, and out of the machine as the worker's egress policy allows.
    Egress,
}

impl Network {
    /// The name in JSON and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Network::None => "none",
            Network::Egress => "egress",
        }
    }

    /// The policy of that name.
    pub fn parse(text: &str) -> Option<Network> {
        [Network::None, Network::Egress].into_iter().find(|network| network.as_str() == text)
    }
}

const fn default_cpu_millis() -> u32 {
    limit::DEFAULT_CPU_MILLIS
}

/// One immutable version of a function: all that a worker needs to run it but the code itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FunctionVersion {
    /// Owner.
    pub tenant: TenantName,
    /// Function.
    pub function: FunctionName,
    /// Number, from 1.
    pub version: u64,
    /// Differs between two functions that had the same name one after the other, so that a deleted
    /// function's instances, cached code and jobs are never taken for the new one's.
    pub generation: u64,
    /// What the code is written for.
    pub runtime: Runtime,
    /// How the code is called.
    pub contract: Contract,
    /// Name of the export that is the handler, for `js`; `None`: `default`, then `handler`.
    pub handler: Option<String>,
    /// The code.
    pub code: Digest,
    /// Size of the code, in bytes.
    pub code_size: u64,
    /// Most memory of an instance, in MiB.
    pub memory_mb: u32,
    /// Processor time of an instance, in thousandths of a core. Holds for instances that are processes.
    #[serde(default = "default_cpu_millis")]
    pub cpu_millis: u32,
    /// GPUs of an instance.
    #[serde(default)]
    pub gpus: u32,
    /// What an instance may reach. Holds for instances that are processes.
    #[serde(default)]
    pub network: Network,
    /// Wall-clock deadline of a call, in ms.
    pub timeout_ms: u64,
    /// Environment, given to the function by its runtime's custom.
    pub env: BTreeMap<String, String>,
    /// Secrets that instances are given: their names, never their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretUse>,
    /// Isolation back end that was asked for; `auto` lets the worker choose.
    pub isolation: String,
    /// Keep instances between calls.
    pub reuse: bool,
    /// Calls that run at once.
    pub concurrency: u32,
    /// Which of several workers gets a call; `None`: as the gateway is set.
    #[serde(default)]
    pub balancing: Option<Balancing>,
    /// Sessions that serve its calls, in place of instances of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<SessionBinding>,
    /// Instances kept even when idle (only with `reuse`).
    pub min_instances: u32,
    /// Most instances (only with `reuse`).
    pub max_instances: u32,
    /// Tries of a job.
    pub max_attempts: u32,
    /// The user's own labels.
    pub labels: BTreeMap<String, String>,
    /// When this version was deployed.
    pub created_at: Timestamp,
}

impl FunctionVersion {
    /// The first version of a handler of the tenant `default`; what a deploy may leave out is as if it did.
    pub fn new(function: FunctionName, runtime: Runtime, code: Digest) -> FunctionVersion {
        FunctionVersion {
            tenant: TenantName::default_tenant(),
            function,
            version: 1,
            generation: 1,
            runtime,
            contract: Contract::Handler,
            handler: None,
            code,
            code_size: 0,
            memory_mb: limit::DEFAULT_MEMORY_MB,
            cpu_millis: limit::DEFAULT_CPU_MILLIS,
            gpus: 0,
            network: Network::None,
            timeout_ms: limit::DEFAULT_TIMEOUT_MS,
            env: BTreeMap::new(),
            secrets: Vec::new(),
            isolation: "auto".to_owned(),
            reuse: runtime.default_reuse(),
            concurrency: limit::DEFAULT_CONCURRENCY,
            balancing: None,
            sessions: None,
            min_instances: 0,
            max_instances: limit::DEFAULT_CONCURRENCY,
            max_attempts: limit::DEFAULT_MAX_ATTEMPTS,
            labels: BTreeMap::new(),
            created_at: Timestamp::default(),
        }
    }

    /// The deadline of one call.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// Most memory of an instance, in bytes.
    pub fn memory_bytes(&self) -> usize {
        (self.memory_mb as usize) << 20
    }

    /// What tells this version from every other one, ever.
    pub fn key(&self) -> VersionKey {
        VersionKey {
            tenant: self.tenant.clone(),
            function: self.function.clone(),
            generation: self.generation,
            version: self.version,
        }
    }
}

/// What tells a version from every other one, also from one of an earlier function of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VersionKey {
    /// Owner.
    pub tenant: TenantName,
    /// Function.
    pub function: FunctionName,
    /// See [`FunctionVersion::generation`].
    pub generation: u64,
    /// Number, from 1.
    pub version: u64,
}

impl fmt::Display for VersionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.tenant, self.function, self.version)
    }
}

/// An alias: a name for one version, or for several with a share of the calls each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// Its name.
    pub name: AliasName,
    /// Version → weight. Weights are from 1 to 1,000,000 and need not add up to anything; at most 16 versions.
    pub weights: BTreeMap<u64, u32>,
    /// The weights before the last change, for a rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<BTreeMap<u64, u32>>,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Alias {
    /// Picks a version by weight. `draw` is uniform over all of `u64`. `None` only when there are no weights.
    pub fn pick(&self, draw: u64) -> Option<u64> {
        let mut versions = self.weights.iter();
        if self.weights.len() == 1 {
            return versions.next().map(|(version, _)| *version);
        }
        let total: u64 = self.weights.values().map(|w| u64::from(*w)).sum();
        // Scales the draw to 0..total without a bias worth speaking of: total is below 2^24.
        let mut point = u64::try_from((u128::from(draw) * u128::from(total)) >> 64).unwrap_or(0);
        for (version, weight) in versions {
            match point.checked_sub(u64::from(*weight)) {
                Some(rest) => point = rest,
                None => return Some(*version),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alias(weights: &[(u64, u32)]) -> Alias {
        Alias {
            name: AliasName::live(),
            weights: weights.iter().copied().collect(),
            previous: None,
            updated_at: Timestamp::default(),
        }
    }

    #[test]
    fn picks_by_weight() {
        let split = alias(&[(1, 90), (2, 10)]);
        let mut counts = [0u32; 3];
        let steps = 10_000u64;
        for i in 0..steps {
            let version = split.pick(u64::MAX / steps * i).expect("weights are there");
            counts[usize::try_from(version).expect("small")] += 1;
        }
        assert_eq!(counts[0], 0);
        assert!((8_990..=9_010).contains(&counts[1]), "{counts:?}");
        assert_eq!(split.pick(u64::MAX), Some(2));
        assert_eq!(split.pick(0), Some(1));
        assert_eq!(alias(&[]).pick(5), None);
    }
}
