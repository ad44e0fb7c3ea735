//! Ends of runs where workflows run apart from control: control is asked only where somebody wants to hear of them, so that all
//! other runs start while it is away.

use std::sync::Arc;

use async_trait::async_trait;
use lyra_store::Objects;
use lyra_types::delivery::DestinationsRequest;
use lyra_types::workflow::Run;
use lyra_types::{Result, TenantName, Timestamp, WorkflowName};
use lyra_wire::hooks::{RunEnds, ThroughControl, workflow_destinations_key};

/// Control elsewhere, as who has somebody hear of the ends of runs.
pub(crate) struct ControlElsewhere {
    /// Where control keeps who hears of the runs of a workflow.
    pub(crate) objects: Arc<dyn Objects>,
    pub(crate) control: ThroughControl,
}

#[async_trait]
impl RunEnds for ControlElsewhere {
    async fn notice(
        &self,
        tenant: &TenantName,
        workflow: &WorkflowName,
        own: Option<&DestinationsRequest>,
    ) -> Result<Option<Arc<str>>> {
        if own.is_none() && self.objects.get(&workflow_destinations_key(tenant, workflow)).await?.is_none() {
            return Ok(None);
        }
        self.control.notice(tenant, workflow, own).await
    }

    async fn ended(&self, run: &Run, ended_at: Timestamp, notice: &str) -> Result<()> {
        self.control.ended(run, ended_at, notice).await
    }
}
