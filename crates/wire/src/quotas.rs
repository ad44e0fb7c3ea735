//! What gateways ask the control role about quotas, and how several of them keep one limit together.
//!
//! A limit of calls is shared out: each gateway, and whatever runs jobs, is a *member* that holds a share of it and lets in no more than
//! that. Each [`PERIOD`] a member *claims*: it says what it was asked for, and that it has put the answer before into force. The answer
//! says what it may have from then on. A member that is not heard of for a lease has no share any more.
//!
//! What must hold, while members and the leader hear each other: the shares that may be in use never come to more than the limit. So a
//! share grows only once those of others, by their own word, have shrunk.

use std::time::Duration;

use async_trait::async_trait;
use lyra_types::api::{Page, QuotaView};
use lyra_types::quota::{Quota, QuotaKey};
use lyra_types::{Result, Timestamp};
use serde::{Deserialize, Serialize};

use crate::control::PageQuery;

/// How often a member claims. Sooner where somebody waits for a larger share.
pub const PERIOD: Duration = Duration::from_millis(250);

/// How often a member claims that knows of no quota: so long it may take until it hears of the first one.
pub const IDLE: Duration = Duration::from_secs(1);

/// A part of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Share {
    /// Calls in a million seconds.
    pub rate: Option<u64>,
    /// Calls at once, in thousandths.
    pub burst: Option<u64>,
    /// Calls at a time.
    pub concurrency: Option<u64>,
    /// MiB of calls at a time.
    pub memory_mb: Option<u64>,
}

/// What a member was asked for under one quota since it claimed before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// Under which.
    pub key: QuotaKey,
    /// Calls in a million seconds, also those that were refused.
    pub rate: u64,
    /// Most calls at a time that there would have been.
    pub concurrency: u64,
    /// The same in MiB.
    pub memory_mb: u64,
    /// The largest call, in MiB: a smaller share is good for nothing.
    pub largest_mb: u64,
    /// Calls that run now.
    pub running: u64,
    /// Their memory, in MiB.
    pub running_mb: u64,
}

/// A member's claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Who: a number drawn at each start of a process.
    pub member: u64,
    /// It makes nobody wait, so it gets little ahead of what it wants, and of rates nothing.
    pub patient: bool,
    /// Session and number of the answer that is in force there; `None`: none is.
    pub have: Option<(u64, u64)>,
    /// All that it holds; needed where the leader does not know that.
    pub holds: Option<Vec<(QuotaKey, Share)>>,
    /// What it was asked for. What is not named was not.
    pub wants: Vec<Want>,
}

/// A limit of calls, as one member shall hold it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// Whose.
    pub key: QuotaKey,
    /// The whole.
    pub quota: Quota,
    /// The member's part.
    pub share: Share,
    /// No processor time is left until then.
    pub spent_until: Option<Timestamp>,
    /// There are other members that hold parts.
    pub shared: bool,
}

/// The answer to a claim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shares {
    /// Of the leader's term.
    pub session: u64,
    /// Of this answer.
    pub number: u64,
    /// The leader does not know what the member holds: nothing else is said, and the member claims again at once, with
    /// [`Claim::holds`].
    pub tell_all: bool,
    /// `limits` are all that there are; else those that have changed since the answer before.
    pub whole: bool,
    /// Limits of calls.
    pub limits: Vec<Limit>,
    /// Those that are there no more.
    pub gone: Vec<QuotaKey>,
}

/// Where control keeps a quota that was set, as JSON. The workflow role reads those of tenants: both use one store of objects.
pub fn quota_key(of: &QuotaKey) -> String {
    let tenant = &of.tenant;
    match &of.function {
        None => format!("{QUOTAS}{tenant}/own"),
        Some(function) => format!("{QUOTAS}{tenant}/functions/{function}"),
    }
}

/// What the keys of all quotas start with.
pub const QUOTAS: &str = "quotas/";

/// Quotas.
#[async_trait]
pub trait Quotas: Send + Sync + 'static {
    /// What is in force, and what counts against it; of a tenant with those of its functions.
    ///
    /// # Errors
    /// [`lyra_types::Code::NotFound`] where there is no such tenant, or nobody has set a quota of that function.
    async fn quota(&self, key: &QuotaKey) -> Result<QuotaView>;

    /// Quotas that were set, by tenant and function.
    async fn quotas(&self, page: PageQuery) -> Result<Page<QuotaView>>;

    /// Sets a quota in place of the one before.
    ///
    /// # Errors
    /// [`lyra_types::Code::InvalidField`]; [`lyra_types::Code::NotFound`] where there is no such tenant.
    async fn set_quota(&self, key: &QuotaKey, quota: Quota) -> Result<QuotaView>;

    /// Takes a quota back: that of the settings is in force then.
    ///
    /// # Errors
    /// [`lyra_types::Code::NotFound`] where none was set.
    async fn remove_quota(&self, key: &QuotaKey) -> Result<()>;

    /// Claims a member's shares. Only the leader answers.
    ///
    /// # Errors
    /// [`lyra_types::Code::Unavailable`] of a process that does not lead.
    async fn share(&self, claim: Claim) -> Result<Shares>;
}
