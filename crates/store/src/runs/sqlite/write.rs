//! Writes: a new run, a batch, a change of owner, an end of keeping.

use std::time::Duration;

use lyra_types::{RunId, TenantName, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use super::notices::{self, not_owed};
use super::read::{COLUMNS, find, journal, live, record};
use crate::StoreError;
use crate::runs::{Append, CreatedRun, NewRunRecord, RunRecord, RunsError, TakenRun, status_number};

pub(super) fn create(conn: &Connection, run: &NewRunRecord) -> Result<CreatedRun, RunsError> {
    let at = StoreError::sqlite("make a run");
    let known: Option<Vec<u8>> = conn
        .prepare_cached("SELECT fingerprint FROM runs WHERE tenant = ?1 AND id = ?2")
        .and_then(|mut statement| {
            statement.query_row(params![run.tenant.as_str(), run.id.as_str()], |row| row.get(0)).optional()
        })
        .map_err(&at)?;
    match known {
        Some(fingerprint) if fingerprint == run.fingerprint => return Ok(CreatedRun::Known),
        Some(_) => return Err(RunsError::Mismatch(run.id.clone())),
        None => {}
    }
    if let Some(most) = run.most_live
        && live(conn, &run.tenant, u64::from(most))? >= u64::from(most)
    {
        return Err(RunsError::Full(most));
    }
    conn.prepare_cached(
        "INSERT INTO runs (tenant, id, workflow, version, status, fingerprint, created_at, owner, fence, batches, summary)
         VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6, ?7, 1, 1, ?8)",
    )
    .and_then(|mut statement| {
        statement.execute(params![
            run.tenant.as_str(),
            run.id.as_str(),
            run.workflow.as_str(),
            run.version,
            run.fingerprint.as_slice(),
            run.now.millis(),
            stored_owner(run.owner),
            run.summary.as_ref(),
        ])
    })
    .map_err(&at)?;
    let number = conn.last_insert_rowid();
    conn.prepare_cached("INSERT INTO heads (run, body) VALUES (?1, ?2)")
        .and_then(|mut statement| statement.execute(params![number, run.head.as_ref()]))
        .map_err(&at)?;
    conn.prepare_cached("INSERT INTO batches (run, number, body) VALUES (?1, 0, ?2)")
        .and_then(|mut statement| statement.execute(params![number, run.batch.as_ref()]))
        .map_err(&at)?;
    notices::remember(conn, number, run)?;
    Ok(CreatedRun::New { fence: 1 })
}

pub(super) fn append(conn: &Connection, append: &Append) -> Result<(), RunsError> {
    let at = StoreError::sqlite("append to a journal");
    let (number, fence, batches): (i64, u64, u64) = conn
        .prepare_cached("SELECT number, fence, batches FROM runs WHERE tenant = ?1 AND id = ?2")
        .and_then(|mut statement| {
            let of = params![append.tenant.as_str(), append.id.as_str()];
            statement.query_row(of, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()
        })
        .map_err(&at)?
        .ok_or_else(|| RunsError::NotFound(append.id.clone()))?;
    if fence != append.fence {
        return Err(RunsError::Fenced(append.id.clone()));
    }
    if append.number > batches {
        return Err(RunsError::Gap { id: append.id.clone(), number: append.number });
    }
    if append.number < batches && !append.batch.is_empty() {
        // It is there from a first try, with all that came with it.
        return Ok(());
    }
    if !append.batch.is_empty() {
        conn.prepare_cached("INSERT INTO batches (run, number, body) VALUES (?1, ?2, ?3)")
            .and_then(|mut statement| statement.execute(params![number, append.number, append.batch.as_ref()]))
            .map_err(&at)?;
        conn.prepare_cached("UPDATE runs SET batches = batches + 1 WHERE number = ?1")
            .and_then(|mut statement| statement.execute([number]))
            .map_err(&at)?;
    }
    let Some(update) = &append.update else { return Ok(()) };
    conn.prepare_cached("UPDATE runs SET status = ?2, ended_at = ?3, summary = ?4 WHERE number = ?1")
        .and_then(|mut statement| {
            let ended = update.ended_at.map(Timestamp::millis);
            statement.execute(params![number, status_number(update.status), ended, update.summary.as_ref()])
        })
        .map_err(&at)?;
    if let Some(output) = &update.output {
        conn.prepare_cached("INSERT OR REPLACE INTO outputs (run, body) VALUES (?1, ?2)")
            .and_then(|mut statement| statement.execute(params![number, output.as_ref()]))
            .map_err(&at)?;
    }
    Ok(())
}

/// SQLite's integers have a sign; an owner is any 64 bits.
fn stored_owner(owner: u64) -> i64 {
    i64::from_ne_bytes(owner.to_ne_bytes())
}

pub(super) fn renew(conn: &Connection, owner: u64, now: Timestamp, ttl: Duration) -> Result<(), RunsError> {
    conn.prepare_cached("INSERT OR REPLACE INTO owners (owner, until) VALUES (?1, ?2)")
        .and_then(|mut statement| statement.execute(params![stored_owner(owner), (now + ttl).millis()]))
        .map_err(StoreError::sqlite("renew an owner"))?;
    Ok(())
}

pub(super) fn take(
    conn: &Connection,
    owner: u64,
    now: Timestamp,
    alone: bool,
    limit: usize,
) -> Result<Vec<TakenRun>, RunsError> {
    let at = StoreError::sqlite("find runs without an owner");
    if alone {
        conn.execute("DELETE FROM owners WHERE owner <> ?1", [stored_owner(owner)]).map_err(&at)?;
    } else {
        conn.execute("DELETE FROM owners WHERE until < ?1", [now.millis()]).map_err(&at)?;
    }
    let sql = format!(
        "SELECT {COLUMNS} FROM runs INDEXED BY runs_open
         WHERE status < 2 AND owner <> ?1 AND owner NOT IN (SELECT owner FROM owners) LIMIT ?2"
    );
    let found: Vec<RunRecord> = conn
        .prepare_cached(&sql)
        .and_then(|mut statement| {
            let rows = statement.query_map(params![stored_owner(owner), limit], record)?;
            rows.collect()
        })
        .map_err(&at)?;
    found.into_iter().map(|found| take_one(conn, found, owner)).collect()
}

fn take_one(conn: &Connection, found: RunRecord, owner: u64) -> Result<TakenRun, RunsError> {
    let fence = conn
        .prepare_cached("UPDATE runs SET owner = ?2, fence = fence + 1 WHERE number = ?1 RETURNING fence")
        .and_then(|mut statement| statement.query_row(params![found.order, stored_owner(owner)], |row| row.get(0)))
        .map_err(StoreError::sqlite("take over a run"))?;
    let (head, batches) = journal(conn, found.order)?;
    Ok(TakenRun { record: found, fence, head, batches, damage: None })
}

pub(super) fn reopen(conn: &Connection, tenant: &TenantName, id: &RunId, owner: u64) -> Result<TakenRun, RunsError> {
    let found = find(conn, tenant, id)?.ok_or_else(|| RunsError::NotFound(id.clone()))?;
    conn.prepare_cached("UPDATE runs SET status = 0, ended_at = NULL WHERE number = ?1")
        .and_then(|mut statement| statement.execute([found.order]))
        .map_err(StoreError::sqlite("reopen a run"))?;
    take_one(conn, found, owner)
}

pub(super) fn sweep(conn: &Connection, ended_before: Timestamp, limit: usize) -> Result<u64, RunsError> {
    let at = StoreError::sqlite("forget runs");
    let numbers: Vec<i64> = conn
        .prepare_cached(concat!(
            "SELECT number FROM runs INDEXED BY runs_ended WHERE status >= 2 AND ended_at < ?1 AND ",
            not_owed!(),
            " LIMIT ?2"
        ))
        .and_then(|mut statement| {
            let rows = statement.query_map(params![ended_before.millis(), limit], |row| row.get(0))?;
            rows.collect()
        })
        .map_err(&at)?;
    for number in &numbers {
        drop_run(conn, *number)?;
    }
    conn.execute(
        "DELETE FROM memos WHERE (tenant, key) IN (SELECT tenant, key FROM memos WHERE until < ?1 LIMIT ?2)",
        params![ended_before.millis(), limit],
    )
    .map_err(&at)?;
    Ok(numbers.len() as u64)
}

fn drop_run(conn: &Connection, number: i64) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM batches WHERE run = ?1",
        "DELETE FROM heads WHERE run = ?1",
        "DELETE FROM outputs WHERE run = ?1",
        "DELETE FROM runs WHERE number = ?1",
    ] {
        conn.prepare_cached(sql)
            .and_then(|mut statement| statement.execute([number]))
            .map_err(StoreError::sqlite("forget a run"))?;
    }
    Ok(())
}

pub(super) fn forget(
    conn: &Connection,
    tenant: &TenantName,
    id: &RunId,
    ended_before: Timestamp,
) -> Result<bool, RunsError> {
    let number: Option<i64> = conn
        .prepare_cached("SELECT number FROM runs WHERE tenant = ?1 AND id = ?2 AND status >= 2 AND ended_at < ?3")
        .and_then(|mut statement| {
            let of = params![tenant.as_str(), id.as_str(), ended_before.millis()];
            statement.query_row(of, |row| row.get(0)).optional()
        })
        .map_err(StoreError::sqlite("find a run to forget"))?;
    let Some(number) = number else { return Ok(false) };
    drop_run(conn, number)?;
    Ok(true)
}

pub(super) fn forget_memos(conn: &Connection, tenant: &TenantName) -> Result<(), RunsError> {
    conn.prepare_cached("DELETE FROM memos WHERE tenant = ?1")
        .and_then(|mut statement| statement.execute([tenant.as_str()]))
        .map_err(StoreError::sqlite("forget kept results"))?;
    Ok(())
}

pub(super) fn keep_memo(
    conn: &Connection,
    tenant: &TenantName,
    key: &[u8; 32],
    result: &[u8],
    until: Timestamp,
) -> Result<(), RunsError> {
    conn.prepare_cached("INSERT OR REPLACE INTO memos (tenant, key, until, result) VALUES (?1, ?2, ?3, ?4)")
        .and_then(|mut statement| statement.execute(params![tenant.as_str(), key.as_slice(), until.millis(), result]))
        .map_err(StoreError::sqlite("keep a result"))?;
    Ok(())
}
