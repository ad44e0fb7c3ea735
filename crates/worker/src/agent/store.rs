//! What a worker must remember of itself over a restart, in a SQLite file of its own: which node it is, the revision of its
//! workload, the highest epoch that it has seen, what it was told to hold up, and its instances.
//!
//! What must hold: a change is in the file before it is told. The file survives `kill -9`; after a loss of power the last
//! changes may be missing, which is no harm, since then all instances are gone and the worker tells all anew. A file
//! that can't be read is put aside: the worker is then a new node.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lyra_types::function::VersionKey;
use lyra_types::{FunctionVersion, InstanceId};
use lyra_wire::registry::InstanceReport;
use parking_lot::Mutex;
use rusqlite::{Connection, params};

const SCHEMA: &str = "
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS node (id INTEGER PRIMARY KEY CHECK (id = 0), number INTEGER NOT NULL, revision INTEGER NOT NULL,
                                 epoch INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS instances (id TEXT PRIMARY KEY, report TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS holds (version TEXT PRIMARY KEY, instances INTEGER NOT NULL, schedule INTEGER NOT NULL,
                                  spec TEXT NOT NULL) WITHOUT ROWID;
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

/// A version that the worker was told to hold up.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Held {
    pub(crate) version: Arc<FunctionVersion>,
    pub(crate) instances: u32,
    pub(crate) schedule: bool,
}

/// What the file says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Saved {
    /// The node's number.
    pub(super) node: u64,
    pub(super) revision: u64,
    pub(super) epoch: u64,
    pub(super) instances: Vec<InstanceReport>,
    pub(super) holds: Vec<Held>,
}

/// A step to be stored as a whole.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) revision: Option<u64>,
    pub(super) epoch: Option<u64>,
    pub(super) put: Vec<InstanceReport>,
    pub(super) removed: Vec<InstanceId>,
    pub(super) hold: Option<Held>,
    pub(super) released: Vec<VersionKey>,
}

/// The file.
pub struct NodeStore {
    path: PathBuf,
    conn: Mutex<Connection>,
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
        let conn = Connection::open(path).map_err(failed("open the node's state"))?;
        conn.busy_timeout(std::time::Duration::from_secs(5)).map_err(failed("open the node's state"))?;
        conn.execute_batch(SCHEMA).map_err(failed("open the node's state"))?;
        conn.execute("INSERT OR IGNORE INTO node VALUES (0, ?1, 0, 0)", [fresh]).map_err(failed("name the node"))?;
        let (node, revision, epoch) = conn
            .query_row("SELECT number, revision, epoch FROM node", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .map_err(failed("read the node's revision"))?;
        let texts = |sql| -> Result<Vec<(String, u32, bool)>, rusqlite::Error> {
            conn.prepare(sql)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
        };
        let content =
            |error: serde_json::Error| NodeStoreError::Content { path: path.to_owned(), detail: error.to_string() };
        let instances = texts("SELECT report, 0, 0 FROM instances").map_err(failed("read the node's instances"))?;
        let instances = instances.into_iter().map(|(text, ..)| serde_json::from_str(&text).map_err(content));
        let holds = texts("SELECT spec, instances, schedule FROM holds").map_err(failed("read the node's holds"))?;
        let holds = holds.into_iter().map(|(spec, instances, schedule)| {
            let version = Arc::new(serde_json::from_str::<FunctionVersion>(&spec).map_err(content)?);
            Ok(Held { version, instances, schedule })
        });
        let saved = Saved {
            node,
            revision,
            epoch,
            instances: instances.collect::<Result<_, _>>()?,
            holds: holds.collect::<Result<_, NodeStoreError>>()?,
        };
        Ok(NodeStore { path: path.to_owned(), conn: Mutex::new(conn), saved: Mutex::new(Some(saved)) })
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
            let text = |value: serde_json::Result<String>| {
                value.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
            };
            for report in &step.put {
                tx.prepare_cached("INSERT OR REPLACE INTO instances VALUES (?1, ?2)")?
                    .execute(params![report.id.to_string(), text(serde_json::to_string(report))?])?;
            }
            for id in &step.removed {
                tx.prepare_cached("DELETE FROM instances WHERE id = ?1")?.execute([id.to_string()])?;
            }
            if let Some(Held { version, instances, schedule }) = &step.hold {
                tx.prepare_cached("INSERT OR REPLACE INTO holds VALUES (?1, ?2, ?3, ?4)")?.execute(params![
                    name(&version.key()),
                    instances,
                    schedule,
                    text(serde_json::to_string(version))?
                ])?;
            }
            for version in &step.released {
                tx.prepare_cached("DELETE FROM holds WHERE version = ?1")?.execute([name(version)])?;
            }
            tx.prepare_cached("UPDATE node SET revision = coalesce(?1, revision), epoch = coalesce(?2, epoch)")?
                .execute(params![step.revision, step.epoch])?;
            tx.commit()
        };
        write(&mut conn).map_err(|source| NodeStoreError::Sqlite {
            operation: "write the node's state",
            path: self.path.clone(),
            source,
        })
    }
}

/// The key of a version in the file.
fn name(version: &VersionKey) -> String {
    format!("{:016x}/{:010}", version.generation, version.version)
}

#[cfg(test)]
mod tests {
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
        let put = vec![report(1), report(2)];
        let step = Step { revision: Some(3), epoch: Some(9), put, hold: Some(held.clone()), ..Step::default() };
        store.write(&step).unwrap();
        store.write(&Step { revision: Some(4), removed: vec![report(1).id], ..Step::default() }).unwrap();
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
