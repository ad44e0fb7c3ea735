//! What a warm call pays the pool: takes an idle instance and puts it back, on one thread and on several.
//!
//! `cargo run --release -p lyra-worker --example pool_bench`
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a measurement, for people")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use lyra_types::function::{Contract, Digest};
use lyra_types::{FunctionName, FunctionVersion, Network, Runtime, TenantName, Timestamp};
use lyra_worker::pool::bench::Bench;

const ROUNDS: usize = 2_000_000;

fn version(generation: u64) -> Arc<FunctionVersion> {
    Arc::new(FunctionVersion {
        tenant: TenantName::default_tenant(),
        function: FunctionName::new("bench").expect("a valid name"),
        version: 1,
        generation,
        runtime: Runtime::Native,
        contract: Contract::Handler,
        handler: None,
        code: Digest(String::new()),
        code_size: 0,
        memory_mb: 128,
        cpu_millis: 1_000,
        gpus: 0,
        network: Network::None,
        timeout_ms: 60_000,
        env: BTreeMap::new(),
        isolation: "auto".to_owned(),
        reuse: true,
        concurrency: 1_000,
        min_instances: 0,
        max_instances: 0,
        max_attempts: 1,
        labels: BTreeMap::new(),
        created_at: Timestamp::from_millis(0),
    })
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for versions in [1, 100] {
        for threads in [1, 2] {
            let all = (0..versions).map(version).collect();
            let bench = runtime.block_on(Bench::new(all, 2));
            let begin = Instant::now();
            std::thread::scope(|scope| {
                for thread in 0..threads {
                    let bench = &bench;
                    scope.spawn(move || {
                        for round in 0..ROUNDS {
                            assert!(bench.round(round + thread), "an instance is idle");
                        }
                    });
                }
            });
            let each = begin.elapsed().as_nanos() as f64 / (ROUNDS * threads) as f64;
            println!("{versions:>4} versions, {threads} threads: {each:6.1} ns to take and put back");
        }
    }
}
