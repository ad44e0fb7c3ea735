//! The only one that writes: batches in, old lines out, within the bounds.

use std::collections::HashMap;
use std::path::PathBuf;

use lyra_types::log::LogLine;
use lyra_types::{FunctionName, TenantName, Timestamp};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::database::{self, ROW_BYTES, bytes_of, first_seq};
use crate::error::Error;
use crate::queue::Source;
use crate::read::level_number;

/// Lines deleted in one statement.
const TRIM_STEP: i64 = 4_096;

/// Where a batch stands in the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wrote {
    /// The last `seq` before it.
    pub after: i64,
    /// Its last `seq`.
    pub up_to: i64,
}

/// What is kept of one function.
#[derive(Debug, Clone, Copy, Default)]
struct Kept {
    id: i64,
    bytes: u64,
}

/// The open database, and what it holds by function.
pub(crate) struct Writer {
    dir: PathBuf,
    max_bytes: u64,
    connection: Connection,
    kept: HashMap<Source, Kept>,
    total: u64,
    last_seq: i64,
}

impl Writer {
    /// Opens the database in `dir`; one that can't be read is moved aside.
    pub(crate) fn open(dir: PathBuf, max_bytes: u64) -> Result<Writer, Error> {
        match Writer::try_open(dir.clone(), max_bytes) {
            Err(error) if error.is_corruption() => {
                tracing::warn!(%error, "the log database is broken: it is kept as logs.db.broken, and an empty one is begun");
                database::move_aside(&dir)?;
                Writer::try_open(dir, max_bytes)
            }
            outcome => outcome,
        }
    }

    fn try_open(dir: PathBuf, max_bytes: u64) -> Result<Writer, Error> {
        let connection = database::open_writer(&dir)?;
        let mut writer = Writer { dir, max_bytes, connection, kept: HashMap::new(), total: 0, last_seq: 0 };
        writer.reload().map_err(Error::Open)?;
        Ok(writer)
    }

    /// Bytes kept.
    pub(crate) fn bytes(&self) -> u64 {
        self.total
    }

    /// Begins an empty database after the present one turned out to be broken.
    pub(crate) fn replace_broken(&mut self) -> Result<(), Error> {
        let last_seq = self.last_seq;
        // The file is renamed under the open connection, which is dropped with what it could not write.
        database::move_aside(&self.dir)?;
        *self = Writer::try_open(self.dir.clone(), self.max_bytes)?;
        self.last_seq = last_seq;
        Ok(())
    }

    /// Reads what the file holds; after a failed write, memory and file may differ.
    pub(crate) fn reload(&mut self) -> rusqlite::Result<()> {
        self.kept.clear();
        self.total = 0;
        let mut statement = self.connection.prepare_cached("SELECT id, tenant, function, bytes FROM sources")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let names = (row.get::<_, String>(1)?, row.get::<_, String>(2)?);
            let (Ok(tenant), Ok(function)) = (TenantName::try_from(names.0), FunctionName::try_from(names.1)) else {
                continue;
            };
            let kept = Kept { id: row.get(0)?, bytes: u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0) };
            self.total += kept.bytes;
            self.kept.insert((tenant, function), kept);
        }
        drop(rows);
        drop(statement);
        let last: i64 = self.connection.query_row(
            "SELECT max(coalesce((SELECT max(seq) FROM lines), 0), coalesce((SELECT max(trimmed) FROM sources), 0))",
            [],
            |row| row.get(0),
        )?;
        self.last_seq = self.last_seq.max(last);
        Ok(())
    }

    /// Writes a batch, all of it or nothing, and makes room where that is needed.
    /// Returns after which `seq` it begins, and the last one written.
    pub(crate) fn write(&mut self, lines: &[LogLine]) -> Result<Wrote, Error> {
        let transaction =
            Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate).map_err(Error::Write)?;
        let mut added: HashMap<&Source, u64> = HashMap::new();
        let (before, mut seq) = (self.last_seq, self.last_seq);
        insert(&transaction, lines, &mut self.kept, &mut seq).map_err(Error::Write)?;
        let sources: Vec<Source> = lines.iter().map(|line| (line.tenant.clone(), line.function.clone())).collect();
        for (line, source) in lines.iter().zip(&sources) {
            *added.entry(source).or_default() += bytes_of(line);
        }
        for (source, bytes) in added {
            if let Some(kept) = self.kept.get_mut(source) {
                kept.bytes += bytes;
                self.total += bytes;
                set_bytes(&transaction, *kept).map_err(Error::Write)?;
            }
        }
        if self.total > self.max_bytes {
            self.total =
                trim_to(&transaction, &mut self.kept, self.max_bytes - self.max_bytes / 32).map_err(Error::Trim)?;
        }
        transaction.commit().map_err(Error::Write)?;
        self.last_seq = seq;
        Ok(Wrote { after: before, up_to: seq })
    }

    /// Deletes lines older than `oldest`.
    pub(crate) fn trim_older(&mut self, oldest: Timestamp) -> Result<(), Error> {
        let bound = first_seq(oldest);
        loop {
            let transaction =
                Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate).map_err(Error::Trim)?;
            let freed = delete_below(&transaction, bound).map_err(Error::Trim)?;
            transaction.commit().map_err(Error::Trim)?;
            if freed == 0 {
                return Ok(());
            }
            self.reload().map_err(Error::Trim)?;
        }
    }

    /// Deletes all lines of a function.
    pub(crate) fn forget(&mut self, source: &Source) -> Result<(), Error> {
        let Some(kept) = self.kept.get(source).copied() else { return Ok(()) };
        let transaction =
            Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate).map_err(Error::Trim)?;
        transaction.execute("DELETE FROM lines WHERE source = ?1", [kept.id]).map_err(Error::Trim)?;
        transaction.execute("DELETE FROM sources WHERE id = ?1", [kept.id]).map_err(Error::Trim)?;
        transaction.commit().map_err(Error::Trim)?;
        self.total = self.total.saturating_sub(kept.bytes);
        self.kept.remove(source);
        Ok(())
    }
}

fn insert(
    transaction: &Transaction<'_>,
    lines: &[LogLine],
    kept: &mut HashMap<Source, Kept>,
    seq: &mut i64,
) -> rusqlite::Result<()> {
    let mut add_source = transaction.prepare_cached("INSERT INTO sources (tenant, function) VALUES (?1, ?2)")?;
    let mut add_line = transaction.prepare_cached(
        "INSERT INTO lines
             (seq, source, time, level, invocation, version, instance, message, application, session, session_uid)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?;
    for line in lines {
        let source = (line.tenant.clone(), line.function.clone());
        let id = match kept.get(&source) {
            Some(kept) => kept.id,
            None => {
                let id = add_source.insert(params![line.tenant.as_str(), line.function.as_str()])?;
                kept.insert(source, Kept { id, bytes: 0 });
                id
            }
        };
        *seq = (*seq + 1).max(first_seq(line.time));
        add_line.execute(params![
            *seq,
            id,
            line.time.millis(),
            level_number(line.level),
            line.invocation.number().to_be_bytes(),
            i64::try_from(line.version).unwrap_or(i64::MAX),
            line.instance.map(|instance| instance.number().to_be_bytes()),
            line.message,
            line.application(),
            line.session().map(|session| session.name.as_str()),
            line.session().map(|session| session.uid.as_str())
        ])?;
    }
    Ok(())
}

fn set_bytes(transaction: &Transaction<'_>, kept: Kept) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("UPDATE sources SET bytes = ?2 WHERE id = ?1")?
        .execute(params![kept.id, i64::try_from(kept.bytes).unwrap_or(i64::MAX)])?;
    Ok(())
}

/// Brings the sum of all functions' bytes under `target` at a common level; returns the new sum.
fn trim_to(transaction: &Transaction<'_>, kept: &mut HashMap<Source, Kept>, target: u64) -> rusqlite::Result<u64> {
    let level = level_for(kept.values().map(|kept| kept.bytes).collect(), target);
    let mut total = 0;
    for kept in kept.values_mut() {
        if kept.bytes > level {
            trim_source(transaction, kept, level)?;
        }
        total += kept.bytes;
    }
    Ok(total)
}

/// The level to which the holders of more are cut, so that all together hold `target`.
fn level_for(mut bytes: Vec<u64>, target: u64) -> u64 {
    bytes.sort_unstable();
    let (mut rest, mut holders) = (target, bytes.len() as u64);
    for held in bytes {
        if held > rest / holders {
            return rest / holders;
        }
        rest -= held;
        holders -= 1;
    }
    u64::MAX
}

/// Deletes the oldest lines of one function until it holds at most `level` bytes.
fn trim_source(transaction: &Transaction<'_>, kept: &mut Kept, level: u64) -> rusqlite::Result<()> {
    let mut oldest = transaction.prepare_cached(&format!(
        "SELECT seq, {ROW_BYTES} FROM lines INDEXED BY lines_by_source
         WHERE source = ?1 ORDER BY seq LIMIT ?2",
    ))?;
    let mut delete =
        transaction.prepare_cached("DELETE FROM lines INDEXED BY lines_by_source WHERE source = ?1 AND seq <= ?2")?;
    let mut trimmed = 0;
    while kept.bytes > level {
        let mut last = None;
        let mut rows = oldest.query(params![kept.id, TRIM_STEP])?;
        while kept.bytes > level
            && let Some(row) = rows.next()?
        {
            last = Some(row.get::<_, i64>(0)?);
            kept.bytes = kept.bytes.saturating_sub(u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0));
        }
        drop(rows);
        match last {
            Some(seq) => {
                delete.execute(params![kept.id, seq])?;
                trimmed = seq;
            }
            // Nothing is left, whatever the count says.
            None => kept.bytes = 0,
        }
    }
    transaction
        .prepare_cached("UPDATE sources SET bytes = ?2, trimmed = max(trimmed, ?3) WHERE id = ?1")?
        .execute(params![kept.id, i64::try_from(kept.bytes).unwrap_or(i64::MAX), trimmed])?;
    Ok(())
}

/// Deletes some of the lines with a `seq` below `bound`, the oldest; returns how many.
fn delete_below(transaction: &Transaction<'_>, bound: i64) -> rusqlite::Result<usize> {
    let end: Option<i64> = transaction
        .prepare_cached("SELECT seq FROM lines WHERE seq < ?1 ORDER BY seq LIMIT 1 OFFSET ?2")?
        .query_row(params![bound, TRIM_STEP], |row| row.get(0))
        .optional()?;
    let end = end.unwrap_or(bound);
    let mut statement = transaction.prepare_cached(&format!(
        "UPDATE sources SET bytes = max(sources.bytes - gone.freed, 0), trimmed = max(sources.trimmed, gone.last)
         FROM (SELECT source, sum({ROW_BYTES}) AS freed, max(seq) AS last
               FROM lines WHERE seq < ?1 GROUP BY source) AS gone
         WHERE gone.source = sources.id",
    ))?;
    statement.execute([end])?;
    transaction.prepare_cached("DELETE FROM lines WHERE seq < ?1")?.execute([end])
}

#[cfg(test)]
mod tests {
    use super::level_for;
    use proptest::prelude::*;

    #[test]
    fn only_those_above_an_equal_share_are_cut() {
        assert_eq!(level_for(vec![10, 1_000, 20], 330), 300);
        assert_eq!(level_for(vec![500, 500], 100), 50);
        assert_eq!(level_for(vec![1, 2, 3], 100), u64::MAX);
        assert_eq!(level_for(vec![], 100), u64::MAX);
    }

    proptest! {
        #[test]
        fn the_level_fits_the_target_and_spares_fair_shares(
            bytes in prop::collection::vec(0u64..1_000_000, 1..50), target in 0u64..10_000_000
        ) {
            let level = level_for(bytes.clone(), target);
            let after: u64 = bytes.iter().map(|held| (*held).min(level)).sum();
            prop_assert!(after <= target.max(bytes.iter().sum::<u64>().min(target)));
            let share = target / bytes.len() as u64;
            prop_assert!(level >= share);
            if bytes.iter().sum::<u64>() > target {
                // Nothing is thrown away for no reason: less than one byte a holder is left unused.
                prop_assert!(target - after <= bytes.len() as u64);
            }
        }
    }
}
