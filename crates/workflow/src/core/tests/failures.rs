//! Tries that fail, runs that are taken up again, pauses.

use super::constructs::{BRANCH, FAN};
use super::*;

fn cause(code: &str) -> Cause {
    Cause { code: code.to_owned(), message: "by the test".to_owned(), name: None, resource: None }
}

fn apply(core: &mut Core, journal: &mut Vec<Entry>, event: Event) {
    record(core, journal, event);
}

/// The first function, scheduled.
fn schedule(core: &mut Core, journal: &mut Vec<Entry>) -> Enact {
    let waiting = core.next_schedulable().expect("a function waits");
    let picks = [0].into_iter().collect();
    apply(core, journal, Event::Scheduled { key: waiting.key, attempt: waiting.attempt, picks });
    let effects = core.take_effects();
    let [Effect::Enact(enact)] = effects.as_slice() else { panic!("{effects:?}") };
    enact.clone()
}

#[test]
fn a_run_that_failed_goes_on_where_it_failed() {
    let plan = plan(FAN);
    let input = object(json!({"list": [1, 2, 3]}));
    let mut core = Core::new(Arc::clone(&plan), Limits::default(), input.clone());
    let mut journal = Vec::new();
    apply(&mut core, &mut journal, Event::Begun);
    let first = schedule(&mut core, &mut journal);
    let second = schedule(&mut core, &mut journal);
    let output = Stored::Value(object(json!({"out": 2})));
    apply(&mut core, &mut journal, Event::Succeeded { key: first.key, attempt: 1, resource: None, output });
    let failed = Event::Failed { key: second.key.clone(), attempt: 1, cause: cause("broken"), next: Next::Fatal };
    apply(&mut core, &mut journal, failed);
    let Some(Outcome::Failed(error)) = core.outcome() else { panic!("{:?}", core.outcome()) };
    assert_eq!((error.task.as_deref(), error.attempts, error.causes.len()), (Some("double[1]"), 1, 1));
    assert!(core.next_schedulable().is_none(), "a run that has ended begins nothing");

    // Another process takes it up.
    let mut core = Core::new(plan, Limits::default(), input);
    for entry in &journal {
        core.apply(entry);
    }
    apply(&mut core, &mut journal, Event::Redriven);
    let mut again = Vec::new();
    while let Some(waiting) = core.next_schedulable() {
        again.push((waiting.key.path[0], waiting.attempt));
        let picks = [0].into_iter().collect();
        apply(&mut core, &mut journal, Event::Scheduled { key: waiting.key, attempt: waiting.attempt, picks });
    }
    again.sort_unstable();
    assert_eq!(again, [(1, 2), (2, 1)], "what had succeeded is not done again");
    for effect in core.take_effects() {
        let Effect::Enact(enact) = effect else { panic!("{effect:?}") };
        let output = Stored::Value(object(json!({"out": 2 * (enact.key.path[0] + 1)})));
        apply(
            &mut core,
            &mut journal,
            Event::Succeeded { key: enact.key, attempt: enact.attempt, resource: None, output },
        );
    }
    assert_eq!(core.outcome(), Some(&Outcome::Succeeded(object(json!({"all": [2, 4, 6]})))));
}

#[test]
fn what_was_under_way_when_a_run_was_cancelled_is_tried_anew_and_costs_no_try() {
    let plan = plan(FAN);
    let input = object(json!({"list": [1]}));
    let mut core = Core::new(Arc::clone(&plan), Limits::default(), input.clone());
    let mut journal = Vec::new();
    apply(&mut core, &mut journal, Event::Begun);
    let first = schedule(&mut core, &mut journal);
    for round in 0..3 {
        apply(&mut core, &mut journal, Event::Stopped { error: None, moved: None });
        apply(&mut core, &mut journal, Event::Redriven);
        let again = schedule(&mut core, &mut journal);
        assert_eq!((&again.key, again.attempt), (&first.key, round + 2), "another number: another call");
        assert_eq!(core.tries(&again.key), (0, None), "the document's limit of tries is as it was");
    }
    let mut replayed = Core::new(plan, Limits::default(), input);
    journal.iter().for_each(|entry| replayed.apply(entry));
    assert!(replayed.is_in_flight(&first.key, 4));
}

#[test]
fn an_answer_of_a_try_that_was_given_up_changes_nothing() {
    let plan = plan(BRANCH);
    let mut core = Core::new(plan, Limits::default(), object(json!({"n": 20})));
    let mut journal = Vec::new();
    apply(&mut core, &mut journal, Event::Begun);
    let first = schedule(&mut core, &mut journal);
    let again = Event::Failed { key: first.key.clone(), attempt: 1, cause: cause("timeout"), next: Next::Again(9) };
    apply(&mut core, &mut journal, again);
    assert_eq!(core.take_effects(), [Effect::Wake { key: first.key.clone(), at: 9 }]);
    core.wake_up(&first.key);
    let second = schedule(&mut core, &mut journal);
    assert_eq!(second.attempt, 2);
    let late = Stored::Value(object(json!({"out": 1})));
    apply(
        &mut core,
        &mut journal,
        Event::Succeeded { key: first.key.clone(), attempt: 1, resource: None, output: late },
    );
    assert!(core.outcome().is_none());
    let output = Stored::Value(object(json!({"out": 40})));
    apply(&mut core, &mut journal, Event::Succeeded { key: first.key, attempt: 2, resource: None, output });
    assert_eq!(core.outcome(), Some(&Outcome::Succeeded(object(json!({"out": 40})))));
    assert_eq!(core.counts().failed_attempts, 1);
}

#[test]
fn a_paused_run_begins_nothing_and_takes_answers_in() {
    let plan = plan(FAN);
    let mut core = Core::new(plan, Limits::default(), object(json!({"list": [1, 2]})));
    let mut journal = Vec::new();
    apply(&mut core, &mut journal, Event::Begun);
    let first = schedule(&mut core, &mut journal);
    apply(&mut core, &mut journal, Event::Paused);
    assert!(core.next_schedulable().is_none());
    let output = Stored::Value(object(json!({"out": 2})));
    apply(&mut core, &mut journal, Event::Succeeded { key: first.key, attempt: 1, resource: None, output });
    assert_eq!(core.counts().succeeded, 1);
    assert!(core.next_schedulable().is_none());
    apply(&mut core, &mut journal, Event::Resumed);
    assert!(core.next_schedulable().is_some());
}
