//! `lyra workflow cut`: proposes which part of a workflow runs on another Lyra, and writes it into the document.

use std::collections::BTreeMap;

use lyra_afcl::Graph;
use lyra_afcl::graph::optimise::{Costs, Found, local_cut};
use lyra_afcl::graph::{Cut, DataKind, DataType, ScopeId, TaskKind};
use lyra_types::Code;
use serde::Serialize;
use serde_json::{Value, json};

use super::Document;
use super::deploy::read_mappings;
use crate::failure::{Failure, Result};
use crate::output::{error_line, harmless, print, print_line};
use crate::session::{Format, Global};

/// Flags of `workflow cut`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lyra workflow cut edge-cloud.yaml --capacity 1 --name cloud > cut.yaml
  lyra workflow cut edge-cloud.yaml --capacity 2 --mappings edge-cloud.mappings.json \\
    --load detect=8 --bytes capture/frames=50000000 --bytes scan/found=200 \\
    --at http://10.0.0.2:8080 > cut.yaml
  lyra workflow cut edge-cloud.yaml --capacity 1 -o json

Of all cuts with which what stays here has at most --capacity load, it takes the one that moves
the fewest bytes; up to 12 functions and compounds that is the best there is. The document with
the cut goes to stdout, what was found to stderr; with -o json both are one object on stdout. Each
function has a load of 1, and none where the mapping has it run elsewhere (Serverless) anyway.
Sizes that are not given are taken by type: 8 bytes for a number or boolean, 100 for a string,
1000 for an object, 10000 for the rest.")]
pub struct Args {
    #[command(flatten)]
    document: Document,
    /// Most load that stays here
    #[arg(long, value_name = "LOAD")]
    capacity: u64,
    /// Type mapping, which says what runs elsewhere anyway
    #[arg(long, value_name = "FILE")]
    mappings: Option<String>,
    /// Load of a function, by its name or type; of one in a loop, for all iterations together
    #[arg(long = "load", value_name = "FUNCTION=LOAD", value_parser = pair)]
    loads: Vec<(String, u64)>,
    /// Size of a datum, by producer and port
    #[arg(long = "bytes", value_name = "PRODUCER/PORT=BYTES", value_parser = pair)]
    bytes: Vec<(String, u64)>,
    /// Name of the cut
    #[arg(long, value_name = "NAME", default_value = "remote")]
    name: String,
    /// Address of the other Lyra, where the type mapping does not say it
    #[arg(long, value_name = "URL")]
    at: Option<String>,
}

fn pair(text: &str) -> Result<(String, u64), String> {
    let (name, number) = text.rsplit_once('=').ok_or("NAME=NUMBER")?;
    let number = number.parse().map_err(|_| format!("\"{number}\" is no number from 0"))?;
    Ok((name.to_owned(), number))
}

/// What was found, for programs.
#[derive(Debug, PartialEq, Serialize)]
struct Report {
    /// What runs elsewhere; nothing where all fits here.
    members: Vec<String>,
    /// Bytes that cross the cut.
    bytes: u64,
    /// Bytes that would cross it if everything ran elsewhere.
    bytes_of_everything: u64,
    /// Each datum that crosses it, with its bytes.
    into: BTreeMap<String, u64>,
    out: BTreeMap<String, u64>,
    /// The document with the cut.
    definition: String,
}

/// Runs the verb.
///
/// # Errors
/// When the document or the mapping can't be read or is wrong, or has cuts already.
pub fn run(args: &Args, global: &Global) -> Result<()> {
    let text = args.document.text()?;
    let compiled = lyra_afcl::compile(&text).map_err(|wrong| args.document.refuse(&wrong))?;
    let elsewhere = match &args.mappings {
        Some(path) => elsewhere(&read_mappings(path)?),
        None => Vec::new(),
    };
    let report = propose(&compiled.graph, &text, args, &elsewhere)?;
    if global.format == Format::Json {
        let text = serde_json::to_string(&report);
        return print_line(&text.map_err(|error| Failure::internal(format!("the report can't be written: {error}")))?);
    }
    if !global.quiet {
        tell(&report, args.capacity);
    }
    print(&report.definition)
}

fn tell(report: &Report, capacity: u64) {
    if report.members.is_empty() {
        return error_line(&format!("all fits here (capacity {capacity}): no cut"));
    }
    error_line(&format!("elsewhere: {}", harmless(&report.members.join(", "))));
    for (way, data) in [("goes there", &report.into), ("comes back", &report.out)] {
        for (name, bytes) in data {
            error_line(&format!("{way}: {} ({bytes} bytes)", harmless(name)));
        }
    }
    let (bytes, everything) = (report.bytes, report.bytes_of_everything);
    error_line(&format!("moves {bytes} bytes a run; with everything elsewhere it would be {everything}"));
}

/// Function types that run elsewhere already: each of their resources is a URL.
fn elsewhere(mappings: &Value) -> Vec<String> {
    let types = mappings.as_array().map(Vec::as_slice).unwrap_or_default();
    let remote = types.iter().filter(|of| {
        let resources = of["resources"].as_array().map(Vec::as_slice).unwrap_or_default();
        !resources.is_empty() && resources.iter().all(|resource| resource["type"] == "Serverless")
    });
    remote.filter_map(|of| of["functionType"].as_str().map(str::to_owned)).collect()
}

fn propose(graph: &Graph, text: &str, args: &Args, elsewhere: &[String]) -> Result<Report> {
    if !graph.cuts.is_empty() {
        return Err(Failure::usage("the document has cuts already; take them out first".to_owned()));
    }
    let loads = loads(graph, args, elsewhere)?;
    let bytes = sizes(graph, args)?;
    let costs = Costs { bytes: &bytes, loads: &loads, capacity: args.capacity };
    let Found { members, bytes: crossing } = local_cut(graph, ScopeId::WORKFLOW, &costs);
    let of =
        |name: &str| graph.data.iter().zip(&bytes).find(|(data, _)| data.name == name).map_or(0, |(_, size)| *size);
    let inputs = graph.data.iter().zip(&bytes).filter(|(data, _)| matches!(data.kind, DataKind::Input { .. }));
    let mut outputs: Vec<u32> = graph.outputs.iter().map(|output| output.data.0).collect();
    outputs.sort_unstable();
    outputs.dedup();
    let everything = inputs.map(|(_, size)| *size).sum::<u64>()
        + outputs.iter().map(|data| bytes.get(*data as usize).copied().unwrap_or(0)).sum::<u64>();
    let mut report = Report {
        bytes: crossing,
        bytes_of_everything: everything,
        into: BTreeMap::new(),
        out: BTreeMap::new(),
        definition: text.to_owned(),
        members,
    };
    if report.members.is_empty() {
        return Ok(report);
    }
    let made = Cut { name: args.name.clone(), members: report.members.clone(), url: args.at.clone() };
    let (_, part) = lyra_afcl::graph::cut(graph, &made)?;
    for data in &part.data {
        if let DataKind::Input { key } = &data.kind {
            report.into.insert(key.clone(), of(key));
        }
    }
    report.out = part.outputs.iter().map(|output| (output.name.clone(), of(&output.name))).collect();
    report.definition = with_cut(text, &made)?;
    Ok(report)
}

fn loads(graph: &Graph, args: &Args, elsewhere: &[String]) -> Result<Vec<u64>> {
    let mut loads = vec![0; graph.tasks.len()];
    let mut used = vec![false; args.loads.len()];
    for (load, task) in loads.iter_mut().zip(&graph.tasks) {
        let TaskKind::Function { function_type, .. } = &task.kind else { continue };
        *load = u64::from(!elsewhere.contains(function_type));
        for ((name, given), used) in args.loads.iter().zip(&mut used) {
            if *name == task.name || name == function_type {
                (*load, *used) = (*given, true);
            }
        }
    }
    all_used("--load", "function", args.loads.iter().zip(used))?;
    Ok(loads)
}

fn sizes(graph: &Graph, args: &Args) -> Result<Vec<u64>> {
    let mut sizes: Vec<u64> = vec![0; graph.data.len()];
    let members = graph.tasks.iter().flat_map(|task| task.outputs.iter().chain(&task.inputs)).chain(&graph.outputs);
    for member in members {
        let size = match member.data_type {
            DataType::Number | DataType::Boolean => 8,
            DataType::String => 100,
            DataType::Object => 1_000,
            DataType::Collection | DataType::Array => 10_000,
        };
        if let Some(known) = sizes.get_mut(member.data.0 as usize) {
            *known = size.max(*known);
        }
    }
    let mut used = vec![false; args.bytes.len()];
    for (size, data) in sizes.iter_mut().zip(&graph.data) {
        for ((name, given), used) in args.bytes.iter().zip(&mut used) {
            if *name == data.name {
                (*size, *used) = (*given, true);
            }
        }
    }
    all_used("--bytes", "datum", args.bytes.iter().zip(used))?;
    Ok(sizes)
}

fn all_used<'a>(flag: &str, what: &str, given: impl Iterator<Item = (&'a (String, u64), bool)>) -> Result<()> {
    for ((name, _), used) in given {
        if !used {
            return Err(Failure::usage(format!("{flag}: the document has no {what} \"{name}\"")));
        }
    }
    Ok(())
}

/// The document with the cut at its end; in JSON where it is JSON. It is compiled again, so that what is printed is right.
fn with_cut(text: &str, made: &Cut) -> Result<String> {
    let mut mark = json!({"name": made.name, "members": made.members});
    if let Some(url) = &made.url {
        mark["url"] = url.as_str().into();
    }
    let written = match serde_json::from_str::<Value>(text) {
        Ok(mut document) => {
            document["cuts"] = json!([mark]);
            serde_json::to_string_pretty(&document)
                .map_err(|error| Failure::internal(format!("the document can't be written: {error}")))?
                + "\n"
        }
        // JSON is YAML.
        Err(_) => format!("{}\ncuts:\n  - {mark}\n", text.trim_end()),
    };
    match lyra_afcl::compile(&written) {
        Ok(compiled) if compiled.graph.cuts.len() == 1 => Ok(written),
        Ok(_) => Err(Failure::internal("the cut could not be written into the document".to_owned())),
        Err(wrong) => {
            let first = wrong.errors.first().map(|error| error.message.clone()).unwrap_or_default();
            let message = format!("the cut can't be written into a document of this form: {first}");
            Err(Failure::new(Code::BadRequest, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = include_str!("../../../../examples/workflows/edge-cloud.yaml");

    fn without_cuts() -> String {
        TEXT.split("cuts:").next().expect("a part").to_owned()
    }

    fn args(capacity: u64) -> Args {
        Args {
            document: Document { file: String::new() },
            capacity,
            mappings: None,
            loads: vec![("detect".to_owned(), 8)],
            bytes: [("capture/frames", 50_000_000), ("scan/found", 200), ("report/report", 5_000)]
                .map(|(name, bytes)| (name.to_owned(), bytes))
                .to_vec(),
            name: "cloud".to_owned(),
            at: None,
        }
    }

    fn proposed(text: &str, args: &Args, elsewhere: &[String]) -> Result<Report> {
        propose(&lyra_afcl::compile(text).expect("right").graph, text, args, elsewhere)
    }

    #[test]
    fn the_cut_that_moves_the_fewest_bytes_is_written_into_the_document() {
        let text = without_cuts();
        let report = proposed(&text, &args(2), &[]).expect("a cut");
        assert_eq!(report.members, ["capture", "scan"], "the frames stay where they are made");
        assert_eq!((report.bytes, report.bytes_of_everything), (100 + 8 + 200, 100 + 8 + 5_000));
        assert!(report.out.contains_key("scan/found") && !report.into.contains_key("capture/frames"), "{report:?}");
        let again = lyra_afcl::compile(&report.definition).expect("right").graph;
        assert_eq!((again.cuts[0].name.as_str(), &again.cuts[0].members), ("cloud", &report.members));
        assert!(report.definition.starts_with(text.trim_end()), "nothing else is changed");
    }

    #[test]
    fn what_fits_is_not_cut_and_what_runs_elsewhere_anyway_is_no_load() {
        let text = without_cuts();
        let report = proposed(&text, &args(10), &[]).expect("no cut");
        assert_eq!((report.members.len(), report.definition.as_str()), (0, text.as_str()));
        let args = Args { loads: Vec::new(), ..args(2) };
        assert!(!proposed(&text, &args, &[]).expect("a cut").members.is_empty());
        let mapping = json!([{"functionType": "Detect", "resources": [{"type": "Serverless", "properties": {"Uri": "http://x/"}}]}]);
        assert_eq!(proposed(&text, &args, &elsewhere(&mapping)).expect("no cut").members.len(), 0);
    }

    #[test]
    fn a_name_that_is_nowhere_and_a_document_with_cuts_are_refused() {
        let unknown = Args { loads: vec![("detekt".to_owned(), 8)], ..args(2) };
        assert!(proposed(&without_cuts(), &unknown, &[]).is_err());
        assert!(proposed(TEXT, &args(2), &[]).is_err());
    }
}
