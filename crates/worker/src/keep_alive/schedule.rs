//! Instances that are there at certain hours: windows by cron pattern, from a version's labels.
//!
//! `lyra.dev/prewarm-cron` says when a window opens, `-instances` how many instances are there while it is open (1),
//! `-minutes` for how long (15), `-timezone` whose clock is meant (UTC). A label that would do nothing is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use croner::Cron;
use jiff::tz::TimeZone;
use lyra_types::function::label::PREWARM_CRON as CRON;
use lyra_types::{Code, Error, Timestamp};

const INSTANCES: &str = "lyra.dev/prewarm-instances";
const MINUTES: &str = "lyra.dev/prewarm-minutes";
const TIMEZONE: &str = "lyra.dev/prewarm-timezone";

/// What the names of all of them begin with.
const PREFIX: &str = "lyra.dev/prewarm-";

/// Most instances that a window may ask for.
const MOST_INSTANCES: u32 = 1_000;
/// Longest window, in minutes: a week.
const MOST_MINUTES: u32 = 7 * 24 * 60;

/// A window that opens again and again.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    cron: Cron,
    zone: TimeZone,
    lasts: Duration,
    instances: u32,
}

impl Window {
    /// The window that labels ask for, if they do.
    ///
    /// # Errors
    /// [`Code::InvalidField`] with the label at fault.
    pub(crate) fn of(labels: &BTreeMap<String, String>) -> Result<Option<Window>, Error> {
        let bad = |label: &str, reason: String| Error::field(Code::InvalidField, format!("labels.{label}"), reason);
        let known = [CRON, INSTANCES, MINUTES, TIMEZONE];
        let named = labels.keys().filter(|label| label.starts_with(PREFIX));
        if let Some(label) = named.clone().find(|label| !known.contains(&label.as_str())) {
            return Err(bad(label, format!("is none of {}", known.join(", "))));
        }
        let Some(pattern) = labels.get(CRON) else {
            // Without a window nothing of it can be meant.
            let alone = |label: &String| bad(label, format!("does nothing without the label {CRON}"));
            return named.clone().next().map_or(Ok(None), |label| Err(alone(label)));
        };
        let cron = pattern.parse::<Cron>().map_err(|error| bad(CRON, format!("is no cron pattern: {error}")))?;
        let number = |label: &str, default: u32, most: u32| match labels.get(label) {
            None => Ok(default),
            Some(text) => text
                .parse::<u32>()
                .ok()
                .filter(|number| (1..=most).contains(number))
                .ok_or_else(|| bad(label, format!("must be a number from 1 to {most}"))),
        };
        let zone = match labels.get(TIMEZONE) {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(name).map_err(|_| {
                bad(TIMEZONE, "is no time zone that this machine knows, such as Europe/Berlin".to_owned())
            })?,
        };
        let minutes = number(MINUTES, 15, MOST_MINUTES)?;
        Ok(Some(Window {
            cron,
            zone,
            lasts: Duration::from_secs(u64::from(minutes) * 60),
            instances: number(INSTANCES, 1, MOST_INSTANCES)?,
        }))
    }

    /// Instances that shall be there at `now`.
    pub(crate) fn wanted(&self, now: Timestamp) -> u32 {
        let Ok(at) = jiff::Timestamp::from_millisecond(now.millis()) else { return 0 };
        let opened = self.cron.find_previous_occurrence(&at.to_zoned(self.zone.clone()), true);
        let Ok(opened) = opened else { return 0 };
        let opened = Timestamp::from_millis(opened.timestamp().as_millisecond());
        if now.since(opened) < self.lasts { self.instances } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(labels: &[(&str, &str)]) -> Result<Option<Window>, Error> {
        Window::of(&labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).expect("a time")
    }

    #[test]
    fn a_window_is_open_from_its_time_for_its_minutes() {
        let labels = [(CRON, "30 8 * * mon-fri"), (INSTANCES, "3"), (MINUTES, "60")];
        let window = window(&labels).expect("valid").expect("there");
        // A Monday.
        for (time, wanted) in [
            ("2026-11-23T08:29:59Z", 0),
            ("2026-11-23T08:30:00Z", 3),
            ("2026-11-23T09:29:59Z", 3),
            ("2026-11-23T09:30:00Z", 0),
            ("2026-11-22T08:45:00Z", 0),
        ] {
            assert_eq!(window.wanted(at(time)), wanted, "{time}");
        }
    }

    #[test]
    fn labels_at_fault_are_named() {
        assert!(window(&[]).expect("valid").is_none());
        for (labels, field) in [
            (vec![(CRON, "when it suits")], "labels.lyra.dev/prewarm-cron"),
            (vec![(CRON, "* * * * *"), (INSTANCES, "0")], "labels.lyra.dev/prewarm-instances"),
            (vec![(CRON, "* * * * *"), (MINUTES, "-1")], "labels.lyra.dev/prewarm-minutes"),
            (vec![(CRON, "* * * * *"), (TIMEZONE, "Mars/Olympus")], "labels.lyra.dev/prewarm-timezone"),
            (vec![(INSTANCES, "2")], "labels.lyra.dev/prewarm-instances"),
            (vec![("lyra.dev/prewarm-crom", "* * * * *")], "labels.lyra.dev/prewarm-crom"),
            (vec![(CRON, "* * * * *"), ("lyra.dev/prewarm-hours", "1")], "labels.lyra.dev/prewarm-hours"),
        ] {
            let error = window(&labels).expect_err("a fault");
            assert_eq!((error.code, error.errors[0].field.as_str()), (Code::InvalidField, field));
        }
    }
}
