//! Any order of answers, any point of a crash: the same run.

use proptest::prelude::*;

use super::constructs::{BRANCH, FAN, WHILE};
use super::*;

/// A map of a map, with a choice in it and a sum over all.
const MIXED: &str = r#"
name: mixed
dataIns: [{ name: rows, type: collection, source: rows }]
workflowBody:
  - parallelFor:
      name: outer
      dataIns: [{ name: row, type: collection, source: mixed/rows }]
      iterators: [row]
      loopBody:
        - parallelFor:
            name: inner
            dataIns: [{ name: cell, type: number, source: outer/row }]
            iterators: [cell]
            loopBody:
              - if:
                  name: odd
                  dataIns: [{ name: cell, type: number, source: inner/cell }]
                  condition:
                    - { data1: odd/cell, data2: "2", type: number, operator: "<", negation: false, combinedWith: and }
                  then:
                    - function:
                        name: double
                        type: Double
                        dataIns: [{ name: in, type: number, source: odd/cell }]
                        dataOuts: [{ name: out, type: number }]
                  else:
                    - function:
                        name: increment
                        type: Increment
                        dataIns: [{ name: in, type: number, source: odd/cell }]
                        dataOuts: [{ name: out, type: number }]
                  dataOuts: [{ name: out, type: number, source: "double/out,increment/out" }]
            dataOuts: [{ name: cells, type: collection, source: odd/out }]
        - function:
            name: sum
            type: SumCollection
            dataIns:
              - { name: collectionToSum, type: collection, source: inner/cells }
              - { name: waitTimeIn, type: number, source: "0" }
            dataOuts: [{ name: collectionSum, type: number }]
      dataOuts:
        - { name: sums, type: collection, source: sum/collectionSum }
        - { name: table, type: collection, source: inner/cells }
dataOuts:
  - { name: sums, type: collection, source: outer/sums }
  - { name: table, type: collection, source: outer/table }
"#;

fn expected(rows: &[Vec<i64>]) -> Value {
    let table: Vec<Vec<i64>> =
        rows.iter().map(|row| row.iter().map(|n| if *n < 2 { n * 2 } else { n + 1 }).collect()).collect();
    let sums: Vec<i64> = table.iter().map(|row| row.iter().sum()).collect();
    json!({"sums": sums, "table": table})
}

/// How often each task with its place was called well.
fn once_each(driven: &Driven, crashes: usize) {
    let mut names: Vec<&String> = driven.inputs.iter().map(|(name, _)| name).collect();
    names.sort();
    let all = names.len();
    names.dedup();
    if crashes == 0 {
        assert_eq!(names.len(), all, "no task has two tokens");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_the_order_of_answers_and_wherever_it_is_killed_a_run_gives_the_same(
        rows in prop::collection::vec(prop::collection::vec(0i64..5, 0..5), 0..5),
        seed in any::<u64>(),
        crashes in prop_oneof![Just(0usize), Just(20), Just(60)],
        failures in prop_oneof![Just(0usize), Just(30)],
        live in 1usize..6,
    ) {
        let limits = Limits { live_iterations: live, ..Limits::default() };
        let driver = Driver { seed, crashes, failures, limits };
        let driven = drive(MIXED, json!({"rows": rows}), &driver);
        prop_assert_eq!(&driven.outcome, &Outcome::Succeeded(object(expected(&rows))));
        once_each(&driven, crashes);
    }

    #[test]
    fn a_journal_gives_the_same_run_however_often_it_is_read(seed in any::<u64>(), first in 0i64..9) {
        for document in [WHILE, FAN, BRANCH] {
            let input = json!({"first": first, "list": [1, 2, first], "n": first});
            let plan = plan(document);
            let driven = drive_plan(&plan, input.clone(), &Driver { seed, crashes: 10, failures: 20, ..Driver::default() });
            for cut in 0..=driven.journal.len() {
                let read = |keep: bool| {
                    let mut core = Core::new(Arc::clone(&driven.plan), Limits::default(), object(input.clone()));
                    if keep {
                        core.keep_trace();
                    }
                    for entry in &driven.journal[..cut] {
                        core.apply(entry);
                    }
                    (core.outcome().cloned(), core.counts(), core.resume())
                };
                prop_assert_eq!(read(false), read(true));
            }
        }
    }
}
