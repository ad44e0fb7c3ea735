//! Checkpoints that hold no commit up.
//!
//! SQLite's own checkpoint runs within the commit that makes the write-ahead log too long: that commit, and all that wait
//! behind it, wait for a thousand pages and two syncs. Here a second connection moves the pages while commits go on. What
//! these have added meanwhile is little: the writer moves it itself, after a commit was answered, and the next one starts the
//! log anew (a log does so only when all of it is in the database: <https://www.sqlite.org/wal.html>, section 2.2).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};

/// Pages that commits add to the log before they are moved, as in SQLite's own checkpoints.
const ENOUGH: u32 = 1_000;
/// Pages that commits add during one checkpoint before they wait for it: the disk does not keep up.
const TOO_MANY: u32 = 16_384;
/// Longest wait of the second connection for a lock.
const PATIENCE: Duration = Duration::from_secs(5);

/// The checkpoints of one database, for its only writer.
#[derive(Debug)]
pub struct Checkpoints {
    path: PathBuf,
    /// Pages in the log after the newest commit.
    pages: Arc<AtomicU32>,
    stage: Arc<Mutex<Stage>>,
    /// Pages that the last checkpoint left in the log, since somebody still read there.
    left: AtomicU32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing is being moved.
    Rest,
    /// The second connection is at work.
    Beside,
    /// It is done; what was added meanwhile remains.
    Remainder,
}

impl Checkpoints {
    /// Takes the place of SQLite's own checkpoints for the writer `conn` of the file at `path`.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn new(path: &Path, conn: &mut Connection) -> rusqlite::Result<Checkpoints> {
        let pages = Arc::new(AtomicU32::new(0));
        let told = Arc::clone(&pages);
        conn.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: std::ffi::c_int| {
            told.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        let stage = Arc::new(Mutex::new(Stage::Rest));
        Ok(Checkpoints { path: path.to_owned(), pages, stage, left: AtomicU32::new(0) })
    }

    /// To be called by the writer when it has answered a commit. Blocks, for a moment or (rarely) until a log that is far too
    /// long is moved.
    pub fn after_commit(&self, conn: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        let stage = *self.stage.lock();
        match stage {
            Stage::Remainder => {
                warn_of(&self.path, move_log(conn, "PASSIVE"));
                *self.stage.lock() = Stage::Rest;
                self.left.store(pages, Ordering::Relaxed);
            }
            Stage::Rest => {
                // The log may have started anew.
                let left = self.left.fetch_min(pages, Ordering::Relaxed).min(pages);
                if pages >= left + ENOUGH {
                    self.begin();
                }
            }
            Stage::Beside if pages >= self.left.load(Ordering::Relaxed) + TOO_MANY => {
                // Waits for the second connection, too.
                warn_of(&self.path, move_log(conn, "FULL"));
                self.left.store(pages, Ordering::Relaxed);
            }
            Stage::Beside => {}
        }
    }

    /// Starts the second connection's work.
    fn begin(&self) {
        if tokio::runtime::Handle::try_current().is_err() {
            // Nowhere to run it: the writer does it by the next commit.
            *self.stage.lock() = Stage::Remainder;
            return;
        }
        *self.stage.lock() = Stage::Beside;
        let (path, done) = (self.path.clone(), Done(Arc::clone(&self.stage)));
        lyra_kit::tasks::start_blocking(move || {
            let _done = done;
            // Makes no file where there is none any more.
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let moved = Connection::open_with_flags(&path, flags).and_then(|conn| {
                conn.busy_timeout(PATIENCE)?;
                move_log(&conn, "PASSIVE")
            });
            warn_of(&path, moved);
        });
    }
}

/// Says that the second connection is done, also where it could not even begin.
struct Done(Arc<Mutex<Stage>>);

impl Drop for Done {
    fn drop(&mut self) {
        *self.0.lock() = Stage::Remainder;
    }
}

/// A checkpoint; that it could not move everything is no error.
fn move_log(conn: &Connection, how: &str) -> rusqlite::Result<()> {
    conn.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |_| Ok(()))
}

fn warn_of(path: &Path, outcome: rusqlite::Result<()>) {
    if let Err(error) = outcome {
        tracing::warn!(%error, path = %path.display(), "the write-ahead log could not be moved into its database");
    }
}
