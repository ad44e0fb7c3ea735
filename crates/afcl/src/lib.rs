//! AFCL, the language of workflows: from a document to an enactment graph.
//!
//! The Abstract Function Choreography Language (Ristov, Pedratscher, Fahringer, FGCS 114, 2021) comes in two dialects:
//! 1.1, in which order follows from data alone, and 1.0, with sequences and loops over counters, which is lowered to
//! the same [`Graph`]. What is wrong with a document is found here, with line and column, before anything is called.
//!
//! No I/O, no clock, no randomness: the same document gives the same graph on every machine.

mod diagnostic;
mod document;
pub mod graph;
pub mod limits;
mod lower;
mod schema;

pub use diagnostic::{Diagnostic, DiagnosticCode, Diagnostics, Position};
pub use graph::Graph;
pub use schema::schema;

/// A document that is right.
#[derive(Debug, Clone, PartialEq)]
pub struct Compiled {
    /// What it says.
    pub graph: Graph,
    /// What is worth a look, by place.
    pub warnings: Vec<Diagnostic>,
}

/// Compiles a document, YAML or JSON.
///
/// # Errors
/// All that is wrong with it, by place. What the outermost level says is read first, then the names: a document that
/// is no document is not searched for names.
pub fn compile(text: &str) -> Result<Compiled, Diagnostics> {
    let mut findings = diagnostic::Findings::default();
    let document = document::read(text, &mut findings);
    let graph = match &document {
        Some(document) if !findings.is_stopped() => lower::lower(document, &mut findings),
        _ => None,
    };
    let warnings = findings.finish()?;
    let graph = graph.expect("a document without errors has a graph");
    Ok(Compiled { graph, warnings })
}
