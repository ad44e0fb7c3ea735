//! `cargo xtask bench`: what Lyra reaches, measured beside its peers in the same minute.
//!
//! Each scenario is a file of its own. What they share: every server is a process of its own, the load comes from
//! `oha` with the same settings for all, Lyra and its peers take turns in short rounds, and the medians over the
//! rounds are reported. A figure that comes from a single client is made by [`client`], one request after the other.

use std::path::PathBuf;

use anyhow::Context;

mod bare;
mod classic;
mod client;
mod cold;
mod cold_js;
mod cold_process;
mod cold_wasm;
mod control_plane;
mod density;
mod deploy;
mod idle;
mod jobs;
mod languages;
mod load;
mod lyra;
mod overhead;
mod placement;
mod process;
mod report;
mod restate;
mod roles;
mod rounds;
mod sessions;
mod simulated;
mod tools;
mod warm_js;
mod warm_process;
mod warm_wasm;
mod wasmtime;
mod workerd;
mod workflow;

pub use bare::Arguments as BareArguments;
pub use bare::run as run_bare;

use languages::Language;
use report::Record;
use tools::Tools;

/// Options of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Scenarios to run, parted by commas. Default: all.
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Scenario>,
    /// Seconds of each round of load (there are three of each kind for each system).
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Also write the records to this file, one JSON object a line.
    #[arg(long)]
    json: Option<PathBuf>,
    /// The `lyra` program to measure. Default: the release build, made first.
    #[arg(long)]
    lyra: Option<PathBuf>,
    /// Calls, or functions, of the scenarios that count instead of taking time (cold-*, deploy).
    #[arg(long, default_value_t = 200)]
    count: usize,
    /// Numbers of deployed functions for `idle`.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1_000, 10_000])]
    functions: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Scenario {
    /// Calls of a `js` function, a fresh instance each, beside `workerd`.
    WarmJs,
    /// First calls of `js` versions that have no instance, beside starting `workerd`.
    ColdJs,
    /// Calls of a `wasi:http` component, a fresh instance each, beside `wasmtime serve`.
    WarmWasm,
    /// First calls of `wasm` versions that have no instance, beside starting `wasmtime serve`.
    ColdWasm,
    /// Calls of a `python` function with kept instances, beside a bare `http.server` with the same handler.
    WarmPython,
    /// Calls of a `nodejs` function with kept instances, beside a bare `node:http` server with the same handler.
    WarmNode,
    /// Calls of a compiled program with kept instances, beside a bare server that sends fixed bytes.
    WarmNative,
    /// First calls of `python` versions that have no instance, beside starting `python3` with the same handler.
    ColdPython,
    /// First calls of `nodejs` versions that have no instance, beside starting `node` with the same handler.
    ColdNode,
    /// First calls of compiled programs that have no instance, beside starting the same program.
    ColdNative,
    /// Memory of an idle instance, by runtime.
    Density,
    /// Deploys, and the first call of what was deployed.
    Deploy,
    /// Jobs: accepting and draining.
    Jobs,
    /// The classic routes: from a job's submission to its result, and 10,000 jobs from 8 clients.
    Classic,
    /// Memory and time to ready with many deployed functions; processor time and memory with kept processes.
    Idle,
    /// Memory and processor time of each role as a process of its own, idle and under a steady load.
    Roles,
    /// What the platform adds to a warm call, over a bare HTTP server.
    Overhead,
    /// What the worker adds to a call that takes no time, in one process.
    OverheadWorker,
    /// The same over gRPC, over a bare server of the same transport.
    OverheadRpc,
    /// Queue policies on a simulated day.
    QueuePolicies,
    /// Keep-alive policies on a simulated day.
    KeepAlive,
    /// Instances that the solver places in a second.
    Placement,
    /// What control takes for 100 workers with 20,000 instances, and how long placing an instance takes.
    ControlPlane,
    /// From the request that opens a session to the first byte from its endpoint.
    Sessions,
    /// Durable runs of workflows, beside Restate.
    Workflow,
}

/// What every scenario has at hand.
struct Bench {
    lyra: PathBuf,
    tools: Tools,
    seconds: u64,
    count: usize,
    functions: Vec<usize>,
}

/// Runs the scenarios, prints a table, writes the records.
///
/// # Errors
/// When a scenario can't be run, or a server answers anything but what it should.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let lyra = match arguments.lyra {
        Some(path) => path,
        None => lyra::build()?,
    };
    let bench = Bench {
        lyra,
        tools: Tools::new(crate::repository().join("target/bench"))?,
        seconds: arguments.seconds.max(1),
        count: arguments.count.max(1),
        functions: arguments.functions,
    };
    let only = arguments.only;
    let chosen: Vec<Scenario> = <Scenario as clap::ValueEnum>::value_variants()
        .iter()
        .copied()
        .filter(|scenario| only.is_empty() || only.contains(scenario))
        .collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("tokio")?;
    let mut records = Vec::new();
    for scenario in chosen {
        eprintln!("== {scenario:?}");
        let new = runtime.block_on(bench.scenario(scenario)).with_context(|| format!("{scenario:?}"))?;
        report::print(&new);
        records.extend(new);
    }
    if let Some(path) = arguments.json {
        report::write_json(&records, &path)?;
    }
    Ok(())
}

impl Bench {
    async fn scenario(&self, scenario: Scenario) -> anyhow::Result<Vec<Record>> {
        match scenario {
            Scenario::WarmJs => warm_js::run(self).await,
            Scenario::ColdJs => cold_js::run(self).await,
            Scenario::WarmWasm => warm_wasm::run(self).await,
            Scenario::ColdWasm => cold_wasm::run(self).await,
            Scenario::WarmPython => warm_process::run(self, "warm-python", Language::Python).await,
            Scenario::WarmNode => warm_process::run(self, "warm-node", Language::Node).await,
            Scenario::WarmNative => warm_process::run(self, "warm-native", Language::Native).await,
            Scenario::ColdPython => cold_process::run(self, "cold-python", Language::Python).await,
            Scenario::ColdNode => cold_process::run(self, "cold-node", Language::Node).await,
            Scenario::ColdNative => cold_process::run(self, "cold-native", Language::Native).await,
            Scenario::Density => density::run(self).await,
            Scenario::Deploy => deploy::run(self).await,
            Scenario::Jobs => jobs::run(self).await,
            Scenario::Classic => classic::run(self).await,
            Scenario::Idle => idle::run(self).await,
            Scenario::Roles => roles::run(self).await,
            Scenario::Overhead => overhead::run(self).await,
            Scenario::OverheadWorker => simulated::overhead(self).await,
            Scenario::OverheadRpc => simulated::overhead_rpc(self).await,
            Scenario::QueuePolicies => simulated::queue_policies(self).await,
            Scenario::KeepAlive => simulated::keep_alive(self).await,
            Scenario::Placement => placement::run().await,
            Scenario::ControlPlane => control_plane::run(self).await,
            Scenario::Sessions => sessions::run(self).await,
            Scenario::Workflow => workflow::run(self).await,
        }
    }
}
