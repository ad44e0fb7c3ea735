//! Cuts: which functions and compounds of a document run on another Lyra.

use super::Lowering;
use crate::diagnostic::DiagnosticCode as Code;
use crate::document::quote;
use crate::graph::{Cut, Graph, cut_refusal, cuts_overlap};
use crate::limits::MAX_CUTS;

impl Lowering<'_, '_> {
    /// Writes the cuts of the document into the graph. A construct that leaves no trace there, a `sequence` for
    /// example, is replaced by what it consists of.
    pub(super) fn mark_cuts(&mut self) {
        let document = self.document;
        if let Some(mark) = document.cuts.get(MAX_CUTS) {
            let message = format!("a workflow has at most {MAX_CUTS} cuts");
            self.findings.error(mark.name.at, Code::TooLarge, message);
            return;
        }
        let known = names(&self.graph);
        let mut seen = std::collections::HashSet::new();
        for mark in &document.cuts {
            if !seen.insert(&mark.name.value) || self.taken.contains_key(&mark.name.value) {
                let message = format!("the name {} is there already", quote(&mark.name.value));
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
    pub(super) fn check_cuts(&mut self) {
        let document = self.document;
        let mut right = true;
        for (cut, mark) in self.graph.cuts.iter().zip(&document.cuts) {
            if let Some(reason) = cut_refusal(&self.graph, cut) {
                right = false;
                let message = format!("the cut {} {reason}", quote(&cut.name));
                self.findings.error(mark.name.at, Code::InvalidCut, message);
            }
        }
        if let Some((one, other)) = cuts_overlap(&self.graph).filter(|_| right) {
            let message = format!(
                "the cuts {} and {} overlap, and neither is inside of the other",
                quote(&document.cuts[one].name.value),
                quote(&document.cuts[other].name.value)
            );
            self.findings.error(document.cuts[other].name.at, Code::InvalidCut, message);
        }
    }
}

/// The names that a cut may have as members: those of functions and of compounds that are scopes.
fn names(graph: &Graph) -> std::collections::HashSet<String> {
    let functions = graph.tasks.iter().filter(|task| task.kind.is_function()).map(|task| task.name.clone());
    functions.chain(graph.scopes.iter().skip(1).map(|scope| scope.name.clone())).collect()
}
