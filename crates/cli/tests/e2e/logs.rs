//! `lyra logs`.

use anyhow::Result;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::ChildStdout;

use super::start::{server, server_with};

const SPEAKS: &str = "export default (event) => {
    console.log('hello', event.n, {a: 1}); console.warn('careful \\u001b[2J'); console.error('bad');
}";

async fn call(lyra: &lyra_testkit::Lyra, n: u32) -> Result<String> {
    let event = format!("{{\"n\":{n}}}");
    let output = lyra.cli(["invoke", "speaks", "-d", &event, "-v"]).await?.expect(0)?;
    let id = output.stderr.split_whitespace().find(|word| word.starts_with("inv_"));
    Ok(id.expect("an invocation id").to_owned())
}

#[tokio::test]
async fn lines_are_shown_by_call_by_age_and_by_number() -> Result<()> {
    let lyra = server_with("speaks", SPEAKS).await?;
    let first = call(&lyra, 1).await?;
    let second = call(&lyra, 2).await?;
    let all = lyra.cli(["logs", "speaks"]).await?.ok()?;
    assert_eq!(all.lines().count(), 6);
    assert!(all.contains(&first) && all.contains(&second) && all.contains("warn ") && all.contains("error"), "{all}");
    assert!(!all.contains('\u{1b}'), "a function can steer the terminal");
    let one = lyra.cli(["logs", "speaks", "--invocation", &second, "-q"]).await?.ok()?;
    assert_eq!(one.lines().count(), 3);
    assert!(one.starts_with("hello 2 "), "{one}");
    assert_eq!(lyra.cli(["logs", "speaks", "--since", "10m"]).await?.ok()?.lines().count(), 6);
    let later = lyra.cli(["logs", "speaks", "--since", "2100-01-01T00:00:00Z"]).await?.expect(0)?;
    assert!(later.stdout.is_empty() && later.stderr.contains("no lines"), "{}", later.stderr);
    let newest = lyra.cli(["logs", "speaks", "--limit", "1", "-q"]).await?.ok()?;
    assert_eq!(newest, "bad\n");
    Ok(())
}

#[tokio::test]
async fn json_lines_are_the_apis() -> Result<()> {
    let lyra = server_with("speaks", SPEAKS).await?;
    let id = call(&lyra, 1).await?;
    let lines = lyra.cli(["logs", "speaks", "-o", "json"]).await?.ok()?;
    let api = lyra.http()?.get(format!("{}/v1/functions/speaks/logs", lyra.url())).send().await?.text().await?;
    assert_eq!(lines, api);
    let first: Value = serde_json::from_str(lines.lines().next().unwrap_or_default())?;
    assert_eq!((first["level"].as_str(), first["invocation"].as_str()), (Some("info"), Some(id.as_str())));
    Ok(())
}

async fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> Result<String> {
    let line = tokio::time::timeout(std::time::Duration::from_secs(60), lines.next_line()).await??;
    Ok(line.expect("the stream goes on"))
}

#[tokio::test]
async fn follow_shows_what_was_there_then_what_comes_also_over_a_restart() -> Result<()> {
    let mut lyra = server_with("speaks", SPEAKS).await?;
    call(&lyra, 1).await?;
    let mut follow = lyra.commands().command(["logs", "speaks", "--follow", "-q"]).spawn()?;
    let mut lines = BufReader::new(follow.stdout.take().expect("piped")).lines();
    for n in 1..=2 {
        if n > 1 {
            call(&lyra, n).await?;
        }
        assert_eq!(next(&mut lines).await?, format!("hello {n} {{\"a\":1}}").replace("{\"a\":1}", "{ a: 1 }"));
        assert_eq!(next(&mut lines).await?, "careful \\u{1b}[2J");
        assert_eq!(next(&mut lines).await?, "bad");
    }
    lyra.terminate().await?;
    lyra.restart().await?;
    call(&lyra, 3).await?;
    assert!(next(&mut lines).await?.starts_with("hello 3"), "lines came twice, or were lost");
    Ok(())
}

#[tokio::test]
async fn a_bad_id_is_refused_and_a_function_that_is_not_there_is_exit_code_3() -> Result<()> {
    let lyra = server().await?;
    lyra.cli(["logs", "nobody", "--follow"]).await?.expect(3)?;
    lyra.cli(["logs", "nobody"]).await?.expect(3)?;
    lyra.cli(["logs", "nobody", "--invocation", "x"]).await?.expect(3)?;
    Ok(())
}
