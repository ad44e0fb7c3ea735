//! `lyra workflow`: compositions of functions.

mod check;
mod cut;
mod deploy;
mod graph;
mod input;
mod members;
mod outside;
mod runs;
mod served;
mod start;
mod trace;

use std::io::Read;

use crate::command::one_thread;
use crate::failure::{Failure, Result};
use crate::output::{error_line, harmless, print_line};
use crate::session::Global;
use lyra_afcl::{Compiled, Diagnostic, Diagnostics};
use lyra_types::Code;

/// Verbs of `workflow`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Examples:
  lyra workflow check thumbnails.yaml
  lyra workflow deploy thumbnails.yaml --mappings mappings.json
  lyra workflow run thumbnails -d '{\"image\":\"cat.png\"}' --wait
  lyra workflow trace run_01jd6gkz5w3v9q0x7y2m4n8abc")]
pub enum Command {
    /// Say what is wrong with a document, without a server
    Check(check::Args),
    /// Draw what a document says, without a server
    Graph(graph::Args),
    /// Propose which part of a document another Lyra should run, without a server
    Cut(cut::Args),
    /// Print the JSON Schema of documents, for editors
    #[command(after_help = "Example:
  lyra workflow schema > afcl.json

In VS Code with the YAML extension: `\"yaml.schemas\": {\"./afcl.json\": \"workflows/*.yaml\"}`.")]
    Schema,
    #[command(flatten)]
    Served(Box<served::Command>),
}

/// A document to read.
#[derive(Debug, clap::Args)]
struct Document {
    /// AFCL document, YAML or JSON; `-` is stdin
    #[arg(value_name = "FILE")]
    file: String,
}

/// Runs a verb.
///
/// # Errors
/// When the document can't be read or is wrong; those of the API.
pub fn run(command: Command, global: &Global) -> Result<()> {
    match command {
        Command::Check(args) => check::run(&args, global),
        Command::Cut(args) => cut::run(&args, global),
        Command::Graph(args) => graph::run(&args),
        Command::Served(command) => {
            let session = global.session()?;
            one_thread()?.block_on(Box::pin(served::run(*command, &session)))
        }
        Command::Schema => {
            let schema = serde_json::to_string_pretty(&lyra_afcl::schema());
            print_line(&schema.map_err(|error| Failure::internal(format!("the schema can't be written: {error}")))?)
        }
    }
}

impl Document {
    /// What messages call it.
    fn name(&self) -> &str {
        if self.file == "-" { "stdin" } else { &self.file }
    }

    /// Reads and compiles it.
    fn compile(&self) -> Result<Result<Compiled, Diagnostics>> {
        Ok(lyra_afcl::compile(&self.text()?))
    }

    fn text(&self) -> Result<String> {
        // One byte more than the compiler takes, so that it says what is wrong.
        let most = lyra_afcl::limits::MAX_DOCUMENT_BYTES as u64 + 1;
        let mut bytes = Vec::new();
        let read = match self.file.as_str() {
            "-" => std::io::stdin().lock().take(most).read_to_end(&mut bytes),
            path => std::fs::File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes)),
        };
        read.map_err(|error| Failure::usage(format!("{} can't be read: {error}", self.name())))?;
        String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            Failure::usage(format!("{} is not UTF-8, from byte {at} on", self.name()))
        })
    }

    /// Says on stderr what was found, as compilers do: `FILE:LINE:COLUMN: error: …`.
    fn report(&self, severity: &str, findings: &[Diagnostic]) {
        for finding in findings {
            let (line, column) = (finding.at.line, finding.at.column);
            let message = harmless(&finding.message);
            let code = finding.code.as_str();
            error_line(&format!("{}:{line}:{column}: {severity}: {message} [{code}]", self.name()));
        }
    }

    /// Says on stderr why a document does not compile.
    fn refuse(&self, wrong: &Diagnostics) -> Failure {
        self.report("error", &wrong.errors);
        if wrong.more > 0 {
            error_line(&format!("{}: and {} more", self.name(), wrong.more));
        }
        Failure::silent(Code::BadRequest)
    }
}
