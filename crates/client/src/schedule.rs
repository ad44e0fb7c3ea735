//! Schedules: make, show, list, delete, pause, resume, run now.

use lyra_types::ScheduleName;
use lyra_types::schedule::{ScheduleRequest, ScheduleRun, ScheduleView};
use reqwest::Method;

use crate::{Answer, Client, Listing, Result};

impl Client {
    fn schedule_url(&self, name: &ScheduleName, rest: &[&str]) -> reqwest::Url {
        self.at(&[&["v1", "schedules", name.as_str()], rest].concat())
    }

    /// Schedules by name, `limit` at most.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn schedules(&self, limit: usize) -> Result<Listing<ScheduleView>> {
        self.list(self.at(&["v1", "schedules"]), &[], limit).await
    }

    /// A schedule with its next times and last firings.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn schedule(&self, name: &ScheduleName) -> Result<Answer<ScheduleView>> {
        self.fetch(self.request(Method::GET, self.schedule_url(name, &[]))).await
    }

    /// Makes or replaces a schedule.
    ///
    /// # Errors
    /// `invalid_field` with the field at fault.
    pub async fn put_schedule(&self, name: &ScheduleName, schedule: &ScheduleRequest) -> Result<Answer<ScheduleView>> {
        self.fetch(self.request(Method::PUT, self.schedule_url(name, &[])).json(schedule)).await
    }

    /// Deletes a schedule.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn delete_schedule(&self, name: &ScheduleName) -> Result<()> {
        self.send(self.request(Method::DELETE, self.schedule_url(name, &[]))).await.map(drop)
    }

    /// Pauses or resumes a schedule.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn pause_schedule(&self, name: &ScheduleName, paused: bool) -> Result<Answer<ScheduleView>> {
        let verb = if paused { "pause" } else { "resume" };
        self.fetch(self.request(Method::POST, self.schedule_url(name, &[verb]))).await
    }

    /// Starts a job of a schedule now.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn run_schedule(&self, name: &ScheduleName) -> Result<Answer<ScheduleRun>> {
        self.fetch(self.request(Method::POST, self.schedule_url(name, &["run"]))).await
    }
}
