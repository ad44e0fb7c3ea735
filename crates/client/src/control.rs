//! The control processes.

use lyra_types::api::ControlView;

use crate::{Client, Listing, Result};

impl Client {
    /// Control processes by name, `limit` at most.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn control(&self, limit: usize) -> Result<Listing<ControlView>> {
        self.list(self.at(&["v1", "control"]), &[], limit).await
    }
}
