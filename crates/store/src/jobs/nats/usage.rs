//! What calls used, beside the jobs.
//!
//! What a try used stands in its job's record, written with its outcome: that makes it one step. Before a record is deleted, what it
//! holds goes into an *entry*, a record of its own that is never changed; a worker's batch is an entry, too, under a name that
//! makes it one however often it is told. Now and then many old entries are replaced by one with their sums.
//!
//! The sums are made by the index from records and entries. Each part of them says where it comes from, so a crash between an entry
//! and the deletion of what it stands for counts nothing twice:
//! - `used` of a record only ever grows, one item for each try; the index counts each item once, by its place.
//! - An entry names the items that it has taken over, and the entries that it replaces.

use std::collections::BTreeMap;

use lyra_types::usage::{Hour, Usage, UsageBatch, UsageKey, UsageQuery, UsageRow, UsageSum};
use lyra_types::{JobId, TenantName};
use serde::{Deserialize, Serialize};

use super::bucket::Put;
use super::index::News;
use super::record::{Name, Record, Writers, encode};
use super::{MARKED, Shared};
use crate::StoreError;

/// Entries that one replaces at most.
const MERGED: usize = 400;
/// So many old ones are worth it.
const WORTH: usize = 50;

/// What a try used, and when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spent {
    pub(super) hour: Hour,
    pub(super) usage: Usage,
}

/// What an entry takes over from a job's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Taken {
    pub(super) tenant: TenantName,
    pub(super) id: JobId,
    /// Place of the first item in the record.
    pub(super) from: usize,
    pub(super) rows: Vec<UsageRow>,
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Entry {
    /// What no record holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) rows: Vec<UsageRow>,
    /// What records hold that are about to be deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) taken: Vec<Taken>,
    /// Names of the entries whose sums are in `rows`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) replaces: Vec<String>,
    /// The newest batch of each worker that is in it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) sources: BTreeMap<String, u64>,
    pub(super) writers: Writers,
}

impl Record {
    /// The rows of the items from this place on.
    pub(super) fn rows_from(&self, from: usize) -> Vec<UsageRow> {
        let row = |spent: &Spent| UsageRow {
            key: UsageKey {
                tenant: self.job.tenant.clone(),
                function: self.job.function.clone(),
                version: self.job.version,
                user: self.user.clone().unwrap_or_default(),
                hour: spent.hour,
            },
            usage: spent.usage,
        };
        self.used.iter().skip(from).map(row).collect()
    }
}

/// Adds rows up by key.
pub(super) fn add_up(rows: impl IntoIterator<Item = UsageRow>) -> Vec<UsageRow> {
    let mut sums: BTreeMap<UsageKey, Usage> = BTreeMap::new();
    for row in rows {
        *sums.entry(row.key).or_default() += row.usage;
    }
    sums.into_iter().map(|(key, usage)| UsageRow { key, usage }).collect()
}

impl Shared {
    pub(super) async fn add_usage(&self, batch: UsageBatch) -> Result<bool, StoreError> {
        let UsageBatch { source, sequence, rows } = batch;
        let of = source.clone();
        if self.ask(move |index| index.newest_batch(&of)).await? >= Some(sequence) {
            return Ok(false);
        }
        let name = format!("{source}-{sequence:016}");
        let entry = Entry { rows, sources: [(source, sequence)].into(), ..Entry::default() };
        self.put_entry(name, entry).await
    }

    /// Writes an entry; false where there is one of this name.
    async fn put_entry(&self, name: String, mut entry: Entry) -> Result<bool, StoreError> {
        let token = self.bucket.token();
        entry.writers.add(token);
        match self.bucket.put(&Name::Usage(name.clone()), 0, Some((encode(&entry)?, token))).await? {
            Put::Done(sequence) => {
                self.learn(News::Usage { name, entry: Box::new(entry), sequence }).await?;
                Ok(true)
            }
            Put::Overtaken => Ok(true),
            Put::Conflict => Ok(false),
        }
    }

    /// Puts into an entry what these records, about to be deleted, hold and no entry has.
    pub(super) async fn take_over(&self, records: Vec<Record>) -> Result<(), StoreError> {
        let records: Vec<Record> = records.into_iter().filter(|record| !record.used.is_empty()).collect();
        if records.is_empty() {
            return Ok(());
        }
        let taken = self
            .ask(move |index| {
                let mut taken = Vec::new();
                for record in records {
                    let (tenant, id) = (record.job.tenant.clone(), record.job.id);
                    let from = index.taken(&tenant, id)?;
                    if from < record.used.len() {
                        taken.push(Taken { tenant, id, from, rows: record.rows_from(from) });
                    }
                }
                Ok(taken)
            })
            .await?;
        if taken.is_empty() {
            return Ok(());
        }
        let entry = Entry { taken, ..Entry::default() };
        self.put_entry(format!("t-{:016x}", self.bucket.token()), entry).await.map(drop)
    }

    pub(super) async fn usage(&self, query: UsageQuery) -> Result<Vec<UsageSum>, StoreError> {
        self.ask(move |index| index.usage(&query)).await
    }

    /// Replaces many old entries by one.
    pub(super) async fn merge_entries(&self) -> Result<(), StoreError> {
        let before = self.bucket.clock().now() - MARKED;
        let old = self.ask(move |index| index.old_entries(before, MERGED)).await?;
        if old.len() < WORTH {
            return Ok(());
        }
        let (mut rows, mut sources, mut replaces) = (Vec::new(), BTreeMap::new(), Vec::new());
        for (name, entry_rows, entry_sources) in &old {
            rows.extend(entry_rows.iter().cloned());
            for (source, sequence) in entry_sources {
                let newest: &mut u64 = sources.entry(source.clone()).or_default();
                *newest = (*newest).max(*sequence);
            }
            replaces.push(name.clone());
        }
        let entry = Entry { rows: add_up(rows), replaces, sources, ..Entry::default() };
        self.put_entry(format!("m-{:016x}", self.bucket.token()), entry).await?;
        self.drop_replaced().await
    }

    /// Deletes entries whose sums are in another one.
    pub(super) async fn drop_replaced(&self) -> Result<(), StoreError> {
        for (name, sequence) in self.ask(move |index| index.replaced(MERGED)).await? {
            let name = Name::Usage(name);
            if let Put::Done(sequence) = self.bucket.put(&name, sequence, None).await? {
                let since = self.bucket.clock().now();
                self.learn(News::Gone { name, sequence, since }).await?;
            }
        }
        Ok(())
    }
}
