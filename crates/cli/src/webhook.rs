//! `lyra webhook`: who hears of the ends of jobs and runs, and the deliveries that tell them.

use std::path::{Path, PathBuf};

use lyra_client::{Answer, DeliveryFilter, EndsOf};
use lyra_types::delivery::{
    DeliveryStatus, DeliveryTry, DeliveryView, DestinationRequest, DestinationView, DestinationsRequest,
    DestinationsView,
};
use lyra_types::{FunctionName, JobId, RunId, Secret, WorkflowName};

use crate::failure::{Failure, Result};
use crate::output::print_line;
use crate::session::Session;
use crate::table::{Table, age, fields};

/// Verbs of `webhook`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Examples:
  lyra webhook set report --on-success https://example.org/hook --on-failure function:repair
  lyra webhook set --workflow nightly --on-failure function:repair
  lyra webhook ls --status failed
  lyra webhook redeliver dlv_fe5cc2f7a3ff9a1b2c3d4e5f6071")]
pub enum Command {
    /// Set who hears of new jobs of a function, or of new runs of a workflow
    #[command(after_help = "Examples:
  lyra webhook set report --on-success https://example.org/hook
  lyra webhook set report --on-failure function:repair@live
  lyra webhook set --workflow nightly --on-success https://example.org/hook
  lyra webhook set report --on-success https://example.org/hook --secret-file hook.secret
  SECRET=$(lyra webhook set report --on-success https://example.org/hook -q)

A URL gets a POST, signed as Standard Webhooks has it. Without --secret-file a secret is made for
each URL and printed: this once. What was set before is replaced.")]
    Set(Set),
    /// Show who hears of the jobs of a function, or the runs of a workflow
    #[command(after_help = "Examples:
  lyra webhook show report
  lyra webhook show --workflow nightly")]
    Show(Of),
    /// Have nobody hear of new jobs of a function, or of new runs of a workflow
    #[command(after_help = "Examples:
  lyra webhook rm report
  lyra webhook rm --workflow nightly")]
    Rm(Of),
    /// Send a message of no meaning to whoever hears of the jobs or runs
    #[command(after_help = "Examples:
  lyra webhook test report
  lyra webhook test --workflow nightly")]
    Test(Of),
    /// List deliveries, newest first
    #[command(after_help = "Examples:
  lyra webhook ls --status failed
  lyra webhook ls --job job_01jd6gkz5w3v9q0x7y2m4n8abc
  lyra webhook ls --run run_01jcr2x7k3w9v5t8n6m4p0q2s1")]
    Ls(Ls),
    /// Show a delivery with its last tries
    #[command(after_help = "Example:
  lyra webhook get dlv_fe5cc2f7a3ff9a1b2c3d4e5f6071")]
    Get(One),
    /// Have a delivery tried again, under the same id
    #[command(after_help = "Example:
  lyra webhook redeliver dlv_fe5cc2f7a3ff9a1b2c3d4e5f6071")]
    Redeliver(One),
}

/// Flags of `webhook set`.
#[derive(Debug, clap::Args)]
pub struct Set {
    #[command(flatten)]
    of: Of,
    /// Who hears of those that succeeded: a URL, or a function
    #[arg(
        long,
        value_name = "URL|function:NAME",
        value_parser = parse_destination,
        required_unless_present = "on_failure"
    )]
    on_success: Option<String>,
    /// Who hears of those that ended otherwise
    #[arg(long, value_name = "URL|function:NAME", value_parser = parse_destination)]
    on_failure: Option<String>,
    /// File with the secret that calls of the URLs are signed with: whsec_ and base64
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

/// A function or a workflow.
#[derive(Debug, clap::Args)]
pub struct Of {
    /// The function
    #[arg(value_name = "FUNCTION", required_unless_present = "workflow", conflicts_with = "workflow")]
    function: Option<FunctionName>,
    /// The workflow, in place of a function
    #[arg(long, value_name = "NAME")]
    workflow: Option<WorkflowName>,
}

impl Of {
    fn ends(&self) -> Result<EndsOf<'_>> {
        match (&self.function, &self.workflow) {
            (Some(function), None) => Ok(EndsOf::Jobs(function)),
            (None, Some(workflow)) => Ok(EndsOf::Runs(workflow)),
            _ => Err(Failure::usage("give a function, or a workflow with --workflow")),
        }
    }
}

/// Who hears of the end of one job or run, in place of those of its function or workflow.
#[derive(Debug, clap::Args)]
pub struct Own {
    /// URL or function:NAME that hears of its end where it succeeds
    #[arg(long, value_name = "TO")]
    on_success: Option<String>,
    /// URL or function:NAME that hears of its end where it does not
    #[arg(long, value_name = "TO")]
    on_failure: Option<String>,
    /// File with the secret that calls of these URLs are signed with
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

impl Own {
    /// What the flags ask for; `None` where they ask for nothing.
    ///
    /// # Errors
    /// When the file can't be read, or a URL comes without one.
    pub fn request(&self) -> Result<Option<DestinationsRequest>> {
        let given = [&self.on_success, &self.on_failure];
        if given.iter().all(|one| one.is_none()) {
            return match &self.secret_file {
                Some(_) => Err(Failure::usage("--secret-file goes with --on-success or --on-failure")),
                None => Ok(None),
            };
        }
        let secret = self.secret_file.as_deref().map(read_secret).transpose()?;
        if secret.is_none() && given.into_iter().flatten().any(|to| !to.starts_with(FUNCTION)) {
            return Err(Failure::usage("a URL needs --secret-file: what is made by Lyra could not be shown"));
        }
        let destination = |to: &Option<String>| to.clone().map(|text| destination(text, secret.as_ref()));
        Ok(Some(DestinationsRequest {
            on_success: destination(&self.on_success),
            on_failure: destination(&self.on_failure),
        }))
    }
}

/// Flags of `webhook ls`.
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// Only of this job
    #[arg(long, value_name = "ID")]
    job: Option<JobId>,
    /// Only of this run
    #[arg(long, value_name = "ID", value_parser = parse_run)]
    run: Option<RunId>,
    /// Only with this status: pending, delivered, failed
    #[arg(long, value_name = "STATUS", value_parser = parse_status)]
    status: Option<DeliveryStatus>,
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = crate::session::limit)]
    limit: usize,
}

/// A delivery.
#[derive(Debug, clap::Args)]
pub struct One {
    /// Its id, `dlv_…`
    #[arg(value_name = "ID")]
    id: String,
}

fn parse_status(text: &str) -> Result<DeliveryStatus, String> {
    DeliveryStatus::parse(text).ok_or_else(|| DeliveryStatus::ALL.map(DeliveryStatus::as_str).join(", "))
}

fn parse_destination(text: &str) -> Result<String, String> {
    match text.starts_with(FUNCTION) || text.contains("://") {
        true => Ok(text.to_owned()),
        false => Err(format!("a URL, or a function as {FUNCTION}{text}")),
    }
}

fn parse_run(text: &str) -> Result<RunId, String> {
    RunId::new(text).map_err(|error| error.detail)
}

/// What a destination begins with that is a function.
const FUNCTION: &str = "function:";
const HEADER: [&str; 7] = ["id", "type", "of", "to", "status", "tries", "age"];

/// Runs a verb.
///
/// # Errors
/// Those of the API.
pub async fn run(command: Command, session: &Session) -> Result<()> {
    let client = &session.client;
    match command {
        Command::Set(args) => {
            let secret = args.secret_file.as_deref().map(read_secret).transpose()?;
            let destination = |text: String| destination(text, secret.as_ref());
            let request = DestinationsRequest {
                on_success: args.on_success.map(destination),
                on_failure: args.on_failure.map(destination),
            };
            let set = client.put_destinations(args.of.ends()?, &request).await?;
            show_destinations(session, &set)
        }
        Command::Show(of) => show_destinations(session, &client.destinations(of.ends()?).await?),
        Command::Rm(of) => {
            let of = of.ends()?;
            client.delete_destinations(of).await?;
            let (what, name) = match of {
                EndsOf::Jobs(name) => ("jobs", name.as_str()),
                EndsOf::Runs(name) => ("runs", name.as_str()),
            };
            match (session.json(), session.quiet) {
                (true, _) => Ok(()),
                (false, true) => print_line(name),
                (false, false) => print_line(&format!("nobody hears of new {what} of {name}")),
            }
        }
        Command::Test(of) => {
            let made = client.test_destinations(of.ends()?).await?;
            session.list(&made, |it| it.id.clone(), &HEADER, |it| row(session, it))
        }
        Command::Ls(Ls { job, run, status, limit }) => {
            let found = client.deliveries(&DeliveryFilter { job, run, status }, limit).await?;
            session.list(&found, |it| it.id.clone(), &HEADER, |it| row(session, it))
        }
        Command::Get(One { id }) => session.show(&client.delivery(&id).await?, |it| it.id.clone(), shown),
        Command::Redeliver(One { id }) => {
            let said = |it: &DeliveryView| format!("{} is tried again", it.id);
            session.show(&client.redeliver(&id).await?, |it| it.id.clone(), said)
        }
    }
}

fn read_secret(path: &Path) -> Result<Secret> {
    let fault = |error| Failure::usage(format!("{} can't be read: {error}", path.display()));
    Ok(Secret::new(std::fs::read_to_string(path).map_err(fault)?.trim()))
}

fn destination(text: String, secret: Option<&Secret>) -> DestinationRequest {
    match text.strip_prefix(FUNCTION) {
        Some(function) => DestinationRequest { url: None, secret: None, function: Some(function.to_owned()) },
        None => DestinationRequest { url: Some(text), secret: secret.cloned(), function: None },
    }
}

fn place(to: &DestinationView) -> String {
    match (&to.url, &to.function) {
        (Some(url), _) => url.clone(),
        (None, Some(function)) => format!("function:{function}"),
        (None, None) => String::new(),
    }
}

fn show_destinations(session: &Session, answer: &Answer<DestinationsView>) -> Result<()> {
    let secrets = [("success", &answer.on_success), ("failure", &answer.on_failure)];
    for (of, one) in secrets {
        if let Some(secret) = one.as_ref().and_then(|one| one.secret.as_ref()).filter(|_| !session.json()) {
            session.note(&format!("the secret for {of} is shown this once: {}", secret.reveal()));
        }
    }
    // What a script needs of an answer with new secrets is these.
    let made: Vec<&str> = secrets.iter().filter_map(|(_, one)| Some(one.as_ref()?.secret.as_ref()?.reveal())).collect();
    if session.quiet && !session.json() && !made.is_empty() {
        return print_line(&made.join("\n"));
    }
    let text = |one: &Option<DestinationView>| one.as_ref().map(place).unwrap_or_default();
    session.show(
        answer,
        |it| it.function.clone().or_else(|| it.workflow.clone()).unwrap_or_default(),
        |it| {
            fields(&[
                ("function", it.function.clone().unwrap_or_default()),
                ("workflow", it.workflow.clone().unwrap_or_default()),
                ("on success", text(&it.on_success)),
                ("on failure", text(&it.on_failure)),
            ])
        },
    )
}

fn row(session: &Session, delivery: &DeliveryView) -> Vec<String> {
    vec![
        delivery.id.clone(),
        delivery.kind.clone(),
        delivery.of().to_owned(),
        place(&delivery.to),
        delivery.status.as_str().to_owned(),
        delivery.attempts.to_string(),
        age(&session.clock, delivery.created_at),
    ]
}

fn shown(delivery: &DeliveryView) -> String {
    let time = |at: Option<lyra_types::Timestamp>| at.map(|at| at.to_string()).unwrap_or_default();
    let job = |job: Option<JobId>| job.map(|job| job.to_string()).unwrap_or_default();
    let mut text = fields(&[
        ("id", delivery.id.clone()),
        ("type", delivery.kind.clone()),
        ("function", delivery.function.clone().unwrap_or_default()),
        ("job", job(delivery.job)),
        ("workflow", delivery.workflow.clone().unwrap_or_default()),
        ("run", delivery.run.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("to", place(&delivery.to)),
        ("status", delivery.status.as_str().to_owned()),
        ("tries", delivery.attempts.to_string()),
        ("created", delivery.created_at.to_string()),
        ("next try", time(delivery.next_attempt_at)),
        ("ended", time(delivery.finished_at)),
        ("started", job(delivery.started_job)),
    ]);
    if !delivery.log.is_empty() {
        let mut table = Table::new(&["tried", "took", "http", "answer", "error"]);
        for one in &delivery.log {
            table.row(try_row(one));
        }
        text.push_str("\n\n");
        text.push_str(&table.to_string());
    }
    text
}

fn try_row(one: &DeliveryTry) -> Vec<String> {
    let answer: String = one.answer.as_deref().unwrap_or_default().chars().take(60).collect();
    vec![
        one.at.to_string(),
        format!("{}ms", one.duration_ms),
        one.http_status.map(|status| status.to_string()).unwrap_or_default(),
        answer,
        one.error.clone().unwrap_or_default(),
    ]
}
