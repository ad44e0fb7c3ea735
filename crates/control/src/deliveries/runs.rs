//! From ends of runs to deliveries: what the workflow role asks for.

use std::sync::Arc;

use lyra_types::Result;
use lyra_types::workflow::{Run, RunStatus};
use lyra_wire::hooks::{RunEnd, RunEndAsk};
use serde_json::{Value, json};

use super::record::{Notice, Subject, id};
use super::{Deliveries, new_delivery};

impl Deliveries {
    /// Does what the workflow role asks for.
    pub(crate) async fn run_ends(&self, ask: RunEndAsk) -> Result<Option<Arc<str>>> {
        match ask {
            RunEndAsk::Notice { tenant, workflow, own } => {
                self.directory.notice(&tenant, &Subject::Workflow(workflow), own.as_deref(), 0)
            }
            RunEndAsk::Ended(end) => self.tell_of_run(&end).await.map(|()| None),
        }
    }
}

/// The type of the message that tells of this run.
fn kind(run: &Run) -> &'static str {
    match run.status {
        RunStatus::Succeeded => "run.succeeded",
        RunStatus::Cancelled => "run.cancelled",
        // The run as a whole: a task whose time was over makes its run fail.
        _ if run.error.as_ref().is_some_and(|error| error.task.is_none() && error.cause.code == "timeout") => {
            "run.timed_out"
        }
        _ => "run.failed",
    }
}

/// What a message says of a run: as it is shown.
fn data(end: &RunEnd) -> Result<Value> {
    let shown = serde_json::to_value(&end.run).map_err(|_| lyra_types::Error::internal("a run can't be written"))?;
    Ok(if end.output_omitted { json!({"run": shown, "output_omitted": true}) } else { json!({"run": shown}) })
}

impl Deliveries {
    /// Makes the delivery of an end, if anybody wants to hear of it and it is not there.
    async fn tell_of_run(&self, end: &RunEnd) -> Result<()> {
        let (run, ended_at) = (&end.run, end.ended_at);
        let notice: Notice = match serde_json::from_str(&end.notice) {
            Ok(notice) => notice,
            Err(error) => {
                // It was written by a program that knew more; nobody can do anything about it later.
                tracing::error!(run = %run.id, line = error.line(), "who hears of a run's end can't be read");
                return Ok(());
            }
        };
        let target = match run.status {
            RunStatus::Succeeded => notice.on_success,
            _ => notice.on_failure,
        };
        let Some(target) = target else { return Ok(()) };
        let of = Subject::Workflow(run.workflow.clone());
        let target = self.openable(&run.tenant, &of, target);
        let kind = kind(run);
        // Not to be taken for that of a job: no id of one holds a colon.
        let id = id(ended_at, &format!("{}/run:{}/{}", run.tenant, run.id, ended_at.millis()));
        let body = json!({"id": id, "type": kind, "timestamp": ended_at, "data": data(end)?}).to_string();
        let mut delivery = new_delivery(kind, &of, target, body, self.clock.now());
        (delivery.run, delivery.depth) = (Some(run.id.clone()), notice.depth);
        self.make(&run.tenant, &id, &delivery).await
    }
}
