//! Bodies about the scaler: how many workers there shall be, and why.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;

/// What the scaler goes by, as of one look.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct ScalerLook {
    /// Jobs and calls that wait.
    pub queued: u64,
    /// Jobs and calls that run.
    pub running: u64,
    /// Workers that there are, or are being made.
    pub workers: u32,
    /// Of them: those that take calls.
    pub ready: u32,
    /// Estimate of how long what is accepted now waits, in ms.
    pub wait_ms: u64,
    /// Share of the ready workers' places and processors that is in use: 0 to 1.
    pub utilisation: f64,
}

/// One decision of the scaler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ScalerDecision {
    /// When.
    pub time: Timestamp,
    /// `up`, `down` or `none`.
    pub direction: String,
    /// Why: `queue`, `idle`, `wait`, `utilisation`, `prediction`, `steady`, `cooldown`, `minimum` or `maximum`.
    pub reason: String,
    /// Workers before.
    pub from: u32,
    /// Workers wanted.
    pub to: u32,
    /// What it was decided by.
    pub look: ScalerLook,
    /// It was decided and not done (`--dry-run`).
    #[serde(default)]
    pub dry_run: bool,
}

/// How the scaler stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ScalerView {
    /// `active`, `paused` (it decides nothing), or `absent` (no scaler was heard of lately).
    pub state: String,
    /// Name of the scaler that leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When it was heard of last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<Timestamp>,
    /// Its rule: `doubling`, `queue`, `wait`, `utilisation` or `prediction`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// What makes and ends its workers: `local`, `hook`, `kubernetes` or `kumori`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// It decides and does nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Fewest workers that hold now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<u32>,
    /// Most workers that hold now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// What operators asked for.
    pub orders: ScalerOrders,
    /// How many workers it wants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<u32>,
    /// What it saw last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub look: Option<ScalerLook>,
    /// Why its last order could not be carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Its last decision that changed something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<ScalerDecision>,
}

/// What operators ask of every scaler, over its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ScalerOrders {
    /// Fewest workers; none: as the scaler's settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<u32>,
    /// Most workers; none: as the scaler's settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// Decide nothing.
    #[serde(default)]
    pub paused: bool,
}

/// Body of `PATCH /v1/scaler`: what is left out stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScalerChange {
    /// Fewest workers: 1 to 1000; 0: as the scaler's settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<u32>,
    /// Most workers: 1 to 1000; 0: as the scaler's settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// Decide nothing, or go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
}
