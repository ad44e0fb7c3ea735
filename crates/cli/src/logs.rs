//! `lyra logs`: what functions wrote, as far as it is there, or as it comes; and the same of a session.

use futures::StreamExt;
use lyra_client::{Answer, LogFilter};
use lyra_types::api::LogView;
use lyra_types::log::Level;
use lyra_types::{Code, FunctionName, InstanceId, InvocationId};

use crate::app::parse_name;
use crate::duration::Since;
use crate::failure::{Failure, Result};
use crate::output::{harmless, print_line};
use crate::paint::Paint;
use crate::session::Session;

/// Flags of `logs`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lyra logs hello --since 10m
  lyra logs hello --follow
  lyra logs hello --invocation inv_01jd6gkz5w3v9q0x7y2m4n8abc -o json
  lyra logs --application chat
  lyra logs --instance ins_01jd6gkz5w3v9q0x7y2m4n8abc")]
pub struct Args {
    /// The function; not needed with --session, --application or --instance
    #[arg(value_name = "NAME", required_unless_present_any = ["session", "application", "instance"])]
    name: Option<FunctionName>,
    /// Only lines of this call
    #[arg(long, value_name = "ID")]
    invocation: Option<String>,
    /// Only lines of sessions of this name, also of one that is closed
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    session: Option<String>,
    /// Only lines of instances of this application
    #[arg(long, short = 'A', value_name = "APP", value_parser = parse_name)]
    application: Option<String>,
    /// Only lines of this instance
    #[arg(long, value_name = "ID")]
    instance: Option<String>,
    #[command(flatten)]
    which: Which,
}

/// Flags of all that shows lines.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// Go on with each further line, until Ctrl-C
    #[arg(long, short = 'f')]
    follow: bool,
    /// Only lines from then on: 10m, or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = Since::parse)]
    since: Option<Since>,
    /// Show at most so many, the newest
    #[arg(long, value_name = "N", value_parser = crate::session::limit)]
    limit: Option<usize>,
}

/// Prints the lines.
///
/// # Errors
/// `not_found`, or a server that went away for good.
pub async fn run(args: Args, session: &Session) -> Result<()> {
    let filter = LogFilter {
        invocation: args.invocation.as_deref().map(str::parse::<InvocationId>).transpose()?,
        session: args.session,
        application: args.application,
        instance: args.instance.as_deref().map(str::parse::<InstanceId>).transpose()?,
        ..LogFilter::default()
    };
    let found = show(args.name.as_ref(), filter, args.which, session).await?;
    if !found {
        session.note("no lines; a function writes them with console.log, or to stdout and stderr");
    }
    Ok(())
}

/// Prints the lines of a session, also of one that is closed.
///
/// # Errors
/// `not_found` when there is no such session and no line of one.
pub async fn of_session(name: String, uid: Option<String>, which: Which, session: &Session) -> Result<()> {
    let filter = LogFilter { session: Some(name.clone()), session_uid: uid, ..LogFilter::default() };
    if which.follow {
        // What is followed shall be there: one that is not would be waited for without an end.
        let newest = LogFilter { limit: Some(1), ..filter.clone() };
        if session.client.logs(None, &newest).await?.is_empty() {
            known(&name, session).await?;
        }
    }
    let found = show(None, filter, which, session).await?;
    if !found {
        known(&name, session).await?;
        session.note("no lines; its program writes them to stdout and stderr, or with console.log");
    }
    Ok(())
}

/// Whether there is such a session now.
async fn known(name: &str, session: &Session) -> Result<()> {
    let found = session.client.object::<lyra_types::resources::ApplicationSession>(name).await;
    match found {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Code::NotFound => {
            let detail = format!("there is no session {name}, and no line of one that was");
            Err(Failure::new(Code::NotFound, detail).hint("`lyra session ls` lists those that there are"))
        }
        Err(error) => Err(error.into()),
    }
}

/// Says whether there was any line.
async fn show(name: Option<&FunctionName>, filter: LogFilter, which: Which, session: &Session) -> Result<bool> {
    let filter = LogFilter { since: which.since.map(|since| since.time(&session.clock)), limit: which.limit, ..filter };
    let whose = Whose::of(&filter);
    if which.follow {
        let mut lines = std::pin::pin!(session.client.follow_logs(name, filter).await?);
        while let Some(line) = lines.next().await {
            print(session, &line?, whose)?;
        }
        return Ok(true);
    }
    let lines = session.client.logs(name, &filter).await?;
    lines.iter().try_for_each(|line| print(session, line, whose))?;
    Ok(!lines.is_empty())
}

/// What is said of each line, beside when it was written and how much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Nothing: all are of one call, session or instance.
    One,
    /// The call, or the session, or the instance that stood by.
    Each,
}

impl Whose {
    fn of(filter: &LogFilter) -> Whose {
        match filter.invocation.is_some() || filter.session.is_some() || filter.instance.is_some() {
            true => Whose::One,
            false => Whose::Each,
        }
    }
}

fn print(session: &Session, line: &Answer<LogView>, whose: Whose) -> Result<()> {
    if session.json() {
        return print_line(line.json());
    }
    print_line(&render(line, session.quiet, whose, Paint::stdout()))
}

/// `2026-01-31T12:00:00.123Z info  inv_… message`. A line of an instance of an application has its session in place of the call, or the
/// instance, where it had none.
fn render(line: &LogView, quiet: bool, whose: Whose, paint: Paint) -> String {
    let message = harmless(&line.message);
    if quiet {
        return message;
    }
    let level = match line.level {
        Level::Debug => paint.dim("debug"),
        Level::Info => paint.green("info "),
        Level::Warn => paint.yellow("warn "),
        Level::Error => paint.red("error"),
    };
    let time = paint.dim(&line.time.to_string());
    let writer = match (&line.application, &line.session, &line.instance) {
        (Some(_), Some(session), _) => session,
        (Some(_), None, Some(instance)) => instance,
        _ => &line.invocation,
    };
    let writer = if whose == Whose::One { String::new() } else { paint.dim(writer) + " " };
    format!("{time} {level} {writer}{message}")
}
