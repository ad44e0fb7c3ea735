//! What is special about this implementation; `tests/jobs` has what all promise.

use lyra_types::Timestamp;

use crate::SqliteJobs;
use crate::jobs::{Jobs, Retention};

#[tokio::test]
async fn every_query_of_the_hot_path_uses_its_index() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = SqliteJobs::open(&dir.path().join("jobs.db"), None).unwrap();
    let plans = jobs.writer.write(|conn| {
        let plan = |sql: &str| {
            let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let lines = statement.query_map([], |row| row.get::<_, String>(3)).unwrap();
            lines.collect::<Result<Vec<_>, _>>().unwrap().join("; ")
        };
        Ok([
            (plan("SELECT tenant, id, function FROM jobs WHERE status = 0 AND run_at <= 1 ORDER BY run_at, function LIMIT 2"), "COVERING INDEX jobs_due"),
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
