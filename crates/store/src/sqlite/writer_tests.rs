//! Tests of [`super`].

use std::sync::mpsc;

use futures::future::join_all;

use super::*;
use crate::sqlite::open_writer;

fn writer() -> (tempfile::TempDir, Arc<Writer>) {
    let dir = tempfile::tempdir().unwrap();
    let conn = open_writer(&dir.path().join("t.db"), 1, "CREATE TABLE t (n INTEGER PRIMARY KEY)").unwrap();
    (dir, Arc::new(Writer::new(conn, |_| {}).unwrap()))
}

async fn insert(writer: &Writer, n: i64) -> Result<(), StoreError> {
    writer
        .write(move |conn| {
            conn.execute("INSERT INTO t VALUES (?1)", [n]).map(drop).map_err(StoreError::sqlite("insert"))
        })
        .await
}

async fn sum(writer: &Writer) -> i64 {
    writer
        .write(|conn| {
            conn.query_row("SELECT ifnull(sum(n), 0) FROM t", [], |row| row.get(0)).map_err(StoreError::sqlite("sum"))
        })
        .await
        .unwrap()
}

/// Keeps the writer busy until the sender is dropped, so that what is asked meanwhile gathers.
fn hold(writer: &Arc<Writer>) -> mpsc::Sender<()> {
    let (release, held) = mpsc::channel::<()>();
    let (begun, has_begun) = mpsc::channel();
    let writer = Arc::clone(writer);
    lyra_kit::tasks::spawn("hold", async move {
        let work = move |_: &Connection| {
            begun.send(()).unwrap();
            assert!(held.recv().is_err());
            Ok(())
        };
        writer.write(work).await
    });
    // On another thread: this one may be the runtime's only one.
    tokio::task::block_in_place(|| has_begun.recv().unwrap());
    release
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_come_together_share_a_commit() {
    let (_dir, writer) = writer();
    let release = hold(&writer);
    let asked = Arc::clone(&writer);
    let all = lyra_kit::tasks::spawn("ask", async move { join_all((0..100).map(|n| insert(&asked, n))).await });
    while writer.shared.queue.lock().waiting.len() < 100 {
        tokio::task::yield_now().await;
    }
    drop(release);
    assert!(all.await.unwrap().iter().all(Result::is_ok));
    assert_eq!(writer.stats(), CommitStats { requests: 101, commits: 2 });
    assert_eq!(sum(&writer).await, (0..100).sum::<i64>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_fails_harms_none_of_those_beside_it() {
    let (_dir, writer) = writer();
    let release = hold(&writer);
    let asked = Arc::clone(&writer);
    let all = lyra_kit::tasks::spawn("ask", async move {
        join_all([1, 2, 2, 4].map(|n| {
            let asked = Arc::clone(&asked);
            async move {
                asked
                    .write(move |conn| {
                        conn.execute("INSERT INTO t VALUES (?1)", [n * 100]).map_err(StoreError::sqlite("first"))?;
                        conn.execute("INSERT INTO t VALUES (?1)", [n]).map_err(StoreError::sqlite("second"))?;
                        Ok(())
                    })
                    .await
            }
        }))
        .await
    });
    while writer.shared.queue.lock().waiting.len() < 4 {
        tokio::task::yield_now().await;
    }
    drop(release);
    let outcomes: Vec<bool> = all.await.unwrap().iter().map(Result::is_ok).collect();
    assert_eq!(outcomes, [true, true, false, true]);
    assert_eq!(sum(&writer).await, 101 * (1 + 2 + 4));
}

#[tokio::test]
async fn a_panic_in_a_request_leaves_a_writer_that_works() {
    let (_dir, writer) = writer();
    let outcome = writer
        .write(|conn| -> Result<(), StoreError> {
            conn.execute("INSERT INTO t VALUES (7)", []).unwrap();
            panic!("a bug");
        })
        .await;
    assert!(matches!(outcome, Err(StoreError::Panicked)));
    insert(&writer, 1).await.unwrap();
    assert_eq!(sum(&writer).await, 1, "what the request had done was undone");
}

#[tokio::test]
async fn a_request_is_carried_out_although_its_caller_has_gone() {
    let (_dir, writer) = writer();
    let mut asked = Box::pin(insert(&writer, 5));
    assert!(futures::poll!(&mut asked).is_pending());
    drop(asked);
    assert_eq!(sum(&writer).await, 5);
}

#[tokio::test]
async fn a_closed_writer_refuses() {
    let (_dir, writer) = writer();
    insert(&writer, 1).await.unwrap();
    writer.close().await;
    assert!(matches!(insert(&writer, 2).await, Err(StoreError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn virtual_time_stands_still_during_a_commit() {
    let (_dir, writer) = writer();
    let clock = lyra_kit::Clock::system();
    let start = clock.instant();
    let late =
        lyra_kit::tasks::spawn("timer", async { lyra_kit::Clock::system().sleep(Duration::from_millis(1)).await });
    for n in 0..20 {
        insert(&writer, n).await.unwrap();
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    late.await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_moved_beside_the_commits_and_starts_anew() {
    let (dir, writer) = writer();
    writer
        .write(|conn| conn.execute_batch("CREATE TABLE b (x BLOB)").map_err(StoreError::sqlite("make a table")))
        .await
        .unwrap();
    // 30 MiB in 60 commits; SQLite would have let the log grow to 4 MiB and some, and so does this, but for what comes while
    // the second connection is at work.
    for _ in 0..60 {
        let put = |conn: &Connection| {
            conn.execute("INSERT INTO b VALUES (zeroblob(524288))", []).map(drop).map_err(StoreError::sqlite("insert"))
        };
        writer.write(put).await.unwrap();
    }
    let length = |name: &str| std::fs::metadata(dir.path().join(name)).map_or(0, |file| file.len());
    assert!(length("t.db") > 20 << 20, "most of it is in the database");
    assert!(length("t.db-wal") < 20 << 20, "the log has started anew: {} bytes", length("t.db-wal"));
    let count = |conn: &Connection| {
        conn.query_row("SELECT count(*) FROM b", [], |row| row.get::<_, i64>(0)).map_err(StoreError::sqlite("count"))
    };
    assert_eq!(writer.write(count).await.unwrap(), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_goes_on_for_long_keeps_no_commit_from_being_made() {
    let (dir, writer) = writer();
    insert(&writer, 1).await.unwrap();
    let reader = crate::sqlite::open_reader(&dir.path().join("t.db")).unwrap();
    let held = reader.unchecked_transaction().unwrap();
    let seen = |conn: &Connection| conn.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(seen(&held), 1);
    for n in 0..40 {
        let put = move |conn: &Connection| {
            conn.execute_batch("CREATE TABLE IF NOT EXISTS b (x BLOB); INSERT INTO b VALUES (zeroblob(524288))")
                .and_then(|()| conn.execute("INSERT INTO t VALUES (?1)", [100 + n]).map(drop))
                .map_err(StoreError::sqlite("insert"))
        };
        writer.write(put).await.unwrap();
    }
    assert_eq!(seen(&held), 1, "it reads what was there when it began");
    drop(held);
    assert_eq!(seen(&reader), 41);
    assert_eq!(sum(&writer).await, 1 + (100..140).sum::<i64>());
}
