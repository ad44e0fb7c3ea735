//! Reads lines from the file: the newest for a query, the next for a follower.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lyra_types::log::{Hosted, Level, LogLine, SessionOf};
use lyra_types::{FunctionName, InstanceId, InvocationId, Timestamp};
use lyra_wire::logs::Query;
use parking_lot::Mutex;
use rusqlite::types::Value;
use rusqlite::{Connection, Row, ToSql};

use crate::database::{self, first_seq};
use crate::error::Error;

/// Lines that a follower reads at a time.
const FOLLOW_STEP: usize = 512;

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
    /// Every line that was asked for up to this `seq` has been seen or was left out on purpose.
    pub up_to: i64,
    /// There is more to read already.
    pub more: bool,
    /// Lines that nobody has read were deleted.
    pub missed: bool,
}

/// Values of the parameters of a statement, by name.
type Values = Vec<(&'static str, Value)>;

/// A query as SQL: which index leads to its lines, and what narrows them.
struct Narrowed {
    index: &'static str,
    /// The first of the index's columns, where it is not `source`.
    key: Option<&'static str>,
    /// Begins with `AND`, if there is anything.
    conditions: String,
    values: Values,
}

impl Narrowed {
    fn new(query: &Query) -> Narrowed {
        let blob = |number: u128| Value::Blob(number.to_be_bytes().to_vec());
        let text = |text: &String| Value::Text(text.clone());
        // In the order in which they lead to few lines.
        let given = [
            ("session", ":session", "lines_by_session", query.session.as_ref().map(text)),
            ("instance", ":instance", "lines_by_instance", query.instance.map(|id| blob(id.number()))),
            ("invocation", ":invocation", "lines_by_invocation", query.invocation.map(|id| blob(id.number()))),
            ("application", ":application", "lines_by_application", query.application.as_ref().map(text)),
            ("session_uid", ":session_uid", "lines_by_source", query.session_uid.as_ref().map(text)),
        ];
        let mut narrowed =
            Narrowed { index: "lines_by_source", key: None, conditions: String::new(), values: Values::new() };
        for (column, parameter, index, value) in given {
            let Some(value) = value else { continue };
            if narrowed.values.is_empty() && index != narrowed.index {
                (narrowed.index, narrowed.key) = (index, Some(column));
            }
            narrowed.conditions.push_str(&format!(" AND {column} = {parameter}"));
            narrowed.values.push((parameter, value));
        }
        if let Some(since) = query.since {
            narrowed.conditions.push_str(" AND seq >= :first AND time >= :since");
            narrowed.values.push((":first", Value::Integer(first_seq(since))));
            narrowed.values.push((":since", Value::Integer(since.millis())));
        }
        narrowed
    }
}

/// A function in the file.
struct Source {
    id: i64,
    function: FunctionName,
    /// Newest `seq` of those of its lines that were deleted for being too old or too many.
    trimmed: i64,
}

fn bound<'a>(values: &'a [&'a Values]) -> Vec<(&'a str, &'a dyn ToSql)> {
    values.iter().flat_map(|values| values.iter().map(|(name, value)| (*name, value as &dyn ToSql))).collect()
}

/// The functions whose lines can be meant.
fn sources(connection: &Connection, query: &Query, narrowed: &Narrowed) -> rusqlite::Result<Vec<Source>> {
    let mut sql = "SELECT id, function, trimmed FROM sources WHERE tenant = :tenant".to_owned();
    let mut values = vec![(":tenant", Value::Text(query.tenant.as_str().to_owned()))];
    if let Some(function) = &query.function {
        sql.push_str(" AND function = :function");
        values.push((":function", Value::Text(function.as_str().to_owned())));
    } else if let (Some(key), Some(first)) = (narrowed.key, narrowed.values.first()) {
        let Narrowed { index, .. } = narrowed;
        sql.push_str(&format!(
            " AND EXISTS (SELECT 1 FROM lines INDEXED BY {index} WHERE {key} = {} AND source = sources.id)",
            first.0
        ));
        values.push(first.clone());
    }
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(&*bound(&[&values]))?;
    let mut sources = Vec::new();
    while let Some(row) = rows.next()? {
        // A name that can't be one is none of this build's.
        let Ok(function) = FunctionName::try_from(row.get::<_, String>(1)?) else { continue };
        sources.push(Source { id: row.get(0)?, function, trimmed: row.get(2)? });
    }
    Ok(sources)
}

const COLUMNS: &str =
    "SELECT seq, time, level, invocation, version, instance, message, application, session, session_uid
    FROM lines INDEXED BY";

/// The newest lines that `query` asks for, within `max_bytes` of text.
pub(crate) fn newest(
    connection: &Connection,
    query: &Query,
    limit: usize,
    max_bytes: usize,
) -> rusqlite::Result<Batch> {
    let narrowed = Narrowed::new(query);
    let Narrowed { index, conditions, .. } = &narrowed;
    let mut statement = connection.prepare_cached(&format!(
        "{COLUMNS} {index} WHERE source = :source {conditions} ORDER BY seq DESC LIMIT :limit"
    ))?;
    // Newest first.
    let mut newest: Vec<(i64, LogLine)> = Vec::new();
    for source in sources(connection, query, &narrowed)? {
        let of = vec![(":source", Value::Integer(source.id)), (":limit", integer(limit))];
        let mut rows = statement.query(&*bound(&[&narrowed.values, &of]))?;
        let mut bytes = 0;
        while let Some(row) = rows.next()? {
            let line = line_of(row, query, &source)?;
            bytes += line.message.len();
            if bytes > max_bytes && bytes > line.message.len() {
                break;
            }
            newest.push((row.get(0)?, line));
        }
        // Functions are few where there is more than one; what all have together is kept within the bounds of one.
        newest.sort_by_key(|(seq, _)| std::cmp::Reverse(*seq));
        newest.truncate(fitting(&newest, limit, max_bytes));
    }
    newest.reverse();
    let up_to = connection
        .prepare_cached(
            "SELECT max(coalesce((SELECT max(seq) FROM lines), 0), coalesce((SELECT max(trimmed) FROM sources), 0))",
        )?
        .query_row([], |row| row.get(0))?;
    Ok(Batch { lines: newest.into_iter().map(|(_, line)| line).collect(), up_to, ..Batch::default() })
}

/// How many of the first lines fit; one does always.
fn fitting(lines: &[(i64, LogLine)], limit: usize, max_bytes: usize) -> usize {
    let mut bytes = 0;
    let fits = |(_, line): &&(i64, LogLine)| {
        let is_first = bytes == 0;
        bytes += line.message.len();
        is_first || bytes <= max_bytes
    };
    lines.iter().take(limit).take_while(fits).count()
}

/// The lines after `from` that `query` asks for, and has been told of up to `told`. Nobody has read those from `unread` on.
pub(crate) fn next(
    connection: &Connection,
    query: &Query,
    from: i64,
    unread: i64,
    told: i64,
) -> rusqlite::Result<Batch> {
    let narrowed = Narrowed::new(query);
    let Narrowed { index, conditions, .. } = &narrowed;
    let mut statement = connection.prepare_cached(&format!(
        "{COLUMNS} {index} WHERE source = :source AND seq > :from {conditions} ORDER BY seq LIMIT :limit"
    ))?;
    let mut lines: Vec<(i64, LogLine)> = Vec::new();
    for source in sources(connection, query, &narrowed)? {
        if source.trimmed >= unread {
            return Ok(Batch { up_to: from, missed: true, ..Batch::default() });
        }
        let of = vec![
            (":source", Value::Integer(source.id)),
            (":from", Value::Integer(from)),
            (":limit", integer(FOLLOW_STEP)),
        ];
        let mut rows = statement.query(&*bound(&[&narrowed.values, &of]))?;
        while let Some(row) = rows.next()? {
            lines.push((row.get(0)?, line_of(row, query, &source)?));
        }
    }
    lines.sort_by_key(|(seq, _)| *seq);
    let more = lines.len() >= FOLLOW_STEP;
    lines.truncate(FOLLOW_STEP);
    let last = lines.last().map_or(from, |(seq, _)| *seq);
    let up_to = if more { last } else { last.max(told) };
    Ok(Batch { lines: lines.into_iter().map(|(_, line)| line).collect(), up_to, more, ..Batch::default() })
}

fn integer(number: usize) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn line_of(row: &Row<'_>, query: &Query, source: &Source) -> rusqlite::Result<LogLine> {
    let number = |id: [u8; 16]| u128::from_be_bytes(id);
    let instance: Option<[u8; 16]> = row.get(5)?;
    let hosted = match row.get::<_, Option<String>>(7)? {
        Some(application) => {
            let session = match (row.get(8)?, row.get(9)?) {
                (Some(name), Some(uid)) => Some(SessionOf { name, uid }),
                _ => None,
            };
            Some(Arc::new(Hosted { application, session }))
        }
        None => None,
    };
    Ok(LogLine {
        time: Timestamp::from_millis(row.get(1)?),
        level: level_of(row.get(2)?),
        message: row.get(6)?,
        invocation: InvocationId::from_number(number(row.get(3)?)),
        version: u64::try_from(row.get::<_, i64>(4)?).unwrap_or(0),
        instance: instance.map(|id| InstanceId::from_number(number(id))),
        tenant: query.tenant.clone(),
        function: source.function.clone(),
        hosted,
    })
}
