//! The files in `deploy/`: what they start is a command that `lyra` understands, with settings that they name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lyra_testkit::{Cli, binary};
use serde_json::Value;

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(path)
}

/// The arguments after the program of a unit's `ExecStart`, with the variables of its example of an environment file.
fn arguments(role: &str) -> Result<Vec<String>> {
    let unit = std::fs::read_to_string(deploy(&format!("systemd/lyra-{role}.service")))?;
    let settings = std::fs::read_to_string(deploy(&format!("systemd/{role}.env")))?;
    let settings: BTreeMap<&str, &str> =
        settings.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('=')).collect();
    let unit = unit.replace("\\\n", " ");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/lyra "));
    let each = start.context("an ExecStart")?.split_whitespace().map(|word| {
        let Some(name) = word.strip_prefix("${").and_then(|word| word.strip_suffix('}')) else {
            return Ok(word.to_owned());
        };
        let value = settings.get(name).with_context(|| format!("{role}.env has no {name}"))?;
        ensure!(!value.is_empty(), "{role}.env has no value of {name}");
        Ok((*value).to_owned())
    });
    each.collect()
}

/// Whether the flags are known and their values can be read: then the help is shown.
async fn is_understood(arguments: &[String]) -> Result<()> {
    let shown = Cli::new(binary()?).run(arguments.iter().map(String::as_str).chain(["--help"])).await?.ok()?;
    ensure!(shown.contains("lyra node"), "{shown}");
    Ok(())
}

#[tokio::test]
async fn units_start_what_lyra_understands() -> Result<()> {
    for role in ["control", "worker", "gateway", "workflow"] {
        let arguments = arguments(role)?;
        is_understood(&arguments).await.with_context(|| format!("{arguments:?}"))?;
        let unknown: Vec<_> = arguments.iter().cloned().chain(["--no-such-flag".to_owned()]).collect();
        assert!(is_understood(&unknown).await.is_err(), "an unknown flag is found out");
    }
    Ok(())
}

#[tokio::test]
async fn the_compose_file_starts_what_lyra_understands() -> Result<()> {
    let file = std::fs::read_to_string(deploy("compose/compose.yaml"))?;
    let mut starts = 0;
    let mut lines = file.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim() != "command: >-" {
            continue;
        }
        let mut arguments = Vec::new();
        while let Some(line) = lines.next_if(|line| line.starts_with("      ")) {
            arguments.extend(line.split_whitespace().map(str::to_owned));
        }
        is_understood(&arguments).await.with_context(|| format!("{arguments:?}"))?;
        starts += 1;
    }
    assert_eq!(starts, 7, "a control, two workers, two gateways, two processes for workflows");
    Ok(())
}

/// The nodes that a classic component is, by their names in `classic.yaml` and by their roles.
const COMPONENTS: [(&str, &str); 5] = [
    ("dbmanager", "control"),
    ("jqmanager", "control"),
    ("frontend", "gateway"),
    ("worker", "worker"),
    ("scaler", "scaler"),
];

#[tokio::test]
async fn the_classic_compose_file_starts_each_component_as_a_process() -> Result<()> {
    let file: Value = serde_saphyr::from_str(&std::fs::read_to_string(deploy("compose/classic.yaml"))?)?;
    let services = file["services"].as_object().context("services")?;
    assert!(["database", "queue"].iter().all(|engine| services.contains_key(*engine)));
    let mut seen = Vec::new();
    for (name, service) in services {
        let Some(command) = service["command"].as_str() else { continue };
        let arguments: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        is_understood(&arguments).await.with_context(|| format!("{arguments:?}"))?;
        let role = arguments.iter().skip_while(|word| *word != "--role").nth(1).context("a role")?.clone();
        let variables = service["environment"].as_object().with_context(|| format!("{name} has no variables"))?;
        is_read(&role, variables.iter().map(|(name, value)| (name.as_str(), value))).await?;
        seen.push((name.clone(), role));
    }
    let expected = COMPONENTS.map(|(name, role)| (name.to_owned(), role.to_owned()));
    assert!(seen.len() == expected.len() && expected.iter().all(|one| seen.contains(one)), "{seen:?}");
    settings_are_read(&std::fs::read_to_string(deploy("compose/scaler.toml"))?).await
}

/// Whether the classic variables of a role can be read.
async fn is_read(role: &str, variables: impl Iterator<Item = (&str, &Value)>) -> Result<()> {
    let mut cli = Cli::new(binary()?);
    for (name, value) in variables.filter(|(name, _)| ["DB_URL", "JQ_URL", "PORT"].contains(name)) {
        cli = cli.env(name, value.as_str().with_context(|| format!("{name} is a text"))?);
    }
    let shown = cli.run(["config", "print", "--role", role]).await?.ok()?;
    ensure!(shown.contains("_URL"), "{role} reads none of its variables: {shown}");
    Ok(())
}

async fn settings_are_read(text: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("scaler.toml"), text)?;
    let cli = Cli::new(binary()?).within(dir.path());
    cli.run(["config", "print", "--config", "scaler.toml"]).await?.ok()?;
    Ok(())
}

#[tokio::test]
async fn the_kubernetes_manifests_start_what_lyra_understands() -> Result<()> {
    let text = std::fs::read_to_string(deploy("kubernetes/lyra.yaml"))?;
    let mut roles = Vec::new();
    for document in text.split("\n---\n") {
        let object: Value = serde_saphyr::from_str(document).with_context(|| document.to_owned())?;
        ensure!(object["kind"].is_string() && object["apiVersion"].is_string(), "{object}");
        if let Some(settings) = object["data"]["scaler.toml"].as_str() {
            settings_are_read(settings).await?;
        }
        for container in object["spec"]["template"]["spec"]["containers"].as_array().into_iter().flatten() {
            let Some(arguments) = container["args"].as_array() else { continue };
            // As Kubernetes puts variables into arguments.
            let word = |word: &Value| word.as_str().map(|word| word.replace("$(POD)", "pod-0"));
            let arguments: Vec<String> = arguments.iter().map(word).collect::<Option<_>>().context("words")?;
            is_understood(&arguments).await.with_context(|| format!("{arguments:?}"))?;
            let role = arguments.iter().skip_while(|word| *word != "--role").nth(1).context("a role")?.clone();
            let variables = container["env"].as_array().into_iter().flatten();
            is_read(&role, variables.filter_map(|one| Some((one["name"].as_str()?, &one["value"])))).await?;
            roles.push(role);
        }
    }
    assert_eq!(roles, ["control", "gateway", "worker", "scaler"]);
    Ok(())
}
