//! Runs of whole documents through the core, with answers in any order and crashes at any point.

mod bounds;
mod constructs;
mod failures;
mod interleavings;
mod nesting;

use std::sync::Arc;

use lyra_kit::Random;
use lyra_types::workflow::Cause;
use serde_json::{Map, Value, json};

use super::entry::Stored;
use super::{Core, Effect, Enact, Entry, Event, Limits, Next, Outcome, Plan, TaskKey};
use crate::enact::demo;

/// How a run is driven.
#[derive(Clone)]
pub(super) struct Driver {
    /// Order of answers, points of crashes, tries that fail.
    pub seed: u64,
    /// Part of steps after which the process is killed, in percent.
    pub crashes: usize,
    /// Part of tries that fail and are made again, in percent.
    pub failures: usize,
    /// What the run may use.
    pub limits: Limits,
}

impl Default for Driver {
    fn default() -> Driver {
        Driver { seed: 1, crashes: 0, failures: 0, limits: Limits::default() }
    }
}

/// What a run did.
pub(super) struct Driven {
    pub outcome: Outcome,
    /// Inputs that functions were called with, by task with its place, the last try's.
    pub inputs: Vec<(String, Map<String, Value>)>,
    pub journal: Vec<Entry>,
    pub plan: Arc<Plan>,
    pub most_values: usize,
}

pub(super) fn plan(document: &str) -> Arc<Plan> {
    let compiled = lyra_afcl::compile(document).unwrap_or_else(|found| panic!("{found:?}"));
    Arc::new(Plan::new(compiled.graph).expect("a graph that keeps the rules"))
}

pub(super) fn object(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

/// What the functions of the tests' documents compute.
fn compute(function_type: &str, input: &Map<String, Value>) -> Map<String, Value> {
    if demo::is_known(function_type) {
        return demo::compute(function_type, input).expect("the test's input fits");
    }
    match function_type {
        // Hands on its input, and says what it got.
        "Echo" => {
            let mut output = input.clone();
            output.insert("all".to_owned(), Value::Object(input.clone()));
            output
        }
        "Double" => object(json!({"out": input["in"].as_i64().expect("a number") * 2})),
        "Increment" => object(json!({"out": input["in"].as_i64().expect("a number") + 1})),
        other => panic!("no function {other}"),
    }
}

fn record(core: &mut Core, journal: &mut Vec<Entry>, event: Event) {
    let entry = Entry { at: journal.len() as i64, event };
    // As it would be read back.
    let text = serde_json::to_string(&entry).expect("an entry is JSON");
    let read: Entry = serde_json::from_str(&text).expect("an entry is read back");
    assert_eq!(read, entry);
    core.apply(&entry);
    journal.push(entry);
}

/// Runs a document to its end.
pub(super) fn drive(document: &str, input: Value, driver: &Driver) -> Driven {
    let plan = plan(document);
    drive_plan(&plan, input, driver)
}

pub(super) fn drive_plan(plan: &Arc<Plan>, input: Value, driver: &Driver) -> Driven {
    let random = Random::seeded(driver.seed);
    let below = |most: usize| usize::try_from(random.u64() % most as u64).expect("below a usize");
    let new = || Core::new(Arc::clone(plan), driver.limits.clone(), object(input.clone()));
    let mut core = new();
    let mut journal = Vec::new();
    let mut inputs = Vec::new();
    let mut open: Vec<Enact> = Vec::new();
    let mut asleep: Vec<TaskKey> = Vec::new();
    let mut most_values = 0;
    record(&mut core, &mut journal, Event::Begun);
    let mut steps = 0;
    while core.outcome().is_none() {
        steps += 1;
        assert!(steps < 2_000_000, "the run does not end");
        most_values = most_values.max(core.state.values.len());
        for effect in core.take_effects() {
            match effect {
                Effect::Enact(enact) => open.push(enact),
                Effect::Wake { key, .. } => asleep.push(key),
            }
        }
        if below(100) < driver.crashes {
            // All that is not in the journal is lost, answers on their way too.
            core = new();
            for entry in &journal {
                core.apply(entry);
            }
            open.clear();
            asleep.clear();
            for effect in core.resume() {
                match effect {
                    Effect::Enact(enact) => open.push(enact),
                    Effect::Wake { key, .. } => asleep.push(key),
                }
            }
        }
        if let Some(waiting) = core.next_schedulable() {
            record(
                &mut core,
                &mut journal,
                Event::Scheduled { key: waiting.key, attempt: waiting.attempt, picks: [0].into_iter().collect() },
            );
            continue;
        }
        let choice = open.len() + asleep.len();
        if choice == 0 {
            continue;
        }
        let at = below(choice);
        if at >= open.len() {
            let key = asleep.swap_remove(at - open.len());
            core.wake_up(&key);
            continue;
        }
        let enact = open.swap_remove(at);
        let event = if below(100) < driver.failures {
            let cause =
                Cause { code: "broken".to_owned(), message: "by the test".to_owned(), name: None, resource: None };
            Event::Failed { key: enact.key, attempt: enact.attempt, cause, next: Next::Again(0) }
        } else {
            inputs.push((core.place(&enact.key), enact.input.clone()));
            let output = compute(&enact.function_type, &enact.input);
            let output = core.keep_declared(&enact.key, output).expect("the test's functions give what is declared");
            Event::Succeeded { key: enact.key, attempt: enact.attempt, resource: None, output: Stored::Value(output) }
        };
        record(&mut core, &mut journal, event);
    }
    let outcome = core.outcome().expect("it has ended").clone();
    Driven { outcome, inputs, journal, plan: Arc::clone(plan), most_values }
}
