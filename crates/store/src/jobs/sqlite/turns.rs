//! Whose turn it is: which of the due jobs are given.
//!
//! Tenants share the places: who holds the fewest comes first, and among those who hold as many, who comes by name
//! after the one that was served last. So no tenant waits for the backlog of another. Within a tenant the function goes
//! first that holds the fewest, and among those the one whose oldest job has been due for longest; within a function
//! jobs go by their due time.
//!
//! What this costs does not grow with the jobs that wait. The table `queues` has a row for each function with such
//! jobs, which says when the first is due. A row is `ready` once that time was seen to have come, so that neither those
//! that wait for a later try nor those that have no room are looked at job by job.

use std::collections::{BTreeMap, HashMap, VecDeque};

use lyra_types::quota::QuotaKey;
use lyra_types::{JobId, TenantName, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use super::row::job_id;
use crate::StoreError;
use crate::jobs::LeaseRequest;

pub(super) const HAVE_COME_DUE: &str = "UPDATE queues SET ready = 1 WHERE ready = 0 AND due_at <= ?1";
pub(super) const NOT_YET_DUE: &str = "UPDATE queues SET ready = 0 WHERE tenant = ?1 AND ready = 1 AND due_at > ?2";
pub(super) const NEXT_TENANT: &str =
    "SELECT tenant FROM queues WHERE ready = 1 AND tenant > ?1 ORDER BY tenant LIMIT 1";
pub(super) const QUEUES: &str =
    "SELECT function, due_at FROM queues WHERE tenant = ?1 AND ready = 1 ORDER BY due_at, function LIMIT ?2";
pub(super) const DUE: &str = "SELECT id, run_at FROM jobs
    WHERE status = 0 AND tenant = ?1 AND function = ?2 AND run_at <= ?3 ORDER BY run_at, id LIMIT ?4 OFFSET ?5";
pub(super) const FIRST: &str = "SELECT run_at FROM jobs
    WHERE status = 0 AND tenant = ?1 AND function = ?2 AND run_at IS NOT NULL ORDER BY run_at LIMIT 1";
pub(super) const NEXT: &str = "SELECT due_at FROM queues WHERE ready = 0 AND due_at > ?1 ORDER BY due_at LIMIT 1";

/// Due jobs, as many as there are places, in the order in which they are to be given.
pub(in crate::jobs) fn due(conn: &Connection, request: &LeaseRequest) -> Result<Vec<(TenantName, JobId)>, StoreError> {
    let mut choice = Choice::new(conn, request);
    execute(conn, HAVE_COME_DUE, params![choice.now])?;
    let after = request.after.as_ref().map_or("", TenantName::as_str);
    let more = choice.first_places(after)?;
    choice.further_places(after, more)?;
    for tenant in &choice.early {
        execute(conn, NOT_YET_DUE, params![tenant, choice.now])?;
    }
    Ok(choice.due)
}

/// Says anew when the first job of a queue is due, after some were leased.
pub(super) fn moved(conn: &Connection, tenant: &str, function: &str, now: Timestamp) -> Result<(), StoreError> {
    let first: Option<i64> = conn
        .prepare_cached(FIRST)
        .and_then(|mut statement| statement.query_row([tenant, function], |row| row.get(0)).optional())
        .map_err(failed)?;
    match first {
        Some(due_at) => execute(
            conn,
            "UPDATE queues SET due_at = ?3, ready = ?4 WHERE tenant = ?1 AND function = ?2",
            params![tenant, function, due_at, due_at <= now.millis()],
        ),
        None => execute(conn, "DELETE FROM queues WHERE tenant = ?1 AND function = ?2", [tenant, function]),
    }
}

/// When the first of the queues that are not due will be. What is due and was not given does not count: it can be given
/// when one of those that run has ended, and then the dispatcher asks anyway.
pub(super) fn next(conn: &Connection, now: Timestamp) -> Result<Option<i64>, StoreError> {
    conn.prepare_cached(NEXT)
        .and_then(|mut statement| statement.query_row([now.millis()], |row| row.get(0)).optional())
        .map_err(failed)
}

fn failed(error: rusqlite::Error) -> StoreError {
    StoreError::sqlite("look for due jobs")(error)
}

fn execute(conn: &Connection, sql: &str, of: impl rusqlite::Params) -> Result<(), StoreError> {
    conn.prepare_cached(sql).and_then(|mut statement| statement.execute(of)).map_err(failed)?;
    Ok(())
}

/// What a function holds.
#[derive(Default)]
struct Held {
    /// With those of this choice.
    all: usize,
    /// Of this choice.
    taken: usize,
}

/// Functions of a tenant with due jobs, those that hold the fewest first: what each holds, since when its next job has
/// been due, its name; with the jobs that have been read.
type Queues = BTreeMap<(usize, i64, String), VecDeque<(i64, JobId)>>;

/// Tenants that may get another place, who holds the fewest first: what each holds, whether its turn comes after that
/// of those with names behind the last one served, its name; with its queues, once they have been read.
type Tenants = BTreeMap<(usize, bool, String), Option<Queues>>;

struct Choice<'a> {
    conn: &'a Connection,
    now: i64,
    places: usize,
    per_function: usize,
    rooms: Rooms,
    /// By tenant and function; only of those that hold any.
    held: HashMap<String, HashMap<String, Held>>,
    due: Vec<(TenantName, JobId)>,
    /// Tenants with queues that came due and are not any more: a clock was set back, or their jobs' were ahead.
    early: Vec<String>,
}

impl<'a> Choice<'a> {
    fn new(conn: &'a Connection, request: &LeaseRequest) -> Choice<'a> {
        let mut held: HashMap<String, HashMap<String, Held>> = HashMap::new();
        for ((tenant, function), count) in request.running.iter().filter(|(_, count)| **count > 0) {
            let count = Held { all: *count, taken: 0 };
            held.entry(tenant.to_string()).or_default().insert(function.to_string(), count);
        }
        Choice {
            conn,
            now: request.now.millis(),
            places: request.invocations.len(),
            per_function: request.per_function,
            rooms: Rooms::of(&request.rooms),
            held,
            due: Vec::new(),
            early: Vec::new(),
        }
    }

    fn held_by(&self, tenant: &str) -> usize {
        self.held.get(tenant).map_or(0, |functions| functions.values().map(|held| held.all).sum())
    }

    /// Gives a place to each tenant that holds none; where there are enough for all, returns who may get another one.
    fn first_places(&mut self, after: &str) -> Result<Vec<String>, StoreError> {
        let mut more = Vec::new();
        let (mut last, mut around) = (after.to_owned(), false);
        while self.places > 0 {
            let tenant: Option<String> = self
                .conn
                .prepare_cached(NEXT_TENANT)
                .and_then(|mut statement| statement.query_row([&last], |row| row.get(0)).optional())
                .map_err(failed)?;
            match tenant {
                None if !around => (last, around) = (String::new(), true),
                Some(tenant) if !around || *tenant <= *after => {
                    if self.rooms.has(&tenant) && (self.held_by(&tenant) > 0 || self.first_place(&tenant)?) {
                        more.push(tenant.clone());
                    }
                    last = tenant;
                }
                _ => break,
            }
        }
        Ok(more)
    }

    fn first_place(&mut self, tenant: &str) -> Result<bool, StoreError> {
        let mut queues = self.queues(tenant, 1)?;
        self.take(tenant, &mut queues)
    }

    /// Gives the places that are left, one after the other, to who holds the fewest.
    fn further_places(&mut self, after: &str, tenants: Vec<String>) -> Result<(), StoreError> {
        let behind = |tenant: &str| tenant <= after;
        let mut tenants: Tenants =
            tenants.into_iter().map(|tenant| ((self.held_by(&tenant), behind(&tenant), tenant), None)).collect();
        while self.places > 0
            && let Some(((holds, turn, tenant), queues)) = tenants.pop_first()
        {
            let mut queues = match queues {
                Some(queues) => queues,
                None => self.queues(&tenant, self.places)?,
            };
            if self.take(&tenant, &mut queues)? {
                tenants.insert((holds + 1, turn, tenant), Some(queues));
            }
        }
        Ok(())
    }

    /// So many of a tenant's functions with due jobs as must be known to choose `jobs` of them.
    fn queues(&mut self, tenant: &str, jobs: usize) -> Result<Queues, StoreError> {
        let held = self.held.get(tenant);
        // Of the others, the first are the best: each job that is taken of one makes it one of those that hold some.
        let passed_over = held.map_or(0, HashMap::len) + self.rooms.closed.get(tenant).copied().unwrap_or_default();
        let mut statement = self.conn.prepare_cached(QUEUES).map_err(failed)?;
        let mut rows = statement.query(params![tenant, jobs + passed_over]).map_err(failed)?;
        let mut queues = Queues::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let (function, due_at): (String, i64) = (row.get(0).map_err(failed)?, row.get(1).map_err(failed)?);
            if due_at > self.now {
                self.early.push(tenant.to_owned());
                break;
            }
            let holds = held.and_then(|functions| functions.get(&function)).map_or(0, |held| held.all);
            queues.insert((holds, due_at, function), VecDeque::new());
        }
        Ok(queues)
    }

    /// Takes a tenant's next job; false where none may be given.
    fn take(&mut self, tenant: &str, queues: &mut Queues) -> Result<bool, StoreError> {
        let Ok(name) = TenantName::new(tenant) else { return Ok(false) };
        while let Some(((holds, due_at, function), mut jobs)) = queues.pop_first() {
            if holds >= self.per_function || !self.rooms.has_for(tenant, &function) {
                continue;
            }
            if jobs.is_empty() {
                jobs = self.jobs(tenant, &function)?;
                // Some were taken before: it may be another's turn.
                if let Some((next, _)) = jobs.front()
                    && *next > due_at
                {
                    queues.insert((holds, *next, function), jobs);
                    continue;
                }
            }
            let Some((_, id)) = jobs.pop_front() else { continue };
            self.rooms.take(tenant, &function);
            self.places -= 1;
            self.due.push((name, id));
            let held = self.held.entry(tenant.to_owned()).or_default().entry(function.clone()).or_default();
            held.all += 1;
            held.taken += 1;
            queues.insert((holds + 1, jobs.front().map_or(due_at, |(next, _)| *next), function), jobs);
            return Ok(true);
        }
        Ok(false)
    }

    /// The next due jobs of a function: as many as were taken before, so that few are read in vain.
    fn jobs(&self, tenant: &str, function: &str) -> Result<VecDeque<(i64, JobId)>, StoreError> {
        let taken = self.held.get(tenant).and_then(|held| held.get(function)).map_or(0, |held| held.taken);
        let most = taken.clamp(1, self.places);
        self.conn
            .prepare_cached(DUE)
            .and_then(|mut statement| {
                let job = |row: &rusqlite::Row<'_>| Ok((row.get(1)?, job_id(row, 0)?));
                statement.query_map(params![tenant, function, self.now, most, taken], job)?.collect()
            })
            .map_err(failed)
    }
}

/// How many more jobs of some tenants and functions may be given.
struct Rooms {
    tenants: HashMap<String, u64>,
    /// By tenant and function.
    functions: HashMap<(String, String), u64>,
    /// How many functions of a tenant have no room.
    closed: HashMap<String, usize>,
}

impl Rooms {
    fn of(rooms: &[(QuotaKey, u64)]) -> Rooms {
        let (mut tenants, mut functions) = (HashMap::new(), HashMap::new());
        let mut closed = HashMap::<String, usize>::new();
        for (QuotaKey { tenant, function }, room) in rooms {
            let tenant = tenant.to_string();
            match function {
                None => drop(tenants.insert(tenant, *room)),
                Some(function) => {
                    *closed.entry(tenant.clone()).or_default() += usize::from(*room == 0);
                    functions.insert((tenant, function.to_string()), *room);
                }
            }
        }
        Rooms { tenants, functions, closed }
    }

    fn has(&self, tenant: &str) -> bool {
        self.tenants.get(tenant) != Some(&0)
    }

    fn has_for(&self, tenant: &str, function: &str) -> bool {
        self.has(tenant)
            && (self.functions.is_empty() || self.functions.get(&(tenant.to_owned(), function.to_owned())) != Some(&0))
    }

    fn take(&mut self, tenant: &str, function: &str) {
        let of_function = match self.functions.is_empty() {
            true => None,
            false => self.functions.get_mut(&(tenant.to_owned(), function.to_owned())),
        };
        for room in self.tenants.get_mut(tenant).into_iter().chain(of_function) {
            *room = room.saturating_sub(1);
        }
    }
}
