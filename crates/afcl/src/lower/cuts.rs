//! Cuts: which functions and compounds of a document run on another Lyra.

use super::Lowering;
use crate::diagnostic::DiagnosticCode as Code;
use crate::document::quote;
use crate::graph::{Cut, Graph};

impl Lowering<'_, '_> {
    /// Writes the cuts of the document into the graph. A construct that leaves no trace there, a `sequence` for
    /// example, is replaced by what it consists of.
    pub(super) fn mark_cuts(&mut self) {
        let document = self.document;
        let known = names(&self.graph);
        let mut seen = std::collections::HashSet::new();
        for mark in &document.cuts {
            if !seen.insert(&mark.name.value) {
                let message = format!("there are two cuts {}", quote(&mark.name.value));
                self.findings.error(mark.name.at, Code::DuplicateName, message);
            }
            let mut members = Vec::new();
            for member in &mark.members {
                let mut open = vec![member.value.clone()];
                while let Some(name) = open.pop() {
                    match self.parts.get(&name) {
                        Some(parts) => open.extend(parts.iter().rev().cloned()),
                        None if known.contains(name.as_str()) => members.push(name),
                        None => {
                            let message = format!("there is no function or compound {}", quote(&name));
                            self.findings.error(member.at, Code::InvalidCut, message);
                        }
                    }
                }
            }
            let cut = Cut { name: mark.name.value.clone(), members, url: mark.url.clone() };
            self.graph.cuts.push(cut);
        }
    }

    /// Reports cuts that can't be made.
    pub(super) fn check_cuts(&mut self) {}
}

/// The names that a cut may have as members: those of functions and of compounds that are scopes.
fn names(graph: &Graph) -> std::collections::HashSet<String> {
    let functions = graph.tasks.iter().filter(|task| task.kind.is_function()).map(|task| task.name.clone());
    functions.chain(graph.scopes.iter().skip(1).map(|scope| scope.name.clone())).collect()
}
