//! Usage: added to with the end of a try or by a worker's batch, and added up.

use lyra_types::usage::{Hour, Usage, UsageBatch, UsageGroup, UsageQuery, UsageRow, UsageSum};
use lyra_types::{FunctionName, TenantName};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use crate::StoreError;

/// Adds to what was used under a key.
pub(in crate::jobs) fn add(conn: &Connection, row: &UsageRow) -> Result<(), StoreError> {
    add_times(conn, row, 1)
}

/// Undoes an [`add`] whose row is counted elsewhere now.
pub(in crate::jobs) fn take_out(conn: &Connection, row: &UsageRow) -> Result<(), StoreError> {
    add_times(conn, row, -1)
}

fn add_times(conn: &Connection, row: &UsageRow, times: i64) -> Result<(), StoreError> {
    if row.usage.is_empty() {
        return Ok(());
    }
    let UsageRow { key, usage } = row;
    let number = |value: u64| number(value) * times;
    conn.prepare_cached(
        "INSERT INTO usage (tenant, hour, function, version, user, invocations, failures, cold_starts, exec_us, cpu_us, mb_ms,
                            egress_bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
         ON CONFLICT DO UPDATE SET
             invocations = invocations + ?6, failures = failures + ?7, cold_starts = cold_starts + ?8, exec_us = exec_us + ?9,
             cpu_us = cpu_us + ?10, mb_ms = mb_ms + ?11, egress_bytes = egress_bytes + ?12",
    )
    .and_then(|mut statement| {
        statement.execute(params![
            key.tenant.as_str(),
            key.hour.0,
            key.function.as_str(),
            key.version,
            key.user,
            number(usage.invocations),
            number(usage.failures),
            number(usage.cold_starts),
            number(usage.exec_us),
            number(usage.cpu_us),
            number(usage.mb_ms),
            number(usage.egress_bytes),
        ])
    })
    .map_err(StoreError::sqlite("count usage"))?;
    Ok(())
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Adds a batch, if it is newer than all of its source; says whether it was.
pub(in crate::jobs) fn add_batch(conn: &Connection, batch: &UsageBatch) -> Result<bool, StoreError> {
    if newest_batch(conn, &batch.source)? >= Some(batch.sequence) {
        return Ok(false);
    }
    see_batch(conn, &batch.source, batch.sequence)?;
    for row in &batch.rows {
        add(conn, row)?;
    }
    Ok(true)
}

/// The newest batch of a source that was taken.
pub(in crate::jobs) fn newest_batch(conn: &Connection, source: &str) -> Result<Option<u64>, StoreError> {
    conn.prepare_cached("SELECT sequence FROM usage_sources WHERE source = ?1")
        .and_then(|mut statement| statement.query_row([source], |row| row.get(0)).optional())
        .map_err(StoreError::sqlite("look for a usage batch"))
}

/// Remembers that a batch was taken.
pub(in crate::jobs) fn see_batch(conn: &Connection, source: &str, sequence: u64) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT INTO usage_sources (source, sequence) VALUES (?1, ?2)
         ON CONFLICT (source) DO UPDATE SET sequence = max(sequence, ?2)",
    )
    .and_then(|mut statement| statement.execute(params![source, sequence]))
    .map_err(StoreError::sqlite("remember a usage batch"))?;
    Ok(())
}

/// What rows are added up by, and in which order it is asked for and read.
fn column(group: UsageGroup) -> &'static str {
    match group {
        UsageGroup::Tenant => "tenant",
        UsageGroup::User => "user",
        UsageGroup::Function => "function",
        UsageGroup::Version => "version",
        UsageGroup::Hour => "hour",
        // Of whole numbers, rounded towards the past.
        UsageGroup::Day => "(hour - ((hour % 24) + 24) % 24)",
    }
}

/// The sums that a query asks for, in the order of what they are of.
pub(in crate::jobs) fn sums(conn: &Connection, query: &UsageQuery) -> Result<Vec<UsageSum>, StoreError> {
    let at = StoreError::sqlite("add up usage");
    let mut by = query.by.clone();
    by.sort_unstable();
    by.dedup();
    let mut filters: Vec<String> = Vec::new();
    let mut values: Vec<Value> = Vec::new();
    let mut filter = |text: &str, value: Value| {
        values.push(value);
        filters.push(format!("{text} ?{}", values.len()));
    };
    if let Some(tenant) = &query.tenant {
        filter("tenant =", Value::Text(tenant.to_string()));
    }
    if let Some(function) = &query.function {
        filter("function =", Value::Text(function.to_string()));
    }
    if let Some(from) = query.from {
        filter("hour >=", Value::Integer(from.0));
    }
    if let Some(to) = query.to {
        filter("hour <", Value::Integer(to.0));
    }
    let columns: Vec<&str> = by.iter().map(|group| column(*group)).collect();
    let list = columns.join(", ");
    let given = if filters.is_empty() { String::new() } else { format!("WHERE {}", filters.join(" AND ")) };
    let (select, group) = match list.is_empty() {
        true => (String::new(), String::new()),
        false => (format!(", {list}"), format!("GROUP BY {list} ORDER BY {list}")),
    };
    let sql = format!(
        "SELECT sum(invocations), sum(failures), sum(cold_starts), sum(exec_us), sum(cpu_us), sum(mb_ms), sum(egress_bytes){select}
         FROM usage {given} {group} LIMIT {} OFFSET {}",
        query.limit, query.offset
    );
    let mut statement = conn.prepare_cached(&sql).map_err(&at)?;
    let rows = statement.query_map(params_from_iter(values), |row| sum(row, &by)).map_err(&at)?;
    rows.collect::<rusqlite::Result<_>>().map_err(at)
}

fn sum(row: &Row<'_>, by: &[UsageGroup]) -> rusqlite::Result<UsageSum> {
    // There is no sum of no rows.
    let count =
        |at: usize| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(at)?.unwrap_or_default().max(0).cast_unsigned());
    let usage = Usage {
        invocations: count(0)?,
        failures: count(1)?,
        cold_starts: count(2)?,
        exec_us: count(3)?,
        cpu_us: count(4)?,
        mb_ms: count(5)?,
        egress_bytes: count(6)?,
    };
    let mut sum = UsageSum { usage, ..UsageSum::default() };
    for (at, group) in by.iter().enumerate() {
        let at = at + 7;
        match group {
            UsageGroup::Tenant => sum.tenant = TenantName::new(&row.get::<_, String>(at)?).ok(),
            UsageGroup::User => sum.user = Some(row.get(at)?),
            UsageGroup::Function => sum.function = FunctionName::new(&row.get::<_, String>(at)?).ok(),
            UsageGroup::Version => sum.version = Some(row.get::<_, i64>(at)?.max(0).cast_unsigned()),
            UsageGroup::Hour | UsageGroup::Day => sum.begin = Some(Hour(row.get(at)?).begin()),
        }
    }
    Ok(sum)
}
