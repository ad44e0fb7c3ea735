//! `lyra fn ls | get | versions | rm`.

use anyhow::Result;
use serde_json::{Value, json};

use super::start::{ECHO, deploy, server};

#[tokio::test]
async fn functions_are_listed_as_table_as_json_and_as_names() -> Result<()> {
    let lyra = server().await?;
    assert_eq!(lyra.cli(["fn", "ls", "-o", "json"]).await?.ok()?, "{\"items\":[],\"next\":null}\n");
    assert!(lyra.cli(["fn", "ls"]).await?.ok()?.starts_with("NAME  RUNTIME"));
    for name in ["b", "a", "c"] {
        deploy(&lyra, name, ECHO, &["--memory", "32"]).await?;
    }
    let table = lyra.cli(["fn", "ls"]).await?.ok()?;
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "RUNTIME", "VERSION", "LIVE", "MEMORY", "TIMEOUT", "SIZE", "DEPLOYED"]);
    assert_eq!(&lines[1][..7], ["a", "js", "1", "1", "32", "MiB", "1m"]);
    assert_eq!(lines.len(), 4);
    assert_eq!(lyra.cli(["fn", "ls", "-q"]).await?.ok()?, "a\nb\nc\n");

    let list = lyra.cli(["fn", "ls", "-o", "json"]).await?.json()?;
    let api: Value = lyra.http()?.get(format!("{}/v1/functions", lyra.url())).send().await?.json().await?;
    assert_eq!(list, api);
    Ok(())
}

#[tokio::test]
async fn a_limit_cuts_the_list_and_says_so() -> Result<()> {
    let lyra = server().await?;
    for name in ["a", "b", "c"] {
        deploy(&lyra, name, ECHO, &[]).await?;
    }
    let output = lyra.cli(["fn", "ls", "--limit", "2"]).await?.expect(0)?;
    assert_eq!(output.stdout.lines().count(), 3);
    assert!(output.stderr.contains("--limit"), "{}", output.stderr);
    let page = lyra.cli(["fn", "ls", "--limit", "2", "-o", "json"]).await?.json()?;
    assert_eq!((page["items"].as_array().map(Vec::len), page["next"].is_string()), (Some(2), true));
    Ok(())
}

#[tokio::test]
async fn get_shows_one_function_and_its_json_is_the_apis() -> Result<()> {
    let lyra = server().await?;
    deploy(&lyra, "a", ECHO, &["--env", "SECRET=hidden", "--label", "team=blue"]).await?;
    let shown = lyra.cli(["fn", "get", "a"]).await?.ok()?;
    for part in ["name:", "js", "128 MiB", "SECRET", "team=blue", "/fn/default/a/"] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    assert!(!shown.contains("hidden"), "the value of a variable is shown to people");
    let text = lyra.http()?.get(format!("{}/v1/functions/a", lyra.url())).send().await?.text().await?;
    assert_eq!(lyra.cli(["fn", "get", "a", "-o", "json"]).await?.ok()?.trim_end(), text);
    Ok(())
}

#[tokio::test]
async fn versions_are_listed_newest_first_with_their_aliases() -> Result<()> {
    let lyra = server().await?;
    for _ in 0..3 {
        deploy(&lyra, "a", ECHO, &[]).await?;
    }
    assert_eq!(lyra.cli(["fn", "versions", "a", "-q"]).await?.ok()?, "3\n2\n1\n");
    let table = lyra.cli(["fn", "versions", "a"]).await?.ok()?;
    let first: Vec<&str> = table.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert_eq!(&first[..3], ["3", "ready", "live"]);
    let list = lyra.cli(["fn", "versions", "a", "-o", "json"]).await?.json()?;
    assert_eq!(list["items"][2]["version"], json!(1));
    Ok(())
}

#[tokio::test]
async fn rm_deletes_and_what_is_not_there_is_exit_code_3() -> Result<()> {
    let lyra = server().await?;
    deploy(&lyra, "a", ECHO, &[]).await?;
    assert_eq!(lyra.cli(["fn", "rm", "a"]).await?.ok()?, "function a deleted\n");
    for args in [
        &["fn", "rm", "a"][..],
        &["fn", "get", "a"],
        &["fn", "versions", "a"],
        &["fn", "alias", "a"],
        &["fn", "rollback", "a"],
        &["invoke", "a"],
        &["logs", "a"],
    ] {
        let output = lyra.cli(args).await?;
        assert_eq!(output.code, 3, "{args:?}: {}", output.stderr);
        assert!(output.stderr.contains('a') && output.stdout.is_empty(), "{args:?}: {}", output.stderr);
    }
    let problem: Value = serde_json::from_str(&lyra.cli(["fn", "get", "a", "-o", "json"]).await?.expect(3)?.stderr)?;
    assert_eq!((&problem["code"], &problem["status"]), (&json!("not_found"), &json!(404)));
    Ok(())
}
