//! What a plan promises: a table of small cases, and properties of any.

mod cases;
mod properties;

use std::collections::BTreeSet;

use lyra_types::{Runtime, TenantName};

use super::*;

/// A host with the back ends `wasm` and `process` and so much memory.
fn host(name: &str, memory: u64) -> Host<u32> {
    let offers = vec![
        Offer { backend: "wasm".to_owned(), runtimes: vec![Runtime::Js, Runtime::Wasm] },
        Offer { backend: "process".to_owned(), runtimes: vec![Runtime::Python] },
    ];
    Host {
        name: name.to_owned(),
        open: true,
        offers,
        capacity: Amounts { memory, cpu_millis: u64::MAX, gpus: 0 },
        charged: Amounts::default(),
        load: 0.0,
        images: BTreeSet::new(),
        zone: None,
    }
}

/// So many instances of 1 byte each.
fn demand(key: u32, instances: u32) -> Demand<u32> {
    Demand {
        key,
        tenant: TenantName::default_tenant(),
        runtime: Runtime::Js,
        isolation: "auto".to_owned(),
        need: Amounts { memory: 1, cpu_millis: 0, gpus: 0 },
        instances,
        spread: Spread::Hosts,
        apart: None,
    }
}

fn problem(hosts: Vec<Host<u32>>, demands: Vec<Demand<u32>>) -> Problem<u32> {
    Problem { hosts, demands, moves: usize::MAX }
}

/// Where a demand stands: `"a2 b1"`.
fn at(plan: &Plan<u32>, key: u32) -> String {
    let counts = plan.placed.get(&key).into_iter().flatten();
    counts.map(|(host, count)| format!("{host}{count}")).collect::<Vec<_>>().join(" ")
}

/// How many of a demand stand.
fn have(plan: &Plan<u32>, key: u32) -> u32 {
    plan.placed.get(&key).into_iter().flat_map(BTreeMap::values).sum()
}
