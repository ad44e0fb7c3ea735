//! Usage in the index: sums, made from records and entries (see [`super::usage`]).

use std::collections::BTreeMap;

use lyra_types::usage::{UsageQuery, UsageRow, UsageSum};
use lyra_types::{JobId, TenantName, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use super::index::Index;
use super::record::{Record, decode, encode};
use super::usage::{Entry, add_up};
use crate::StoreError;
use crate::jobs::sqlite::row::key;
use crate::jobs::sqlite::usage;

/// `counted`: how many of a job's items are in the sums, and how many an entry has. `entries`: what an entry brought;
/// `replaced_by` is empty, or `m` where its sums are in another one.
pub(super) const TABLES: &str = "
CREATE TABLE counted (tenant TEXT NOT NULL, id BLOB NOT NULL, items INTEGER NOT NULL, taken INTEGER NOT NULL,
                      PRIMARY KEY (tenant, id)) WITHOUT ROWID;
CREATE TABLE entries (name TEXT PRIMARY KEY, sequence INTEGER NOT NULL, made INTEGER NOT NULL, rows BLOB NOT NULL,
                      sources BLOB NOT NULL, jobs BLOB NOT NULL, replaced INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX entries_made ON entries (made) WHERE replaced = 0;
CREATE INDEX entries_replaced ON entries (name) WHERE replaced = 1;
";

fn at(error: rusqlite::Error) -> StoreError {
    StoreError::sqlite("count usage in the index of jobs")(error)
}

/// Items of a job that are in the sums, and that an entry has.
fn counted(conn: &Connection, tenant: &TenantName, id: JobId) -> Result<(usize, usize), StoreError> {
    let found = conn
        .prepare_cached("SELECT items, taken FROM counted WHERE tenant = ?1 AND id = ?2")
        .and_then(|mut statement| {
            statement.query_row(params![tenant.as_str(), key(id)], |row| Ok((row.get(0)?, row.get(1)?))).optional()
        })
        .map_err(at)?;
    Ok(found.unwrap_or_default())
}

fn set_counted(
    conn: &Connection,
    tenant: &TenantName,
    id: JobId,
    items: usize,
    taken: usize,
) -> Result<(), StoreError> {
    conn.prepare_cached("INSERT OR REPLACE INTO counted (tenant, id, items, taken) VALUES (?1, ?2, ?3, ?4)")
        .and_then(|mut statement| statement.execute(params![tenant.as_str(), key(id), items, taken]))
        .map_err(at)?;
    Ok(())
}

/// Counts what a record holds that is not counted yet.
pub(super) fn count(conn: &Connection, record: &Record) -> Result<(), StoreError> {
    if record.used.is_empty() {
        return Ok(());
    }
    let (tenant, id) = (&record.job.tenant, record.job.id);
    let (items, taken) = counted(conn, tenant, id)?;
    for row in record.rows_from(items) {
        usage::add(conn, &row)?;
    }
    set_counted(conn, tenant, id, record.used.len().max(items), taken)
}

/// Takes an entry in, once.
pub(super) fn put_entry(
    conn: &Connection,
    name: &str,
    entry: &Entry,
    sequence: u64,
    made: Timestamp,
) -> Result<(), StoreError> {
    let known: Option<u64> = conn
        .prepare_cached("SELECT sequence FROM entries WHERE name = ?1")
        .and_then(|mut statement| statement.query_row([name], |row| row.get(0)).optional())
        .map_err(at)?;
    if let Some(known) = known {
        if known == 0 {
            // Heard of by the entry that replaces it.
            conn.prepare_cached("UPDATE entries SET sequence = ?2 WHERE name = ?1")
                .and_then(|mut statement| statement.execute(params![name, sequence]))
                .map_err(at)?;
        }
        return Ok(());
    }
    for row in &entry.rows {
        usage::add(conn, row)?;
    }
    let mut all = entry.rows.clone();
    for taken in &entry.taken {
        let end = taken.from + taken.rows.len();
        let (items, before) = counted(conn, &taken.tenant, taken.id)?;
        for row in taken.rows.iter().skip(items.saturating_sub(taken.from)) {
            usage::add(conn, row)?;
        }
        set_counted(conn, &taken.tenant, taken.id, items.max(end), before.max(end))?;
        all.extend(taken.rows.iter().cloned());
    }
    for replaced in &entry.replaces {
        replace(conn, replaced)?;
    }
    for (source, sequence) in &entry.sources {
        usage::see_batch(conn, source, *sequence)?;
    }
    let jobs: Vec<(&TenantName, JobId)> = entry.taken.iter().map(|taken| (&taken.tenant, taken.id)).collect();
    conn.prepare_cached(
        "INSERT INTO entries (name, sequence, made, rows, sources, jobs, replaced) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0)",
    )
    .and_then(|mut statement| {
        let bytes = |value: Result<bytes::Bytes, StoreError>| value.unwrap_or_default().to_vec();
        let (rows, sources, jobs) = (encode(&add_up(all)), encode(&entry.sources), encode(&jobs));
        statement.execute(params![name, sequence, made.millis(), bytes(rows), bytes(sources), bytes(jobs)])
    })
    .map_err(at)?;
    Ok(())
}

/// The sums of this entry are in another one now: takes out what it brought.
fn replace(conn: &Connection, name: &str) -> Result<(), StoreError> {
    let found: Option<(Vec<u8>, Vec<u8>, i64)> = conn
        .prepare_cached("SELECT rows, jobs, replaced FROM entries WHERE name = ?1")
        .and_then(|mut statement| {
            statement.query_row([name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()
        })
        .map_err(at)?;
    match found {
        Some((rows, jobs, 0)) => {
            for row in decode::<Vec<UsageRow>>(&rows)? {
                usage::take_out(conn, &row)?;
            }
            // Their records are gone, and nobody tells of them any more.
            for (tenant, id) in decode::<Vec<(TenantName, JobId)>>(&jobs)? {
                conn.prepare_cached("DELETE FROM counted WHERE tenant = ?1 AND id = ?2")
                    .and_then(|mut statement| statement.execute(params![tenant.as_str(), key(id)]))
                    .map_err(at)?;
            }
            conn.prepare_cached("UPDATE entries SET replaced = 1, rows = x'', jobs = x'' WHERE name = ?1")
                .and_then(|mut statement| statement.execute([name]))
                .map_err(at)?;
        }
        Some(_) => {}
        None => {
            conn.prepare_cached(
                "INSERT INTO entries (name, sequence, made, rows, sources, jobs, replaced) VALUES (?1, 0, 0, x'', x'', x'', 1)",
            )
            .and_then(|mut statement| statement.execute([name]))
            .map_err(at)?;
        }
    }
    Ok(())
}

/// An entry was deleted.
pub(super) fn forget_entry(conn: &Connection, name: &str) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM entries WHERE name = ?1 AND replaced = 1")
        .and_then(|mut statement| statement.execute([name]))
        .map_err(at)?;
    Ok(())
}

/// An entry that may be replaced: name, sums, batches.
type Old = (String, Vec<UsageRow>, BTreeMap<String, u64>);

impl Index {
    /// The newest batch of this source.
    pub(super) fn newest_batch(&self, source: &str) -> Result<Option<u64>, StoreError> {
        usage::newest_batch(&self.lock(), source)
    }

    /// How many of a job's items an entry has.
    pub(super) fn taken(&self, tenant: &TenantName, id: JobId) -> Result<usize, StoreError> {
        Ok(counted(&self.lock(), tenant, id)?.1)
    }

    pub(super) fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageSum>, StoreError> {
        usage::sums(&self.lock(), query)
    }

    /// Entries made before this time, of which no record is left that they took anything from.
    pub(super) fn old_entries(&self, before: Timestamp, limit: usize) -> Result<Vec<Old>, StoreError> {
        type Found = (String, Vec<u8>, Vec<u8>, Vec<u8>);
        let conn = self.lock();
        let found: Vec<Found> = conn
            .prepare_cached(
                "SELECT name, rows, sources, jobs FROM entries WHERE replaced = 0 AND made < ?1 ORDER BY made LIMIT ?2",
            )
            .and_then(|mut statement| {
                let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
                statement.query_map(params![before.millis(), limit], read)?.collect()
            })
            .map_err(at)?;
        let mut old = Vec::new();
        for (name, rows, sources, jobs) in found {
            let mut gone = true;
            for (tenant, id) in decode::<Vec<(TenantName, JobId)>>(&jobs)? {
                gone &= !conn
                    .prepare_cached("SELECT EXISTS (SELECT 1 FROM records WHERE tenant = ?1 AND id = ?2)")
                    .and_then(|mut statement| {
                        statement.query_row(params![tenant.as_str(), key(id)], |row| row.get::<_, bool>(0))
                    })
                    .map_err(at)?;
            }
            if gone {
                old.push((name, decode(&rows)?, decode(&sources)?));
            }
        }
        Ok(old)
    }

    /// Entries whose sums are in another one, and that are still there.
    pub(super) fn replaced(&self, limit: usize) -> Result<Vec<(String, u64)>, StoreError> {
        self.lock()
            .prepare_cached("SELECT name, sequence FROM entries WHERE replaced = 1 AND sequence > 0 LIMIT ?1")
            .and_then(|mut statement| statement.query_map([limit], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
            .map_err(at)
    }
}

#[cfg(test)]
mod tests {
    use lyra_types::FunctionName;
    use lyra_types::usage::{Hour, Usage};

    use super::super::index::News;
    use super::super::record::{Name, Payload};
    use super::super::usage::{Spent, Taken};
    use super::*;
    use crate::jobs::NewJob;

    fn record(number: u64, used: &[u64]) -> Record {
        let job = NewJob {
            id: JobId::from_parts(number, 1),
            tenant: TenantName::default_tenant(),
            function: FunctionName::new("f").unwrap(),
            version: 1,
            generation: 7,
            max_attempts: 3,
            event: bytes::Bytes::new(),
            idempotency: None,
            user: None,
            most_queued: crate::jobs::MostQueued::default(),
            notice: None,
            now: Timestamp::default(),
        };
        let mut record = Record::new(&job, Payload::None, None);
        let spent = |exec_us| Spent { hour: Hour(1), usage: Usage { invocations: 1, exec_us, ..Usage::default() } };
        record.used = used.iter().map(|exec_us| spent(*exec_us)).collect();
        record
    }

    fn job(number: u64, used: &[u64], sequence: u64) -> News {
        News::Job(Box::new(record(number, used)), sequence)
    }

    fn gone(name: Name, sequence: u64) -> News {
        News::Gone { name, sequence, since: Timestamp::default() }
    }

    fn gone_job(number: u64, sequence: u64) -> News {
        gone(Name::Job(TenantName::default_tenant(), JobId::from_parts(number, 1)), sequence)
    }

    fn taken(name: &str, number: u64, from: usize, used: &[u64], sequence: u64) -> News {
        let record = record(number, used);
        let taken = Taken { tenant: record.job.tenant.clone(), id: record.job.id, from, rows: record.rows_from(0) };
        let entry = Entry { taken: vec![taken], ..Entry::default() };
        News::Usage { name: name.to_owned(), entry: Box::new(entry), sequence }
    }

    fn batch(name: &str, number: u64, exec_us: u64, sequence: u64) -> News {
        let rows = record(1, &[exec_us]).rows_from(0);
        let entry = Entry { rows, sources: [("w".to_owned(), number)].into(), ..Entry::default() };
        News::Usage { name: name.to_owned(), entry: Box::new(entry), sequence }
    }

    fn total(index: &Index) -> u64 {
        let sums = index.usage(&UsageQuery { limit: 1, ..UsageQuery::default() }).unwrap();
        sums.first().map_or(0, |sum| sum.usage.exec_us)
    }

    /// A story of jobs and workers, as the stream has it; in the end old entries are replaced by one.
    fn story() -> Vec<News> {
        let mut story = vec![
            job(1, &[], 1),
            job(1, &[1], 2),
            job(2, &[10], 3),
            batch("w-1", 1, 100, 4),
            job(1, &[1, 2], 5),
            taken("t-1", 1, 0, &[1, 2], 6),
            gone_job(1, 7),
            batch("w-2", 2, 1_000, 8),
        ];
        let rows = add_up(record(1, &[1, 2, 100]).rows_from(0));
        let replaces = vec!["t-1".to_owned(), "w-1".to_owned()];
        let entry = Entry { rows, replaces, sources: [("w".to_owned(), 1)].into(), ..Entry::default() };
        story.push(News::Usage { name: "m-1".to_owned(), entry: Box::new(entry), sequence: 9 });
        story.push(gone(Name::Usage("t-1".to_owned()), 10));
        story.push(gone(Name::Usage("w-1".to_owned()), 11));
        story
    }

    #[test]
    fn sums_are_right_at_every_point_of_a_story_and_however_often_it_is_told() {
        let index = Index::new().unwrap();
        let expected = [0, 1, 11, 111, 113, 113, 113, 1_113, 1_113, 1_113, 1_113];
        for (news, expected) in story().into_iter().zip(expected) {
            index.apply([news.clone()]).unwrap();
            assert_eq!(total(&index), expected, "{news:?}");
            index.apply([news.clone()]).unwrap();
            assert_eq!(total(&index), expected, "again: {news:?}");
        }
        index.apply(story()).unwrap();
        assert_eq!(total(&index), 1_113, "all of it again");
        assert_eq!(index.newest_batch("w").unwrap(), Some(2));
        assert!(index.replaced(10).unwrap().is_empty());
    }

    #[test]
    fn whoever_comes_late_finds_the_same_sums() {
        // What the stream has kept of the story: the last message of each name; deletions may or may not have come that far.
        for kept in
            [&[3usize, 4, 6, 7, 8, 9, 10, 11][..], &[3, 8, 9], &[3, 4, 8, 9], &[3, 6, 7, 8, 9, 11], &[3, 5, 6, 4, 8, 9]]
        {
            let index = Index::new().unwrap();
            let story = story();
            index.apply(kept.iter().map(|at| story[*at - 1].clone())).unwrap();
            assert_eq!(total(&index), 1_113, "{kept:?}");
        }
    }

    #[test]
    fn old_entries_are_found_once_their_jobs_are_gone() {
        let index = Index::new().unwrap();
        let names = |index: &Index| -> Vec<String> {
            let old = index.old_entries(Timestamp::from_millis(i64::MAX), 10).unwrap();
            old.into_iter().map(|(name, ..)| name).collect()
        };
        index.apply([job(1, &[1], 1), taken("t-1", 1, 0, &[1], 2), batch("w-1", 1, 5, 3)]).unwrap();
        assert_eq!(names(&index), ["w-1"], "the record of t-1 is still there");
        index.apply([gone_job(1, 4)]).unwrap();
        let mut found = names(&index);
        found.sort();
        assert_eq!(found, ["t-1", "w-1"]);
    }
}
