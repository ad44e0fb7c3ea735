//! Whatever happens to the process and to control, each call is counted once.

use std::collections::BTreeMap;
use std::io::Write;

use lyra_types::usage::{Hour, Usage as Used};
use lyra_types::{Code, FunctionName, TenantName};
use proptest::prelude::*;

use super::*;

/// Takes batches as control does: each number of a source once. Fails, before or after it has taken one, when told to.
#[derive(Default)]
struct Taker {
    newest: Mutex<BTreeMap<String, u64>>,
    calls: Mutex<u64>,
    failures: Mutex<Vec<bool>>,
}

#[async_trait]
impl Takes for Taker {
    async fn take(&self, batch: UsageBatch) -> Result<(), Error> {
        let failed = || Err(Error::new(Code::Unavailable, "not now"));
        let failure = self.failures.lock().pop();
        if failure == Some(false) {
            return failed();
        }
        let mut newest = self.newest.lock();
        let known = newest.entry(batch.source).or_default();
        if batch.sequence > *known {
            *known = batch.sequence;
            *self.calls.lock() += batch.rows.iter().map(|row| row.usage.invocations).sum::<u64>();
        }
        if failure == Some(true) { failed() } else { Ok(()) }
    }
}

fn row(function: &str) -> UsageRow {
    let key = UsageKey {
        tenant: TenantName::default_tenant(),
        function: FunctionName::new(function).unwrap(),
        version: 1,
        user: String::new(),
        hour: Hour(1),
    };
    UsageRow { key, usage: Used { invocations: 1, exec_us: 5, ..Used::default() } }
}

fn open(dir: &Path) -> Arc<Usage> {
    Arc::new(Usage::open(dir, Clock::system(), &Random::system()).unwrap())
}

#[tokio::test]
async fn what_was_counted_survives_the_process_and_a_line_without_its_end_was_not() {
    let dir = tempfile::tempdir().unwrap();
    let (usage, taker) = (open(dir.path()), Taker::default());
    usage.add(&row("f"));
    usage.add(&row("g"));
    // As a killed process leaves it: nothing is closed, and a line is cut off.
    let log = log::left(dir.path()).unwrap().0[0];
    let mut file = std::fs::File::options().append(true).open(dir.path().join(format!("{log:016}.log"))).unwrap();
    file.write_all(b"{\"key\":{\"tenant\":\"default\"").unwrap();
    std::mem::forget(usage);
    let usage = open(dir.path());
    usage.flush(&taker).await;
    assert_eq!(*taker.calls.lock(), 2);
    usage.flush(&taker).await;
    assert_eq!(*taker.calls.lock(), 2);
    assert!(log::left(dir.path()).unwrap().1.is_empty(), "what control has is deleted");
}

#[tokio::test]
async fn numbers_only_grow_also_where_files_were_lost() {
    let dir = tempfile::tempdir().unwrap();
    let taker = Taker::default();
    for _ in 0..3 {
        let usage = open(dir.path());
        usage.add(&row("f"));
        usage.flush(&taker).await;
        for number in log::left(dir.path()).unwrap().0 {
            std::fs::remove_file(dir.path().join(format!("{number:016}.log"))).unwrap();
        }
    }
    assert_eq!(*taker.calls.lock(), 3);
}

#[derive(Debug, Clone)]
enum Step {
    Call,
    Flush,
    FailBefore,
    FailAfter,
    Kill,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn each_call_is_counted_once_whatever_happens(
        steps in prop::collection::vec(
            prop_oneof![4 => Just(Step::Call), 3 => Just(Step::Flush), 1 => Just(Step::FailBefore), 1 => Just(Step::FailAfter), 1 => Just(Step::Kill)],
            0..60,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let (mut usage, taker, mut calls) = (open(dir.path()), Taker::default(), 0);
            for step in steps {
                match step {
                    Step::Call => {
                        usage.add(&row("f"));
                        calls += 1;
                    }
                    Step::Flush => usage.flush(&taker).await,
                    Step::FailBefore => taker.failures.lock().push(false),
                    Step::FailAfter => taker.failures.lock().push(true),
                    Step::Kill => usage = open(dir.path()),
                }
            }
            taker.failures.lock().clear();
            // The first one tells what waits, the second what was counted meanwhile.
            usage.flush(&taker).await;
            usage.flush(&taker).await;
            assert_eq!(*taker.calls.lock(), calls);
        });
    }
}
