//! `lyra workflow waiting` and `complete`: tasks that wait for somebody outside.

use lyra_types::RunId;
use lyra_types::api::workflows::Completion;

use super::input::read_object;
use crate::failure::Result;
use crate::output::print_line;
use crate::session::Session;
use crate::table::age;

/// Flags of `workflow complete`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lyra workflow complete cb_01jd6gkz5w3v9q0x7y2m4n8abc -d '{\"approved\":true}'
  lyra workflow complete cb_01jd6gkz5w3v9q0x7y2m4n8abc --error refused --message 'too expensive'

`lyra workflow waiting RUN` shows the tokens.")]
pub struct Args {
    /// The token of the task
    #[arg(value_name = "TOKEN")]
    token: String,
    /// The task's output, an object: JSON, @FILE, or - for stdin [default: {}]
    #[arg(long, short = 'd', value_name = "JSON|@FILE|-", conflicts_with = "error")]
    data: Option<String>,
    /// Have the task fail, with this code
    #[arg(long, value_name = "CODE")]
    error: Option<String>,
    /// Say why it fails
    #[arg(long, value_name = "TEXT", requires = "error", default_value = "completed with an error")]
    message: String,
}

/// Lists the tasks of a run that wait.
///
/// # Errors
/// Those of the API.
pub async fn list(run: &RunId, session: &Session) -> Result<()> {
    let waiting = session.client.waiting(run).await?;
    session.list(
        &waiting,
        |task| task.token.clone().unwrap_or_default(),
        &["task", "token", "since", "input"],
        |task| {
            vec![
                task.task.clone(),
                task.token.clone().unwrap_or_else(|| "(not shown)".to_owned()),
                format!("{} ago", age(&session.clock, task.since)),
                serde_json::Value::from(task.input.clone()).to_string(),
            ]
        },
    )
}

/// Completes a task.
///
/// # Errors
/// Those of the API.
pub async fn complete(args: Args, session: &Session) -> Result<()> {
    let completion = match args.error {
        Some(code) => Completion::Error { code, message: args.message },
        None => Completion::Output(read_object(args.data.as_deref())?),
    };
    session.client.complete_task(&args.token, &completion).await?;
    if session.json() || session.quiet { Ok(()) } else { print_line("completed") }
}
