//! `lyra app`: applications, whose instances stand ready for sessions.

use std::path::PathBuf;
use std::time::Duration;

use lyra_client::{Answer, ApplyOptions, Client, Error};
use lyra_types::Code;
use lyra_types::resources::{
    Application, ApplicationSession, Condition, ConditionStatus, ScalingPolicy, ScalingPolicyType, Threshold,
};

use crate::app_session;
use crate::failure::{Failure, Result};
use crate::manifest::{self, Kind, Manifest};
use crate::output::print_line;
use crate::session::Session;
use crate::table::{age, fields};

/// Verbs of `app`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Examples:
  lyra app apply -f chat.yaml
  lyra app ls")]
pub enum Command {
    /// Make or change applications and sessions, as manifests say
    #[command(after_help = "Examples:
  lyra app apply -f chat.yaml
  generate | lyra app apply -f -

A manifest is YAML, with one document or more, or JSON; the same as for kubectl. What it does not
name stays as it is. Fields that others have set are not taken over without --force.")]
    Apply(Apply),
    /// List applications
    #[command(after_help = "Examples:
  lyra app ls
  lyra app ls -o json")]
    Ls(Ls),
    /// Show an application: its version, its instances, how it scales
    #[command(after_help = "Example:
  lyra app get chat")]
    Get(One),
    /// Delete an application: close its sessions, end its instances
    #[command(after_help = "Examples:
  lyra app rm chat
  lyra app rm chat --wait 0s      do not wait until it is gone")]
    Rm(Rm),
}

/// Flags of `app apply`.
#[derive(Debug, clap::Args)]
pub struct Apply {
    /// A file, or - for stdin; may be given several times
    #[arg(long = "file", short = 'f', value_name = "FILE|-", required = true)]
    files: Vec<PathBuf>,
    /// Take over fields that others have set
    #[arg(long)]
    force: bool,
    /// Only look whether it could be done
    #[arg(long)]
    dry_run: bool,
}

/// Flags of `app ls`.
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = crate::session::limit)]
    limit: usize,
}

/// An application by its name.
#[derive(Debug, clap::Args)]
pub struct One {
    /// The application
    #[arg(value_name = "NAME", value_parser = parse_name)]
    name: String,
}

/// Flags of `app rm`.
#[derive(Debug, clap::Args)]
pub struct Rm {
    #[command(flatten)]
    one: One,
    /// Give up after so long [default: 60s, and the longest grace of its sessions]
    #[arg(long, value_name = "TIME", value_parser = crate::duration::parse)]
    wait: Option<Duration>,
}

/// Time that a closing takes at most beside the grace of the program.
pub const CLOSING: Duration = Duration::from_secs(60);

/// Reads a name that may stand in a path.
///
/// # Errors
/// When it is empty or no name.
pub fn parse_name(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if text.is_empty() || text.len() > 63 || !text.bytes().all(fits) {
        return Err("a name has 1 to 63 of a-z, 0-9 and -".to_owned());
    }
    Ok(text.to_owned())
}

/// Runs a verb.
///
/// # Errors
/// Those of the API.
pub async fn run(command: Command, session: &Session) -> Result<()> {
    match command {
        Command::Apply(args) => apply(&args, session).await,
        Command::Ls(args) => {
            let list = session.client.objects::<Application>("", args.limit).await?;
            let header = ["name", "version", "desired", "ready", "idle", "allocated", "age"];
            session.list(&list, |app| app.metadata.name.clone(), &header, |app| row(session, app))
        }
        Command::Get(one) => show(session, &session.client.object(&one.name).await?),
        Command::Rm(args) => remove(&args, session).await,
    }
}

async fn apply(args: &Apply, session: &Session) -> Result<()> {
    let client = &session.client;
    let mut manifests: Vec<Manifest> = Vec::new();
    for file in &args.files {
        manifests.extend(manifest::read(file, client.tenant())?);
    }
    let options = ApplyOptions { force: args.force, dry_run: args.dry_run };
    if manifests.len() > 1 && !args.dry_run {
        // So that one that is not valid is found before anything has changed. A session may be of an application that is
        // among them, so it can't be tried.
        for manifest in manifests.iter().filter(|manifest| manifest.kind == Kind::Application) {
            let options = ApplyOptions { dry_run: true, ..options };
            client.apply_object::<Application>(&manifest.name, &manifest.content, options).await.map_err(explained)?;
        }
    }
    let mut objects = Vec::new();
    for manifest in &manifests {
        let (name, content) = (&manifest.name, &manifest.content);
        let (word, json, created) = match manifest.kind {
            Kind::Application => {
                let applied = client.apply_object::<Application>(name, content, options).await.map_err(explained)?;
                ("application", applied.object.json().to_owned(), applied.created)
            }
            Kind::Session => {
                let applied =
                    client.apply_object::<ApplicationSession>(name, content, options).await.map_err(explained)?;
                ("session", applied.object.json().to_owned(), applied.created)
            }
        };
        let done = if created { "created" } else { "configured" };
        let only_looked = if args.dry_run { " (only looked)" } else { "" };
        match (session.json(), session.quiet) {
            (true, _) => objects.push(json),
            (false, true) => print_line(name)?,
            (false, false) => print_line(&format!("{word} {name} {done}{only_looked}"))?,
        }
    }
    match &objects[..] {
        [] => Ok(()),
        [one] => print_line(one),
        many => print_line(&format!("{{\"items\":[{}],\"next\":null}}", many.join(","))),
    }
}

/// Says what to do about fields that others have set.
fn explained(error: Error) -> Failure {
    let taken = error.code() == Code::Conflict && error.api().is_some_and(|error| !error.errors.is_empty());
    let failure = Failure::from(error);
    if taken { failure.hint("--force takes over the fields that others have set") } else { failure }
}

async fn remove(args: &Rm, session: &Session) -> Result<()> {
    let (client, name) = (&session.client, &args.one.name);
    let known: Answer<Application> = client.object(name).await?;
    let wait = match args.wait {
        Some(wait) => wait,
        None => CLOSING + longest_grace(client, name).await?,
    };
    client.delete_object::<Application>(name).await?;
    if !wait.is_zero() {
        // Another one of that name is another application.
        let uid = &known.metadata.uid;
        client
            .wait_object(name, wait, |app: Option<&Application>| app.is_none_or(|app| app.metadata.uid != *uid))
            .await?;
    }
    let done = if wait.is_zero() { "is being deleted" } else { "deleted" };
    match (session.json(), session.quiet) {
        (true, _) => Ok(()),
        (false, true) => print_line(name),
        (false, false) => print_line(&format!("application {name} {done}")),
    }
}

/// Most sessions that one application may have.
const MOST_SESSIONS: usize = 100_000;

async fn longest_grace(client: &Client, application: &str) -> Result<Duration> {
    let selector = format!("spec.applicationName={application}");
    let sessions = client.objects::<ApplicationSession>(&selector, MOST_SESSIONS).await?;
    let open = sessions.items.iter().filter(|session| !session.status.session_status.has_ended());
    Ok(open.map(|session| app_session::grace(session)).max().unwrap_or_default())
}

fn row(session: &Session, app: &Application) -> Vec<String> {
    let status = &app.status;
    let created = app.metadata.creation_timestamp.map(|time| age(&session.clock, time.timestamp()));
    vec![
        app.metadata.name.clone(),
        status.version.to_string(),
        status.desired_instances.to_string(),
        status.ready_instances.to_string(),
        status.idle_instances.to_string(),
        status.allocated_instances.to_string(),
        created.unwrap_or_default(),
    ]
}

fn show(session: &Session, app: &Answer<Application>) -> Result<()> {
    let people = |app: &Application| {
        let status = &app.status;
        let code = app.spec.containers.iter().map(|container| match container.function.as_str() {
            "" => format!("{} (image {})", container.name, container.image),
            function => format!("{} (function {function})", container.name),
        });
        let instances = [
            (status.idle_instances, "idle"),
            (status.allocated_instances, "with a session"),
            (status.pending_instances, "starting"),
            (status.deleting_instances, "ending"),
        ];
        let instances = instances.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        let instances: Vec<String> = instances.collect();
        let counted = format!("{} of {} wanted", status.total_instances, status.desired_instances);
        let versions = status.versions.iter().filter(|version| version.version != status.version);
        let versions =
            versions.map(|of| format!("{} ({} instances, {} sessions)", of.version, of.instances, of.sessions));
        let created = app.metadata.creation_timestamp;
        let deleted = app.metadata.deletion_timestamp.map(|_| "is being deleted".to_owned());
        let mut pairs = vec![
            ("name", app.metadata.name.clone()),
            ("version", status.version.to_string()),
            ("code", code.collect::<Vec<_>>().join(", ")),
            ("instances", std::iter::once(counted).chain(instances).collect::<Vec<_>>().join(", ")),
            ("scaling", policy(&app.spec.scaling_policy)),
            ("old versions", versions.collect::<Vec<_>>().join(", ")),
            (
                "made",
                created
                    .map(|time| format!("{time} ({} ago)", age(&session.clock, time.timestamp())))
                    .unwrap_or_default(),
            ),
            ("deletion", deleted.unwrap_or_default()),
        ];
        let conditions: Vec<(String, String)> = status.conditions.iter().map(condition).collect();
        pairs.extend(conditions.iter().map(|(name, value)| (name.as_str(), value.clone())));
        fields(&pairs)
    };
    session.show(app, |app| app.metadata.name.clone(), people)
}

/// A condition as a line: `ready:  yes (version 2 takes new sessions)`.
fn condition(of: &Condition) -> (String, String) {
    let word = match of.status {
        ConditionStatus::True => "yes",
        ConditionStatus::False => "no",
        ConditionStatus::Unknown => "not known",
    };
    let why = if of.message.is_empty() { &of.reason } else { &of.message };
    (of.r#type.to_lowercase(), format!("{word} ({why})"))
}

fn policy(policy: &ScalingPolicy) -> String {
    let range = |threshold: &Option<Threshold>| {
        threshold.map_or_else(String::new, |Threshold { low, high }| format!("{low} to {high}"))
    };
    let idle = match policy.scaling_policy_type {
        ScalingPolicyType::Unset => String::new(),
        ScalingPolicyType::IdleSessionNumber => format!(", {} idle", range(&policy.idle_session_num_threshold)),
        ScalingPolicyType::IdleSessionPercent => format!(", {} % idle", range(&policy.idle_session_percent_threshold)),
    };
    let (least, most, burst) = (policy.minimum_instance, policy.maximum_instance, policy.burst);
    format!("at least {least} idle, at most {most} in all{idle}, {burst} at once")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_lead_elsewhere_are_refused() {
        assert_eq!(parse_name("chat-2"), Ok("chat-2".to_owned()));
        for bad in ["", "..", "a/b", "A", "a?b", &"a".repeat(64)] {
            assert!(parse_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_scaling_policy_is_one_line() {
        let mut of = ScalingPolicy { maximum_instance: 10, burst: 2, ..ScalingPolicy::default() };
        of.scaling_policy_type = ScalingPolicyType::IdleSessionNumber;
        of.idle_session_num_threshold = Some(Threshold { low: 1, high: 3 });
        assert_eq!(policy(&of), "at least 0 idle, at most 10 in all, 1 to 3 idle, 2 at once");
        of.scaling_policy_type = ScalingPolicyType::IdleSessionPercent;
        of.idle_session_percent_threshold = Some(Threshold { low: 10, high: 20 });
        assert!(policy(&of).contains("10 to 20 % idle"));
    }
}
