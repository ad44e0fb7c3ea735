//! What stands in JetStream for a job, and for an idempotency key.

use bytes::Bytes;
use lyra_types::job::Job;
use lyra_types::{JobId, TenantName, Timestamp};
use serde::{Deserialize, Serialize};

use super::usage::Spent;
use crate::StoreError;
use crate::jobs::{Idempotency, NewJob};
pub(super) use crate::nats::Payload;

/// Writers that a record remembers.
const REMEMBERED: usize = 8;

/// Who wrote a record last, newest last: so that a writer whose answer was lost can find out whether it was first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Writers(Vec<u64>);

impl Writers {
    pub(super) fn add(&mut self, token: u64) {
        if self.0.len() == REMEMBERED {
            self.0.remove(0);
        }
        self.0.push(token);
    }
}

/// Reads only the writers of whatever record it is.
#[derive(Deserialize)]
struct Written {
    writers: Writers,
}

/// Whether `token` is among the last writers of this record.
pub(super) fn wrote(record: &[u8], token: u64) -> bool {
    serde_json::from_slice::<Written>(record).is_ok_and(|written| written.writers.0.contains(&token))
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) job: Job,
    pub(super) fence: u64,
    pub(super) owner: Option<u64>,
    pub(super) lease_until: Option<Timestamp>,
    /// When this was written, by the clock of its writer, as `next_attempt_at` and `lease_until` are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) written_at: Option<Timestamp>,
    pub(super) event: Payload,
    pub(super) result: Payload,
    /// Name of the idempotency key that it was accepted with.
    pub(super) key: Option<String>,
    /// Who called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
    /// What its owner wants to happen when it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) notice: Option<String>,
    /// Whether it has ended, and that was not passed on yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) owed: bool,
    /// What each try that has ended used; only grows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) used: Vec<Spent>,
    pub(super) writers: Writers,
}

/// An idempotency key, with the job that it stands for as it was accepted: whoever finds the key without the job makes
/// the job, so that a process that died in between, or is slow, leaves nothing half done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Key {
    pub(super) request: String,
    pub(super) expires_at: Timestamp,
    pub(super) accepted: Box<Record>,
    pub(super) writers: Writers,
}

impl Record {
    pub(super) fn new(job: &NewJob, event: Payload, key: Option<String>) -> Record {
        Record {
            job: Job {
                id: job.id,
                tenant: job.tenant.clone(),
                function: job.function.clone(),
                version: job.version,
                generation: job.generation,
                status: lyra_types::job::JobStatus::Queued,
                attempts: 0,
                max_attempts: job.max_attempts,
                created_at: job.now,
                started_at: None,
                finished_at: None,
                next_attempt_at: Some(job.now),
                invocation: None,
                error: None,
                cancel_requested: false,
            },
            fence: 0,
            owner: None,
            lease_until: None,
            written_at: Some(job.now),
            event,
            result: Payload::None,
            key,
            user: job.user.as_deref().map(str::to_owned),
            notice: job.notice.as_deref().map(str::to_owned),
            owed: false,
            used: Vec::new(),
            writers: Writers::default(),
        }
    }
}

impl Record {
    /// The record by this process' clock, which reads it at `now`. Clocks of two processes may show different times: one that was
    /// written in the future was written by a clock that is ahead by so much at least, and so are its times.
    pub(super) fn read_at(mut self, now: Timestamp) -> Record {
        if let Some(written) = self.written_at.filter(|written| *written > now) {
            let ahead = written.since(now);
            self.written_at = Some(now);
            self.lease_until = self.lease_until.map(|at| at - ahead);
            self.job.next_attempt_at = self.job.next_attempt_at.map(|at| at - ahead);
        }
        self
    }

    /// The same for a record that another process has just written: its lease holds, and its next try waits, from now on for as long
    /// as was said, whatever time it is there.
    pub(super) fn heard_at(self, now: Timestamp) -> Record {
        let mut record = self.read_at(now);
        if let Some(written) = record.written_at {
            let from_now = |at: Timestamp| if at > written { at.max(now + at.since(written)) } else { at };
            record.lease_until = record.lease_until.map(from_now);
            record.job.next_attempt_at = record.job.next_attempt_at.map(from_now);
        }
        record
    }
}

/// The name of a caller's key: keys can hold what names can't.
pub(super) fn key_name(job: &NewJob, idempotency: &Idempotency) -> String {
    let of = format!("{}\0{}\0{}\0{}", job.tenant, job.function, job.generation, idempotency.key);
    crate::blobs::digest(of.as_bytes()).0
}

/// JSON, as it is stored.
pub(super) fn encode<T: Serialize>(record: &T) -> Result<Bytes, StoreError> {
    serde_json::to_vec(record)
        .map(Bytes::from)
        .map_err(|error| StoreError::Damaged { operation: "write a job's record", detail: error.to_string() })
}

pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes)
        .map_err(|error| StoreError::Damaged { operation: "read a job's record", detail: error.to_string() })
}

/// Where things stand below the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// A job.
    Job(TenantName, JobId),
    /// An idempotency key.
    Key(String),
    /// An entry of usage.
    Usage(String),
}

impl Name {
    pub(super) fn of(record: &Record) -> Name {
        Name::Job(record.job.tenant.clone(), record.job.id)
    }

    pub(super) fn parse(text: &str) -> Option<Name> {
        match text.split_once('.')? {
            ("j", rest) => {
                let (tenant, id) = rest.rsplit_once('.')?;
                Some(Name::Job(TenantName::new(tenant).ok()?, id.parse().ok()?))
            }
            ("k", name) => Some(Name::Key(name.to_owned())),
            ("u", name) => Some(Name::Usage(name.to_owned())),
            _ => None,
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Name::Job(tenant, id) => write!(f, "j.{tenant}.{id}"),
            Name::Key(name) => write!(f, "k.{name}"),
            Name::Usage(name) => write!(f, "u.{name}"),
        }
    }
}
