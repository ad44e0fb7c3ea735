//! `lyra tls`: makes the certificates of a site's nodes, and shows them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lyra_kit::Clock;
use lyra_node::tls::{ANY, Authority, CA, CA_KEY, CERTIFICATE, Dates, Identity, Material, NodeSpec, TlsError, look};
use lyra_types::{Code, Error, Timestamp};
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::output::{note, print_line};
use crate::session::{Format, Global};
use crate::table::Table;

/// A day, in seconds.
const DAY: u64 = 24 * 3_600;
/// A certificate that ends within so many days is warned of.
const SOON: i64 = 30;
/// The directory of a node of any name.
const ANY_DIR: &str = "any";

/// Verbs of `tls`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Examples:
  lyra tls init --tls-dir tls c1:control,gateway w1:worker w2:worker
  lyra tls show tls")]
pub enum Command {
    /// Make an authority, and certificates of the nodes that it vouches for
    #[command(after_help = "Examples:
  lyra tls init --tls-dir tls c1:control,gateway w1:worker w2:worker
  lyra tls init --tls-dir tls w3:worker            add a node
  lyra tls init --tls-dir tls --renew w1:worker    a new certificate before the old one ends
  lyra tls init --tls-dir tls                      one certificate for all nodes of one host

Makes DIR/ca.pem and DIR/ca-key.pem where they are not there, and DIR/NAME with ca.pem, cert.pem and
key.pem for each node: copy that directory to the node's host, and give it to `lyra node --tls-dir`.
ca-key.pem is for making certificates only: keep it away from the nodes. NAME * stands for any name.
Without a NODE, DIR itself gets a certificate for all roles and any name; whoever has its key may be
any node of the site, so it is for a site on one host.")]
    Init(Init),
    /// Show who the certificates in a directory are for, and until when
    #[command(after_help = "Example:
  lyra tls show tls

Shows the certificate in DIR and those in the directories in it. Exit code 2 when one can't be used.")]
    Show(Show),
}

/// Flags of `tls init`.
#[derive(Debug, clap::Args)]
pub struct Init {
    /// Nodes and the roles that they may play: control, worker, gateway, scaler
    #[arg(value_name = "NAME:ROLE[,ROLE…]", value_parser = NodeSpec::parse)]
    nodes: Vec<NodeSpec>,
    /// Where the authority is, or is to be
    #[arg(long, alias = "dir", value_name = "DIR")]
    tls_dir: PathBuf,
    /// Days for which the nodes' certificates hold
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// Days for which the authority's certificate holds
    #[arg(long, value_name = "N", default_value_t = 3_650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    ca_days: u32,
    /// Make new certificates over those that are there
    #[arg(long)]
    renew: bool,
}

/// Flags of `tls show`.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// A node's directory, or the authority's
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// A certificate, as it is shown.
#[derive(Debug, Serialize)]
struct Row {
    directory: PathBuf,
    names: Vec<String>,
    roles: Vec<&'static str>,
    valid_from: Timestamp,
    valid_until: Timestamp,
    /// Days until then.
    days_left: i64,
    /// Why it can't be used.
    problem: Option<String>,
}

impl Row {
    fn of(directory: &Path, (identity, dates): (Identity, Dates), clock: &Clock) -> Row {
        let left = dates.until.millis().saturating_sub(clock.now().millis());
        Row {
            directory: directory.to_owned(),
            names: identity.names().into_iter().map(str::to_owned).collect(),
            roles: identity.roles().into_iter().map(|role| role.as_str()).collect(),
            valid_from: dates.from,
            valid_until: dates.until,
            days_left: left.div_euclid(i64::try_from(DAY * 1_000).unwrap_or(i64::MAX)),
            problem: Material::read(directory, clock).err().map(|error| error.to_string()),
        }
    }

    fn status(&self) -> String {
        match &self.problem {
            Some(problem) => problem.clone(),
            None if self.days_left < SOON => "ends soon".to_owned(),
            None => "good".to_owned(),
        }
    }
}

fn days(number: u32) -> Duration {
    Duration::from_secs(u64::from(number) * DAY)
}

fn refused(error: TlsError) -> Failure {
    Failure::from(Error::from(error))
}

/// The day of a moment, which is as exact as people need it.
fn day(at: Timestamp) -> String {
    at.to_string().chars().take(10).collect()
}

/// Runs a verb.
///
/// # Errors
/// When files can't be read or written, or are not what they should be.
pub fn run(command: &Command, global: &Global) -> Result<()> {
    let clock = Clock::system();
    match command {
        Command::Init(args) => init(args, global, &clock),
        Command::Show(args) => show(&args.dir, global, &clock),
    }
}

/// The directory of a node, and who it is for.
fn plan(args: &Init) -> Result<Vec<(PathBuf, NodeSpec)>> {
    if args.nodes.is_empty() {
        return Ok(vec![(args.tls_dir.clone(), NodeSpec::anybody())]);
    }
    let mut planned: Vec<(PathBuf, NodeSpec)> = Vec::new();
    for node in &args.nodes {
        let dir = args.tls_dir.join(if node.name == ANY { ANY_DIR } else { &node.name });
        if planned.iter().any(|(there, _)| *there == dir) {
            return Err(Failure::usage(format!(
                "{} is named twice; give its roles together: NAME:ROLE,ROLE",
                node.name
            )));
        }
        planned.push((dir, node.clone()));
    }
    Ok(planned)
}

fn init(args: &Init, global: &Global, clock: &Clock) -> Result<()> {
    let planned = plan(args)?;
    // Before anything is made: nothing half done is left where something is in the way.
    let mut to_make = Vec::new();
    for (dir, node) in planned {
        let file = dir.join(CERTIFICATE);
        let there = if file.exists() && !args.renew { Some(look(&file).map_err(refused)?) } else { None };
        match there {
            Some((identity, _)) if !node.is(&identity) => {
                let detail = format!("{} is that of {identity}", file.display());
                return Err(Failure::new(Code::Conflict, detail).hint("--renew makes a new one over it"));
            }
            there => to_make.push((dir, node, there)),
        }
    }
    let dir = &args.tls_dir;
    std::fs::create_dir_all(dir)
        .map_err(|error| Failure::usage(format!("{} can't be made: {error}", dir.display())))?;
    let known = dir.join(CA).exists() || dir.join(CA_KEY).exists();
    let validity = |length| Dates::from_now(clock.now(), length);
    let authority = match known {
        true => Authority::open(dir),
        false => Authority::create(dir, validity(days(args.ca_days))),
    };
    let authority = authority.map_err(refused)?;
    let quiet = global.quiet || global.format == Format::Json;
    let say = |text: String| if quiet { Ok(()) } else { print_line(&text) };
    if !known {
        say(format!("made the authority in {}, valid until {}", dir.display(), day(authority.dates().until)))?;
    }
    let mut rows = Vec::new();
    for (dir, node, there) in to_make {
        let made = there.is_none();
        if made {
            authority.issue(&dir, &node, validity(days(args.days))).map_err(refused)?;
        }
        let row = Row::of(&dir, look(&dir.join(CERTIFICATE)).map_err(refused)?, clock);
        if let Some(problem) = &row.problem {
            return Err(Failure::usage(problem.clone()));
        }
        let (verb, who) = (if made { "made" } else { "kept" }, who(&row));
        say(format!("{verb} {} for {who}, valid until {}", dir.display(), day(row.valid_until)))?;
        if made && row.valid_until == authority.dates().until && !quiet {
            note(&format!("it ends with the authority's, on {}", day(row.valid_until)));
        }
        rows.push(row);
    }
    match (&args.nodes[..], global.format) {
        (_, Format::Json) => print_json(&rows)?,
        ([], _) if !quiet => note(&format!(
            "whoever has {}/key.pem may be any node of this site; name the nodes to have a certificate for each",
            dir.display()
        )),
        _ => say("copy each directory to its host, for `lyra node --tls-dir`; ca-key.pem stays here".to_owned())?,
    }
    Ok(())
}

fn who(row: &Row) -> String {
    let names = row.names.iter().map(|name| if name == ANY { "any name" } else { name });
    format!("{} ({})", names.collect::<Vec<_>>().join(", "), row.roles.join(", "))
}

fn show(dir: &Path, global: &Global, clock: &Clock) -> Result<()> {
    let unreadable = |error| Failure::new(Code::NotFound, format!("{} can't be read: {error}", dir.display()));
    let entries = std::fs::read_dir(dir).map_err(unreadable)?;
    let mut dirs: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    dirs.sort();
    dirs.insert(0, dir.to_owned());
    let mut rows = Vec::new();
    for dir in dirs.iter().filter(|dir| dir.join(CERTIFICATE).exists()) {
        rows.push(Row::of(dir, look(&dir.join(CERTIFICATE)).map_err(refused)?, clock));
    }
    if rows.is_empty() {
        let detail = format!("there is no {CERTIFICATE} in {} or the directories in it", dir.display());
        return Err(Failure::new(Code::NotFound, detail).hint("`lyra tls init --tls-dir DIR NAME:ROLE` makes one"));
    }
    if global.format == Format::Json {
        print_json(&rows)?;
    } else if global.quiet {
        rows.iter().try_for_each(|row| print_line(&row.names.join(",")))?;
    } else {
        let mut table = Table::new(&["name", "roles", "until", "days left", "directory", "status"]);
        for row in &rows {
            table.row(vec![
                row.names.join(", "),
                row.roles.join(", "),
                day(row.valid_until),
                row.days_left.to_string(),
                row.directory.display().to_string(),
                row.status(),
            ]);
        }
        print_line(&table.to_string())?;
    }
    let soon = |row: &&Row| row.problem.is_none() && row.days_left < SOON && !global.quiet;
    for row in rows.iter().filter(soon) {
        note(&format!(
            "{} ends on {}; `lyra tls init --renew` makes a new one",
            row.directory.join(CERTIFICATE).display(),
            day(row.valid_until)
        ));
    }
    match rows.iter().find_map(|row| row.problem.clone()) {
        Some(problem) => Err(Failure::usage(problem)),
        None => Ok(()),
    }
}

fn print_json(rows: &[Row]) -> Result<()> {
    let text = serde_json::to_string_pretty(rows);
    print_line(&text.map_err(|error| Failure::internal(format!("the list can't be printed: {error}")))?)
}
