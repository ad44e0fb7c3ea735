//! Schedules: when a function is called by itself, as a job.
//!
//! Which times a pattern means, and which of them are made up for after an outage, is decided elsewhere; here are the words and
//! what a schedule may hold.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::name::Qualifier;
use crate::{Code, Error, JobId, Result, ScheduleName, Timestamp};

/// Longest cron pattern and longest name of a time zone, in bytes.
pub const MAX_PATTERN: usize = 256;
/// Largest event of a schedule, in bytes (64 KiB): it is read again at each firing.
pub const MAX_SCHEDULE_EVENT: usize = 64 << 10;
/// Schedules of one tenant.
pub const MAX_SCHEDULES: usize = 1_000;
/// Most missed firings that are made up for together.
pub const MAX_MISSED: u32 = 100;
/// Longest time for which missed firings are made up for, in seconds (a day). The keys that keep a firing from happening twice
/// are remembered for that long.
pub const MAX_CATCH_UP: u64 = 24 * 3_600;
/// Firings that a schedule remembers.
pub const KEPT_FIRINGS: usize = 20;

/// What to call, when, and what to do where that can't be kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleRequest {
    /// Five or six fields, `[second] minute hour day month weekday`, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
    pub cron: String,
    /// IANA time zone; UTC where none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// The function, with a version or an alias where it is not `live`: `f`, `f@3`, `f@beta`. Looked up at each firing.
    pub function: String,
    /// The event of each call; `null` where none.
    #[serde(default)]
    pub event: Value,
    /// What to do at a firing when the job of the one before has not ended.
    #[serde(default)]
    pub overlap: OverlapPolicy,
    /// What to do about firings that nobody was there for.
    #[serde(default)]
    pub missed: MissedPolicy,
    /// For how long firings are made up for, in seconds: those that are longer ago are left out. At most a day.
    #[serde(default = "default_catch_up")]
    pub catch_up_seconds: u64,
    /// With `missed: all`, at most so many, the latest ones: 1 to 100.
    #[serde(default = "default_max_missed")]
    pub max_missed: u32,
    /// Whether it starts paused. A paused schedule fires only by hand, and misses nothing.
    #[serde(default)]
    pub paused: bool,
}

fn default_catch_up() -> u64 {
    3_600
}

fn default_max_missed() -> u32 {
    10
}

/// What a schedule does when the job of its last firing has not ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OverlapPolicy {
    /// Leaves this firing out.
    #[default]
    Skip,
    /// Starts another job beside it.
    Allow,
    /// Waits for its end, then starts one job, however many firings came meanwhile.
    Queue,
    /// Cancels it and starts the new one.
    Replace,
}

impl OverlapPolicy {
    /// Every policy.
    pub const ALL: [OverlapPolicy; 4] =
        [OverlapPolicy::Skip, OverlapPolicy::Allow, OverlapPolicy::Queue, OverlapPolicy::Replace];

    /// The word in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            OverlapPolicy::Skip => "skip",
            OverlapPolicy::Allow => "allow",
            OverlapPolicy::Queue => "queue",
            OverlapPolicy::Replace => "replace",
        }
    }

    /// The policy of that word.
    pub fn parse(text: &str) -> Option<OverlapPolicy> {
        OverlapPolicy::ALL.into_iter().find(|policy| policy.as_str() == text)
    }
}

/// What a schedule does about firings that nobody was there for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MissedPolicy {
    /// Leaves them out.
    Skip,
    /// Makes up for the last one.
    #[default]
    Once,
    /// Makes up for each, the earliest first.
    All,
}

impl MissedPolicy {
    /// Every policy.
    pub const ALL: [MissedPolicy; 3] = [MissedPolicy::Skip, MissedPolicy::Once, MissedPolicy::All];

    /// The word in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            MissedPolicy::Skip => "skip",
            MissedPolicy::Once => "once",
            MissedPolicy::All => "all",
        }
    }

    /// The policy of that word.
    pub fn parse(text: &str) -> Option<MissedPolicy> {
        MissedPolicy::ALL.into_iter().find(|policy| policy.as_str() == text)
    }
}

impl ScheduleRequest {
    /// Checks all that can be told without a calendar and without the function.
    ///
    /// # Errors
    /// [`Code::InvalidField`] with the field at fault; [`Code::InvalidName`] for the function's name.
    pub fn check(&self) -> Result<()> {
        let bad = |field: &str, reason: String| Err(Error::field(Code::InvalidField, field, reason));
        if self.cron.len() > MAX_PATTERN {
            return bad("cron", format!("is longer than {MAX_PATTERN} bytes"));
        }
        if self.time_zone.as_ref().is_some_and(|zone| zone.len() > MAX_PATTERN) {
            return bad("time_zone", format!("is longer than {MAX_PATTERN} bytes"));
        }
        if self.catch_up_seconds > MAX_CATCH_UP {
            return bad("catch_up_seconds", format!("must be at most {MAX_CATCH_UP}, a day"));
        }
        if !(1..=MAX_MISSED).contains(&self.max_missed) {
            return bad("max_missed", format!("must be 1 to {MAX_MISSED}"));
        }
        let event = serde_json::to_vec(&self.event).map_or(usize::MAX, |json| json.len());
        if event > MAX_SCHEDULE_EVENT {
            return bad("event", format!("is larger than {MAX_SCHEDULE_EVENT} bytes"));
        }
        Qualifier::split(&self.function).map(drop)
    }
}

/// How a firing ended for the schedule; the job's own end is the job's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FiringOutcome {
    /// It started a job.
    Started,
    /// It was left out: the job before had not ended.
    Overlapped,
    /// It waits for the job before to end.
    Waiting,
    /// No job could be started: see the error.
    Refused,
}

impl FiringOutcome {
    /// The word in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            FiringOutcome::Started => "started",
            FiringOutcome::Overlapped => "overlapped",
            FiringOutcome::Waiting => "waiting",
            FiringOutcome::Refused => "refused",
        }
    }
}

/// One time that a schedule fired, or should have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Firing {
    /// The time that the pattern means; for a firing by hand, when it was asked for.
    pub scheduled_at: Timestamp,
    /// When it was dealt with.
    pub fired_at: Timestamp,
    /// What came of it.
    pub outcome: FiringOutcome,
    /// Whether it was asked for by hand.
    #[serde(default)]
    pub manual: bool,
    /// The job that it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub job: Option<JobId>,
    /// Why it started none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleView {
    /// Name.
    #[schema(value_type = String)]
    pub name: ScheduleName,
    /// What was asked for; `paused` as it stands now.
    #[serde(flatten)]
    pub schedule: ScheduleRequest,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last put.
    pub updated_at: Timestamp,
    /// The next times at which it fires, at most five; none while it is paused.
    pub next: Vec<Timestamp>,
    /// The last firings, newest first.
    pub history: Vec<Firing>,
}

/// A firing by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleRun {
    /// The job that it started.
    #[schema(value_type = String)]
    pub job: JobId,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(change: impl FnOnce(&mut ScheduleRequest)) -> ScheduleRequest {
        let mut request: ScheduleRequest =
            serde_json::from_str(r#"{"cron":"0 3 * * *","function":"f"}"#).expect("a schedule");
        change(&mut request);
        request
    }

    #[test]
    fn what_a_schedule_may_not_hold_is_refused_by_field() {
        assert_eq!(request(|_| ()).check(), Ok(()));
        let field = |request: ScheduleRequest| request.check().expect_err("refused").errors[0].field.clone();
        assert_eq!(field(request(|it| it.cron = "x".repeat(MAX_PATTERN + 1))), "cron");
        assert_eq!(field(request(|it| it.catch_up_seconds = MAX_CATCH_UP + 1)), "catch_up_seconds");
        assert_eq!(field(request(|it| it.max_missed = 0)), "max_missed");
        assert_eq!(field(request(|it| it.event = Value::String("x".repeat(MAX_SCHEDULE_EVENT)))), "event");
        assert_eq!(field(request(|it| it.function = "F!".to_owned())), "name");
        assert!(serde_json::from_str::<ScheduleRequest>(r#"{"cron":"@daily","function":"f","tz":"UTC"}"#).is_err());
    }

    #[test]
    fn a_view_is_read_as_it_was_written() {
        let firing = Firing {
            scheduled_at: Timestamp::from_millis(5_000),
            fired_at: Timestamp::from_millis(5_001),
            outcome: FiringOutcome::Started,
            manual: false,
            job: Some(JobId::from_parts(1, 2)),
            error: None,
        };
        let view = ScheduleView {
            name: ScheduleName::new("nightly").expect("a name"),
            schedule: request(|_| ()),
            created_at: Timestamp::from_millis(1_000),
            updated_at: Timestamp::from_millis(2_000),
            next: vec![Timestamp::from_millis(9_000)],
            history: vec![firing],
        };
        let json = serde_json::to_string(&view).expect("JSON");
        assert_eq!(serde_json::from_str::<ScheduleView>(&json).expect("a view"), view, "{json}");
    }

    #[test]
    fn a_policy_is_read_by_the_word_that_it_is_written_with() {
        for policy in OverlapPolicy::ALL {
            assert_eq!(OverlapPolicy::parse(policy.as_str()), Some(policy));
            assert_eq!(serde_json::to_value(policy).expect("JSON"), Value::from(policy.as_str()));
        }
        for policy in MissedPolicy::ALL {
            assert_eq!(MissedPolicy::parse(policy.as_str()), Some(policy));
        }
    }
}
