//! Destinations: who hears that a job or a run has ended, and the deliveries that tell them.
//!
//! A delivery by HTTP is signed as [Standard Webhooks](https://github.com/standard-webhooks/standard-webhooks) has it. Here are the
//! words; who may be called, and when again, is decided elsewhere.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::name::Qualifier;
use crate::{Code, Error, JobId, Result, RunId, Secret, Timestamp};

/// Longest URL of a destination, in bytes.
pub const MAX_URL: usize = 2_048;
/// What the text of a secret begins with; base64 follows.
pub const SECRET_PREFIX: &str = "whsec_";
/// Tries of a delivery whose answers are shown.
pub const KEPT_TRIES: usize = 20;

/// Where to send word: a URL, or a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DestinationRequest {
    /// `http` or `https`; called by POST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What calls of the URL are signed with: `whsec_` and 24 to 64 bytes in base64. Where none is given one is made, and shown in the
    /// answer, this once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// The function that gets the message as its event, as a job: `g`, `g@live`, `g@3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
}

/// Who hears of the jobs of a function, or of the runs of a workflow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DestinationsRequest {
    /// Hears of jobs or runs that succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_success: Option<DestinationRequest>,
    /// Hears of those that ended otherwise: failed, timed out, dead or cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<DestinationRequest>,
}

impl DeliveryView {
    /// The function or the workflow that it tells of.
    pub fn of(&self) -> &str {
        self.function.as_deref().or(self.workflow.as_deref()).unwrap_or_default()
    }
}

impl DestinationRequest {
    /// Checks what can be told without a resolver; `field` is what it is called.
    ///
    /// # Errors
    /// [`Code::InvalidField`] with the field at fault.
    pub fn check(&self, field: &str) -> Result<()> {
        let bad = |part: &str, reason: &str| Err(Error::field(Code::InvalidField, format!("{field}.{part}"), reason));
        match (&self.url, &self.function) {
            (Some(url), None) if url.len() > MAX_URL => bad("url", "is longer than 2048 bytes"),
            (Some(_), None) => Ok(()),
            (None, Some(_)) if self.secret.is_some() => bad("secret", "is for a url: a function is not signed for"),
            (None, Some(function)) => Qualifier::split(function)
                .map(drop)
                .map_err(|error| Error::field(Code::InvalidField, format!("{field}.function"), error.detail)),
            (None, None) | (Some(_), Some(_)) => bad("url", "give url or function, one of them"),
        }
    }
}

impl DestinationsRequest {
    /// Checks both.
    ///
    /// # Errors
    /// [`Code::InvalidField`] with the field at fault.
    pub fn check(&self) -> Result<()> {
        if self.on_success.is_none() && self.on_failure.is_none() {
            return Err(Error::field(Code::InvalidField, "on_success", "give on_success, on_failure or both"));
        }
        self.on_success.as_ref().map_or(Ok(()), |one| one.check("on_success"))?;
        self.on_failure.as_ref().map_or(Ok(()), |one| one.check("on_failure"))
    }
}

/// A destination as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DestinationView {
    /// The URL that is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The function that gets the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The secret that was made just now; never shown again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
}

/// Who hears of the jobs of a function, or of the runs of a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DestinationsView {
    /// The function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Or the workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// Hears of jobs or runs that succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_success: Option<DestinationView>,
    /// Hears of those that ended otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<DestinationView>,
    /// When they were put.
    pub updated_at: Timestamp,
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryStatus {
    /// It waits for its first or its next try.
    Pending,
    /// The other side has it.
    Delivered,
    /// Its tries are used up; it is tried again when somebody asks for that.
    Failed,
}

impl DeliveryStatus {
    /// Every status.
    pub const ALL: [DeliveryStatus; 3] = [DeliveryStatus::Pending, DeliveryStatus::Delivered, DeliveryStatus::Failed];

    /// The word in JSON and in queries.
    pub const fn as_str(self) -> &'static str {
        match self {
            DeliveryStatus::Pending => "pending",
            DeliveryStatus::Delivered => "delivered",
            DeliveryStatus::Failed => "failed",
        }
    }

    /// The status of that word.
    pub fn parse(text: &str) -> Option<DeliveryStatus> {
        DeliveryStatus::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// One try of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeliveryTry {
    /// When it began.
    pub at: Timestamp,
    /// How long it took, in ms.
    pub duration_ms: u64,
    /// HTTP status of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// First bytes of the answer's body, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// Why there was no good answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeliveryView {
    /// Its id, which is the `webhook-id` of each try.
    pub id: String,
    /// What it tells: `job.succeeded`, `job.failed`, `run.succeeded`, `run.failed`, `run.cancelled`, `run.timed_out` or `webhook.test`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The function whose job has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub job: Option<JobId>,
    /// The workflow whose run has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// The run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub run: Option<RunId>,
    /// Where it goes; without its secret.
    pub to: DestinationView,
    /// Where it stands.
    pub status: DeliveryStatus,
    /// Tries so far, since it was made or asked for again.
    pub attempts: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// When the next try may begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
    /// When it was delivered or given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// The job that it started, where it went to a function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub started_job: Option<JobId>,
    /// The last tries, newest first.
    pub log: Vec<DeliveryTry>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_a_url_or_a_function() {
        let read = |text: &str| serde_json::from_str::<DestinationsRequest>(text).expect("a request").check();
        let field = |text: &str| read(text).expect_err(text).errors[0].field.clone();
        assert_eq!(read(r#"{"on_success":{"url":"https://example.org/"},"on_failure":{"function":"g@live"}}"#), Ok(()));
        assert_eq!(field("{}"), "on_success");
        assert_eq!(field(r#"{"on_failure":{}}"#), "on_failure.url");
        assert_eq!(field(r#"{"on_failure":{"url":"https://a","function":"g"}}"#), "on_failure.url");
        assert_eq!(field(r#"{"on_failure":{"function":"G"}}"#), "on_failure.function");
        assert_eq!(field(r#"{"on_failure":{"function":"g","secret":"whsec_x"}}"#), "on_failure.secret");
    }
}
