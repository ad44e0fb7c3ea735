//! `lyra logs`: what a function wrote, as far as it is there, or as it comes.

use futures::StreamExt;
use lyra_client::{Answer, LogFilter};
use lyra_types::api::LogView;
use lyra_types::log::Level;
use lyra_types::{FunctionName, InvocationId};

use crate::duration::Since;
use crate::failure::Result;
use crate::output::{harmless, print_line};
use crate::paint::Paint;
use crate::session::Session;

/// Flags of `logs`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lyra logs hello --since 10m
  lyra logs hello --follow
  lyra logs hello --invocation inv_01jd6gkz5w3v9q0x7y2m4n8abc -o json")]
pub struct Args {
    /// The function
    #[arg(value_name = "NAME")]
    name: FunctionName,
    /// Go on with each further line, until Ctrl-C
    #[arg(long, short = 'f')]
    follow: bool,
    /// Only lines of this call
    #[arg(long, value_name = "ID")]
    invocation: Option<String>,
    /// Only lines from then on: 10m, or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = Since::parse)]
    since: Option<Since>,
    /// Show at most so many lines, the newest
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
        since: args.since.map(|since| since.time(&session.clock)),
        limit: args.limit,
    };
    let one_call = filter.invocation.is_some();
    if args.follow {
        let mut lines = std::pin::pin!(session.client.follow_logs(&args.name, filter).await?);
        while let Some(line) = lines.next().await {
            print(session, &line?, one_call)?;
        }
        return Ok(());
    }
    let lines = session.client.logs(&args.name, &filter).await?;
    if lines.is_empty() {
        session.note("no lines; a function writes them with console.log, or to stdout and stderr");
    }
    lines.iter().try_for_each(|line| print(session, line, one_call))
}

fn print(session: &Session, line: &Answer<LogView>, one_call: bool) -> Result<()> {
    if session.json() {
        return print_line(line.json());
    }
    print_line(&render(line, session.quiet, one_call, Paint::stdout()))
}

/// `2026-01-31T12:00:00.123Z info  inv_… message`. Where all lines are of one call, its id is left out.
fn render(line: &LogView, quiet: bool, one_call: bool, paint: Paint) -> String {
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
    let call = if one_call { String::new() } else { paint.dim(&line.invocation) + " " };
    format!("{time} {level} {call}{message}")
}
