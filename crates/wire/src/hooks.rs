//! What gateways ask of control about what happens by itself: schedules, triggers, and who hears of the ends of jobs and runs.
//!
//! One question and one answer for all of it, since each is seldom asked: what is new here needs no method of its own.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_types::api::Page;
use lyra_types::delivery::{DeliveryStatus, DeliveryView, DestinationsRequest, DestinationsView};
use lyra_types::schedule::{ScheduleRequest, ScheduleRun, ScheduleView};
use lyra_types::trigger::{TriggerPosted, TriggerRequest, TriggerView};
use lyra_types::workflow::{Run, RunId};
use lyra_types::{
    Code, Error, FunctionName, JobId, Result, ScheduleName, TenantName, Timestamp, TriggerName, WorkflowName,
};
use serde::{Deserialize, Serialize};

use crate::Control;
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
    /// About who hears of the ends of jobs and runs.
    Delivery {
        /// Owner.
        tenant: TenantName,
        /// What is asked.
        ask: DeliveryAsk,
    },
    /// About triggers.
    Trigger {
        /// Owner.
        tenant: TenantName,
        /// What is asked.
        ask: TriggerAsk,
    },
}

/// What is asked about triggers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TriggerAsk {
    /// Make or replace one.
    Put(TriggerName, Box<TriggerRequest>),
    /// One of them.
    Get(TriggerName),
    /// All of them, by name.
    List(PageQuery),
    /// Take one away. Jobs that it started go on.
    Delete(TriggerName),
    /// Have it take no more events, or take them again.
    Pause(TriggerName, bool),
    /// Take events that were posted. They are durable when this is answered.
    Post(TriggerName, Box<EventsPosted>),
}

/// Events that were posted to a trigger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsPosted {
    /// JSON, as it came.
    #[serde(with = "crate::octets")]
    pub body: Bytes,
    /// The poster's idempotency key.
    pub idempotency_key: Option<String>,
    /// Who posted them; `None` where that is not known.
    pub user: Option<Arc<str>>,
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
    /// Set who hears of the runs of a workflow that are started from now on.
    PutWorkflowDestinations(WorkflowName, Box<DestinationsRequest>),
    /// Who hears of them.
    WorkflowDestinations(WorkflowName),
    /// Nobody hears of those that are started from now on.
    DeleteWorkflowDestinations(WorkflowName),
    /// Send a message of no meaning to the destinations of a workflow.
    TestWorkflow(WorkflowName),
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
    /// Only of this run.
    #[serde(default)]
    pub run: Option<RunId>,
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
                use DeliveryAsk::{Destinations, Get, List, WorkflowDestinations};
                matches!(ask, Destinations(_) | WorkflowDestinations(_) | List(_) | Get(_))
            }
            HookRequest::Trigger { ask, .. } => matches!(ask, TriggerAsk::Get(_) | TriggerAsk::List(_)),
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
    /// Who hears of the jobs of a function, or of the runs of a workflow.
    Destinations(Box<DestinationsView>),
    /// A page of deliveries.
    Deliveries(Page<DeliveryView>),
    /// A delivery.
    Delivery(Box<DeliveryView>),
    /// A trigger, and whether it was made just now.
    Trigger(Box<TriggerView>, bool),
    /// A page of triggers.
    Triggers(Page<TriggerView>),
    /// What became of events that were posted.
    Posted(TriggerPosted),
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

    /// The trigger, and whether it is new.
    ///
    /// # Errors
    /// [`Code::Internal`] where it is something else.
    pub fn trigger(self) -> Result<(TriggerView, bool)> {
        match self {
            HookAnswer::Trigger(view, created) => Ok((*view, created)),
            other => Err(other.unfit()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::grpc::packed::{pack, unpack};

    #[test]
    fn what_is_asked_of_triggers_arrives_as_it_was_asked() {
        let name = TriggerName::new("orders").expect("a name");
        let nats = json!({"url": "nats://h", "subject": "s", "credentials_secret": "x"});
        let sources = [
            json!({"kind": "http", "id_field": "id"}),
            json!({"kind": "nats", "url": "tls://h:1", "subject": "s.>", "start": "new"}),
            json!({"kind": "s3", "nats": nats, "events": ["s3:*"]}),
        ];
        for source in sources {
            let request = json!({"function": "f", "source": source, "max_attempts": 3});
            let request: TriggerRequest = serde_json::from_value(request).expect("a trigger");
            let ask = HookRequest::Trigger {
                tenant: TenantName::default_tenant(),
                ask: TriggerAsk::Put(name.clone(), Box::new(request.clone())),
            };
            let packed = pack(&ask).expect("it is packed");
            assert_eq!(unpack::<HookRequest>(&packed).expect("it is unpacked"), ask);
            let view = TriggerView {
                name: name.clone(),
                trigger: request,
                created_at: lyra_types::Timestamp::from_millis(1),
                updated_at: lyra_types::Timestamp::from_millis(2),
                state: lyra_types::trigger::TriggerState::Failing,
                error: Some("no".to_owned()),
                lag: None,
                counts: lyra_types::trigger::TriggerCounts { records: 1, ..Default::default() },
            };
            let answer = HookAnswer::Trigger(Box::new(view), true);
            let packed = pack(&answer).expect("it is packed");
            assert_eq!(unpack::<HookAnswer>(&packed).expect("it is unpacked"), answer);
        }
        let posted = EventsPosted { body: Bytes::from_static(b"{}"), idempotency_key: None, user: Some("u".into()) };
        let ask = TriggerAsk::Post(name, Box::new(posted));
        assert_eq!(unpack::<TriggerAsk>(&pack(&ask).expect("it is packed")).expect("it is unpacked"), ask);
    }
}

/// Where control keeps who hears of the runs of a workflow. The workflow role deletes it in the transaction that deletes the workflow:
/// both use one store of objects.
pub fn workflow_destinations_key(tenant: &TenantName, workflow: &WorkflowName) -> String {
    format!("destinations/{tenant}/{WORKFLOW}{workflow}")
}

/// Where the workflow role keeps which version of a workflow is the newest: what is set for a workflow is set only while this is there.
pub fn workflow_key(tenant: &TenantName, workflow: &WorkflowName) -> String {
    format!("workflows/{tenant}/{workflow}")
}

/// What names of workflows begin with where those of functions stand, too.
pub const WORKFLOW: &str = "workflow/";

/// Most of an output that a message about the end of a run holds, in bytes of JSON.
pub const MAX_OUTPUT: usize = 64 << 10;

/// What the workflow role asks of control: to have somebody hear of the ends of runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum RunEndAsk {
    /// What a new run shall carry, so that its end can be told.
    Notice {
        /// Owner of the run.
        tenant: TenantName,
        /// Whose run it will be.
        workflow: WorkflowName,
        /// The run's own destinations, in place of its workflow's.
        own: Option<Box<DestinationsRequest>>,
    },
    /// Take the end of a run over.
    Ended(Box<RunEnd>),
}

/// The end of a run, for those who want to hear of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunEnd {
    /// The run as it is shown, without an output of more than [`MAX_OUTPUT`] bytes.
    pub run: Run,
    /// There was such an output.
    pub output_omitted: bool,
    /// When it ended.
    pub ended_at: Timestamp,
    /// What it was given when it was started.
    pub notice: String,
}

impl RunEnd {
    /// The end of `run`.
    pub fn of(run: &Run, ended_at: Timestamp, notice: &str) -> RunEnd {
        let mut run = run.clone();
        let written = run.output.as_ref().and_then(|output| serde_json::to_vec(output).ok());
        let output_omitted = written.is_some_and(|written| written.len() > MAX_OUTPUT);
        if output_omitted {
            run.output = None;
        }
        RunEnd { run, output_omitted, ended_at, notice: notice.to_owned() }
    }
}

/// Who has somebody hear of the ends of runs.
#[async_trait]
pub trait RunEnds: Send + Sync + 'static {
    /// What a new run shall carry, so that its end can be told: `own` destinations of it, or else those of its workflow. `None`: nobody
    /// wants to hear of it.
    ///
    /// # Errors
    /// [`Code::InvalidField`] where the run's own destinations are none; [`Code::Unavailable`] where control can't be reached.
    async fn notice(
        &self,
        tenant: &TenantName,
        workflow: &WorkflowName,
        own: Option<&DestinationsRequest>,
    ) -> Result<Option<Arc<str>>>;

    /// Takes the end of a run over: whoever wants to hear of it will, when this has returned. Asked again for the same end it does
    /// nothing.
    async fn ended(&self, run: &Run, ended_at: Timestamp, notice: &str) -> Result<()>;
}

/// Control, in this process or another, as who has somebody hear of the ends of runs.
pub struct ThroughControl(pub Arc<dyn Control>);

#[async_trait]
impl RunEnds for ThroughControl {
    async fn notice(
        &self,
        tenant: &TenantName,
        workflow: &WorkflowName,
        own: Option<&DestinationsRequest>,
    ) -> Result<Option<Arc<str>>> {
        let (tenant, workflow, own) = (tenant.clone(), workflow.clone(), own.cloned().map(Box::new));
        self.0.run_ends(RunEndAsk::Notice { tenant, workflow, own }).await
    }

    async fn ended(&self, run: &Run, ended_at: Timestamp, notice: &str) -> Result<()> {
        self.0.run_ends(RunEndAsk::Ended(Box::new(RunEnd::of(run, ended_at, notice)))).await.map(drop)
    }
}
