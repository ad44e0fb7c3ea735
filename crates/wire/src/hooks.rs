//! What gateways ask of control about what happens by itself: schedules, and who hears of the ends of jobs.
//!
//! One question and one answer for all of it, since each is seldom asked: what is new here needs no method of its own.

use lyra_types::api::Page;
use lyra_types::delivery::{DeliveryStatus, DeliveryView, DestinationsRequest, DestinationsView};
use lyra_types::schedule::{ScheduleRequest, ScheduleRun, ScheduleView};
use lyra_types::{Code, Error, FunctionName, JobId, Result, ScheduleName, TenantName};
use serde::{Deserialize, Serialize};

use crate::control::PageQuery;

/// A question about what happens by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum HookRequest {
    /// About schedules.
    Schedule {
        /// Owner.
        tenant: TenantName,
        /// What is asked.
        ask: ScheduleAsk,
    },
    /// About who hears of the ends of jobs.
    Delivery {
        /// Owner.
        tenant: TenantName,
        /// What is asked.
        ask: DeliveryAsk,
    },
}

/// What is asked about destinations and deliveries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum DeliveryAsk {
    /// Set who hears of the jobs of a function that are accepted from now on.
    PutDestinations(FunctionName, Box<DestinationsRequest>),
    /// Who hears of them.
    Destinations(FunctionName),
    /// Nobody hears of those that are accepted from now on.
    DeleteDestinations(FunctionName),
    /// Send a message of no meaning to the destinations of a function.
    Test(FunctionName),
    /// Deliveries, newest first.
    List(DeliveryQuery),
    /// One of them.
    Get(String),
    /// Try one again that was given up or delivered, with its tries counted from zero.
    Redeliver(String),
}

/// Which deliveries to list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DeliveryQuery {
    /// Only of this job.
    pub job: Option<JobId>,
    /// Only with this status.
    pub status: Option<DeliveryStatus>,
    /// Which page.
    pub page: PageQuery,
}

/// What is asked about schedules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ScheduleAsk {
    /// Make or replace one. What it did before stays in its history.
    Put(ScheduleName, Box<ScheduleRequest>),
    /// One of them.
    Get(ScheduleName),
    /// All of them, by name.
    List(PageQuery),
    /// Take one away. Jobs that it started go on.
    Delete(ScheduleName),
    /// Have it fire no more, or again from now on.
    Pause(ScheduleName, bool),
    /// Start a job now, whatever its times and its overlap policy say.
    Run(ScheduleName),
}

impl HookRequest {
    /// Whether asking again can change nothing.
    pub fn only_reads(&self) -> bool {
        match self {
            HookRequest::Schedule { ask, .. } => matches!(ask, ScheduleAsk::Get(_) | ScheduleAsk::List(_)),
            HookRequest::Delivery { ask, .. } => {
                matches!(ask, DeliveryAsk::Destinations(_) | DeliveryAsk::List(_) | DeliveryAsk::Get(_))
            }
        }
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum HookAnswer {
    /// A schedule, and whether it was made just now.
    Schedule(Box<ScheduleView>, bool),
    /// A page of schedules.
    Schedules(Page<ScheduleView>),
    /// A firing by hand.
    Ran(ScheduleRun),
    /// Who hears of the jobs of a function.
    Destinations(Box<DestinationsView>),
    /// A page of deliveries.
    Deliveries(Page<DeliveryView>),
    /// A delivery.
    Delivery(Box<DeliveryView>),
    /// It is done.
    Done,
}

impl HookAnswer {
    /// The error of an answer to another question, which no control process gives.
    pub fn unfit(self) -> Error {
        Error::new(Code::Internal, "control answered another question")
    }

    /// The schedule, and whether it is new.
    ///
    /// # Errors
    /// [`Code::Internal`] where it is something else.
    pub fn schedule(self) -> Result<(ScheduleView, bool)> {
        match self {
            HookAnswer::Schedule(view, created) => Ok((*view, created)),
            other => Err(other.unfit()),
        }
    }
}
