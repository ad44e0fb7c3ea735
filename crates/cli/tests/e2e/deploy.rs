//! `lyra deploy`: what is deployed, under which name, with which settings, and how bad code is refused.

use anyhow::Result;
use serde_json::{Value, json};

use super::start::{ECHO, deploy, repository, server, server_with};

#[tokio::test]
async fn a_file_becomes_a_function_and_each_deploy_a_version() -> Result<()> {
    let lyra = server().await?;
    let output = deploy(&lyra, "echo", ECHO, &[]).await?;
    assert!(output.starts_with("deployed echo version 1 (js, live) in "), "{output}");
    let output = deploy(&lyra, "echo", ECHO, &["--no-promote"]).await?;
    assert!(output.starts_with("deployed echo version 2 (js, not live) in "), "{output}");
    let view = lyra.cli(["fn", "deploy", "echo.js", "-o", "json"]).await?.json()?;
    assert_eq!((&view["name"], &view["version"], &view["live"]), (&json!("echo"), &json!(3), &json!({"3": 1})));
    assert_eq!(lyra.cli(["deploy", "echo.js", "-q"]).await?.ok()?, "echo@4\n");
    Ok(())
}

#[tokio::test]
async fn every_flag_reaches_the_version() -> Result<()> {
    let lyra = server().await?;
    std::fs::write(lyra.scratch().join("env"), "# secret\nTOKEN=from-file\nMODE=from-file\n")?;
    let flags = [
        "--name",
        "tuned",
        "--runtime",
        "js",
        "--handler",
        "run",
        "--memory",
        "64",
        "--timeout",
        "1500ms",
        "--env",
        "MODE=fast",
        "--env-file",
        "env",
        "--reuse",
        "--concurrency",
        "7",
        "--min-instances",
        "0",
        "--max-instances",
        "3",
        "--max-attempts",
        "5",
        "--label",
        "team=blue",
        "--label",
        "tier=1",
        "-o",
        "json",
    ];
    std::fs::write(lyra.scratch().join("code.js"), "export function run(event) { return event }")?;
    let view = lyra.cli([&["deploy", "code.js"], &flags[..]].concat()).await?.json()?;
    let expected = json!({
        "name": "tuned", "runtime": "js", "handler": "run", "memory_mb": 64, "timeout_ms": 1500, "reuse": true,
        "concurrency": 7, "min_instances": 0, "max_instances": 3, "max_attempts": 5,
        "env": {"MODE": "fast", "TOKEN": "from-file"}, "labels": {"team": "blue", "tier": "1"},
    });
    for (field, value) in expected.as_object().into_iter().flatten() {
        assert_eq!(&view[field], value, "{field}");
    }
    Ok(())
}

#[tokio::test]
async fn a_syntax_error_is_shown_with_its_line_and_nothing_is_stored() -> Result<()> {
    let lyra = server_with("echo", ECHO).await?;
    std::fs::write(lyra.scratch().join("echo.js"), "export default (event) => {\n  let x = = 1\n}\n")?;
    let output = lyra.cli(["deploy", "echo.js"]).await?.expect(2)?;
    assert_eq!(output.stdout, "");
    assert!(output.stderr.contains("--> echo.js:2:"), "{}", output.stderr);
    assert!(output.stderr.contains("2 |   let x = = 1"), "{}", output.stderr);
    assert!(output.stderr.contains('^'), "{}", output.stderr);
    assert_eq!(lyra.cli(["fn", "versions", "echo", "-q"]).await?.ok()?, "1\n");
    let problem: Value = serde_json::from_str(&lyra.cli(["deploy", "echo.js", "-o", "json"]).await?.expect(2)?.stderr)?;
    assert_eq!((&problem["code"], &problem["errors"][0]["line"]), (&json!("invalid_code"), &json!(2)));
    Ok(())
}

#[tokio::test]
async fn what_can_not_be_deployed_is_exit_code_2_and_says_why() -> Result<()> {
    let lyra = server().await?;
    let dir = lyra.scratch();
    std::fs::write(dir.join("notes.txt"), "x")?;
    std::fs::write(dir.join("bad.wasm"), "not wasm")?;
    std::fs::write(dir.join("good.js"), ECHO)?;
    std::fs::create_dir(dir.join("two"))?;
    std::fs::write(dir.join("two/a.js"), ECHO)?;
    std::fs::write(dir.join("two/b.js"), ECHO)?;
    for (args, why) in [
        (&["deploy", "missing.js"][..], "missing.js can't be read"),
        (&["deploy", "notes.txt"], "--runtime"),
        (&["deploy", "two"], "a.js, b.js"),
        (&["deploy", "bad.wasm"], "wasm"),
        (&["deploy", "-", "--runtime", "js"], "--name"),
        (&["deploy", "-", "--name", "x"], "--runtime"),
        (&["deploy", "-", "--name", "x", "--runtime", "js", "--watch"], "--watch"),
        (&["deploy", "good.js", "--memory", "5"], "memory_mb"),
        (&["deploy", "good.js", "--timeout", "0s"], "timeout_ms"),
        (&["deploy", "good.js", "--timeout", "1h"], "timeout_ms"),
        (&["deploy", "good.js", "--max-attempts", "0"], "max_attempts"),
        (&["deploy", "good.js", "--handler", "nope"], "nope"),
        (&["deploy", "good.js", "--env-file", "nowhere"], "nowhere"),
    ] {
        let output = lyra.cli(args).await?;
        assert_eq!(output.code, 2, "{args:?}: {}", output.stderr);
        assert!(output.stderr.contains(why), "{args:?}: {}", output.stderr);
    }
    assert_eq!(lyra.cli(["fn", "ls", "-q"]).await?.ok()?, "");
    Ok(())
}

#[tokio::test]
async fn names_are_made_of_paths_and_said_when_they_had_to_be_changed() -> Result<()> {
    let lyra = server().await?;
    std::fs::write(lyra.scratch().join("My_Func.js"), ECHO)?;
    let output = lyra.cli(["deploy", "My_Func.js"]).await?.expect(0)?;
    assert!(output.stderr.contains("named my-func"), "{}", output.stderr);
    std::fs::create_dir(lyra.scratch().join("orders"))?;
    std::fs::write(lyra.scratch().join("orders/index.mjs"), ECHO)?;
    lyra.cli(["deploy", "orders"]).await?.ok()?;
    lyra.cli(["deploy", "orders/index.mjs"]).await?.ok()?;
    assert_eq!(lyra.cli(["fn", "ls", "-q"]).await?.ok()?, "my-func\norders\n");
    Ok(())
}

#[tokio::test]
async fn code_may_come_from_stdin() -> Result<()> {
    let lyra = server().await?;
    let args = ["deploy", "-", "--name", "piped", "--runtime", "js"];
    lyra.commands().run_with_input(args, b"export default () => 42").await?.ok()?;
    assert_eq!(lyra.cli(["invoke", "piped"]).await?.ok()?, "42\n");
    Ok(())
}

#[tokio::test]
async fn wasm_files_are_deployed_by_their_ending() -> Result<()> {
    let lyra = server().await?;
    let examples = repository().join("examples");
    let command = examples.join("wasm-command");
    let output = lyra.cli(["deploy", command.to_str().unwrap(), "--name", "words"]).await?.ok()?;
    assert!(output.contains("(wasm (command), live)"), "{output}");
    let counted = lyra.cli(["invoke", "words", "-d", r#"{"text":"to be or not to be"}"#]).await?.json()?;
    assert_eq!((&counted["words"], &counted["distinct"]), (&json!(6), &json!(4)));

    let http = examples.join("wasm-http-hello/hello.wasm");
    let output = lyra.cli(["deploy", http.to_str().unwrap(), "--name", "web"]).await?.expect(0)?;
    let url = format!("{}/fn/default/web/", lyra.url());
    assert!(output.stderr.contains(&format!("call it: curl {url}")), "{}", output.stderr);
    let answer = lyra.http()?.get(format!("{url}hello/Ada")).send().await?;
    assert_eq!(answer.text().await?, "Hello, Ada!\n");
    // An event is the body of a POST to it; this example sends that back.
    assert_eq!(lyra.cli(["invoke", "web", "-d", "[7]"]).await?.ok()?, "[7]\n");
    Ok(())
}
