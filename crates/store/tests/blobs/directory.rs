//! [`DirectoryBlobs`] keeps the promises.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use lyra_store::{Blobs, DirectoryBlobs, Shelf};
use lyra_types::function::Digest;

use super::Subject;

struct Directory {
    dir: tempfile::TempDir,
    blobs: Arc<DirectoryBlobs>,
}

#[async_trait]
impl Subject for Directory {
    async fn start() -> Directory {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Arc::new(DirectoryBlobs::open(dir.path()).unwrap());
        Directory { dir, blobs }
    }

    fn blobs(&self) -> Arc<dyn Blobs> {
        Arc::clone(&self.blobs) as Arc<dyn Blobs>
    }

    async fn crash(&mut self) {
        self.blobs = Arc::new(DirectoryBlobs::open(self.dir.path()).unwrap());
    }

    fn file(&self, digest: &Digest) -> PathBuf {
        self.dir.path().join(&digest.0[..2]).join(&digest.0)
    }
}

keeps_the_promises!(Directory);

#[tokio::test]
async fn a_shelf_sees_nothing_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let open = |shelf| Arc::new(DirectoryBlobs::open_shelf(dir.path(), shelf).unwrap());
    super::shelves_are_apart(open(Shelf::Code), open(Shelf::Values)).await;
}
