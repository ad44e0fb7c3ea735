//! `lyra workflow graph`: draws what a document says.

use lyra_afcl::graph::draw;

use super::Document;
use crate::failure::Result;
use crate::output::print_line;

/// Flags of `workflow graph`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lyra workflow graph thumbnails.yaml --format svg > thumbnails.svg
  lyra workflow graph thumbnails.yaml --format mermaid
  lyra workflow graph thumbnails.yaml | dot -Tpdf > thumbnails.pdf")]
pub struct Args {
    #[command(flatten)]
    document: Document,
    /// How it is written: for Graphviz, for Markdown, or for a browser
    #[arg(id = "drawing", long = "format", value_enum, value_name = "FORMAT", default_value = "dot")]
    format: Drawn,
}

/// How a drawing is written.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Drawn {
    Dot,
    Mermaid,
    Svg,
}

/// Runs the verb.
///
/// # Errors
/// When the document can't be read or is wrong.
pub fn run(Args { document, format }: &Args) -> Result<()> {
    let compiled = document.compile()?.map_err(|wrong| document.refuse(&wrong))?;
    let format = match format {
        Drawn::Dot => draw::Format::Dot,
        Drawn::Mermaid => draw::Format::Mermaid,
        Drawn::Svg => draw::Format::Svg,
    };
    print_line(&draw::draw(&compiled.graph, format))
}
