//! The dead-letter list: jobs whose tries are used up.

use std::collections::BTreeMap;

use lyra_types::JobId;
use lyra_types::api::JobView;
use reqwest::Method;
use serde::Deserialize;

use crate::{Answer, Client, Listing, Result};

/// How many jobs a command on the whole list has changed: the one number of its answer, whose name says what
/// was done (`{"redriven":3}`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "BTreeMap<String, u64>")]
pub struct Affected(pub u64);

impl TryFrom<BTreeMap<String, u64>> for Affected {
    type Error = &'static str;
    fn try_from(answer: BTreeMap<String, u64>) -> std::result::Result<Affected, &'static str> {
        let mut numbers = answer.into_values();
        match (numbers.next(), numbers.next()) {
            (Some(count), None) => Ok(Affected(count)),
            _ => Err("an object with one number"),
        }
    }
}

impl Client {
    /// Dead jobs, newest first, `limit` at most.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn dead_letters(&self, limit: usize) -> Result<Listing<JobView>> {
        self.list(self.at(&["v1", "dead-letters"]), &[], limit).await
    }

    /// One dead job.
    ///
    /// # Errors
    /// `not_found`, also for a job that is not dead.
    pub async fn dead_letter(&self, id: JobId) -> Result<Answer<JobView>> {
        self.fetch(self.request(Method::GET, self.at(&["v1", "dead-letters", &id.to_string()]))).await
    }

    /// Puts a dead job back in the queue with its tries counted from zero.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn redrive(&self, id: JobId) -> Result<Answer<JobView>> {
        let url = self.at(&["v1", "dead-letters", &id.to_string(), "redrive"]);
        self.fetch(self.request(Method::POST, url)).await
    }

    /// Puts every dead job back in the queue. The answer is an object that says how many.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn redrive_all(&self) -> Result<Answer<Affected>> {
        self.fetch(self.request(Method::POST, self.at(&["v1", "dead-letters", "redrive"]))).await
    }

    /// Deletes every dead job. The answer is an object that says how many.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn purge_all(&self) -> Result<Answer<Affected>> {
        self.fetch(self.request(Method::DELETE, self.at(&["v1", "dead-letters"]))).await
    }

    /// Deletes one dead job.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn purge(&self, id: JobId) -> Result<()> {
        let url = self.at(&["v1", "dead-letters", &id.to_string()]);
        self.send(self.request(Method::DELETE, url)).await.map(drop)
    }
}
