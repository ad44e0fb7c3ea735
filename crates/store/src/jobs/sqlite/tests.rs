//! What is special about this implementation; `tests/jobs` has what all promise.

use std::collections::HashMap;
use std::time::Duration;

use lyra_types::{FunctionName, InvocationId, TenantName, Timestamp};
use rusqlite::{Connection, StatementStatus, params};

use super::{SCHEMA, leases, turns};
use crate::SqliteJobs;
use crate::jobs::{Jobs, LeaseRequest, Retention};

#[tokio::test]
async fn every_query_of_the_hot_path_uses_its_index() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = SqliteJobs::open(&dir.path().join("jobs.db"), None).unwrap();
    let plans = jobs.writer.write(|conn| {
        let plan = |sql: &str| {
            let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let lines = statement.raw_query().mapped(|row| row.get::<_, String>(3));
            lines.collect::<Result<Vec<_>, _>>().unwrap().join("; ")
        };
        Ok([
            (plan(turns::HAVE_COME_DUE), "INDEX queues_later"),
            (plan(turns::NOT_YET_DUE), "INDEX queues_ready"),
            (plan(turns::NEXT_TENANT), "COVERING INDEX queues_ready"),
            (plan(turns::QUEUES), "COVERING INDEX queues_ready"),
            (plan(turns::DUE), "COVERING INDEX jobs_queue"),
            (plan(turns::FIRST), "COVERING INDEX jobs_queue"),
            (plan(turns::NEXT), "COVERING INDEX queues_later"),
            // Of the triggers.
            (plan("SELECT min(run_at) FROM jobs WHERE status = 0 AND tenant = 't' AND function = 'f' AND run_at >= 1"), "COVERING INDEX jobs_queue"),
            (plan("SELECT 1 FROM jobs WHERE status = 0 AND tenant = 't' AND function = 'f' AND run_at >= 1"), "COVERING INDEX jobs_queue"),
            (plan("SELECT lease_until FROM jobs WHERE status = 1 AND lease_until > 1 ORDER BY lease_until LIMIT 1"), "INDEX jobs_leased"),
            (plan("SELECT * FROM jobs WHERE status BETWEEN 2 AND 5 AND finished_at < 1 ORDER BY finished_at LIMIT 2"), "INDEX jobs_finished"),
            (plan("SELECT * FROM jobs WHERE status = 6 AND finished_at < 1 ORDER BY finished_at LIMIT 2"), "INDEX jobs_dead"),
            (plan("SELECT * FROM jobs INDEXED BY jobs_status WHERE tenant = 't' AND id < x'ff' AND status = 6 AND status <> 2 ORDER BY id DESC LIMIT 3"), "INDEX jobs_status"),
            (plan("SELECT * FROM jobs INDEXED BY jobs_function WHERE tenant = 't' AND id < x'ff' AND function = 'f' ORDER BY id DESC LIMIT 3"), "INDEX jobs_function"),
            (plan("SELECT * FROM jobs WHERE tenant = 't' AND id < x'ff' ORDER BY id DESC LIMIT 3"), "PRIMARY KEY"),
        ])
    });
    for (plan, index) in plans.await.unwrap() {
        assert!(plan.contains(index) && !plan.contains("TEMP B-TREE") && !plan.contains("SCAN"), "{plan}: not {index}");
    }
}

#[tokio::test]
async fn jobs_that_come_together_share_commits() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = SqliteJobs::open(&dir.path().join("jobs.db"), None).unwrap();
    let retention = Retention {
        finished_before: Timestamp::from_millis(0),
        dead_before: Timestamp::from_millis(0),
        now: Timestamp::from_millis(0),
        limit: 1,
    };
    futures::future::try_join_all((0..32).map(|_| jobs.sweep(retention))).await.unwrap();
    assert!(jobs.stats().commits < 32, "{:?}", jobs.stats());
}

fn database() -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch(SCHEMA).unwrap();
    conn
}

/// Puts jobs of each of so many tenants in the queue of each of so many functions, of which one is due each millisecond
/// from `from` on.
fn fill(conn: &Connection, tenants: u32, functions: u32, jobs: u32, from: i64) {
    conn.prepare(
        "WITH RECURSIVE n (i) AS (VALUES (0) UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1 * ?2 * ?3)
         INSERT INTO jobs (tenant, id, function, version, generation, status, attempts, max_attempts, created_at, run_at)
         SELECT printf('t%04d', i % ?1), CAST(printf('%016d', i + ?4) AS BLOB), printf('f%d', i / ?1 % ?2), 1, 1, 0, 0, 1, 0, ?4 + i / ?1 / ?2
         FROM n",
    )
    .unwrap()
    .execute(params![tenants, functions, jobs, from])
    .unwrap();
}

fn request(now: i64, places: u32) -> LeaseRequest {
    LeaseRequest {
        owner: 1,
        now: Timestamp::from_millis(now),
        ttl: Duration::from_secs(30),
        invocations: (0..places).map(|n| InvocationId::from_parts(1, n.into())).collect(),
        max_bytes: 1 << 20,
        per_function: 48,
        running: HashMap::new(),
        rooms: Vec::new(),
        after: None,
    }
}

/// What a choice gives, and how many steps SQLite's machine takes for it.
fn choose(conn: &Connection, request: &LeaseRequest) -> (Vec<String>, i32) {
    let steps = |sql: &&str| conn.prepare_cached(sql).unwrap().reset_status(StatementStatus::VmStep);
    let all = [turns::HAVE_COME_DUE, turns::NOT_YET_DUE, turns::NEXT_TENANT, turns::QUEUES, turns::DUE];
    let _before: i32 = all.iter().map(steps).sum();
    let due = turns::due(conn, request).unwrap();
    (due.into_iter().map(|(tenant, _)| tenant.to_string()).collect(), all.iter().map(steps).sum())
}

#[test]
fn what_a_choice_costs_does_not_grow_with_the_jobs_that_wait() {
    let few = database();
    fill(&few, 1, 2, 64, 0);
    let (given, alone) = choose(&few, &request(1_000, 64));
    assert_eq!(given.len(), 64, "who is alone has all places");
    let many = database();
    fill(&many, 1_000, 2, 50, 0);
    // Each queue comes due once.
    let (given, _) = choose(&many, &request(1_000, 64));
    assert!(
        given.iter().enumerate().all(|(n, tenant)| *tenant == format!("t{n:04}")) && given.len() == 64,
        "{given:?}"
    );
    let (given, shared) = choose(&many, &LeaseRequest { after: TenantName::new("t0999").ok(), ..request(1_000, 64) });
    assert_eq!(given.len(), 64);
    assert!(shared < 4 * alone, "{shared} steps of 100,000 jobs, {alone} of 128");
    let (given, one) = choose(&many, &LeaseRequest { after: TenantName::new("t0500").ok(), ..request(1_000, 1) });
    assert_eq!(given, ["t0501"]);
    assert!(one < 100, "{one} steps for one place");
    // A function that runs enough, with more jobs than anybody would read.
    let capped = database();
    fill(&capped, 1, 1, 50_000, 0);
    fill(&capped, 2, 1, 1, 60_000);
    let mut asked = request(100_000, 16);
    asked.running.insert((TenantName::new("t0000").unwrap(), FunctionName::new("f0").unwrap()), 48);
    assert_eq!(choose(&capped, &asked).0, ["t0001"]);
    let (_, closed) = choose(&capped, &asked);
    assert!(closed < 500, "{closed} steps past 50,000 jobs");
    // Many that wait for a later try.
    let later = database();
    fill(&later, 2_000, 1, 1, 200_000);
    fill(&later, 1, 1, 1, 0);
    let (given, past) = choose(&later, &request(1_000, 64));
    assert_eq!(given, ["t0000"]);
    assert!(past < 500, "{past} steps past 2,000 that wait for later");
}

/// A row of the queues: tenant, function, when its first job is due.
fn queues(conn: &Connection, sql: &str) -> Vec<(String, String, i64)> {
    let mut statement = conn.prepare(sql).unwrap();
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    statement.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap()
}

/// The queues say what the jobs say.
fn agree(conn: &Connection) {
    let kept = queues(conn, "SELECT tenant, function, due_at FROM queues ORDER BY tenant, function");
    let true_ones = "SELECT tenant, function, min(run_at) FROM jobs WHERE status = 0 GROUP BY tenant, function";
    assert_eq!(kept, queues(conn, true_ones));
}

#[test]
fn queues_follow_their_jobs() {
    let conn = database();
    fill(&conn, 3, 2, 5, 10);
    agree(&conn);
    let changes = [
        "UPDATE jobs SET status = 5, run_at = NULL WHERE status = 0 AND tenant = 't0000' AND run_at < 12",
        "UPDATE jobs SET status = 0, run_at = 5 WHERE status = 5 AND function = 'f0'",
        "UPDATE jobs SET run_at = run_at + 3 WHERE status = 0",
        "UPDATE jobs SET run_at = run_at - 2 WHERE status = 0 AND run_at % 2 = 0",
        "UPDATE jobs SET status = 3, run_at = NULL WHERE tenant = 't0001' AND function = 'f1'",
        "DELETE FROM jobs WHERE tenant = 't0002' AND run_at < 14",
        "UPDATE jobs SET status = 0, run_at = 7 WHERE status = 3",
        "DELETE FROM jobs WHERE tenant = 't0002'",
    ];
    for sql in changes {
        assert!(conn.execute(sql, []).unwrap() > 0, "{sql}");
        agree(&conn);
        let before = queues(&conn, "SELECT tenant, function, due_at FROM queues");
        choose(&conn, &request(12, 3));
        assert_eq!(queues(&conn, "SELECT tenant, function, due_at FROM queues"), before, "a choice changes no times");
    }
    conn.execute("UPDATE jobs SET event = 1", []).unwrap();
    conn.execute("INSERT INTO payloads VALUES (1, x'31')", []).unwrap();
    for places in [1, 3, 9] {
        leases::lease(&conn, request(12, places)).unwrap();
        agree(&conn);
    }
    assert_eq!(leases::lease(&conn, request(12, 9)).unwrap().jobs.len(), 0);
    let left = conn.query_row("SELECT min(due_at) FROM queues WHERE ready = 0", [], |row| row.get(0));
    let next = leases::next(&conn, Timestamp::from_millis(12)).unwrap();
    assert_eq!(left.map(Timestamp::from_millis).ok(), next);
}

#[test]
fn a_clock_that_is_set_back_hides_no_due_time() {
    let conn = database();
    fill(&conn, 2, 1, 1, 5_000);
    assert_eq!(choose(&conn, &request(9_000, 9)).0.len(), 2);
    assert_eq!(choose(&conn, &request(1_000, 9)).0.len(), 0);
    assert_eq!(turns::next(&conn, Timestamp::from_millis(1_000)).unwrap(), Some(5_000));
    assert_eq!(choose(&conn, &request(5_000, 9)).0.len(), 2);
}

#[tokio::test]
async fn a_file_of_an_older_program_gets_its_queues() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.db");
    drop(SqliteJobs::open(&path, None).unwrap());
    let conn = Connection::open(&path).unwrap();
    let older = "DROP TABLE queues; DROP TRIGGER queues_new; DROP TRIGGER queues_again; DROP TRIGGER queues_moved; DROP TRIGGER queues_gone;
                 DROP INDEX jobs_queue; CREATE INDEX jobs_due ON jobs (run_at, function) WHERE status = 0; PRAGMA user_version = 3;";
    conn.execute_batch(older).unwrap();
    fill(&conn, 3, 2, 4, 10);
    drop(conn);
    let jobs = SqliteJobs::open(&path, None).unwrap();
    jobs.writer
        .write(|conn| {
            agree(conn);
            Ok(())
        })
        .await
        .unwrap();
    let conn = Connection::open(&path).unwrap();
    let left: u32 =
        conn.query_row("SELECT count(*) FROM sqlite_master WHERE name = 'jobs_due'", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}
