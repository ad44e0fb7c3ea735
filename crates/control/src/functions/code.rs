//! Code that no version uses any more.
//!
//! A deploy puts its code before the version that uses it. While code is being deleted, no deploy is between the two
//! (`code_gate`), and the table shows every version that was made before: so what the table does not use, nobody uses.

use std::collections::HashSet;

use lyra_types::Result;
use lyra_types::function::Digest;

use super::{Functions, SHOWN, keys};

impl Functions {
    /// Deletes those of the blobs that no version uses. What can't be deleted now is left to [`Functions::sweep_code`].
    pub(super) async fn drop_unused(&self, codes: Vec<Digest>) {
        if let Err(error) = self.try_drop_unused(codes).await {
            tracing::warn!(%error, "unused code is left");
        }
    }

    async fn try_drop_unused(&self, codes: Vec<Digest>) -> Result<()> {
        let _no_deploy = self.code_gate.write().await;
        let revision = self.objects.list(keys::ALL, 1, None).await?.revision;
        if tokio::time::timeout(SHOWN, self.table.reaches(revision)).await.is_err() {
            tracing::warn!("the route table is behind; unused code is left for now");
            return Ok(());
        }
        let routes = self.table.all();
        let used: HashSet<&Digest> = routes.iter().flat_map(|route| route.versions.values()).map(|v| &v.code).collect();
        let mut deleted = 0;
        for code in codes.iter().filter(|code| !used.contains(code)) {
            deleted += usize::from(self.blobs.delete(code).await?);
        }
        if deleted > 0 {
            tracing::debug!(deleted, "unused code deleted");
        }
        Ok(())
    }

    /// Deletes all code that no version uses: of a process that was killed between code and version.
    pub(super) async fn sweep_code(&self) {
        match self.blobs.list().await {
            Ok(codes) => self.drop_unused(codes).await,
            Err(error) => tracing::warn!(%error, "code can't be listed"),
        }
    }
}
