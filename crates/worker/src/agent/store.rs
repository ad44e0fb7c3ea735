//! What a worker must remember of itself over a restart, in a SQLite file of its own: which node it is, the revision of its
//! workload, the highest epoch that it has seen, what it was told to hold up, its instances, and its sessions.
//!
//! What must hold: a change is in the file before it is told. The file survives `kill -9`; after a loss of power the last
//! changes may be missing, which is no harm, since then all instances are gone and the worker tells all anew. A file
//! that can't be read is put aside: the worker is then a new node.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lyra_store::Checkpoints;
use lyra_types::function::VersionKey;
use lyra_types::{FunctionVersion, Timestamp};
use lyra_wire::registry::InstanceReport;
use lyra_wire::sessions::{AppKey, AppVersion, HostedReport};
use parking_lot::Mutex;
use rusqlite::{Connection, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::entry::{Entry, Held, SavedSession};

const SCHEMA: &str = "
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS node (id INTEGER PRIMARY KEY CHECK (id = 0), number INTEGER NOT NULL, revision INTEGER NOT NULL,
                                 epoch INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS instances (id TEXT PRIMARY KEY, report TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS holds (version TEXT PRIMARY KEY, instances INTEGER NOT NULL, schedule INTEGER NOT NULL,
                                  spec TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stands (app TEXT PRIMARY KEY, instances INTEGER NOT NULL, spec TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hosted (id TEXT PRIMARY KEY, report TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sessions (uid TEXT PRIMARY KEY, report TEXT NOT NULL, terms TEXT NOT NULL,
                                     close_by INTEGER) WITHOUT ROWID;
";

/// Why the file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum NodeStoreError {
    /// SQLite failed.
    #[error("{operation} in {}: {source}", path.display())]
    Sqlite {
        /// What was being done.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: rusqlite::Error,
    },
    /// A file could not be put aside.
    #[error("put {} aside: {source}", path.display())]
    Aside {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// What is in it is not what this program writes.
    #[error("{} holds what can't be read: {detail}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What.
        detail: String,
    },
}

/// What the file says.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Saved {
    /// The node's number.
    pub(super) node: u64,
    pub(super) revision: u64,
    pub(super) epoch: u64,
    pub(super) instances: Vec<InstanceReport>,
    pub(super) holds: Vec<Held>,
    pub(super) stands: Vec<(Arc<AppVersion>, u32)>,
    pub(super) hosted: Vec<HostedReport>,
    pub(super) sessions: Vec<SavedSession>,
}

/// What the file says of applications and sessions.
pub(crate) struct SavedSessions {
    pub(crate) stands: Vec<(Arc<AppVersion>, u32)>,
    pub(crate) hosted: Vec<HostedReport>,
    pub(crate) sessions: Vec<SavedSession>,
}

impl Saved {
    pub(super) fn into_sessions(self) -> SavedSessions {
        SavedSessions { stands: self.stands, hosted: self.hosted, sessions: self.sessions }
    }
}

/// A step to be stored as a whole.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) revision: Option<u64>,
    pub(super) epoch: Option<u64>,
    pub(super) entries: Vec<Entry>,
}

/// The file.
pub struct NodeStore {
    path: PathBuf,
    conn: Mutex<Connection>,
    checkpoints: Checkpoints,
    saved: Mutex<Option<Saved>>,
}

impl NodeStore {
    /// Opens the file; makes it where there is none, for a node with the number `fresh`.
    ///
    /// # Errors
    /// When the file can neither be read nor put aside.
    pub fn open(path: &Path, fresh: u64) -> Result<NodeStore, NodeStoreError> {
        // 63 bits, as SQLite has them.
        let fresh = fresh >> 1;
        match NodeStore::read(path, fresh) {
            Ok(store) => Ok(store),
            Err(error) => {
                tracing::error!(%error, "this worker's memory of itself is lost: it is a new node from now on");
                for end in ["", "-wal", "-shm"] {
                    let file = PathBuf::from(format!("{}{end}", path.display()));
                    let aside = PathBuf::from(format!("{}{end}.damaged", path.display()));
                    match std::fs::rename(&file, &aside) {
                        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                            return Err(NodeStoreError::Aside { path: file, source });
                        }
                        _ => {}
                    }
                }
                NodeStore::read(path, fresh)
            }
        }
    }

    fn read(path: &Path, fresh: u64) -> Result<NodeStore, NodeStoreError> {
        let failed = |operation| {
            let path = path.to_owned();
            move |source| NodeStoreError::Sqlite { operation, path, source }
        };
        let mut conn = Connection::open(path).map_err(failed("open the node's state"))?;
        conn.busy_timeout(std::time::Duration::from_secs(5)).map_err(failed("open the node's state"))?;
        conn.execute_batch(SCHEMA).map_err(failed("open the node's state"))?;
        conn.execute("INSERT OR IGNORE INTO node VALUES (0, ?1, 0, 0)", [fresh]).map_err(failed("name the node"))?;
        let (node, revision, epoch) = conn
            .query_row("SELECT number, revision, epoch FROM node", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .map_err(failed("read the node's revision"))?;
        let content = Reading { conn: &conn, path };
        let saved = Saved {
            node,
            revision,
            epoch,
            instances: content.values("SELECT report, NULL, 0, NULL FROM instances", |report, (), _, _| report)?,
            holds: content.values(
                "SELECT spec, NULL, instances, schedule FROM holds",
                |spec, (), instances, schedule| {
                    let (version, schedule) = (Arc::<FunctionVersion>::new(spec), schedule == Some(1));
                    Held { version, instances, schedule }
                },
            )?,
            stands: content.values("SELECT spec, NULL, instances, NULL FROM stands", |spec, (), instances, _| {
                (Arc::<AppVersion>::new(spec), instances)
            })?,
            hosted: content.values("SELECT report, NULL, 0, NULL FROM hosted", |report, (), _, _| report)?,
            sessions: content.pairs(
                "SELECT report, terms, 0, close_by FROM sessions",
                |report, terms, _, close_by| SavedSession {
                    report,
                    terms,
                    close_by: close_by.map(Timestamp::from_millis),
                },
            )?,
        };
        let checkpoints = Checkpoints::new(path, &mut conn).map_err(failed("open the node's state"))?;
        Ok(NodeStore { path: path.to_owned(), conn: Mutex::new(conn), checkpoints, saved: Mutex::new(Some(saved)) })
    }

    /// What it held when it was opened; once.
    pub(super) fn take_saved(&self) -> Option<Saved> {
        self.saved.lock().take()
    }

    /// Writes a step. Blocks.
    pub(super) fn write(&self, step: &Step) -> Result<(), NodeStoreError> {
        let mut conn = self.conn.lock();
        let write = |conn: &mut Connection| -> rusqlite::Result<()> {
            let tx = conn.transaction()?;
            for entry in &step.entries {
                put(&tx, entry)?;
            }
            tx.prepare_cached("UPDATE node SET revision = coalesce(?1, revision), epoch = coalesce(?2, epoch)")?
                .execute(params![step.revision, step.epoch])?;
            tx.commit()
        };
        write(&mut conn).map_err(|source| NodeStoreError::Sqlite {
            operation: "write the node's state",
            path: self.path.clone(),
            source,
        })?;
        self.checkpoints.after_commit(&conn);
        Ok(())
    }
}

/// Writes one entry.
fn put(tx: &Transaction<'_>, entry: &Entry) -> rusqlite::Result<()> {
    if let Some(id) = entry.gone() {
        let table = if matches!(entry, Entry::Instance(_)) { "instances" } else { "hosted" };
        return tx.prepare_cached(&format!("DELETE FROM {table} WHERE id = ?1"))?.execute([id.to_string()]).map(drop);
    }
    match entry {
        Entry::Instance(of) => tx
            .prepare_cached("INSERT OR REPLACE INTO instances VALUES (?1, ?2)")?
            .execute(params![of.id.to_string(), text(of)?]),
        Entry::Hold(Held { version, instances, schedule }) => tx
            .prepare_cached("INSERT OR REPLACE INTO holds VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![name(&version.key()), instances, schedule, text(&**version)?]),
        Entry::Release(version) => tx.prepare_cached("DELETE FROM holds WHERE version = ?1")?.execute([name(version)]),
        Entry::Stand(app, instances) => tx
            .prepare_cached("INSERT OR REPLACE INTO stands VALUES (?1, ?2, ?3)")?
            .execute(params![name_of_app(&app.key), instances, text(&**app)?]),
        Entry::Configured(app) => tx
            .prepare_cached("UPDATE stands SET spec = ?2 WHERE app = ?1")?
            .execute(params![name_of_app(&app.key), text(&**app)?]),
        Entry::Unknown(app) => tx.prepare_cached("DELETE FROM stands WHERE app = ?1")?.execute([name_of_app(app)]),
        Entry::Hosted(of) => tx
            .prepare_cached("INSERT OR REPLACE INTO hosted VALUES (?1, ?2)")?
            .execute(params![of.id.to_string(), text(of)?]),
        Entry::Accepted(of) => tx
            .prepare_cached("INSERT OR REPLACE INTO sessions VALUES (?1, ?2, ?3, NULL)")?
            .execute(params![of.0.key.uid, text(&of.0)?, text(&of.1)?]),
        Entry::Session(of) => tx
            .prepare_cached("UPDATE sessions SET report = ?2 WHERE uid = ?1")?
            .execute(params![of.key.uid, text(&**of)?]),
        Entry::Close(uid, by) => {
            tx.prepare_cached("UPDATE sessions SET close_by = ?2 WHERE uid = ?1")?.execute(params![uid, by.millis()])
        }
        Entry::Forget(uid) => tx.prepare_cached("DELETE FROM sessions WHERE uid = ?1")?.execute([uid]),
    }
    .map(drop)
}

fn text<T: Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// A file that is being read.
struct Reading<'a> {
    conn: &'a Connection,
    path: &'a Path,
}

/// A row: one text that is JSON, another one where there is one, a count, and a number where there is one.
type Row = (String, Option<String>, u32, Option<i64>);

impl Reading<'_> {
    fn rows(&self, sql: &str) -> Result<Vec<Row>, NodeStoreError> {
        let read = || -> rusqlite::Result<Vec<Row>> {
            let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
            self.conn.prepare(sql)?.query_map([], row)?.collect()
        };
        read().map_err(|source| NodeStoreError::Sqlite {
            operation: "read the node's state",
            path: self.path.to_owned(),
            source,
        })
    }

    fn parse<T: DeserializeOwned>(&self, text: &str) -> Result<T, NodeStoreError> {
        serde_json::from_str(text)
            .map_err(|error| NodeStoreError::Content { path: self.path.to_owned(), detail: error.to_string() })
    }

    fn values<T: DeserializeOwned, V>(
        &self,
        sql: &str,
        make: impl Fn(T, (), u32, Option<i64>) -> V,
    ) -> Result<Vec<V>, NodeStoreError> {
        let value = |(one, _, count, number): Row| Ok(make(self.parse(&one)?, (), count, number));
        self.rows(sql)?.into_iter().map(value).collect()
    }

    fn pairs<T: DeserializeOwned, U: DeserializeOwned, V>(
        &self,
        sql: &str,
        make: impl Fn(T, U, u32, Option<i64>) -> V,
    ) -> Result<Vec<V>, NodeStoreError> {
        let value = |(one, other, count, number): Row| {
            Ok(make(self.parse(&one)?, self.parse(&other.unwrap_or_default())?, count, number))
        };
        self.rows(sql)?.into_iter().map(value).collect()
    }
}

/// The key of a version of an application in the file.
fn name_of_app(app: &AppKey) -> String {
    format!("{}/{}/{}/{:010}", app.tenant, app.application, app.uid, app.version)
}

/// The key of a version in the file.
fn name(version: &VersionKey) -> String {
    format!("{:016x}/{:010}", version.generation, version.version)
}

#[cfg(test)]
mod tests {
    use lyra_types::InstanceId;
    use lyra_wire::worker::InstanceState;

    use super::*;
    use crate::fixtures::version;

    fn report(number: u128) -> InstanceReport {
        let id = InstanceId::from_parts(0, number);
        InstanceReport { id, version: version("t", 1, 1).key(), state: InstanceState::Standby, memory: 7 }
    }

    #[test]
    fn what_was_written_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.db");
        let store = NodeStore::open(&path, 42).unwrap();
        let first = store.take_saved().unwrap();
        assert_eq!((first.revision, first.epoch, first.instances.len()), (0, 0, 0));
        let held = Held { version: Arc::new(version("t", 1, 1)), instances: 2, schedule: true };
        let entries = vec![Entry::Instance(report(1)), Entry::Instance(report(2)), Entry::Hold(held.clone())];
        store.write(&Step { revision: Some(3), epoch: Some(9), entries }).unwrap();
        let gone = InstanceReport { state: InstanceState::Terminated, ..report(1) };
        store.write(&Step { revision: Some(4), epoch: None, entries: vec![Entry::Instance(gone)] }).unwrap();
        drop(store);
        let again = NodeStore::open(&path, 77).unwrap().take_saved().unwrap();
        assert_eq!((again.node, again.revision, again.epoch), (first.node, 4, 9), "the same node");
        assert_eq!((again.instances, again.holds), (vec![report(2)], vec![held]));
    }

    #[test]
    fn a_damaged_file_is_put_aside_and_the_worker_is_a_new_node() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.db");
        std::fs::write(&path, b"this is no database, however long it is. ".repeat(200)).unwrap();
        let saved = NodeStore::open(&path, 8).unwrap().take_saved().unwrap();
        assert_eq!((saved.node, saved.revision), (4, 0));
        assert!(dir.path().join("node.db.damaged").exists());
    }
}
