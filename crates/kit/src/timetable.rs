//! Times that a cron pattern means, in a time zone.
//!
//! What must hold where clocks are put forward or back: a pattern of fixed times of day (`30 2 * * *`) has one time each day, the
//! first moment after the gap where its own is left out, and the first of both where it comes twice. A pattern with `*` or steps
//! in seconds, minutes or hours has each time that there is: none in the gap, both where they come twice. (The Open Cron Pattern
//! Specification, after Vixie's cron.)
//!
//! Names of time zones are looked up in the machine's database. What to do about times that were missed is for the caller.

use croner::Cron;
use jiff::tz::TimeZone;
use lyra_types::{Code, Error, Result, Timestamp};

/// A cron pattern in a time zone.
#[derive(Debug, Clone)]
pub struct Timetable {
    cron: Cron,
    zone: TimeZone,
}

impl Timetable {
    /// Reads a pattern of five or six fields (`[second] minute hour day month weekday`) or a nickname such as `@daily`, and an IANA
    /// time zone; UTC where none is named.
    ///
    /// # Errors
    /// [`Code::InvalidField`] with field `cron` or `time_zone`, after `prefix`.
    pub fn new(cron: &str, zone: Option<&str>, prefix: &str) -> Result<Timetable> {
        let bad = |field: &str, reason: String| Error::field(Code::InvalidField, format!("{prefix}{field}"), reason);
        let cron = cron.parse::<Cron>().map_err(|error| bad("cron", format!("is no cron pattern: {error}")))?;
        let zone = match zone {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(name).map_err(|_| {
                let shown: String = name.chars().take(80).collect();
                let shown = shown.escape_debug();
                bad("time_zone", format!("\"{shown}\" is no time zone that this machine knows, such as Europe/Berlin"))
            })?,
        };
        Ok(Timetable { cron, zone })
    }

    /// The first time after `after`; `None` where there is none any more.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let at = jiff::Timestamp::from_millisecond(after.millis()).ok()?.to_zoned(self.zone.clone());
        let next = self.cron.find_next_occurrence(&at, false).ok()?;
        Some(Timestamp::from_millis(next.timestamp().as_millisecond()))
    }

    /// The last time up to `until`, itself included; `None` where there was none yet.
    pub fn last(&self, until: Timestamp) -> Option<Timestamp> {
        let at = jiff::Timestamp::from_millisecond(until.millis()).ok()?.to_zoned(self.zone.clone());
        let last = self.cron.find_previous_occurrence(&at, true).ok()?;
        Some(Timestamp::from_millis(last.timestamp().as_millisecond()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).expect("a time")
    }

    fn times(cron: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let table = Timetable::new(cron, Some(zone), "").expect("a timetable");
        let mut after = at(from);
        let mut found = Vec::new();
        while found.len() < count {
            after = table.next(after).expect("a next time");
            found.push(after.to_string());
        }
        found
    }

    #[test]
    fn a_daily_time_that_is_left_out_comes_right_after_the_gap() {
        // Clocks in Madrid went from 02:00 to 03:00 on 2026-03-29, which is 01:00 UTC.
        let found = times("30 2 * * *", "Europe/Madrid", "2026-03-28T00:00:00Z", 3);
        assert_eq!(found, ["2026-03-28T01:30:00.000Z", "2026-03-29T01:00:00.000Z", "2026-03-30T00:30:00.000Z"]);
    }

    #[test]
    fn a_daily_time_that_comes_twice_counts_once() {
        // Clocks in Madrid went from 03:00 back to 02:00 on 2026-10-25, which is 01:00 UTC.
        let found = times("30 2 * * *", "Europe/Madrid", "2026-10-24T00:00:00Z", 3);
        assert_eq!(found, ["2026-10-24T00:30:00.000Z", "2026-10-25T00:30:00.000Z", "2026-10-26T01:30:00.000Z"]);
    }

    #[test]
    fn a_step_has_each_time_that_there_is() {
        let forward = times("*/30 * * * *", "Europe/Madrid", "2026-03-29T00:00:00Z", 4);
        assert_eq!(
            forward,
            [
                "2026-03-29T00:30:00.000Z",
                "2026-03-29T01:00:00.000Z",
                "2026-03-29T01:30:00.000Z",
                "2026-03-29T02:00:00.000Z"
            ]
        );
        let back = times("*/30 * * * *", "Europe/Madrid", "2026-10-25T00:00:00Z", 4);
        assert_eq!(
            back,
            [
                "2026-10-25T00:30:00.000Z",
                "2026-10-25T01:00:00.000Z",
                "2026-10-25T01:30:00.000Z",
                "2026-10-25T02:00:00.000Z"
            ]
        );
    }

    #[test]
    fn next_goes_forward_from_the_last_and_last_finds_what_next_found() {
        let table = Timetable::new("*/10 * * * * *", None, "").expect("a timetable");
        let from = at("2026-11-21T10:00:00.500Z");
        let next = table.next(from).expect("a time");
        assert_eq!(next, at("2026-11-21T10:00:10Z"));
        assert_eq!(table.next(next), Some(at("2026-11-21T10:00:20Z")));
        assert_eq!(table.last(next), Some(next));
        assert_eq!(table.last(from), Some(at("2026-11-21T10:00:00Z")));
    }

    #[test]
    fn what_is_no_pattern_or_zone_is_refused_by_field() {
        for (cron, zone, field) in [("soon", None, "a.cron"), ("0 * * * *", Some("Moon/Sea"), "a.time_zone")] {
            let error = Timetable::new(cron, zone, "a.").expect_err("refused");
            assert_eq!((error.code, error.errors[0].field.as_str()), (Code::InvalidField, field));
        }
    }
}
