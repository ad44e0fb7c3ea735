//! Small cases, each with its one right answer.

use super::*;

fn tenant(name: &str) -> TenantName {
    TenantName::new(name).unwrap()
}

/// Nothing moves for the sake of spread.
fn still(hosts: Vec<Host<u32>>, demands: Vec<Demand<u32>>) -> Problem<u32> {
    Problem { moves: 0, ..problem(hosts, demands) }
}

fn fresh(problem: &Problem<u32>) -> Plan<u32> {
    solve(problem, &Placed::new())
}

#[test]
fn an_exact_fit_fits_and_one_more_does_not() {
    let plan = fresh(&problem(vec![host("a", 3)], vec![demand(1, 3)]));
    assert_eq!((at(&plan, 1).as_str(), plan.unplaced.len()), ("a3", 0));
    let plan = fresh(&problem(vec![host("a", 3)], vec![demand(1, 4)]));
    assert_eq!(plan.unplaced, [Unplaced { key: 1, missing: 1, reason: Reason::Short(Short::Memory) }]);
    let charged = Host { charged: Amounts { memory: 1, ..Amounts::default() }, ..host("a", 3) };
    assert_eq!(at(&fresh(&problem(vec![charged], vec![demand(1, 3)])), 1), "a2");
}

#[test]
fn instances_are_spread_over_hosts() {
    let hosts = || vec![host("a", 10), host("b", 10), host("c", 10)];
    assert_eq!(at(&fresh(&problem(hosts(), vec![demand(1, 3)])), 1), "a1 b1 c1");
    assert_eq!(at(&fresh(&problem(hosts(), vec![demand(1, 7)])), 1), "a3 b2 c2");
    assert_eq!(
        at(&fresh(&problem(vec![host("a", 10), host("b", 1)], vec![demand(1, 7)])), 1),
        "a6 b1",
        "where there is room"
    );
}

#[test]
fn instances_are_spread_over_zones_before_hosts() {
    let zoned = |name: &str, zone: &str| Host { zone: Some(zone.to_owned()), ..host(name, 10) };
    let hosts = vec![zoned("a", "x"), zoned("b", "x"), zoned("c", "x"), zoned("d", "y")];
    let over_zones = Demand { spread: Spread::Zones, ..demand(1, 4) };
    assert_eq!(at(&fresh(&problem(hosts.clone(), vec![over_zones.clone()])), 1), "a1 b1 d2");
    assert_eq!(at(&fresh(&problem(hosts.clone(), vec![demand(1, 4)])), 1), "a1 b1 c1 d1");
    let crowded: Placed<u32> = [(1, [("a".to_owned(), 2), ("b".to_owned(), 2)].into())].into();
    assert_eq!(at(&solve(&problem(hosts, vec![over_zones]), &crowded), 1), "a1 b1 d2");
}

#[test]
fn the_image_goes_before_room_and_room_before_load() {
    let one = |hosts: Vec<Host<u32>>| at(&fresh(&problem(hosts, vec![demand(1, 1)])), 1);
    let with_image = Host { images: [1].into(), ..host("b", 2) };
    assert_eq!(one(vec![host("a", 100), with_image.clone()]), "b1");
    let full = Host { charged: Amounts { memory: 2, ..Amounts::default() }, ..with_image };
    assert_eq!(one(vec![host("a", 100), full]), "a1", "an image in a full host is of no use");
    let half = Host { charged: Amounts { memory: 50, ..Amounts::default() }, ..host("a", 100) };
    assert_eq!(one(vec![half, Host { load: 9.0, ..host("b", 100) }]), "b1");
    assert_eq!(one(vec![Host { load: 0.5, ..host("a", 100) }, Host { load: 0.1, ..host("b", 100) }]), "b1");
    assert_eq!(one(vec![Host { load: f64::NAN, ..host("a", 100) }, Host { load: 9.0, ..host("b", 100) }]), "b1");
}

#[test]
fn only_hosts_that_run_it_get_it() {
    let js_only = Host { offers: vec![host("a", 1).offers.remove(0)], ..host("a", 10) };
    let python = Demand { runtime: Runtime::Python, ..demand(1, 2) };
    let plan = fresh(&problem(vec![js_only.clone(), host("b", 10)], vec![python.clone()]));
    assert_eq!(at(&plan, 1), "b2");
    assert_eq!(fresh(&problem(vec![js_only], vec![python])).unplaced[0].reason, Reason::NotOffered);
    let wasm = Demand { isolation: "process".to_owned(), ..demand(1, 1) };
    assert_eq!(fresh(&problem(vec![host("a", 10)], vec![wasm])).unplaced[0].reason, Reason::NotOffered);
}

#[test]
fn what_is_short_is_named() {
    let reason = |host: Host<u32>, need: Amounts| {
        fresh(&problem(vec![host], vec![Demand { need, ..demand(1, 1) }])).unplaced[0].reason
    };
    let room = Amounts { memory: 10, cpu_millis: 1_000, gpus: 1 };
    let all = || Host { capacity: room, ..host("a", 0) };
    let taken = || Host { charged: room, ..all() };
    let memory = Amounts { memory: 1, ..Amounts::default() };
    let cpu = Amounts { cpu_millis: 500, ..Amounts::default() };
    let gpus = Amounts { gpus: 1, ..Amounts::default() };
    assert_eq!(reason(taken(), memory), Reason::Short(Short::Memory));
    assert_eq!(reason(taken(), cpu), Reason::Short(Short::Cpu));
    assert_eq!(reason(taken(), gpus), Reason::Short(Short::Gpus));
    assert_eq!(reason(all(), Amounts { memory: 11, ..memory }), Reason::TooLarge(Short::Memory));
    assert_eq!(reason(all(), Amounts { gpus: 2, ..memory }), Reason::TooLarge(Short::Gpus));
    assert_eq!(reason(Host { open: false, ..all() }, memory), Reason::NoHost);
    assert!(Reason::Short(Short::Cpu).to_string().contains("processors"));
}

#[test]
fn demands_that_must_be_apart_share_no_host() {
    let apart = |key| Demand { apart: Some("db".to_owned()), ..demand(key, 1) };
    let plan = fresh(&problem(vec![host("a", 10), host("b", 10)], vec![apart(1), apart(2), apart(3)]));
    assert_eq!((at(&plan, 1).as_str(), at(&plan, 2).as_str()), ("a1", "b1"));
    assert_eq!(plan.unplaced, [Unplaced { key: 3, missing: 1, reason: Reason::Apart }]);
    let together: Placed<u32> = [(1, [("a".to_owned(), 1)].into()), (2, [("a".to_owned(), 1)].into())].into();
    let plan = solve(&problem(vec![host("a", 10), host("b", 10)], vec![apart(1), apart(2)]), &together);
    assert_eq!((at(&plan, 1).as_str(), at(&plan, 2).as_str()), ("a1", "b1"));
}

#[test]
fn everybody_gets_one_before_anybody_gets_two_and_tenants_take_turns() {
    let of = |key, name: &str, instances| Demand { tenant: tenant(name), ..demand(key, instances) };
    let demands = || vec![of(1, "big", 5), of(2, "big", 5), of(3, "big", 5), of(4, "small", 5)];
    let counts = |memory| {
        let plan = fresh(&problem(vec![host("a", memory)], demands()));
        [1, 2, 3, 4].map(|key| have(&plan, key))
    };
    assert_eq!(counts(1), [1, 0, 0, 0]);
    assert_eq!(counts(2), [1, 0, 0, 1], "the other tenant's turn");
    assert_eq!(counts(4), [1, 1, 1, 1]);
    assert_eq!(counts(6), [2, 1, 1, 2]);
    assert_eq!(counts(20), [5, 5, 5, 5]);
}

#[test]
fn what_stands_stays() {
    let hosts = vec![host("a", 10), host("b", 10), host("c", 10)];
    // Not what a fresh plan would be, but as good.
    let standing: Placed<u32> =
        [(1, [("c".to_owned(), 1)].into()), (2, [("b".to_owned(), 1), ("c".to_owned(), 1)].into())].into();
    let plan = solve(&problem(hosts.clone(), vec![demand(1, 1), demand(2, 2)]), &standing);
    assert_eq!(plan.placed, standing);
    let plan = solve(&problem(hosts, vec![demand(1, 2), demand(2, 1)]), &standing);
    assert_eq!((at(&plan, 1).as_str(), at(&plan, 2).as_str()), ("a1 c1", "b1"), "more and fewer");
}

#[test]
fn a_closed_or_lost_host_ends_empty_and_nothing_else_moves() {
    let standing: Placed<u32> = [(1, [("a".to_owned(), 2), ("b".to_owned(), 2), ("c".to_owned(), 2)].into())].into();
    for closed in [true, false] {
        let mut hosts = vec![host("a", 10), host("b", 10), host("c", 10)];
        if closed {
            hosts[1].open = false
        } else {
            drop(hosts.remove(1))
        }
        let plan = solve(&problem(hosts, vec![demand(1, 6)]), &standing);
        assert_eq!((at(&plan, 1).as_str(), plan.unplaced.len()), ("a3 c3", 0));
    }
}

#[test]
fn a_host_over_capacity_keeps_what_it_can() {
    let standing: Placed<u32> = [(1, [("a".to_owned(), 2)].into()), (2, [("a".to_owned(), 1)].into())].into();
    let large = Demand { need: Amounts { memory: 4, ..Amounts::default() }, ..demand(2, 1) };
    let plan = solve(&still(vec![host("a", 5), host("b", 5)], vec![demand(1, 2), large.clone()]), &standing);
    assert_eq!((at(&plan, 1).as_str(), at(&plan, 2).as_str()), ("a1 b1", "a1"), "the smallest that is enough goes");
    let plan = solve(&still(vec![host("a", 3), host("b", 5)], vec![demand(1, 2), large]), &standing);
    assert_eq!((at(&plan, 1).as_str(), at(&plan, 2).as_str()), ("a2", "b1"), "one large one, not two small ones");
}

#[test]
fn a_joining_host_gets_what_was_unplaced_and_its_share() {
    let demands = vec![demand(1, 6), demand(2, 4)];
    let plan = fresh(&problem(vec![host("a", 4), host("b", 4)], demands.clone()));
    assert_eq!(plan.unplaced.iter().map(|unplaced| unplaced.missing).sum::<u32>(), 2);
    let hosts = vec![host("a", 4), host("b", 4), host("c", 4)];
    let joined = solve(&Problem { moves: 0, ..problem(hosts.clone(), demands.clone()) }, &plan.placed);
    assert_eq!((joined.unplaced.len(), at(&joined, 1).as_str(), at(&joined, 2).as_str()), (0, "a2 b2 c2", "a2 b2"));
    let one = solve(&Problem { moves: 1, ..problem(hosts.clone(), demands.clone()) }, &joined.placed);
    assert_eq!(at(&one, 2), "a1 b2 c1");
    assert_eq!(solve(&problem(hosts, demands), &one.placed).placed, one.placed, "level enough");
}

#[test]
fn the_share_of_a_joining_host_is_bounded() {
    let demands: Vec<_> = (0..100).map(|key| demand(key, 8)).collect();
    let hosts = |count: usize| (0..count).map(|at| host(&format!("h{at}"), 1_000)).collect::<Vec<_>>();
    let plan = fresh(&problem(hosts(4), demands.clone()));
    let next = solve(&Problem { moves: 30, ..problem(hosts(5), demands.clone()) }, &plan.placed);
    let moved = |plan: &Plan<u32>| plan.placed.values().filter_map(|at| at.get("h4")).sum::<u32>();
    assert_eq!(moved(&next), 30);
    let rest = solve(&problem(hosts(5), demands), &next.placed);
    assert_eq!(moved(&rest), 100, "one of each: two would leave another host with fewer");
}

#[test]
fn what_was_just_placed_makes_room_for_what_fits_nowhere_else() {
    let js_only = Host { offers: vec![host("b", 1).offers.remove(0)], ..host("b", 1) };
    let python = Demand { runtime: Runtime::Python, ..demand(2, 1) };
    let plan = fresh(&problem(vec![host("a", 1), js_only.clone()], vec![demand(1, 1), python.clone()]));
    assert_eq!((at(&plan, 1).as_str(), at(&plan, 2).as_str()), ("b1", "a1"));
    let standing: Placed<u32> = [(1, [("a".to_owned(), 1)].into())].into();
    let plan = solve(&problem(vec![host("a", 1), js_only], vec![demand(1, 1), python]), &standing);
    assert_eq!((at(&plan, 1).as_str(), plan.unplaced[0].key), ("a1", 2), "what stood stays");
}
