//! Settings of the workflow role.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use lyra_types::TenantName;
use serde::{Deserialize, Serialize};

use crate::core::Limits;
use crate::schedule::{Arbitration, Limit, Policy};

/// Settings of the workflow role, section `[workflow]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether processes of the role `control` run workflows, too; not where processes of the role `workflow` do.
    pub with_control: bool,
    /// Most runs that are under way at a time on this host.
    pub max_runs: usize,
    /// Most calls of one run at a time.
    pub run_in_flight: usize,
    /// Most calls of all runs at a time.
    pub in_flight: usize,
    /// Longest time of a try whose document and resource name none.
    #[serde(with = "humantime_serde")]
    pub task_timeout: Duration,
    /// Longest time of a run.
    #[serde(with = "humantime_serde")]
    pub run_timeout: Duration,
    /// Most tries of a task whose document names none.
    pub attempts: u32,
    /// Values above this many bytes stand in the blob store rather than in the journal.
    pub inline_bytes: usize,
    /// Most bytes of one output of a task, and of a run's input.
    pub max_value_bytes: usize,
    /// How long runs that have ended are kept.
    #[serde(with = "humantime_serde")]
    pub retention: Duration,
    /// How often programs, definitions and values are looked for that no version and no run refers to; zero: never.
    #[serde(with = "humantime_serde")]
    pub unused_every: Duration,
    /// How long nobody has to have referred to such a thing before it is deleted.
    #[serde(with = "humantime_serde")]
    pub unused_grace: Duration,
    /// How long a host that is not heard of keeps its runs, where several hosts share a store.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    /// Iterations of parallelFors that one run has under way at a time.
    pub live_iterations: usize,
    /// Most tasks of one run.
    pub max_tasks: u64,
    /// Most iterations of one while.
    pub max_loop_iterations: u32,
    /// Most elements of one collection.
    pub max_elements: usize,
    /// Most steps of one run: iterations, branches, decisions, operations on collections.
    pub max_steps: u64,
    /// Most bytes of memory of what one operation makes; of a task's input and of a run's output as JSON.
    pub max_result_bytes: u64,
    /// Most bytes of memory of all values that one run holds.
    pub max_live_bytes: u64,
    /// Most bytes of memory of all values that the runs of this host hold.
    pub max_host_live_bytes: u64,
    /// Which resource a task gets.
    pub scheduling: Scheduling,
    /// Which addresses tasks may call.
    pub http: HttpSettings,
    /// How values get from task to task.
    pub transmission: Transmission,
    /// Where gateways are reached from outside, `https://HOST[:PORT]`: what URLs of values begin with; empty: nobody is given such URLs.
    pub public_url: String,
    /// A collector of OpenTelemetry, `http://HOST:4318`, that is sent the spans of each run that has ended; empty: none.
    pub otlp_endpoint: String,
    /// Tokens for parts of workflows that run on other Lyras, by the names that type mappings call them.
    pub cut_tokens: BTreeMap<String, CutToken>,
}

/// Which addresses tasks may call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSettings {
    /// Networks that may be called although they are not public. Where authentication is off, all are but those of one link.
    #[serde(with = "networks")]
    pub allow: Vec<IpNet>,
}

/// Networks as texts.
mod networks {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::IpNet;

    pub(super) fn serialize<S: Serializer>(networks: &[IpNet], to: S) -> Result<S::Ok, S::Error> {
        networks.iter().map(ToString::to_string).collect::<Vec<String>>().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        let read = |text: &String| {
            let wrong = |_| D::Error::custom(format!("\"{text}\" is no network, such as 10.0.0.0/8"));
            text.parse::<IpNet>().map_err(wrong)
        };
        texts.iter().map(read).collect()
    }
}

/// How values get from task to task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Transmission {
    /// Where outputs are taken to when a task has ended.
    pub extraction: Extraction,
    /// Outputs above this many bytes are left in place.
    pub reference_bytes: u64,
    /// How long URLs of values are good for after the longest time of the try that was given them.
    #[serde(with = "humantime_serde")]
    pub link_ttl: Duration,
}

impl Default for Transmission {
    fn default() -> Transmission {
        Transmission {
            extraction: Extraction::default(),
            reference_bytes: 64 << 10,
            link_ttl: Duration::from_secs(3_600),
        }
    }
}

/// Where outputs are taken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extraction {
    /// Large ones that the run only hands on stay in the blob store; the run has a reference.
    #[default]
    InPlace,
    /// All into the run's memory and journal.
    Home,
}

/// A token for another Lyra. A type mapping names it; what it is stands in a file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CutToken {
    /// The other Lyra, `http://HOST:PORT`: the token goes nowhere else.
    pub url: String,
    /// The file that holds the token, and nothing else; read at each call, so that it can be changed.
    pub file: PathBuf,
    /// Tenants whose mappings may name it; empty: all.
    pub tenants: Vec<TenantName>,
}

/// Which resource a task gets, and who waits.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scheduling {
    /// Which of a type's resources.
    pub scheduler: Policy,
    /// How many tasks this machine takes at a time.
    pub capacity: Limit,
    /// Which of those that wait is next.
    pub arbitration: Arbitration,
}

impl Default for Config {
    fn default() -> Config {
        let limits = Limits::default();
        Config {
            with_control: true,
            max_runs: 10_000,
            run_in_flight: 256,
            in_flight: 2_048,
            task_timeout: Duration::from_secs(60),
            run_timeout: Duration::from_secs(30 * 24 * 3_600),
            attempts: 3,
            inline_bytes: 64 << 10,
            max_value_bytes: 6 << 20,
            retention: Duration::from_secs(7 * 24 * 3_600),
            unused_every: Duration::from_secs(3_600),
            unused_grace: Duration::from_secs(3_600),
            lease: Duration::from_secs(10),
            live_iterations: limits.live_iterations,
            max_tasks: limits.tasks,
            max_loop_iterations: limits.loop_iterations,
            max_elements: limits.elements,
            max_steps: limits.steps,
            max_result_bytes: limits.result_bytes,
            max_live_bytes: limits.live_bytes,
            max_host_live_bytes: 2 << 30,
            scheduling: Scheduling::default(),
            http: HttpSettings::default(),
            transmission: Transmission::default(),
            public_url: String::new(),
            otlp_endpoint: String::new(),
            cut_tokens: BTreeMap::new(),
        }
    }
}

impl Config {
    /// What one run may use.
    pub fn limits(&self) -> Limits {
        Limits {
            live_iterations: self.live_iterations.max(1),
            tasks: self.max_tasks,
            loop_iterations: self.max_loop_iterations.max(1),
            elements: self.max_elements.min(u32::MAX as usize - 1),
            steps: self.max_steps,
            result_bytes: self.max_result_bytes,
            live_bytes: self.max_live_bytes,
            ..Limits::default()
        }
    }
}
