//! [`SqliteObjects`] keeps the promises.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_store::objects::{Change, History, Txn};
use lyra_store::{Objects, SqliteObjects};

use super::Subject;

struct Sqlite {
    dir: tempfile::TempDir,
    store: Option<Arc<SqliteObjects>>,
}

/// Revisions that are kept.
const HISTORY: u64 = 200;

impl Sqlite {
    fn open(&mut self) {
        let history = History { revisions: HISTORY };
        let store = SqliteObjects::open(&self.dir.path().join("objects.db"), history, None).expect("it can be opened");
        self.store = Some(Arc::new(store));
    }
}

#[async_trait]
impl Subject for Sqlite {
    async fn start() -> Sqlite {
        let mut sqlite = Sqlite { dir: tempfile::tempdir().expect("a directory"), store: None };
        sqlite.open();
        sqlite
    }

    fn store(&self) -> Arc<dyn Objects> {
        Arc::clone(self.store.as_ref().expect("it is open")) as Arc<dyn Objects>
    }

    async fn crash(&mut self) {
        // What is on disk is what an acknowledgement promises; the tests of the program kill the process.
        self.store = None;
        self.open();
    }

    async fn forget_history(&self) {
        for _ in 0..HISTORY * 2 + 1 {
            let changes = vec![Change::Put("z".into(), Bytes::new())];
            self.store().txn(Txn { checks: Vec::new(), changes }).await.expect("written");
        }
    }
}

keeps_the_promises!(Sqlite);
