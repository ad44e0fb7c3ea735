//! Quotas: how much of the platform a tenant, or one function of it, may take.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Code, Error, FieldError, FunctionName, Result, TenantName, Timestamp};

/// Least rate, in calls per second: one in about twelve days.
const MIN_RATE: f64 = 0.000_001;
/// Most calls per second, and most at once in a burst.
const MAX_RATE: u32 = 1_000_000;

/// What a tenant or function may take. What is not said has no limit.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    /// Calls and submitted jobs per second, 0.000001 to 1,000,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Calls that may come at once after a pause: 1 to 1,000,000. Default: those of one second, at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// Calls, and tries of jobs, at one time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Memory limits of the versions of all calls at one time, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// Bytes of code that versions are made of. The same code counts once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
    /// Functions. Of tenants only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub functions: Option<u32>,
    /// Sessions that have not ended, and the instances that stand for some. Of tenants only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u32>,
    /// Workflows. Of tenants only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflows: Option<u32>,
    /// Runs of workflows that have not ended, those of sub-workflows among them. Of tenants only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runs: Option<u32>,
    /// Jobs that wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued_jobs: Option<u64>,
    /// Processor time of calls in one `cpu_period`, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// Default: a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_period: Option<Period>,
}

/// A span of the calendar, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// An hour.
    Hour,
    /// A day.
    #[default]
    Day,
    /// A month.
    Month,
}

impl Period {
    /// All of them.
    pub const ALL: [Period; 3] = [Period::Hour, Period::Day, Period::Month];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Period::Hour => "hour",
            Period::Day => "day",
            Period::Month => "month",
        }
    }

    /// The period of that word.
    pub fn parse(text: &str) -> Option<Period> {
        Period::ALL.into_iter().find(|period| period.as_str() == text)
    }

    /// Begin and end of the period that `now` is in.
    pub fn around(self, now: Timestamp) -> (Timestamp, Timestamp) {
        const HOUR_MS: i64 = 3_600_000;
        let fixed = |length: i64| {
            let begin = now.millis().div_euclid(length).saturating_mul(length);
            (Timestamp::from_millis(begin), Timestamp::from_millis(begin.saturating_add(length)))
        };
        match self {
            Period::Hour => fixed(HOUR_MS),
            Period::Day => fixed(24 * HOUR_MS),
            Period::Month => month_around(now).unwrap_or_else(|| fixed(30 * 24 * HOUR_MS)),
        }
    }
}

/// `None` for times that no calendar has.
fn month_around(now: Timestamp) -> Option<(Timestamp, Timestamp)> {
    let zone = jiff::tz::TimeZone::UTC;
    let date = jiff::Timestamp::from_millisecond(now.millis()).ok()?.to_zoned(zone.clone()).date();
    let first = date.first_of_month();
    let next = date.last_of_month().tomorrow().ok()?;
    let millis = |date: jiff::civil::Date| {
        let begin = date.to_zoned(zone.clone()).ok()?;
        Some(Timestamp::from_millis(begin.timestamp().as_millisecond()))
    };
    Some((millis(first)?, millis(next)?))
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Quota {
    /// Whether there is no limit at all.
    pub fn is_empty(&self) -> bool {
        *self == Quota::default()
    }

    /// Whether there is a limit that gateways hold calls to.
    pub fn limits_calls(&self) -> bool {
        self.rate.is_some() || self.concurrency.is_some() || self.memory_mb.is_some() || self.cpu_ms.is_some()
    }

    /// Calls that may come at once.
    pub fn burst(&self) -> Option<u32> {
        let second = |rate: f64| (rate.ceil() as u32).max(1);
        self.rate.map(|rate| self.burst.unwrap_or_else(|| second(rate)))
    }

    /// Processor time and its period.
    pub fn cpu(&self) -> Option<(u64, Period)> {
        self.cpu_ms.map(|most| (most, self.cpu_period.unwrap_or_default()))
    }

    /// Says whether the fields fit, for a tenant or for a function.
    ///
    /// # Errors
    /// [`Code::InvalidField`] with each field at fault.
    pub fn check(&self, of_function: bool) -> Result<()> {
        let mut faults = Vec::new();
        let mut wrong = |field: &str, reason: String| faults.push(FieldError::new(field, reason));
        if let Some(rate) = self.rate
            && !(MIN_RATE..=f64::from(MAX_RATE)).contains(&rate)
        {
            wrong("rate", format!("must be {MIN_RATE} to {MAX_RATE} calls per second"));
        }
        match (self.burst, self.rate) {
            (Some(_), None) => wrong("burst", "belongs to a rate, and there is none".to_owned()),
            (Some(burst), _) if !(1..=MAX_RATE).contains(&burst) => {
                wrong("burst", format!("must be 1 to {MAX_RATE}"));
            }
            _ => {}
        }
        let of_tenants = [
            ("functions", self.functions),
            ("sessions", self.sessions),
            ("workflows", self.workflows),
            ("runs", self.runs),
        ];
        for (field, _) in of_tenants.into_iter().filter(|(_, most)| most.is_some() && of_function) {
            wrong(field, "is a limit of tenants".to_owned());
        }
        if self.cpu_period.is_some() && self.cpu_ms.is_none() {
            wrong("cpu_period", "belongs to cpu_ms, which is not there".to_owned());
        }
        match faults.first() {
            None => Ok(()),
            Some(first) => {
                let mut error = Error::new(Code::InvalidField, format!("{}: {}", first.field, first.reason));
                error.errors = faults;
                Err(error)
            }
        }
    }

    /// Says whether a function's quota stays within that of its tenant.
    ///
    /// # Errors
    /// [`Code::InvalidField`] with each field that allows more.
    pub fn check_within(&self, tenant: &Quota) -> Result<()> {
        let mut error: Option<Error> = None;
        let mut hold = |field: &str, own: Option<f64>, most: Option<f64>| {
            if let (Some(own), Some(most)) = (own, most)
                && own > most
            {
                let fault = FieldError::new(field, format!("the tenant may have {most} only"));
                let begun = error.take().unwrap_or_else(|| {
                    Error::new(Code::InvalidField, format!("{field}: a function may have no more than its tenant"))
                });
                error = Some(begun.with_field(fault));
            }
        };
        let wide = |number: Option<u64>| number.map(|number| number as f64);
        hold("rate", self.rate, tenant.rate);
        hold("burst", self.burst().map(f64::from), tenant.burst().map(f64::from));
        hold("concurrency", self.concurrency.map(f64::from), tenant.concurrency.map(f64::from));
        hold("memory_mb", self.memory_mb.map(f64::from), tenant.memory_mb.map(f64::from));
        hold("stored_bytes", wide(self.stored_bytes), wide(tenant.stored_bytes));
        hold("queued_jobs", wide(self.queued_jobs), wide(tenant.queued_jobs));
        if let (Some((own, period)), Some((most, of))) = (self.cpu(), tenant.cpu())
            && period == of
        {
            hold("cpu_ms", wide(Some(own)), wide(Some(most)));
        }
        error.map_or(Ok(()), Err)
    }
}

/// A rate in calls per second, as people write it: `100/s`, `30/min`, `2/h`.
pub fn rate_text(rate: f64) -> String {
    let units = [(1.0, "s"), (60.0, "min"), (3_600.0, "h"), (86_400.0, "day")];
    let shown = |seconds: f64| (rate * seconds * 1_000.0).round() / 1_000.0;
    let unit = units.into_iter().find(|(seconds, _)| shown(*seconds) >= 1.0).unwrap_or(units[3]);
    format!("{}/{}", shown(unit.0), unit.1)
}

/// Whose quota.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QuotaKey {
    /// Of this tenant;
    pub tenant: TenantName,
    /// or only of this function of it.
    pub function: Option<FunctionName>,
}

impl fmt::Display for QuotaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.function {
            None => write!(f, "tenant {}", self.tenant),
            Some(function) => write!(f, "function {function} of tenant {}", self.tenant),
        }
    }
}

/// What can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitKind {
    /// [`Quota::rate`].
    Rate,
    /// [`Quota::concurrency`].
    Concurrency,
    /// [`Quota::memory_mb`].
    Memory,
    /// [`Quota::stored_bytes`].
    StoredBytes,
    /// [`Quota::functions`].
    Functions,
    /// [`Quota::sessions`].
    Sessions,
    /// [`Quota::workflows`].
    Workflows,
    /// [`Quota::runs`].
    Runs,
    /// [`Quota::queued_jobs`].
    QueuedJobs,
    /// [`Quota::cpu_ms`].
    Cpu,
}

impl LimitKind {
    /// All of them.
    pub const ALL: [LimitKind; 10] = [
        LimitKind::Rate,
        LimitKind::Concurrency,
        LimitKind::Memory,
        LimitKind::StoredBytes,
        LimitKind::Functions,
        LimitKind::Sessions,
        LimitKind::Workflows,
        LimitKind::Runs,
        LimitKind::QueuedJobs,
        LimitKind::Cpu,
    ];

    /// The field of a quota.
    pub const fn as_str(self) -> &'static str {
        match self {
            LimitKind::Rate => "rate",
            LimitKind::Concurrency => "concurrency",
            LimitKind::Memory => "memory_mb",
            LimitKind::StoredBytes => "stored_bytes",
            LimitKind::Functions => "functions",
            LimitKind::Sessions => "sessions",
            LimitKind::Workflows => "workflows",
            LimitKind::Runs => "runs",
            LimitKind::QueuedJobs => "queued_jobs",
            LimitKind::Cpu => "cpu_ms",
        }
    }

    /// The refusal of what goes over the limit `most` of `of`. `counted` says what stands against it, and `after` when it is worth another
    /// try.
    pub fn refusal(self, of: &QuotaKey, most: impl fmt::Display, counted: impl fmt::Display, after: Duration) -> Error {
        let what = match self {
            LimitKind::Rate => "calls per second",
            LimitKind::Concurrency => "calls at a time",
            LimitKind::Memory => "MiB of calls at a time",
            LimitKind::StoredBytes => "bytes of code",
            LimitKind::Functions => "functions",
            LimitKind::Sessions => "sessions",
            LimitKind::Workflows => "workflows",
            LimitKind::Runs => "runs of workflows",
            LimitKind::QueuedJobs => "jobs that wait",
            LimitKind::Cpu => "ms of processor time",
        };
        let detail = match self {
            LimitKind::Rate => format!("the quota of {of} is reached: a rate of {most}; {counted}"),
            _ => format!("the quota of {of} is reached: {most} {what}; {counted}"),
        };
        let field = FieldError::new(format!("quota.{}", self.as_str()), format!("{of}: limit {most}, {counted}"));
        Error::new(Code::LimitReached, detail).with_field(field).with_retry_after(after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).expect("a time")
    }

    #[test]
    fn periods_begin_and_end_with_the_calendar() {
        let now = at("2024-02-29T23:30:00Z");
        for (period, begin, end) in [
            (Period::Hour, "2024-02-29T23:00:00Z", "2024-03-01T00:00:00Z"),
            (Period::Day, "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z"),
            (Period::Month, "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
        ] {
            assert_eq!(period.around(now), (at(begin), at(end)), "{period}");
            assert_eq!(Period::parse(period.as_str()), Some(period));
        }
        assert_eq!(Period::Month.around(at("2025-12-31T00:00:00Z")).1, at("2026-01-01T00:00:00Z"));
    }

    #[test]
    fn what_can_not_be_a_quota_is_refused_by_field() {
        let faults = |json: &str, of_function| {
            let quota: Quota = serde_json::from_str(json).expect("a quota");
            let error = quota.check(of_function).err();
            error.map(|error| error.errors.into_iter().map(|fault| fault.field).collect::<Vec<_>>())
        };
        assert_eq!(faults(r#"{"rate":0.5,"burst":3,"concurrency":0,"cpu_ms":5,"cpu_period":"month"}"#, true), None);
        assert_eq!(faults(r#"{"functions":3}"#, false), None);
        assert_eq!(
            faults(r#"{"functions":3,"sessions":1,"burst":1,"runs":0,"workflows":9}"#, true).expect("faults"),
            ["burst", "functions", "sessions", "workflows", "runs"]
        );
        assert_eq!(faults(r#"{"rate":0,"burst":0,"cpu_period":"day"}"#, false).expect("faults").len(), 3);
        assert!(serde_json::from_str::<Quota>(r#"{"rat":1}"#).is_err());
        assert!(serde_json::from_str::<Quota>(r#"{"cpu_period":"week"}"#).is_err());
    }

    #[test]
    fn a_function_has_no_more_than_its_tenant() {
        let tenant = Quota { rate: Some(10.0), concurrency: Some(4), cpu_ms: Some(100), ..Quota::default() };
        let within = |quota: Quota| quota.check_within(&tenant).map_err(|error| error.errors.len());
        assert_eq!(within(Quota { rate: Some(10.0), memory_mb: Some(9), ..Quota::default() }), Ok(()));
        assert_eq!(within(Quota { rate: Some(11.0), concurrency: Some(5), ..Quota::default() }), Err(3));
        let hourly = Quota { cpu_ms: Some(200), cpu_period: Some(Period::Hour), ..Quota::default() };
        assert_eq!(within(hourly), Ok(()), "periods that differ can't be compared");
    }

    #[test]
    fn rates_are_shown_in_the_unit_that_fits() {
        for (rate, text) in
            [(100.0, "100/s"), (1.5, "1.5/s"), (0.5, "30/min"), (2.0 / 3_600.0, "2/h"), (0.00001, "0.864/day")]
        {
            assert_eq!(rate_text(rate), text);
        }
    }

    #[test]
    fn a_refusal_names_the_limit_its_value_and_what_counts() {
        let of = QuotaKey { tenant: TenantName::default_tenant(), function: None };
        let error = LimitKind::Concurrency.refusal(&of, 4, "4 are running", Duration::from_secs(1));
        assert_eq!(error.code, Code::LimitReached);
        assert_eq!(error.detail, "the quota of tenant default is reached: 4 calls at a time; 4 are running");
        assert_eq!(error.errors[0].field, "quota.concurrency");
        assert!(error.retry_after.is_some());
    }
}
