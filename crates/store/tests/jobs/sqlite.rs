//! [`SqliteJobs`] keeps the promises.

use async_trait::async_trait;
use lyra_store::{Jobs, SqliteJobs};

use super::Subject;

struct Sqlite {
    dir: tempfile::TempDir,
    jobs: Option<SqliteJobs>,
}

impl Sqlite {
    fn open(&mut self) {
        self.jobs = Some(SqliteJobs::open(&self.dir.path().join("jobs.db"), None).unwrap());
    }
}

#[async_trait]
impl Subject for Sqlite {
    async fn start() -> Sqlite {
        let mut sqlite = Sqlite { dir: tempfile::tempdir().unwrap(), jobs: None };
        sqlite.open();
        sqlite
    }

    fn jobs(&self) -> &dyn Jobs {
        self.jobs.as_ref().unwrap()
    }

    async fn reopen(&mut self) {
        self.jobs = None;
        self.open();
    }

    async fn crash(&mut self) {
        self.reopen().await;
    }

    async fn renew(&mut self) {
        *self = Sqlite::start().await;
    }

    async fn payloads(&self) -> usize {
        let file = rusqlite::Connection::open(self.dir.path().join("jobs.db")).unwrap();
        file.query_row("SELECT count(*) FROM payloads", [], |row| row.get(0)).unwrap()
    }
}

keeps_the_promises!(Sqlite, 64);
