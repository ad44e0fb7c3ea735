//! [`SqliteRuns`] keeps the promises.

use async_trait::async_trait;
use lyra_store::{Runs, SqliteRuns};

use super::Subject;

struct Sqlite {
    dir: tempfile::TempDir,
    runs: Option<SqliteRuns>,
}

impl Sqlite {
    fn open(&mut self) {
        self.runs = Some(SqliteRuns::open(&self.dir.path().join("runs.db"), None).unwrap());
    }
}

#[async_trait]
impl Subject for Sqlite {
    async fn start() -> Sqlite {
        let mut sqlite = Sqlite { dir: tempfile::tempdir().unwrap(), runs: None };
        sqlite.open();
        sqlite
    }

    fn runs(&self) -> &dyn Runs {
        self.runs.as_ref().unwrap()
    }

    async fn reopen(&mut self) {
        self.runs = None;
        self.open();
    }

    async fn crash(&mut self) {
        self.reopen().await;
    }
}

keeps_the_promises!(Sqlite);
