//! `lyra workflow deploy`, and what else is done to workflows as a whole: list, show, delete.

use std::path::Path;

use lyra_types::api::workflows::{NewWorkflow, Overlap, Schedule, WorkflowSchedule};
use lyra_types::name::MAX_LEN;
use lyra_types::{Code, WorkflowName};
use serde_json::{Map, Value};

use super::Document;
use super::input::read_object;
use crate::failure::{Failure, Result};
use crate::output::{harmless, print, print_line};
use crate::session::Session;
use crate::table::age;

/// Flags of `workflow deploy`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lyra workflow deploy thumbnails.yaml --mappings mappings.json
  lyra workflow deploy report.yaml --cron '0 6 * * MON-FRI' --time-zone Europe/Vienna
  lyra workflow deploy report.yaml --no-cron
  lyra workflow deploy thumbnails.yaml --name thumbs-next -q

Without --name the workflow is called as its document says, in lower case. Document and mapping are
checked in full before anything is stored. Without --cron a workflow that starts runs by itself goes
on doing so, with the new version; --no-cron ends that.")]
pub struct Args {
    #[command(flatten)]
    document: Document,
    /// Which resources each function type may run on: a JSON file in the format of Apollo
    #[arg(long, value_name = "FILE")]
    mappings: Option<String>,
    /// Name of the workflow
    #[arg(long, value_name = "NAME")]
    name: Option<WorkflowName>,
    /// Start a run at these times: [second] minute hour day month weekday
    #[arg(long, value_name = "FIELDS")]
    cron: Option<String>,
    /// Start no more runs by itself
    #[arg(long, conflicts_with = "cron")]
    no_cron: bool,
    /// Time zone of --cron [default: UTC]
    #[arg(long, value_name = "ZONE", requires = "cron")]
    time_zone: Option<String>,
    /// What --cron does when its last run has not ended: skip, allow, replace
    #[arg(long, value_name = "POLICY", requires = "cron", value_parser = parse_overlap, default_value = "skip")]
    overlap: Overlap,
    /// Input of the runs that --cron starts: JSON, @FILE, or - for stdin
    #[arg(long, value_name = "JSON|@FILE|-", requires = "cron")]
    cron_data: Option<String>,
}

/// Flags of `workflow ls`.
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = crate::session::limit)]
    limit: usize,
}

/// A workflow, with a version if it is not to be the newest.
#[derive(Debug, clap::Args)]
pub struct Named {
    /// The workflow, with a version if it is not to be the newest
    #[arg(value_name = "NAME[@VERSION]", value_parser = parse_target)]
    target: Target,
}

/// Flags of `workflow rm`.
#[derive(Debug, clap::Args)]
pub struct Rm {
    /// The workflow
    #[arg(value_name = "NAME")]
    name: WorkflowName,
}

/// `NAME` or `NAME@VERSION`.
#[derive(Debug, Clone)]
pub struct Target {
    pub name: WorkflowName,
    pub version: Option<u64>,
}

/// Reads `NAME[@VERSION]`.
///
/// # Errors
/// When either part can't be one.
pub fn parse_target(text: &str) -> Result<Target, String> {
    let (name, version) = match text.split_once('@') {
        None => (text, None),
        Some((name, version)) => {
            let number = version.parse().ok().filter(|number: &u64| *number > 0);
            (name, Some(number.ok_or("a version is a number from 1")?))
        }
    };
    let name = WorkflowName::new(name).map_err(|error| error.detail)?;
    Ok(Target { name, version })
}

fn parse_overlap(text: &str) -> Result<Overlap, String> {
    match text {
        "skip" => Ok(Overlap::Skip),
        "allow" => Ok(Overlap::Allow),
        "replace" => Ok(Overlap::Replace),
        _ => Err("skip, allow or replace".to_owned()),
    }
}

/// Makes the workflow.
///
/// # Errors
/// When a file can't be read; what the server finds wrong.
pub async fn run(args: Args, session: &Session) -> Result<()> {
    let definition = args.document.text()?;
    let name = match args.name {
        Some(name) => name,
        None => name_of(&args.document, &definition)?,
    };
    let mappings = match &args.mappings {
        None => Value::Array(Vec::new()),
        Some(path) => read_mappings(path)?,
    };
    let schedule = match args.cron {
        None if args.no_cron => Some(None),
        None => None,
        Some(cron) => {
            let input = args.cron_data.as_deref().map_or_else(|| Ok(Map::new()), |data| read_object(Some(data)))?;
            Some(Some(Schedule { cron, time_zone: args.time_zone, overlap: args.overlap, input }))
        }
    };
    let shown = args.document.name().to_owned();
    let workflow = NewWorkflow { name, definition, mappings, schedule };
    let made = session.client.deploy_workflow(&workflow).await;
    let made = made.map_err(|error| Failure::from(error).in_code(&shown, &workflow.definition))?;
    for warning in &made.warnings {
        // Of the mapping they say where themselves.
        let place = if warning.starts_with("mappings") { String::new() } else { format!("{shown}:") };
        session.note(&format!("{place}{}", harmless(warning)));
    }
    session.show(
        &made,
        |made| made.name.to_string(),
        |made| match made.created {
            true => format!("{} version {} deployed", made.name, made.version),
            false => format!("{} version {} is this already", made.name, made.version),
        },
    )
}

/// Reads a type mapping.
///
/// # Errors
/// When the file can't be read, or is not JSON.
pub fn read_mappings(path: &str) -> Result<Value> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| Failure::usage(format!("{path} can't be read: {error}")))?;
    serde_json::from_str(&text).map_err(|error| Failure::usage(format!("{path} is not JSON: {error}")))
}

/// What the document calls itself, as a name; where it can't be read, the server says what is wrong with it, and the name
/// of the file has to do.
fn name_of(document: &Document, definition: &str) -> Result<WorkflowName> {
    let said = match lyra_afcl::compile(definition) {
        Ok(compiled) => Some(compiled.graph.name),
        Err(_) => Path::new(document.name()).file_stem().map(|stem| stem.to_string_lossy().into_owned()),
    };
    let name = said.as_deref().map(label).filter(|label| !label.is_empty());
    let name = name.and_then(|label| WorkflowName::new(&label).ok());
    name.ok_or_else(|| {
        Failure::new(Code::InvalidName, "the document's name makes no name of a workflow").hint("--name says one")
    })
}

/// `text` in lower case, with a `-` for each run of what no name can hold.
fn label(text: &str) -> String {
    let mut label = String::new();
    for c in text.chars() {
        match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() => label.push(c),
            _ if label.ends_with('-') || label.is_empty() => {}
            _ => label.push('-'),
        }
        if label.len() >= MAX_LEN {
            break;
        }
    }
    label.trim_end_matches('-').to_owned()
}

/// Lists workflows.
///
/// # Errors
/// Those of the API.
pub async fn list(args: &Ls, session: &Session) -> Result<()> {
    let workflows = session.client.workflows(args.limit).await?;
    session.list(
        &workflows,
        |workflow| workflow.name.to_string(),
        &["name", "version", "deployed", "cron", "zone", "next", "last run"],
        |workflow| {
            vec![
                workflow.name.to_string(),
                workflow.version.to_string(),
                format!("{} ago", age(&session.clock, workflow.created_at)),
            ]
            .into_iter()
            .chain(timed(workflow.schedule.as_ref()))
            .collect()
        },
    )
}

/// When it starts runs: pattern, time zone, the next time, the last run.
fn timed(schedule: Option<&WorkflowSchedule>) -> [String; 4] {
    let Some(schedule) = schedule else { return Default::default() };
    let next = schedule.next.map_or_else(|| "never".to_owned(), |next| next.to_string());
    let last = schedule.last.as_ref().map(|last| last.run.to_string()).unwrap_or_default();
    [schedule.cron.clone(), schedule.time_zone.clone().unwrap_or_else(|| "UTC".to_owned()), next, last]
}

/// Prints a workflow's document.
///
/// # Errors
/// Those of the API.
pub async fn show(args: &Named, session: &Session) -> Result<()> {
    let workflow = session.client.workflow(&args.target.name, args.target.version).await?;
    if session.json() {
        return print_line(workflow.json());
    }
    print(&workflow.definition)?;
    if let Some(schedule) = &workflow.schedule {
        let [cron, zone, next, last] = timed(Some(schedule));
        let last = if last.is_empty() { "none yet".to_owned() } else { last };
        session.note(&format!("starts runs by itself at {cron} ({zone}): next {next}, last run {last}"));
    }
    Ok(())
}

/// Deletes a workflow.
///
/// # Errors
/// Those of the API.
pub async fn remove(args: &Rm, session: &Session) -> Result<()> {
    session.client.delete_workflow(&args.name).await?;
    match (session.json(), session.quiet) {
        (true, _) => Ok(()),
        (false, true) => print_line(args.name.as_str()),
        (false, false) => print_line(&format!("{} deleted", args.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_documents_name_becomes_a_name_of_a_workflow() {
        for (text, name) in [
            ("thumbnails", "thumbnails"),
            ("Gene 2 Life", "gene-2-life"),
            ("_Caesar__cipher_", "caesar-cipher"),
            ("größe", "gr-e"),
            ("…", ""),
        ] {
            assert_eq!(label(text), name);
        }
        assert_eq!(label(&"x".repeat(100)).len(), MAX_LEN);
    }

    #[test]
    fn a_target_is_a_name_and_maybe_a_version() {
        assert_eq!(parse_target("w@3").map(|target| target.version), Ok(Some(3)));
        assert_eq!(parse_target("w").map(|target| target.version), Ok(None));
        for bad in ["w@0", "w@live", "w@", "W", ""] {
            assert!(parse_target(bad).is_err(), "{bad}");
        }
    }
}
