//! Which times of a schedule are to be fired now. Pure.
//!
//! A time that is at most [`GRACE`] ago is on time: a change of leader takes seconds, and costs no firing whatever the policy. What is
//! longer ago was missed, and the policy says which of it is made up for.

use std::time::Duration;

use lyra_kit::Timetable;
use lyra_types::Timestamp;
use lyra_types::schedule::MissedPolicy;

/// What is later than this was missed.
pub(super) const GRACE: Duration = Duration::from_secs(60);

/// What is due.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Due {
    /// To be fired, the earliest first.
    pub(super) ticks: Vec<Timestamp>,
    /// Nothing up to here is due any more once these are fired.
    pub(super) until: Timestamp,
}

/// The times later than `last` and up to `now` that are to be fired. Of those that were missed, `missed` says which; none of them is
/// longer ago than `window`, and they are at most `most`.
pub(super) fn due(
    table: &Timetable,
    last: Timestamp,
    now: Timestamp,
    missed: MissedPolicy,
    window: Duration,
    most: usize,
) -> Due {
    let on_time = last.max(now - GRACE);
    let earliest = last.max(now - window);
    let most = match missed {
        MissedPolicy::Skip => 0,
        MissedPolicy::Once => 1,
        MissedPolicy::All => most,
    };
    let mut ticks = Vec::new();
    let mut before = on_time;
    while ticks.len() < most
        && let Some(tick) = table.last(before).filter(|tick| *tick > earliest)
    {
        ticks.push(tick);
        before = tick - Duration::from_millis(1);
    }
    ticks.reverse();
    let mut after = on_time;
    while let Some(tick) = table.next(after).filter(|tick| *tick <= now) {
        ticks.push(tick);
        after = tick;
    }
    Due { ticks, until: last.max(now) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).expect("a time")
    }

    fn hourly() -> Timetable {
        Timetable::new("0 * * * *", None, "").expect("a pattern")
    }

    fn ticks(missed: MissedPolicy, window: u64, most: usize) -> Vec<String> {
        let (last, now) = (at("2026-11-21T10:30:00Z"), at("2026-11-21T15:00:20Z"));
        let due = due(&hourly(), last, now, missed, Duration::from_secs(window), most);
        assert_eq!(due.until, now);
        due.ticks.iter().map(|tick| tick.to_string()[11..16].to_owned()).collect()
    }

    #[test]
    fn of_missed_times_the_policy_says_which_are_made_up_for() {
        assert_eq!(ticks(MissedPolicy::Skip, 86_400, 10), ["15:00"]);
        assert_eq!(ticks(MissedPolicy::Once, 86_400, 10), ["14:00", "15:00"]);
        assert_eq!(ticks(MissedPolicy::All, 86_400, 10), ["11:00", "12:00", "13:00", "14:00", "15:00"]);
        assert_eq!(ticks(MissedPolicy::All, 86_400, 2), ["13:00", "14:00", "15:00"]);
        assert_eq!(ticks(MissedPolicy::All, 2 * 3_600 + 60, 10), ["13:00", "14:00", "15:00"]);
        assert_eq!(ticks(MissedPolicy::Once, 0, 10), ["15:00"]);
    }

    #[test]
    fn a_pattern_that_has_no_times_is_never_due() {
        let never = Timetable::new("0 0 30 2 *", None, "").expect("a pattern");
        let due = due(&never, Timestamp::default(), at("2026-11-21T15:00:20Z"), MissedPolicy::All, GRACE, 9);
        assert_eq!(due.ticks, []);
    }

    proptest! {
        #[test]
        fn however_often_it_is_looked_each_time_is_due_once(steps in proptest::collection::vec(1_i64..50_000, 1..40)) {
            let table = Timetable::new("*/7 * * * * *", None, "").expect("a pattern");
            let begin = at("2026-11-21T10:00:00Z");
            let (mut last, mut now, mut fired) = (begin, begin, Vec::new());
            for step in steps {
                now = now + Duration::from_millis(step.unsigned_abs());
                let found = due(&table, last, now, MissedPolicy::Skip, Duration::ZERO, 0);
                fired.extend(found.ticks);
                last = found.until;
            }
            let mut all = Vec::new();
            let mut after = begin;
            while let Some(tick) = table.next(after).filter(|tick| *tick <= now) {
                all.push(tick);
                after = tick;
            }
            prop_assert_eq!(fired, all);
        }
    }
}
