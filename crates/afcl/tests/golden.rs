//! Each document in `tests/documents` gives the graph beside it in `tests/graphs`, one line for each scope, task and
//! datum. `INSTA_UPDATE=always` writes them anew.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// The documents, by name.
pub fn documents() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/documents");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let named = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read_to_string(path).unwrap())
    };
    paths.into_iter().map(named).collect()
}

/// A graph as JSON with a line for each thing in it.
pub fn lines(graph: &lyra_afcl::Graph) -> String {
    fn part<T: Serialize>(text: &mut String, name: &str, items: &[T]) {
        let items: Vec<String> = items.iter().map(|item| serde_json::to_string(item).unwrap()).collect();
        writeln!(text, "\"{name}\": [\n  {}\n]", items.join(",\n  ")).unwrap();
    }
    let mut text = String::new();
    part(&mut text, "scopes", &graph.scopes);
    part(&mut text, "tasks", &graph.tasks);
    part(&mut text, "data", &graph.data);
    part(&mut text, "outputs", &graph.outputs);
    if !graph.cuts.is_empty() {
        part(&mut text, "cuts", &graph.cuts);
    }
    text
}

/// How snapshots are kept.
pub fn snapshots() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("graphs");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}

#[test]
fn each_document_gives_its_graph() {
    for (name, text) in documents() {
        let compiled = lyra_afcl::compile(&text).unwrap_or_else(|errors| panic!("{name}:\n{errors}"));
        compiled.graph.validate().unwrap_or_else(|error| panic!("{name}: {error}"));
        snapshots().bind(|| insta::assert_snapshot!(name.as_str(), lines(&compiled.graph)));
    }
}
