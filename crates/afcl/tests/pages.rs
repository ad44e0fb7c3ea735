//! The reference page and the worked examples say what is so.

use std::path::Path;

use lyra_afcl::{DiagnosticCode, compile, limits};

fn page(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)).unwrap()
}

#[test]
fn the_reference_lists_every_code_and_limit() {
    let page = page("docs/reference/afcl.md");
    for code in DiagnosticCode::ALL {
        assert!(page.contains(&format!("| `{}` | ", code.as_str())), "{} is missing", code.as_str());
    }
    for (name, value) in [
        ("MAX_DOCUMENT_BYTES", "10 MiB"),
        ("MAX_VALUES", "1,000,000"),
        ("MAX_ALIAS_BYTES", "10 MiB"),
        ("MAX_VALUE_DEPTH", "256"),
        ("MAX_NESTING", "64"),
        ("MAX_TASKS", "100,000"),
        ("MAX_DATA", "1,000,000"),
        ("MAX_ORDERS", "1,000,000"),
        ("MAX_CUTS", "32"),
        ("MAX_FINDINGS", "50"),
    ] {
        assert!(page.contains(&format!("| `{name}` | {value} | ")), "{name} is missing");
    }
    let known = [
        limits::MAX_DOCUMENT_BYTES,
        limits::MAX_ALIAS_BYTES,
        limits::MAX_VALUES,
        limits::MAX_DATA,
        limits::MAX_ORDERS,
        limits::MAX_TASKS,
        limits::MAX_VALUE_DEPTH,
        limits::MAX_NESTING,
        limits::MAX_FINDINGS,
        limits::MAX_CUTS,
    ];
    assert_eq!(known, [10 << 20, 10 << 20, 1_000_000, 1_000_000, 1_000_000, 100_000, 256, 64, 50, 32]);
}

#[test]
fn the_document_in_the_reference_compiles() {
    let page = page("docs/reference/afcl.md");
    let (_, rest) = page.split_once("```yaml\n").unwrap();
    compile(rest.split_once("```").unwrap().0).unwrap();
}

#[test]
fn each_worked_example_compiles_and_every_type_of_it_is_mapped() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/workflows");
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str().unwrap().strip_suffix(".yaml").map(str::to_owned))
        .collect();
    names.sort();
    assert_eq!(names, ["approval", "converge", "edge-cloud", "image-pipeline", "word-count"]);
    for name in names {
        let text = std::fs::read_to_string(folder.join(format!("{name}.yaml"))).unwrap();
        let compiled = compile(&text).unwrap_or_else(|errors| panic!("{name}:\n{errors}"));
        assert_eq!(compiled.warnings, [], "{name}");
        compiled.graph.validate().unwrap();
        let mappings = std::fs::read_to_string(folder.join(format!("{name}.mappings.json"))).unwrap();
        let mappings: Vec<serde_json::Value> = serde_json::from_str(&mappings).unwrap();
        let mapped: Vec<&str> = mappings.iter().map(|mapping| mapping["functionType"].as_str().unwrap()).collect();
        for task in &compiled.graph.tasks {
            if let lyra_afcl::graph::TaskKind::Function { function_type, .. } = &task.kind {
                let is_known = function_type.starts_with("lyra:") || mapped.contains(&function_type.as_str());
                assert!(is_known, "{name}: {function_type} is not mapped");
            }
        }
        for cut in &compiled.graph.cuts {
            lyra_afcl::graph::cut(&compiled.graph, cut).unwrap();
            assert!(
                mapped.contains(&format!("lyra:cut/{}", cut.name).as_str()),
                "{name}: the cut {} is not mapped",
                cut.name
            );
        }
    }
}
