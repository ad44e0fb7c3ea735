//! Scripted traces, and what holds for every rule whatever it is shown.

use std::time::Duration;

use lyra_types::Timestamp;
use lyra_types::api::ScalerLook;
use proptest::prelude::*;

use super::*;

const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const CLASSIC: Bounds = Bounds { min: 1, max: 64 };

fn at(seconds: u64) -> Timestamp {
    START + Duration::from_secs(seconds)
}

fn look(queued: u64, running: u64, workers: u32) -> ScalerLook {
    ScalerLook { queued, running, workers, ready: workers, wait_ms: 0, utilisation: 0.0 }
}

fn of(mode: Mode) -> Config {
    Config { mode, ..Config::default() }
}

/// Decides every five seconds, each time with as many workers as were decided before.
fn follow(config: Config, bounds: Bounds, first: u32, looks: &[(u64, u64)]) -> Vec<(u32, &'static str)> {
    let mut decider = Decider::new(config, Seasons::default());
    let mut workers = first;
    let mut made = Vec::new();
    for (step, (queued, running)) in (0..).zip(looks) {
        let sample = Sample { time: at(step * 5), look: look(*queued, *running, workers) };
        let decision = decider.decide(sample, bounds);
        workers = decision.to;
        made.push((workers, decision.reason.as_str()));
    }
    made
}

#[test]
fn a_backlog_doubles_the_workers_every_five_seconds_up_to_the_most() {
    let made = follow(of(Mode::Doubling), CLASSIC, 1, &[(1_000, 0); 8]);
    let workers: Vec<u32> = made.iter().map(|(workers, _)| *workers).collect();
    assert_eq!(workers, [2, 4, 8, 16, 32, 64, 64, 64]);
    assert_eq!(made.last(), Some(&(64, "maximum")));
}

#[test]
fn the_most_is_kept_from_any_number() {
    // The classic system made 96 of 48.
    assert_eq!(follow(of(Mode::Doubling), CLASSIC, 48, &[(33, 0)]), [(64, "queue")]);
}

#[test]
fn an_empty_queue_halves_them_each_time_that_they_have_cooled_down() {
    let config = Config { down_cooldown: Duration::from_secs(10), ..of(Mode::Doubling) };
    let made = follow(config, CLASSIC, 8, &[(0, 0); 8]);
    let workers: Vec<u32> = made.iter().map(|(workers, _)| *workers).collect();
    assert_eq!(workers, [4, 4, 2, 2, 1, 1, 1, 1]);
    assert_eq!((made[1].1, made[7].1), ("cooldown", "steady"));
}

#[test]
fn between_the_two_marks_nothing_changes() {
    for queued in [2, 17, 32] {
        assert_eq!(follow(of(Mode::Doubling), CLASSIC, 5, &[(queued, 0)]), [(5, "steady")]);
    }
}

#[test]
fn what_runs_keeps_the_workers_that_it_needs() {
    let config = Config { running_per_worker: 1, ..of(Mode::Doubling) };
    assert_eq!(follow(config.clone(), CLASSIC, 8, &[(0, 7)]), [(7, "idle")]);
    assert_eq!(follow(config.clone(), CLASSIC, 8, &[(0, 20)]), [(8, "steady")]);
    assert_eq!(follow(config, CLASSIC, 8, &[(0, 1)]), [(4, "idle")]);
}

#[test]
fn other_bounds_are_kept_at_once() {
    let config =
        Config { up_cooldown: Duration::from_secs(600), down_cooldown: Duration::from_secs(600), ..Config::default() };
    let mut decider = Decider::new(config, Seasons::default());
    let mut decide = |second, workers, min, max| {
        let sample = Sample { time: at(second), look: look(10, 0, workers) };
        let decision = decider.decide(sample, Bounds { min, max });
        (decision.to, decision.reason)
    };
    assert_eq!(decide(0, 1, 4, 8), (4, Reason::Minimum));
    assert_eq!(decide(1, 4, 1, 2), (2, Reason::Maximum));
}

#[test]
fn each_worker_gets_its_number_of_jobs() {
    let config = Config { queue_per_worker: 10, down_cooldown: Duration::ZERO, ..of(Mode::Queue) };
    let made = follow(config, CLASSIC, 1, &[(95, 0), (40, 15), (0, 0)]);
    assert_eq!(made, [(10, "queue"), (6, "idle"), (1, "idle")]);
}

#[test]
fn a_wait_that_is_too_long_makes_workers_more_in_proportion() {
    let config = Config { wait: Duration::from_secs(1), ..of(Mode::Wait) };
    let want =
        |wait_ms, workers, running| wait::want(&ScalerLook { wait_ms, ..look(9, running, workers) }, &config).workers;
    assert_eq!((want(1_050, 4, 0), want(1_500, 4, 0), want(60_000, 4, 0)), (4, 6, 16));
    assert_eq!((want(600, 4, 0), want(400, 4, 0), want(0, 4, 30)), (4, 2, 4));
}

#[test]
fn a_share_of_the_workers_is_in_use() {
    let config = Config { utilisation: 0.5, ..of(Mode::Utilisation) };
    let want = |share: f64, workers, ready| {
        let seen = ScalerLook { utilisation: share, ready, ..look(0, 0, workers) };
        utilisation::want(&seen, &config).workers
    };
    assert_eq!((want(1.0, 4, 4), want(0.52, 4, 4), want(0.1, 10, 10)), (8, 4, 2));
    assert_eq!(want(1.0, 4, 2), 4, "those that are being made carry nothing yet");
}

#[test]
fn the_hour_of_the_last_week_is_made_ready_for() {
    let config = Config { queue_per_worker: 10, lead: Duration::from_secs(900), safety: 1.5, ..of(Mode::Prediction) };
    let mut decider = Decider::new(config, Seasons::default());
    let hour = |hour: u64| Timestamp::from_millis(0) + Duration::from_secs(hour * 3_600);
    let mut decide = |time, queued| decider.decide(Sample { time, look: look(queued, 0, 1) }, CLASSIC);
    // A week of nothing, but for 100 jobs in its hour 9.
    for number in 0..168 {
        decide(hour(number), if number == 9 { 100 } else { 0 });
    }
    assert_eq!(decide(hour(168 + 8), 0).to, 1);
    let ahead = decide(hour(168 + 8) + Duration::from_secs(50 * 60), 0);
    assert_eq!((ahead.to, ahead.reason), (15, Reason::Prediction));
    let seasons = decider.seasons().clone();
    let kept: Seasons = serde_json::from_str(&serde_json::to_string(&seasons).unwrap()).unwrap();
    assert_eq!(kept, seasons, "what was learnt is kept over a restart");
}

#[test]
fn an_hour_of_the_week_that_was_never_seen_is_as_that_of_other_days() {
    let config = Config { queue_per_worker: 10, lead: Duration::ZERO, safety: 1.0, ..of(Mode::Prediction) };
    let mut decider = Decider::new(config, Seasons::default());
    let hour = |hour: u64| Timestamp::from_millis(0) + Duration::from_secs(hour * 3_600);
    for number in 0..24 {
        decider.decide(Sample { time: hour(number), look: look(if number == 9 { 50 } else { 0 }, 0, 1) }, CLASSIC);
    }
    let next_day = decider.decide(Sample { time: hour(24 + 9), look: look(0, 0, 1) }, CLASSIC);
    assert_eq!((next_day.to, next_day.reason), (5, Reason::Prediction));
}

#[test]
fn operators_bounds_go_over_those_of_the_settings() {
    let bounds = Bounds { min: 2, max: 10 };
    assert_eq!(bounds.ordered(None, None), bounds);
    assert_eq!(bounds.ordered(None, Some(1)), Bounds { min: 1, max: 1 });
    assert_eq!(bounds.ordered(Some(20), None), Bounds { min: 20, max: 20 });
    assert_eq!(bounds.ordered(Some(3), Some(5)), Bounds { min: 3, max: 5 });
}

fn any_mode() -> impl Strategy<Value = Mode> {
    prop::sample::select(Mode::ALL.to_vec())
}

prop_compose! {
    fn any_look()(queued in 0u64..5_000, running in 0u64..5_000, wait_ms in 0u64..100_000, ready in 0u32..200,
        utilisation in 0.0f64..=1.0) -> ScalerLook {
        ScalerLook { queued, running, workers: 0, ready, wait_ms, utilisation }
    }
}

proptest! {
    #[test]
    fn no_decision_is_out_of_bounds_and_none_flaps(
        mode in any_mode(), min in 1u32..20, more in 0u32..60, first in 0u32..120,
        up in 0u64..60, down in 0u64..120,
        looks in prop::collection::vec((any_look(), 1u64..30), 1..120),
    ) {
        let (up, down) = (Duration::from_secs(up), Duration::from_secs(down));
        let config = Config { up_cooldown: up, down_cooldown: down, ..of(mode) };
        let bounds = Bounds { min, max: min + more };
        let mut decider = Decider::new(config, Seasons::default());
        let (mut time, mut workers, mut changed) = (START, first, None::<Timestamp>);
        for (seen, step) in looks {
            time = time + Duration::from_secs(step);
            let sample = Sample { time, look: ScalerLook { workers, ready: seen.ready.min(workers), ..seen } };
            let decision = decider.decide(sample, bounds);
            prop_assert!((bounds.min..=bounds.max).contains(&decision.to), "{decision:?}");
            let forced = workers < bounds.min || workers > bounds.max;
            if decision.to != workers && !forced {
                let cooldown = if decision.to > workers { up } else { down };
                prop_assert!(changed.is_none_or(|changed| time.since(changed) >= cooldown), "{decision:?}");
            }
            if decision.to != workers {
                changed = Some(time);
            }
            workers = decision.to;
        }
    }

    #[test]
    fn more_load_never_asks_for_fewer_workers(
        mode in any_mode(), seen in any_look(), workers in 1u32..200,
        queued in 0u64..1_000, running in 0u64..1_000, wait in 0u64..10_000, share in 0.0f64..=1.0,
    ) {
        let less = ScalerLook { workers, ready: seen.ready.min(workers), ..seen };
        let more = ScalerLook {
            queued: less.queued + queued,
            running: less.running + running,
            wait_ms: less.wait_ms + wait,
            utilisation: (less.utilisation + share).min(1.0),
            ..less
        };
        let want = |look| Decider::new(of(mode), Seasons::default()).decide(Sample { time: START, look }, CLASSIC).to;
        prop_assert!(want(less) <= want(more), "{less:?} {more:?}");
    }
}
