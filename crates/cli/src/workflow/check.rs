//! `lyra workflow check`: everything that can be known about a document before anything is called.

use lyra_afcl::Diagnostic;
use lyra_types::Code;
use serde::Serialize;

use super::Document;
use crate::failure::{Failure, Result};
use crate::output::print_line;
use crate::session::{Format, Global};

/// Flags of `workflow check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lyra workflow check thumbnails.yaml
  lyra workflow check thumbnails.yaml -o json

Prints one line for each error and warning, `FILE:LINE:COLUMN: error: …`, to stderr; with -o json an
object to stdout. Exit code 2 when there is an error. docs/reference/afcl.md lists all codes.")]
pub struct Args {
    #[command(flatten)]
    document: Document,
}

/// What was found, for programs.
#[derive(Serialize)]
struct Report<'r> {
    errors: &'r [Diagnostic],
    /// Errors that are not listed.
    more: usize,
    warnings: &'r [Diagnostic],
}

/// Runs the verb.
///
/// # Errors
/// When the document can't be read or is wrong.
pub fn run(Args { document }: &Args, global: &Global) -> Result<()> {
    let as_json = global.format == Format::Json;
    match document.compile()? {
        Ok(compiled) if as_json => print_report(&Report { errors: &[], more: 0, warnings: &compiled.warnings }),
        Ok(compiled) => {
            document.report("warning", &compiled.warnings);
            if global.quiet {
                return Ok(());
            }
            let graph = &compiled.graph;
            let functions = graph.tasks.iter().filter(|task| task.kind.is_function()).count();
            let plural = if functions == 1 { "" } else { "s" };
            print_line(&format!("{}: workflow {} is right; {functions} function{plural}", document.name(), graph.name))
        }
        Err(wrong) if as_json => {
            print_report(&Report { errors: &wrong.errors, more: wrong.more, warnings: &[] })?;
            Err(Failure::silent(Code::BadRequest))
        }
        Err(wrong) => Err(document.refuse(&wrong)),
    }
}

fn print_report(report: &Report<'_>) -> Result<()> {
    let text = serde_json::to_string(report);
    print_line(&text.map_err(|error| Failure::internal(format!("the report can't be written: {error}")))?)
}
