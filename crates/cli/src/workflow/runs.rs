//! `lyra workflow runs` and `get`: runs as they stand.

use lyra_client::{Answer, RunFilter};
use lyra_types::workflow::{Run, RunError, RunStatus};
use lyra_types::{RunId, WorkflowName};

use crate::failure::Result;
use crate::output::print_line;
use crate::session::Session;
use crate::table::{age, fields, short};

/// Flags of `workflow runs`.
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// Only runs of this workflow
    #[arg(value_name = "NAME")]
    workflow: Option<WorkflowName>,
    /// Only runs with this status: running, paused, succeeded, failed, cancelled
    #[arg(long, value_name = "STATUS", value_parser = parse_status)]
    status: Option<RunStatus>,
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = crate::session::limit)]
    limit: usize,
}

/// Runs by their ids.
#[derive(Debug, clap::Args)]
pub struct Many {
    /// The runs, `run_…` or the ids that they were started with
    #[arg(value_name = "RUN", required = true)]
    ids: Vec<String>,
}

/// A run by its id.
#[derive(Debug, clap::Args)]
pub struct One {
    /// The run, `run_…` or the id that it was started with
    #[arg(value_name = "RUN")]
    id: String,
}

impl One {
    /// The id; text that can be none is a run that does not exist.
    pub fn id(&self) -> Result<RunId> {
        id_of(&self.id)
    }
}

fn id_of(text: &str) -> Result<RunId> {
    let none = |_| lyra_types::Error::not_found("run", format_args!("\"{}\"", text.escape_debug()));
    Ok(RunId::new(text).map_err(none)?)
}

/// Deletes runs, in the order in which they are named, up to the first that can't be.
///
/// # Errors
/// Those of the API.
pub async fn forget(many: &Many, session: &Session) -> Result<()> {
    for text in &many.ids {
        let id = id_of(text)?;
        session.client.delete_run(&id).await?;
        match (session.json(), session.quiet) {
            (true, _) => {}
            (false, true) => print_line(id.as_str())?,
            (false, false) => print_line(&format!("run {id} deleted"))?,
        }
    }
    Ok(())
}

fn parse_status(text: &str) -> Result<RunStatus, String> {
    RunStatus::parse(text).ok_or_else(|| format!("one of {}", RunStatus::ALL.map(RunStatus::as_str).join(", ")))
}

/// Lists runs.
///
/// # Errors
/// Those of the API.
pub async fn list(args: Ls, session: &Session) -> Result<()> {
    let filter = RunFilter { workflow: args.workflow, status: args.status };
    let runs = session.client.runs(&filter, args.limit).await?;
    let header = ["id", "workflow", "version", "status", "done", "active", "age", "error"];
    session.list(
        &runs,
        |run| run.id.to_string(),
        &header,
        |run| {
            vec![
                run.id.to_string(),
                run.workflow.to_string(),
                run.version.to_string(),
                run.status.to_string(),
                run.tasks.succeeded.to_string(),
                run.tasks.active.to_string(),
                age(&session.clock, run.created_at),
                run.error.as_ref().map(|error| cut(&reason(error), 60)).unwrap_or_default(),
            ]
        },
    )
}

fn cut(text: &str, most: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= most { line.to_owned() } else { line.chars().take(most - 1).chain(['…']).collect() }
}

/// Why a run failed, in a sentence: task, tries, cause.
pub(super) fn reason(error: &RunError) -> String {
    let cause = &error.cause;
    let named = cause.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    let resource = cause.resource.as_ref().map(|resource| format!(" on {resource}")).unwrap_or_default();
    let why = format!("{}{named}: {}", cause.code, cause.message);
    match &error.task {
        Some(task) => {
            let tries = if error.attempts == 1 { "1 try".to_owned() } else { format!("{} tries", error.attempts) };
            format!("task {task} after {tries}{resource}: {why}")
        }
        None => why,
    }
}

/// Prints a run.
///
/// # Errors
/// When stdout can't be written.
pub fn show(session: &Session, run: &Answer<Run>) -> Result<()> {
    let people = |run: &Run| {
        let took = run.ended_at.map(|end| short(end.since(run.created_at)));
        let ago = |time| format!("{time} ({} ago)", age(&session.clock, time));
        let status = match took {
            Some(took) => format!("{} (took {took})", run.status),
            None => run.status.to_string(),
        };
        let tasks = format!("{} done, {} active", run.tasks.succeeded, run.tasks.active);
        let failed = run.tasks.failed_attempts;
        let output = run.output.as_ref().map(|output| serde_json::Value::from(output.clone()).to_string());
        fields(&[
            ("id", run.id.to_string()),
            ("workflow", format!("{}@{}", run.workflow, run.version)),
            ("status", status),
            ("tasks", if failed == 0 { tasks } else { format!("{tasks}, {failed} failed tries") }),
            ("accepted", ago(run.created_at)),
            ("ended", run.ended_at.map(ago).unwrap_or_default()),
            (
                "part of",
                run.parent.as_ref().map(|parent| format!("{} ({})", parent.run, parent.task)).unwrap_or_default(),
            ),
            ("schedule", run.schedule.clone().unwrap_or_default()),
            ("stuck", run.stuck.clone().unwrap_or_default()),
            ("error", run.error.as_ref().map(reason).unwrap_or_default()),
            ("output", output.unwrap_or_default()),
        ])
    };
    session.show(run, |run| run.id.to_string(), people)
}

#[cfg(test)]
mod tests {
    use lyra_types::workflow::Cause;

    use super::*;

    #[test]
    fn a_failure_names_task_tries_resource_and_cause() {
        let cause = Cause {
            code: "http_503".to_owned(),
            message: "the answer was 503".to_owned(),
            name: None,
            resource: Some("http://x/".to_owned()),
        };
        let mut error = RunError { task: Some("resize[3]".to_owned()), attempts: 3, cause, causes: Vec::new() };
        let text = "task resize[3] after 3 tries on http://x/: http_503: the answer was 503";
        assert_eq!(reason(&error), text);
        error.task = None;
        assert_eq!(reason(&error), "http_503: the answer was 503");
    }
}
