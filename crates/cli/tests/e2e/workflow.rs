//! `lyra workflow check`, `graph` and `schema`: what can be said of a document without a server.

use anyhow::Result;
use serde_json::{Value, json};

use super::start::{alone, repository};

const WRONG: &str = "name: wf\nworkflowBody:\n- function:\n    name: f\n    type: F\n    dataIns:\n    - {name: x, type: number, source: nobody/y}\n";

#[tokio::test]
async fn a_document_that_is_right_is_said_to_be() -> Result<()> {
    let example = repository().join("examples/workflows/approval.yaml").display().to_string();
    let said = alone().run(["workflow", "check", &example]).await?.ok()?;
    assert!(said.contains("workflow approval is right; 4 functions"), "{said}");
    let report = alone().run(["workflow", "check", &example, "-o", "json"]).await?.json()?;
    assert_eq!(report, json!({"errors": [], "more": 0, "warnings": []}));
    assert_eq!(alone().run(["workflow", "check", &example, "-q"]).await?.ok()?, "");
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_with_a_document_is_said_with_its_place() -> Result<()> {
    let refused = alone().run_with_input(["workflow", "check", "-"], WRONG.as_bytes()).await?.expect(2)?;
    assert!(
        refused.stderr.starts_with("stdin:7:39: error: there is no function or compound `nobody`"),
        "{}",
        refused.stderr
    );
    assert!(refused.stderr.trim_end().ends_with("[unknown_source]"), "{}", refused.stderr);
    let refused =
        alone().run_with_input(["workflow", "check", "-", "-o", "json"], WRONG.as_bytes()).await?.expect(2)?;
    let report: Value = serde_json::from_str(&refused.stdout)?;
    assert_eq!(report["errors"][0]["line"], 7);
    assert_eq!(report["errors"][0]["column"], 39);
    assert_eq!(report["errors"][0]["code"], "unknown_source");
    let refused = alone().run_with_input(["workflow", "graph", "-"], WRONG.as_bytes()).await?.expect(2)?;
    assert!(refused.stdout.is_empty() && refused.stderr.contains("[unknown_source]"), "{refused:?}");
    let missing = alone().run(["workflow", "check", "no-such-file.yaml"]).await?.expect(2)?;
    assert!(missing.stderr.contains("no-such-file.yaml can't be read"), "{}", missing.stderr);
    let binary = alone().run_with_input(["workflow", "check", "-"], b"name: \xff\n").await?.expect(2)?;
    assert!(binary.stderr.contains("stdin is not UTF-8, from byte 6 on"), "{}", binary.stderr);
    Ok(())
}

#[tokio::test]
async fn a_document_is_drawn_and_its_schema_printed() -> Result<()> {
    let example = repository().join("examples/workflows/edge-cloud.yaml").display().to_string();
    let draw = |format: &'static str| {
        let example = example.clone();
        async move { alone().run(["workflow", "graph", &example, "--format", format]).await?.ok() }
    };
    assert!(draw("dot").await?.starts_with("digraph \"edge-cloud\" {"));
    assert!(draw("mermaid").await?.starts_with("flowchart TB\n"));
    assert!(draw("svg").await?.starts_with("<svg "));
    let schema = alone().run(["workflow", "schema"]).await?.json()?;
    assert_eq!(schema["title"], "AFCL workflow");
    Ok(())
}
