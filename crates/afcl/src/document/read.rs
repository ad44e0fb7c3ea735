//! Reads the document's outermost level.

use super::constructs::body;
use super::fields::{Fields, text};
use super::parts::{data_ins, data_outs, data_type};
use super::tree::{self, Node};
use super::vocabulary::{CUT, PORT, SUB_CHOREOGRAPHY, WORKFLOW};
use super::{CutMark, Document, Port, SubChoreography};
use crate::diagnostic::{DiagnosticCode as Code, Findings};

/// Reads a document; none where its text has no sense that the next phase could work on.
pub(crate) fn read(text: &str, findings: &mut Findings) -> Option<Document> {
    let root = tree::read(text, findings)?;
    let fields = Fields::open(&root, &WORKFLOW, findings)?;
    let name = fields.name(findings);
    let data_ins = data_ins(&fields, findings);
    let body = body(&fields, "workflowBody", 1, findings);
    let data_outs = data_outs(&fields, true, findings);
    let sub = fields.list("subFCs", findings).iter().filter_map(|node| sub_choreography(node, findings)).collect();
    let cuts = fields.list("cuts", findings).iter().filter_map(|node| cut(node, findings)).collect();
    Some(Document { name: name?, data_ins, body, data_outs, sub, cuts })
}

fn sub_choreography(node: &Node<'_>, findings: &mut Findings) -> Option<SubChoreography> {
    let fields = Fields::open(node, &SUB_CHOREOGRAPHY, findings)?;
    let name = fields.name(findings);
    let data_ins = fields.list("dataIns", findings).iter().filter_map(|node| port(node, findings)).collect();
    let body = body(&fields, "subFCBody", 1, findings);
    let data_outs = data_outs(&fields, true, findings);
    Some(SubChoreography { name: name?, data_ins, body, data_outs })
}

fn port(node: &Node<'_>, findings: &mut Findings) -> Option<Port> {
    let fields = Fields::open(node, &PORT, findings)?;
    let (name, data_type) = (fields.name(findings), data_type(&fields, findings));
    Some(Port { name: name?, data_type: data_type? })
}

fn cut(node: &Node<'_>, findings: &mut Findings) -> Option<CutMark> {
    let fields = Fields::open(node, &CUT, findings)?;
    let name = fields.name(findings);
    fields.need("members", findings);
    let members = fields.list("members", findings).iter().filter_map(|node| text(node, "members", findings)).collect();
    let url = match fields.has("url") {
        false => None,
        true => {
            let url = fields.text("url", findings)?;
            if !url.value.starts_with("http://") && !url.value.starts_with("https://") {
                findings.error(url.at, Code::InvalidCut, "`url` must be the address of a Lyra, http://HOST:PORT");
            }
            Some(url.value)
        }
    };
    Some(CutMark { name: name?, members, url })
}
