//! What holds for any hosts, any demands, and whatever stands.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

type Three = (u64, u64, u64);

fn hosts() -> impl Strategy<Value = Vec<Host<u32>>> {
    let one = (
        prop_oneof![4 => Just(true), 1 => Just(false)],
        (0u64..12, prop_oneof![Just(u64::MAX), 0u64..8], 0u64..3),
        (0u64..4, 0u64..3, 0u64..2),
        0.0f64..4.0,
        proptest::collection::btree_set(0u32..8, 0..4),
        proptest::option::of(select(vec!["x", "y", "z"])),
        1usize..3,
    );
    let build = |(open, capacity, charged, load, images, zone, offers): (_, Three, Three, _, _, Option<&str>, _)| {
        let of = |(memory, cpu_millis, gpus)| Amounts { memory, cpu_millis, gpus };
        let mut host = Host { open, capacity: of(capacity), charged: of(charged), load, images, ..host("", 0) };
        host.zone = zone.map(str::to_owned);
        host.offers.truncate(offers);
        host
    };
    proptest::collection::vec(one.prop_map(build), 0..7).prop_map(|all| {
        let named = |(at, host): (usize, Host<u32>)| Host { name: format!("h{at}"), ..host };
        all.into_iter().enumerate().map(named).collect()
    })
}

fn demands() -> impl Strategy<Value = Vec<Demand<u32>>> {
    let one = (
        select(vec!["t1", "t2", "t3"]),
        select(vec![Runtime::Js, Runtime::Python]),
        select(vec!["auto", "wasm", "process"]),
        (1u64..4, 0u64..3, prop_oneof![3 => Just(0u64), 1 => Just(1u64)]),
        0u32..6,
        select(vec![Spread::Hosts, Spread::Zones]),
        proptest::option::weighted(0.2, select(vec!["red", "blue"])),
    );
    let build =
        |(tenant, runtime, isolation, need, instances, spread, apart): (_, _, &str, Three, _, _, Option<&str>)| {
            let tenant = TenantName::new(tenant).unwrap();
            let (isolation, apart) = (isolation.to_owned(), apart.map(str::to_owned));
            let need = Amounts { memory: need.0, cpu_millis: need.1, gpus: need.2 };
            Demand { tenant, runtime, isolation, need, spread, apart, ..demand(0, instances) }
        };
    proptest::collection::vec(one.prop_map(build), 0..8).prop_map(|all| {
        let keyed = |(key, demand): (u32, Demand<u32>)| Demand { key, ..demand };
        (0..).zip(all).map(keyed).collect()
    })
}

fn standing() -> impl Strategy<Value = Placed<u32>> {
    let at = proptest::collection::btree_map((0u32..9).prop_map(|at| format!("h{at}")), 0u32..5, 0..5);
    proptest::collection::btree_map(0u32..9, at, 0..8)
}

fn runs(host: &Host<u32>, demand: &Demand<u32>) -> bool {
    let fits = |offer: &Offer| demand.isolation == "auto" || demand.isolation == offer.backend;
    host.open && host.offers.iter().any(|offer| fits(offer) && offer.runtimes.contains(&demand.runtime))
}

/// What is used of each resource of a host, and by instances of the plan alone.
fn used(problem: &Problem<u32>, placed: &Placed<u32>, host: &Host<u32>) -> ([u64; 3], [u64; 3]) {
    let mut by_plan = [0; 3];
    for demand in &problem.demands {
        let count = placed.get(&demand.key).and_then(|at| at.get(&host.name)).copied().unwrap_or_default();
        for (sum, need) in by_plan.iter_mut().zip(demand.need.array()) {
            *sum += need * u64::from(count);
        }
    }
    let charged = host.charged.array();
    ([0, 1, 2].map(|at| by_plan[at] + charged[at]), by_plan)
}

/// Every rule that a plan keeps, whatever stood before.
fn check(problem: &Problem<u32>, plan: &Plan<u32>) {
    for host in &problem.hosts {
        let (all, by_plan) = used(problem, &plan.placed, host);
        for at in 0..3 {
            assert!(
                by_plan[at] == 0 || all[at] <= host.capacity.array()[at],
                "{} is over capacity: {plan:?}",
                host.name
            );
        }
    }
    for (key, at) in &plan.placed {
        let demand = problem.demands.iter().find(|demand| demand.key == *key).expect("what is placed is wanted");
        for (name, count) in at {
            let host = problem.hosts.iter().find(|host| host.name == *name).expect("hosts are there");
            assert!(*count > 0 && runs(host, demand), "{key} on {name}");
            for other in problem.demands.iter().filter(|other| other.key != *key && other.apart.is_some()) {
                let shares = plan.placed.get(&other.key).is_some_and(|at| at.contains_key(name));
                assert!(!shares || other.apart != demand.apart, "{key} and {} share {name}", other.key);
            }
        }
    }
    for demand in &problem.demands {
        let unplaced = plan.unplaced.iter().find(|unplaced| unplaced.key == demand.key);
        let missing = unplaced.map_or(0, |unplaced| unplaced.missing);
        assert_eq!(have(plan, demand.key) + missing, demand.instances);
        let Some(unplaced) = unplaced else { continue };
        assert!(missing > 0);
        for host in problem.hosts.iter().filter(|host| runs(host, demand)) {
            let (all, _) = used(problem, &plan.placed, host);
            let (need, capacity) = (demand.need.array(), host.capacity.array());
            let fits = (0..3).all(|at| need[at] == 0 || all[at] + need[at] <= capacity[at]);
            assert!(!fits || unplaced.reason == Reason::Apart, "{unplaced:?} fits on {}", host.name);
        }
    }
}

/// How many of what stood on open hosts stand there no more.
fn moved(before: &Placed<u32>, after: &Placed<u32>) -> u32 {
    let each = before.iter().flat_map(|(key, at)| at.iter().map(move |(host, count)| (key, host, *count)));
    each.map(|(key, host, count)| {
        count.saturating_sub(after.get(key).and_then(|at| at.get(host)).copied().unwrap_or_default())
    })
    .sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_plan_keeps_the_rules_whatever_stood_before(hosts in hosts(), demands in demands(), standing in standing(), moves in 0usize..20) {
        let problem = Problem { moves, ..problem(hosts, demands) };
        let plan = solve(&problem, &standing);
        check(&problem, &plan);
        check(&problem, &solve(&problem, &Placed::new()));
    }

    #[test]
    fn the_order_of_the_input_has_no_say(
        hosts in hosts(), demands in demands(), standing in standing(), swaps in proptest::collection::vec(any::<(Index, Index)>(), 0..10),
    ) {
        let problem = problem(hosts, demands);
        let mut other = problem.clone();
        for (a, b) in swaps {
            if !other.hosts.is_empty() {
                let count = other.hosts.len();
                other.hosts.swap(a.index(count), b.index(count));
            }
            if !other.demands.is_empty() {
                let count = other.demands.len();
                other.demands.swap(a.index(count), b.index(count));
            }
        }
        prop_assert_eq!(solve(&problem, &standing), solve(&other, &standing));
    }

    #[test]
    fn a_plan_solved_again_is_the_same(hosts in hosts(), demands in demands(), standing in standing()) {
        let problem = problem(hosts, demands);
        let plan = solve(&problem, &standing);
        prop_assert_eq!(solve(&problem, &plan.placed).placed, plan.placed);
    }

    #[test]
    fn nothing_moves_but_from_hosts_that_close_and_for_spread_within_the_bound(
        hosts in hosts(), demands in demands(), closing: Index, moves in 0usize..4,
    ) {
        prop_assume!(!hosts.is_empty());
        let mut problem = problem(hosts, demands);
        let before = solve(&problem, &Placed::new()).placed;
        let closing = closing.index(problem.hosts.len());
        problem.hosts[closing].open = false;
        problem.moves = moves;
        let after = solve(&problem, &before);
        let mut others = before;
        for at in others.values_mut() {
            at.remove(&problem.hosts[closing].name);
        }
        prop_assert!(moved(&others, &after.placed) as usize <= moves);
        prop_assert!(after.placed.values().all(|at| !at.contains_key(&problem.hosts[closing].name)), "it ends empty");
    }

    #[test]
    fn a_host_that_joins_moves_no_more_than_the_bound(hosts in hosts(), demands in demands(), moves in 0usize..4) {
        prop_assume!(!hosts.is_empty());
        let all = Problem { moves, ..problem(hosts, demands) };
        let without = Problem { hosts: all.hosts[1..].to_vec(), moves: usize::MAX, ..all.clone() };
        let before = solve(&without, &Placed::new());
        let after = solve(&all, &before.placed);
        prop_assert!(moved(&before.placed, &after.placed) as usize <= moves);
        for demand in &all.demands {
            prop_assert!(have(&after, demand.key) >= have(&before, demand.key), "what stood is not lost");
        }
    }

    #[test]
    fn equal_instances_all_find_their_place_where_there_is_room_for_so_many(
        rooms in proptest::collection::vec(0u64..6, 1..8), counts in proptest::collection::vec(1u32..6, 1..8), size in 1u64..5, waste in 0u64..5,
    ) {
        let hosts = rooms.iter().enumerate().map(|(at, slots)| host(&format!("h{at}"), slots * size + waste.min(size - 1))).collect();
        let need = Amounts { memory: size, ..Amounts::default() };
        let demands: Vec<_> = (0..).zip(&counts).map(|(key, count)| Demand { need, ..demand(key, *count) }).collect();
        let plan = solve(&problem(hosts, demands), &Placed::new());
        let (slots, wanted) = (rooms.iter().sum::<u64>(), counts.iter().map(|count| u64::from(*count)).sum::<u64>());
        let missing: u64 = plan.unplaced.iter().map(|unplaced| u64::from(unplaced.missing)).sum();
        prop_assert_eq!(missing, wanted.saturating_sub(slots));
        // Fair: who lacks something has at most one less than anybody else.
        for unplaced in &plan.unplaced {
            for key in (0..).take(counts.len()) {
                prop_assert!(have(&plan, key) <= have(&plan, unplaced.key) + 1);
            }
        }
    }

    #[test]
    fn where_there_is_room_no_host_has_two_more_than_another(instances in 0u32..40, hosts in 1usize..8, joining in 0usize..4) {
        let named = |count: usize| (0..count).map(|at| host(&format!("h{at}"), 1_000)).collect::<Vec<_>>();
        let before = solve(&problem(named(hosts), vec![demand(1, instances)]), &Placed::new());
        let plan = solve(&problem(named(hosts + joining), vec![demand(1, instances)]), &before.placed);
        let at = plan.placed.get(&1).cloned().unwrap_or_default();
        let counts: Vec<u32> = (0..hosts + joining).map(|host| at.get(&format!("h{host}")).copied().unwrap_or_default()).collect();
        prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
        // And no more moved than that takes.
        let share = instances as usize / (hosts + joining);
        prop_assert!(moved(&before.placed, &plan.placed) as usize <= (share + 1) * joining);
    }
}
