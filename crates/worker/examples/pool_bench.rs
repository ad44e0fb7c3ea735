//! What a warm call pays the pool: takes an idle instance and puts it back, on one thread and on several.
//!
//! `cargo run --release -p lyra-worker --example pool_bench`
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a measurement, for people")]

use std::sync::Arc;
use std::time::Instant;

use lyra_types::function::Digest;
use lyra_types::{FunctionName, FunctionVersion, Runtime};
use lyra_worker::pool::bench::Bench;

const ROUNDS: usize = 2_000_000;

fn version(generation: u64) -> Arc<FunctionVersion> {
    Arc::new(FunctionVersion {
        generation,
        max_instances: 0,
        max_attempts: 1,
        ..FunctionVersion::new(
            FunctionName::new("bench").expect("a valid name"),
            Runtime::Native,
            Digest(String::new()),
        )
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
