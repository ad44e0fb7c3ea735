//! Workflows: deploy, show, list, delete.

use lyra_types::WorkflowName;
use lyra_types::api::workflows::{Made, NewWorkflow, WorkflowMemberView};
use lyra_types::workflow::{Workflow, WorkflowVersion};
use reqwest::Method;

use crate::{Answer, Client, Listing, Result};

impl Client {
    /// Makes a workflow or a new version of it.
    ///
    /// # Errors
    /// `invalid_field` with the place of each fault of the document or the mapping.
    pub async fn deploy_workflow(&self, workflow: &NewWorkflow) -> Result<Answer<Made>> {
        self.fetch(self.request(Method::POST, self.at(&["v1", "workflows"])).json(workflow)).await
    }

    /// Workflows by name, `limit` at most.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn workflows(&self, limit: usize) -> Result<Listing<Workflow>> {
        self.list(self.at(&["v1", "workflows"]), &[], limit).await
    }

    /// Processes that run workflows by name, `limit` at most.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn workflow_members(&self, limit: usize) -> Result<Listing<WorkflowMemberView>> {
        self.list(self.at(&["v1", "workflow-members"]), &[], limit).await
    }

    /// A version of a workflow, the newest where none is named.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn workflow(&self, name: &WorkflowName, version: Option<u64>) -> Result<Answer<WorkflowVersion>> {
        let url = match version {
            None => self.at(&["v1", "workflows", name.as_str()]),
            Some(version) => self.at(&["v1", "workflows", name.as_str(), "versions", &version.to_string()]),
        };
        self.fetch(self.request(Method::GET, url)).await
    }

    /// Deletes a workflow with its versions and schedule.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn delete_workflow(&self, name: &WorkflowName) -> Result<()> {
        let url = self.at(&["v1", "workflows", name.as_str()]);
        self.send(self.request(Method::DELETE, url)).await.map(drop)
    }
}
