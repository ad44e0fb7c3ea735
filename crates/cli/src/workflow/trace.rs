//! `lyra workflow trace`: what happened in a run, token by token, or as spans.

use lyra_types::workflow::TraceToken;

use super::runs::One;
use crate::failure::Result;
use crate::output::print_line;
use crate::session::Session;

/// Flags of `workflow trace`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lyra workflow trace run_01jd6gkz5w3v9q0x7y2m4n8abc
  lyra workflow trace run_01jd6gkz5w3v9q0x7y2m4n8abc -o json --limit 100000
  lyra workflow trace run_01jd6gkz5w3v9q0x7y2m4n8abc --format otlp |
    curl -d @- -H 'Content-Type: application/json' http://127.0.0.1:4318/v1/traces

Steps: T a datum arrived, S to be scheduled, E called, F loops expanded, X output taken,
R a try failed and the task is scheduled again, P paused, C continued, Q the run's end.")]
pub struct Args {
    #[command(flatten)]
    run: One,
    /// Show at most so many tokens
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = crate::session::limit)]
    limit: usize,
    /// Tokens, or OpenTelemetry spans as OTLP in JSON
    #[arg(long = "format", id = "trace_format", value_enum, value_name = "FORMAT", default_value = "tokens")]
    format: Shown,
}

/// How a trace is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Shown {
    Tokens,
    Otlp,
}

/// Prints the trace.
///
/// # Errors
/// Those of the API.
pub async fn run(args: &Args, session: &Session) -> Result<()> {
    if args.format == Shown::Otlp {
        let spans = session.client.spans(&args.run.id()?).await?;
        return print_line(spans.json());
    }
    let tokens = session.client.trace(&args.run.id()?, args.limit).await?;
    let header = ["seq", "time", "step", "node", "try", "resources", "cause"];
    session.list(
        &tokens,
        |token| token.seq.to_string(),
        &header,
        |token| {
            vec![
                token.seq.to_string(),
                token.time.to_string(),
                token.step.clone(),
                place(token),
                token.attempt.map(|attempt| attempt.to_string()).unwrap_or_default(),
                token.resources.join(", "),
                token.cause.as_ref().map(|cause| format!("{}: {}", cause.code, cause.message)).unwrap_or_default(),
            ]
        },
    )
}

fn place(token: &TraceToken) -> String {
    let indices: Vec<String> = token.path.iter().map(ToString::to_string).collect();
    if indices.is_empty() { token.node.clone() } else { format!("{}[{}]", token.node, indices.join(",")) }
}
