//! The scaler.

use lyra_types::api::{ScalerChange, ScalerDecision, ScalerView};
use reqwest::Method;

use crate::{Answer, Client, Listing, Result};

impl Client {
    /// How the scaler stands.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn scaler(&self) -> Result<Answer<ScalerView>> {
        self.fetch(self.request(Method::GET, self.at(&["v1", "scaler"]))).await
    }

    /// The last changes that it has decided on, newest first, `limit` at most.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn scaler_history(&self, limit: usize) -> Result<Listing<ScalerDecision>> {
        self.list(self.at(&["v1", "scaler", "history"]), &[], limit).await
    }

    /// Asks something of every scaler, over its settings.
    ///
    /// # Errors
    /// `invalid_field` for bounds that can't be kept.
    pub async fn steer_scaler(&self, change: &ScalerChange) -> Result<Answer<ScalerView>> {
        self.fetch(self.request(Method::PATCH, self.at(&["v1", "scaler"])).json(change)).await
    }
}
