//! Triggers by events: make, show, list, delete, pause, resume, post events.

use bytes::Bytes;
use lyra_types::TriggerName;
use lyra_types::trigger::{TriggerPosted, TriggerRequest, TriggerView};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;

use crate::{Answer, Client, Listing, Result};

impl Client {
    fn event_trigger_url(&self, name: &TriggerName, rest: &[&str]) -> reqwest::Url {
        self.at(&[&["v1", "triggers", name.as_str()], rest].concat())
    }

    /// Triggers by name, `limit` at most.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn event_triggers(&self, limit: usize) -> Result<Listing<TriggerView>> {
        self.list(self.at(&["v1", "triggers"]), &[], limit).await
    }

    /// A trigger: how it stands and what it has done.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn event_trigger(&self, name: &TriggerName) -> Result<Answer<TriggerView>> {
        self.fetch(self.request(Method::GET, self.event_trigger_url(name, &[]))).await
    }

    /// Makes or replaces a trigger.
    ///
    /// # Errors
    /// `invalid_field` with the field at fault.
    pub async fn put_event_trigger(&self, name: &TriggerName, trigger: &TriggerRequest) -> Result<Answer<TriggerView>> {
        self.fetch(self.request(Method::PUT, self.event_trigger_url(name, &[])).json(trigger)).await
    }

    /// Deletes a trigger.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn delete_event_trigger(&self, name: &TriggerName) -> Result<()> {
        self.send(self.request(Method::DELETE, self.event_trigger_url(name, &[]))).await.map(drop)
    }

    /// Pauses or resumes a trigger.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn pause_event_trigger(&self, name: &TriggerName, paused: bool) -> Result<Answer<TriggerView>> {
        let verb = if paused { "pause" } else { "resume" };
        self.fetch(self.request(Method::POST, self.event_trigger_url(name, &[verb]))).await
    }

    /// Posts events, a JSON object or an array of them, under a key where there is one.
    ///
    /// # Errors
    /// `conflict` where the trigger takes none.
    pub async fn post_events(
        &self,
        name: &TriggerName,
        events: Bytes,
        key: Option<&str>,
    ) -> Result<Answer<TriggerPosted>> {
        let mut request = self.request(Method::POST, self.event_trigger_url(name, &["events"]));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.fetch(request.header(CONTENT_TYPE, "application/json").body(events)).await
    }
}
