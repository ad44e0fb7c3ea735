//! Reads lines from the file: the newest for a query, the next for a follower.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use lyra_types::log::{Level, LogLine};
use lyra_types::{InstanceId, InvocationId, Timestamp};
use lyra_wire::logs::Query;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::database::{self, first_seq};
use crate::error::Error;

/// Lines that a follower reads at a time.
const FOLLOW_STEP: i64 = 512;

/// A level as the file keeps it.
pub(crate) const fn level_number(level: Level) -> i64 {
    match level {
        Level::Debug => 0,
        Level::Info => 1,
        Level::Warn => 2,
        Level::Error => 3,
    }
}

fn level_of(number: i64) -> Level {
    match number {
        0 => Level::Debug,
        2 => Level::Warn,
        3 => Level::Error,
        _ => Level::Info,
    }
}

/// Idle connections for reading. A connection of a file that was moved aside is not used again.
pub(crate) struct Readers {
    dir: PathBuf,
    most: usize,
    generation: AtomicU64,
    idle: Mutex<Vec<(u64, Connection)>>,
}

impl Readers {
    pub(crate) fn new(dir: PathBuf, most: usize) -> Readers {
        Readers { dir, most, generation: AtomicU64::new(0), idle: Mutex::default() }
    }

    /// The file was replaced, or is about to be closed: connections open now are not kept.
    pub(crate) fn close_idle(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.idle.lock().clear();
    }

    /// Runs `read` in one snapshot of the file.
    pub(crate) fn with<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        let generation = self.generation.load(Ordering::Acquire);
        let idle = self.idle.lock().pop().filter(|(of, _)| *of == generation);
        let connection = match idle {
            Some((_, connection)) => connection,
            None => database::open_reader(&self.dir)?,
        };
        let snapshot = connection.unchecked_transaction().map_err(Error::Read)?;
        let value = read(&snapshot).map_err(Error::Read)?;
        snapshot.finish().map_err(Error::Read)?;
        let mut idle = self.idle.lock();
        if idle.len() < self.most && self.generation.load(Ordering::Acquire) == generation {
            idle.push((generation, connection));
        }
        Ok(value)
    }
}

/// Lines, oldest first, and where reading goes on after them.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub lines: Vec<LogLine>,
    /// Every line of the function up to this `seq` has been seen or was left out on purpose.
    pub up_to: i64,
    /// There is more to read already.
    pub more: bool,
    /// Lines after the place where the follower stood were deleted before it read them.
    pub missed: bool,
}

/// A function in the file.
struct SourceRow {
    id: i64,
    trimmed: i64,
    /// Newest `seq` of its lines, those that were deleted included.
    last: i64,
}

fn source(connection: &Connection, query: &Query) -> rusqlite::Result<Option<SourceRow>> {
    connection
        .prepare_cached(
            "SELECT id, trimmed, max(trimmed, coalesce((SELECT max(seq) FROM lines WHERE source = sources.id), 0))
             FROM sources WHERE tenant = ?1 AND function = ?2",
        )?
        .query_row(params![query.tenant.as_str(), query.function.as_str()], |row| {
            Ok(SourceRow { id: row.get(0)?, trimmed: row.get(1)?, last: row.get(2)? })
        })
        .optional()
}

const COLUMNS: &str = "SELECT seq, time, level, invocation, version, instance, message FROM lines";

/// The newest lines that `query` asks for, within `max_bytes` of text.
pub(crate) fn newest(
    connection: &Connection,
    query: &Query,
    limit: usize,
    max_bytes: usize,
) -> rusqlite::Result<Batch> {
    let Some(source) = source(connection, query)? else { return Ok(Batch::default()) };
    let (since, limit) = since_and_limit(query, limit);
    let mut lines = Vec::new();
    let mut bytes = 0usize;
    let mut collect = |row: &Row<'_>| -> rusqlite::Result<bool> {
        let line = line_of(row, query)?;
        bytes += line.message.len();
        let fits = bytes <= max_bytes || lines.is_empty();
        if fits {
            lines.push(line);
        }
        Ok(fits)
    };
    match query.invocation {
        None => {
            let mut statement = connection.prepare_cached(&format!(
                "{COLUMNS} INDEXED BY lines_by_source WHERE source = ?1 AND seq >= ?2 AND time >= ?3 ORDER BY seq DESC LIMIT ?4"
            ))?;
            let mut rows = statement.query(params![source.id, first_seq(since), since.millis(), limit])?;
            while let Some(row) = rows.next()?
                && collect(row)?
            {}
        }
        Some(invocation) => {
            let mut statement = connection.prepare_cached(&format!(
                "{COLUMNS} INDEXED BY lines_by_invocation
                 WHERE invocation = ?5 AND source = ?1 AND seq >= ?2 AND time >= ?3 ORDER BY seq DESC LIMIT ?4"
            ))?;
            let id = invocation.number().to_be_bytes();
            let mut rows = statement.query(params![source.id, first_seq(since), since.millis(), limit, id])?;
            while let Some(row) = rows.next()?
                && collect(row)?
            {}
        }
    }
    lines.reverse();
    Ok(Batch { lines, up_to: source.last, ..Batch::default() })
}

/// The lines after `from` that `query` asks for.
pub(crate) fn next(connection: &Connection, query: &Query, from: i64) -> rusqlite::Result<Batch> {
    let Some(source) = source(connection, query)? else { return Ok(Batch { up_to: from, ..Batch::default() }) };
    if source.trimmed > from {
        return Ok(Batch { up_to: source.last, missed: true, ..Batch::default() });
    }
    let (since, _) = since_and_limit(query, 0);
    let mut statement = connection.prepare_cached(&format!(
        "{COLUMNS} INDEXED BY lines_by_source
         WHERE source = ?1 AND seq > ?2 AND time >= ?3 AND (?4 IS NULL OR invocation = ?4) ORDER BY seq LIMIT ?5"
    ))?;
    let invocation = query.invocation.map(|id| id.number().to_be_bytes());
    let mut rows = statement.query(params![source.id, from, since.millis(), invocation, FOLLOW_STEP])?;
    let mut batch = Batch { up_to: source.last, ..Batch::default() };
    let mut seq = from;
    while let Some(row) = rows.next()? {
        seq = row.get(0)?;
        batch.lines.push(line_of(row, query)?);
    }
    if batch.lines.len() as i64 == FOLLOW_STEP {
        batch.up_to = seq;
        batch.more = true;
    }
    Ok(batch)
}

fn since_and_limit(query: &Query, limit: usize) -> (Timestamp, i64) {
    (query.since.unwrap_or(Timestamp::from_millis(i64::MIN)), i64::try_from(limit).unwrap_or(i64::MAX))
}

fn line_of(row: &Row<'_>, query: &Query) -> rusqlite::Result<LogLine> {
    let number = |id: [u8; 16]| {
        let number = u128::from_be_bytes(id);
        (u64::try_from(number >> 80).unwrap_or(0), number)
    };
    let (millis, random) = number(row.get(3)?);
    let instance: Option<[u8; 16]> = row.get(5)?;
    Ok(LogLine {
        time: Timestamp::from_millis(row.get(1)?),
        level: level_of(row.get(2)?),
        message: row.get(6)?,
        invocation: InvocationId::from_parts(millis, random),
        version: u64::try_from(row.get::<_, i64>(4)?).unwrap_or(0),
        instance: instance.map(|id| {
            let (millis, random) = number(id);
            InstanceId::from_parts(millis, random)
        }),
        tenant: query.tenant.clone(),
        function: query.function.clone(),
    })
}
