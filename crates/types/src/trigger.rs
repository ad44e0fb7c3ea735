//! Triggers: functions that are called by events, a batch of them at a time.
//!
//! How events become jobs is decided elsewhere; here are the words and what a trigger may hold.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::name::Qualifier;
use crate::{Code, Error, JobId, Result, SecretName, Timestamp, TriggerName};

/// Triggers of one tenant.
pub const MAX_TRIGGERS: usize = 200;
/// Most records of a batch.
pub const MAX_BATCH: u32 = 1_000;
/// Longest time that a batch is gathered, in milliseconds (a minute).
pub const MAX_BATCH_WAIT_MS: u64 = 60_000;
/// Most bytes of the data of a batch of several records (2 MiB); one record alone may have more.
pub const MAX_BATCH_BYTES: usize = 2 << 20;
/// Most batches of a trigger that are under way at the same time.
pub const MAX_IN_FLIGHT: u32 = 100;
/// Most tries of a batch.
pub const MAX_TRIES: u32 = 100;
/// Fewest tries of a batch: a job that may be tried once is no dead letter when that fails.
pub const MIN_TRIES: u32 = 2;
/// Most events of one post.
pub const MAX_POSTED: usize = 1_000;
/// Longest URL, subject, pattern, prefix, suffix and name of a field, in bytes.
pub const MAX_TEXT: usize = 1_024;
/// Most patterns of event names.
pub const MAX_PATTERNS: usize = 20;

/// What calls which function, and how many events at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TriggerRequest {
    /// The function, with a version or an alias where it is not `live`: `f`, `f@3`, `f@beta`. Looked up for each batch.
    pub function: String,
    /// Where events come from.
    pub source: TriggerSource,
    /// Most records of a batch: 1 to 1,000.
    #[serde(default = "default_batch_size")]
    pub batch_size: u32,
    /// With NATS: how long a batch is gathered after its first message, in milliseconds; at most a minute.
    #[serde(default = "default_batch_wait")]
    pub batch_wait_ms: u64,
    /// Tries of a batch before it is a dead letter, 2 to 100; where none, those of the function, at least two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// With NATS: batches that are under way at the same time, 1 to 100.
    #[serde(default = "default_in_flight")]
    pub max_in_flight: u32,
    /// Whether the function may answer which records of a batch failed, `{"batchItemFailures":[{"itemIdentifier":ID},…]}`, so that
    /// only those are tried again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial_failures: bool,
    /// Whether it starts paused. A paused trigger takes no events.
    #[serde(default)]
    pub paused: bool,
}

fn default_batch_size() -> u32 {
    1
}

fn default_batch_wait() -> u64 {
    1_000
}

fn default_in_flight() -> u32 {
    4
}

/// Where the events of a trigger come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TriggerSource {
    /// They are posted to the trigger: one JSON object, or an array of them.
    Http(HttpSource),
    /// They are messages of a stream of NATS JetStream.
    Nats(NatsSource),
    /// They are notifications of a store that speaks S3, posted to the trigger or sent over NATS.
    S3(S3Source),
}

impl TriggerSource {
    /// The word in JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            TriggerSource::Http(_) => "http",
            TriggerSource::Nats(_) => "nats",
            TriggerSource::S3(_) => "s3",
        }
    }

    /// The NATS that events come over, if they do.
    pub fn nats(&self) -> Option<&NatsSource> {
        match self {
            TriggerSource::Nats(nats) => Some(nats),
            TriggerSource::S3(s3) => s3.nats.as_ref(),
            TriggerSource::Http(_) => None,
        }
    }
}

/// Events that are posted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpSource {
    /// The field of an event that says which event it is: one that comes again with the same text or number there is taken once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_field: Option<String>,
}

/// Messages of a stream of NATS JetStream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NatsSource {
    /// The server, `nats://HOST:PORT`, or `tls://HOST:PORT` with its certificate checked.
    pub url: String,
    /// The subject, which may have wildcards: `orders.*`, `orders.>`.
    pub subject: String,
    /// The stream; where none, the one that has the subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Where to begin in a stream that has messages already.
    #[serde(default)]
    pub start: StartAt,
    /// The tenant's secret with what to log in by: a `.creds` file, JSON with `user` and `password`, or with `token`; any other text is a
    /// token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub credentials_secret: Option<SecretName>,
}

/// Where a trigger begins in a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StartAt {
    /// With the oldest message that is there.
    #[default]
    All,
    /// With what comes once the trigger is active.
    New,
}

impl StartAt {
    /// Every choice.
    pub const ALL: [StartAt; 2] = [StartAt::All, StartAt::New];

    /// The word in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            StartAt::All => "all",
            StartAt::New => "new",
        }
    }

    /// The choice of that word.
    pub fn parse(text: &str) -> Option<StartAt> {
        StartAt::ALL.into_iter().find(|start| start.as_str() == text)
    }
}

/// Notifications of a store that speaks S3: `{"Records":[{"eventName","s3":{"bucket":{"name"},"object":{"key",…}}}]}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct S3Source {
    /// The NATS that they come over; where none, they are posted to the trigger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nats: Option<NatsSource>,
    /// Names of events, `s3:ObjectCreated:Put`, or with `*` at the end, `s3:ObjectCreated:*`; all where none. `s3:` may be left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
    /// Only of this bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// Only of objects whose key begins like this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Only of objects whose key ends like this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
}

impl TriggerRequest {
    /// Checks all that can be told without the function and without a network.
    ///
    /// # Errors
    /// [`Code::InvalidField`] with the field at fault; [`Code::InvalidName`] for the function's name.
    pub fn check(&self) -> Result<()> {
        range("batch_size", u64::from(self.batch_size), 1, u64::from(MAX_BATCH))?;
        range("batch_wait_ms", self.batch_wait_ms, 0, MAX_BATCH_WAIT_MS)?;
        range("max_in_flight", u64::from(self.max_in_flight), 1, u64::from(MAX_IN_FLIGHT))?;
        if let Some(tries) = self.max_attempts {
            range("max_attempts", u64::from(tries), u64::from(MIN_TRIES), u64::from(MAX_TRIES))?;
        }
        match &self.source {
            TriggerSource::Http(http) => text("source.id_field", http.id_field.as_deref())?,
            TriggerSource::Nats(nats) => nats.check("source")?,
            TriggerSource::S3(s3) => s3.check()?,
        }
        Qualifier::split(&self.function).map(drop)
    }
}

impl NatsSource {
    fn check(&self, at: &str) -> Result<()> {
        text(&format!("{at}.url"), Some(&self.url))?;
        text(&format!("{at}.subject"), Some(&self.subject))?;
        text(&format!("{at}.stream"), self.stream.as_deref())?;
        if !is_subject(&self.subject) {
            let reason =
                "must be words with a dot between; `*` stands for one word, and `>` at the end for all that follow";
            return Err(Error::field(Code::InvalidField, format!("{at}.subject"), reason));
        }
        // What NATS allows in the name of a stream.
        let odd =
            |stream: &String| stream.contains(|c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c));
        if self.stream.as_ref().is_some_and(odd) {
            let reason = "may hold no spaces and none of . * > / \\";
            return Err(Error::field(Code::InvalidField, format!("{at}.stream"), reason));
        }
        Ok(())
    }
}

impl S3Source {
    fn check(&self) -> Result<()> {
        if let Some(nats) = &self.nats {
            nats.check("source.nats")?;
        }
        if self.events.len() > MAX_PATTERNS {
            let reason = format!("has more than {MAX_PATTERNS} patterns");
            return Err(Error::field(Code::InvalidField, "source.events", reason));
        }
        for (at, pattern) in self.events.iter().enumerate() {
            let field = format!("source.events[{at}]");
            text(&field, Some(pattern))?;
            if pattern.trim_end_matches('*').contains('*') || pattern.ends_with("**") {
                return Err(Error::field(Code::InvalidField, field, "may have one `*`, at its end"));
            }
        }
        for (field, value) in [("bucket", &self.bucket), ("prefix", &self.prefix), ("suffix", &self.suffix)] {
            text(&format!("source.{field}"), value.as_deref())?;
        }
        Ok(())
    }
}

fn range(field: &str, value: u64, least: u64, most: u64) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::field(Code::InvalidField, field, format!("must be {least} to {most}")))
}

/// A text that is given is not empty and not too long.
fn text(field: &str, value: Option<&str>) -> Result<()> {
    match value.map(str::len) {
        Some(0) => Err(Error::field(Code::InvalidField, field, "is empty; leave it out where none is meant")),
        Some(length) if length > MAX_TEXT => {
            Err(Error::field(Code::InvalidField, field, format!("is longer than {MAX_TEXT} bytes")))
        }
        _ => Ok(()),
    }
}

fn is_subject(subject: &str) -> bool {
    let words: Vec<&str> = subject.split('.').collect();
    let last = words.len() - 1;
    words.iter().enumerate().all(|(at, word)| match *word {
        "" => false,
        "*" => true,
        ">" => at == last,
        word => !word.contains(|c: char| c.is_whitespace() || c.is_control() || c == '*' || c == '>'),
    })
}

/// How a trigger stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TriggerState {
    /// Nobody has begun with it yet.
    #[default]
    Starting,
    /// It takes events.
    Active,
    /// It takes none until it is resumed.
    Paused,
    /// It can take none now: see the error. It tries again by itself.
    Failing,
}

impl TriggerState {
    /// The word in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            TriggerState::Starting => "starting",
            TriggerState::Active => "active",
            TriggerState::Paused => "paused",
            TriggerState::Failing => "failing",
        }
    }
}

/// What a trigger has done since it was made. For people: a process that is killed forgets its last seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct TriggerCounts {
    /// Records that were handed to jobs.
    pub records: u64,
    /// Records that did not pass the filter, or were there before.
    pub left_out: u64,
    /// Batches that became jobs.
    pub batches: u64,
    /// With NATS: batches whose job succeeded.
    pub succeeded: u64,
    /// With NATS: batches whose job is a dead letter.
    pub dead: u64,
    /// With NATS: batches that ended otherwise.
    pub failed: u64,
}

impl std::ops::AddAssign for TriggerCounts {
    fn add_assign(&mut self, more: TriggerCounts) {
        self.records += more.records;
        self.left_out += more.left_out;
        self.batches += more.batches;
        self.succeeded += more.succeeded;
        self.dead += more.dead;
        self.failed += more.failed;
    }
}

/// A trigger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TriggerView {
    /// Name.
    #[schema(value_type = String)]
    pub name: TriggerName,
    /// What was asked for; `paused` as it stands now.
    #[serde(flatten)]
    pub trigger: TriggerRequest,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last put.
    pub updated_at: Timestamp,
    /// How it stands.
    pub state: TriggerState,
    /// What keeps it from taking events, or did last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// With NATS: messages that are not acknowledged, as they were last counted: those that wait and those under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// What it has done.
    pub counts: TriggerCounts,
}

/// What became of events that were posted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TriggerPosted {
    /// Events that are in these jobs.
    pub accepted: u64,
    /// Events that did not pass the filter.
    pub filtered: u64,
    /// Events, of those accepted, that had come before.
    pub known: u64,
    /// Their jobs.
    #[schema(value_type = Vec<String>)]
    pub jobs: Vec<JobId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(source: &str, change: impl FnOnce(&mut TriggerRequest)) -> TriggerRequest {
        let text = format!(r#"{{"function":"f","source":{source}}}"#);
        let mut request: TriggerRequest = serde_json::from_str(&text).expect("a trigger");
        change(&mut request);
        request
    }

    const NATS: &str = r#"{"kind":"nats","url":"nats://h:4222","subject":"orders.>"}"#;

    #[test]
    fn what_a_trigger_may_not_hold_is_refused_by_field() {
        assert_eq!(request(r#"{"kind":"http"}"#, |_| ()).check(), Ok(()));
        assert_eq!(request(NATS, |_| ()).check(), Ok(()));
        let field = |request: TriggerRequest| request.check().expect_err("refused").errors[0].field.clone();
        assert_eq!(field(request(NATS, |it| it.batch_size = 0)), "batch_size");
        assert_eq!(field(request(NATS, |it| it.batch_wait_ms = 60_001)), "batch_wait_ms");
        assert_eq!(field(request(NATS, |it| it.max_in_flight = 101)), "max_in_flight");
        assert_eq!(field(request(NATS, |it| it.max_attempts = Some(1))), "max_attempts");
        assert_eq!(field(request(NATS, |it| it.function = "F!".to_owned())), "name");
        let s3 = |more: &str| request(&format!(r#"{{"kind":"s3",{more}}}"#), |_| ());
        assert_eq!(s3(r#""events":["s3:ObjectCreated:*"],"prefix":"in/","suffix":".jpg""#).check(), Ok(()));
        assert_eq!(field(s3(r#""events":["s3:*:Put"]"#)), "source.events[0]");
        assert_eq!(field(s3(r#""bucket":"""#)), "source.bucket");
        for odd in [r#"{"kind":"mail"}"#, r#"{"kind":"http","idfield":"x"}"#, r#"{"kind":"nats","url":"nats://h"}"#] {
            assert!(serde_json::from_str::<TriggerSource>(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_subject_is_words_with_wildcards_in_their_places() {
        for good in ["a", "a.b", "a.*.c", "a.>", ">", "*", "Ü.1-_$"] {
            assert!(is_subject(good), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a.>.b", "a.b*", "a b", "a.>x", "a\tb"] {
            assert!(!is_subject(bad), "{bad}");
        }
    }

    #[test]
    fn a_view_is_read_as_it_was_written() {
        let s3 = r#"{"kind":"s3","nats":{"url":"tls://h:1","subject":"s","start":"new"},"events":["s3:*"]}"#;
        for source in [NATS, s3, r#"{"kind":"http","id_field":"id"}"#] {
            let view = TriggerView {
                name: TriggerName::new("orders").expect("a name"),
                trigger: request(source, |it| it.max_attempts = Some(5)),
                created_at: Timestamp::from_millis(1_000),
                updated_at: Timestamp::from_millis(2_000),
                state: TriggerState::Failing,
                error: Some("no".to_owned()),
                lag: Some(7),
                counts: TriggerCounts { records: 3, ..TriggerCounts::default() },
            };
            let json = serde_json::to_string(&view).expect("JSON");
            assert_eq!(serde_json::from_str::<TriggerView>(&json).expect("a view"), view, "{json}");
        }
    }
}
