//! How fast the solver is: 100 workers, 20,000 instances. Prints a JSON object for each case; `cargo xtask bench --only
//! placement` runs it.
#![expect(clippy::print_stdout, reason = "what was measured is for whoever started it")]

use std::collections::BTreeSet;
use std::time::Duration;

use lyra_control::placement::{Amounts, Demand, Host, Offer, Placed, Problem, Spread, solve};
use lyra_kit::Clock;
use lyra_types::{Runtime, TenantName};

const HOSTS: u32 = 100;
const VERSIONS: u32 = 1_000;
const INSTANCES: u32 = 20;
const ROUNDS: usize = 20;

fn host(number: u32) -> Host<u32> {
    Host {
        name: format!("worker-{number}"),
        open: true,
        offers: vec![Offer { backend: "process".to_owned(), runtimes: vec![Runtime::Python, Runtime::Nodejs] }],
        capacity: Amounts { memory: 64 << 30, cpu_millis: 16_000 * 32, gpus: 0 },
        charged: Amounts { memory: 1 << 30, cpu_millis: 0, gpus: 0 },
        load: f64::from(number % 7) / 7.0,
        images: BTreeSet::new(),
        zone: Some(format!("zone-{}", number % 3)),
    }
}

fn demand(number: u32) -> Demand<u32> {
    Demand {
        key: number,
        tenant: TenantName::new(&format!("tenant-{}", number % 50)).expect("a name"),
        runtime: if number.is_multiple_of(2) { Runtime::Python } else { Runtime::Nodejs },
        isolation: "auto".to_owned(),
        need: Amounts { memory: 128 << 20, cpu_millis: 1_000, gpus: 0 },
        instances: INSTANCES,
        spread: if number.is_multiple_of(4) { Spread::Zones } else { Spread::Hosts },
        apart: None,
    }
}

fn hosts(count: u32) -> Vec<Host<u32>> {
    (0..count).map(host).collect()
}

fn demands(count: u32) -> Vec<Demand<u32>> {
    (0..count).map(demand).collect()
}

fn count(placed: &Placed<u32>) -> u32 {
    placed.values().flat_map(|at| at.values()).sum()
}

/// Instances that stand where none stood before.
fn placed_anew(before: &Placed<u32>, after: &Placed<u32>) -> u32 {
    let had = |key, host| {
        before.get(key).and_then(|at: &std::collections::BTreeMap<_, _>| at.get(host)).copied().unwrap_or(0)
    };
    let each =
        after.iter().flat_map(|(key, at)| at.iter().map(move |(host, count)| count.saturating_sub(had(key, host))));
    each.sum()
}

fn measure(case: &str, clock: &Clock, problem: &Problem<u32>, before: &Placed<u32>) -> Placed<u32> {
    let mut times: Vec<Duration> = Vec::new();
    let mut after = Placed::new();
    for _ in 0..ROUNDS {
        let begin = clock.instant();
        let plan = solve(problem, before);
        times.push(begin.elapsed());
        assert!(plan.unplaced.is_empty(), "there is room for all");
        after = plan.placed;
    }
    times.sort();
    let (median, longest) = (times[ROUNDS / 2].as_secs_f64(), times[ROUNDS - 1].as_secs_f64());
    let placements = placed_anew(before, &after);
    let record = serde_json::json!({
        "case": case,
        "hosts": problem.hosts.len(),
        "instances": count(&after),
        "placements": placements,
        "solve_ms": median * 1e3,
        "longest_ms": longest * 1e3,
        "per_second": f64::from(placements) / median,
    });
    println!("{record}");
    after
}

fn main() {
    let clock = Clock::system();
    let all = Problem { hosts: hosts(HOSTS), demands: demands(VERSIONS), moves: 200 };
    let standing = measure("from-empty", &clock, &all, &Placed::new());
    measure("nothing-new", &clock, &all, &standing);
    let one_more = Problem { demands: demands(VERSIONS + 5), ..all.clone() };
    measure("five-versions-more", &clock, &one_more, &standing);
    let one_lost = Problem { hosts: hosts(HOSTS - 1), ..all.clone() };
    measure("a-worker-lost", &clock, &one_lost, &standing);
    let mut ten_drained = all.clone();
    ten_drained.hosts.iter_mut().take(10).for_each(|host| host.open = false);
    measure("ten-workers-drained", &clock, &ten_drained, &standing);
    let joined = Problem { hosts: hosts(HOSTS + 10), ..all };
    measure("ten-workers-joined", &clock, &joined, &standing);
}
