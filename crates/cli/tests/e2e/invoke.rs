//! `lyra invoke`: results, errors with their exit codes, deadlines, Ctrl-C.

use anyhow::Result;
use serde_json::{Value, json};

use super::start::{ECHO, THROWS, deploy, server, server_with};

#[tokio::test]
async fn the_event_comes_from_the_flag_a_file_or_stdin() -> Result<()> {
    let lyra = server_with("echo", ECHO).await?;
    assert_eq!(lyra.cli(["invoke", "echo", "-d", r#"{"a":[1,"é"]}"#]).await?.ok()?, "{\"a\":[1,\"é\"]}\n");
    std::fs::write(lyra.scratch().join("event.json"), "[1,2]\n")?;
    assert_eq!(lyra.cli(["invoke", "echo", "-d", "@event.json"]).await?.json()?, json!([1, 2]));
    let piped = lyra.commands().run_with_input(["fn", "invoke", "echo", "-d", "-"], b"\"piped\"").await?;
    assert_eq!(piped.ok()?, "\"piped\"\n");
    assert_eq!(lyra.cli(["invoke", "echo"]).await?.ok()?, "{}\n");
    assert_eq!(lyra.cli(["invoke", "echo", "-d", "1", "-o", "json"]).await?.ok()?, "1\n");
    Ok(())
}

#[tokio::test]
async fn an_event_that_is_no_json_is_exit_code_2_with_a_proposal() -> Result<()> {
    let lyra = server_with("echo", ECHO).await?;
    let output = lyra.cli(["invoke", "echo", "-d", "Ada"]).await?.expect(2)?;
    assert!(output.stderr.contains(r#"-d '"Ada"'"#), "{}", output.stderr);
    lyra.cli(["invoke", "echo", "-d", "@nowhere.json"]).await?.expect(2)?;
    let large = vec![b' '; 7 << 20];
    let output = lyra.commands().run_with_input(["invoke", "echo", "-d", "-"], &large).await?.expect(2)?;
    assert!(output.stderr.contains("6 MiB") || output.stderr.contains("6291456"), "{}", output.stderr);
    Ok(())
}

#[tokio::test]
async fn verbose_says_on_stderr_how_the_call_went() -> Result<()> {
    let lyra = server_with("echo", ECHO).await?;
    let output = lyra.cli(["invoke", "echo", "-v"]).await?.expect(0)?;
    assert_eq!(output.stdout, "{}\n");
    for part in ["version 1", "fresh instance", "queue ", "start ", "exec ", "inv_"] {
        assert!(output.stderr.contains(part), "{part}: {}", output.stderr);
    }
    assert_eq!(lyra.cli(["invoke", "echo"]).await?.expect(0)?.stderr, "");
    Ok(())
}

#[tokio::test]
async fn what_a_function_throws_is_shown_with_its_stack_and_exit_code_1() -> Result<()> {
    let lyra = server_with("throws", THROWS).await?;
    let output = lyra.cli(["invoke", "throws", "-d", r#"{"say":"no \u001b[31mred"}"#]).await?.expect(1)?;
    assert_eq!(output.stdout, "");
    assert!(output.stderr.contains("TypeError: no \\u{1b}[31mred"), "{}", output.stderr);
    assert!(
        output.stderr.contains("at ") && output.stderr.contains("lyra logs throws --invocation inv_"),
        "{}",
        output.stderr
    );
    let output = lyra.cli(["invoke", "throws", "-d", r#"{"say":"no"}"#, "-o", "json"]).await?.expect(1)?;
    let problem: Value = serde_json::from_str(&output.stderr)?;
    assert_eq!((&problem["code"], &problem["error"]["name"]), (&json!("function_error"), &json!("TypeError")));
    Ok(())
}

#[tokio::test]
async fn deadlines_are_exit_code_6_the_functions_and_the_callers() -> Result<()> {
    let lyra = server().await?;
    deploy(&lyra, "loop", "export default () => { for (;;); }", &["--timeout", "200ms"]).await?;
    let output = lyra.cli(["invoke", "loop"]).await?.expect(6)?;
    assert!(output.stderr.contains("200"), "{}", output.stderr);
    deploy(&lyra, "slow", "export default () => new Promise((done) => setTimeout(done, 30_000))", &[]).await?;
    let output = lyra.cli(["invoke", "slow", "--wait", "200ms"]).await?.expect(6)?;
    assert!(output.stderr.contains("--async"), "{}", output.stderr);
    Ok(())
}

#[tokio::test]
async fn a_command_that_is_interrupted_cancels_its_call() -> Result<()> {
    let source = "export default async () => {
        console.log('begun');
        await new Promise((done) => setTimeout(done, 60_000));
    }";
    let lyra = server_with("slow", source).await?;
    let mut child = lyra.commands().command(["invoke", "slow"]).spawn()?;
    // Its first line shows that it runs.
    let mut follow = lyra.commands().command(["logs", "slow", "--follow", "-q"]).spawn()?;
    let mut line = String::new();
    let mut lines = tokio::io::BufReader::new(follow.stdout.take().expect("piped"));
    tokio::io::AsyncBufReadExt::read_line(&mut lines, &mut line).await?;
    assert_eq!(line, "begun\n");
    child.kill().await?;
    let idle = async {
        loop {
            let worker: Value =
                lyra.http()?.get(format!("{}/v1/workers/local", lyra.url())).send().await?.json().await?;
            if worker["running"] == 0 {
                return anyhow::Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), idle).await??;
    Ok(())
}
