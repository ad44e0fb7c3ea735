//! `lyra up`: its one line, its data directory, how it ends, why it may not start.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use lyra_testkit::{Lyra, Options};

use super::start::{BINARY, ECHO, alone, deploy, server, server_with};

#[tokio::test]
async fn prints_one_line_serves_and_ends_with_0_on_sigterm() -> Result<()> {
    let mut lyra = server().await?;
    assert!(lyra.url().starts_with("http://127.0.0.1:"), "{}", lyra.url());
    lyra.client()?.ready().await?;
    let (status, rest) = lyra.terminate().await?;
    assert_eq!((status.code(), rest.as_str()), (Some(0), ""));
    Ok(())
}

#[tokio::test]
async fn everything_survives_a_restart_and_a_kill() -> Result<()> {
    let mut lyra = server_with("echo", ECHO).await?;
    deploy(&lyra, "echo", "export default () => { console.log('two'); return 2 }", &[]).await?;
    lyra.cli(["fn", "alias", "echo", "beta", "1"]).await?.ok()?;
    let id = lyra.cli(["invoke", "echo", "--async"]).await?.ok()?.trim().to_owned();
    lyra.cli(["job", "wait", &id]).await?.ok()?;
    for hard in [false, true] {
        if hard {
            lyra.kill().await?;
        } else {
            lyra.terminate().await?;
        }
        lyra.restart().await?;
        assert_eq!(lyra.cli(["fn", "versions", "echo", "-q"]).await?.ok()?, "2\n1\n");
        assert_eq!(lyra.cli(["invoke", "echo@beta", "-d", "5"]).await?.ok()?, "5\n");
        assert_eq!(lyra.cli(["invoke", "echo"]).await?.ok()?, "2\n");
        assert_eq!(lyra.cli(["job", "result", &id]).await?.ok()?, "2\n");
        assert!(lyra.cli(["logs", "echo"]).await?.ok()?.contains("two"));
    }
    Ok(())
}

#[tokio::test]
async fn calls_that_run_may_end_while_it_drains() -> Result<()> {
    let source = "export default async () => {
        console.log('begun');
        await new Promise((done) => setTimeout(done, 1_000));
        return 'ended';
    }";
    let mut lyra = server_with("slow", source).await?;
    let call = lyra.commands().command(["invoke", "slow"]).spawn()?;
    while !lyra.cli(["logs", "slow", "-q"]).await?.ok()?.contains("begun") {}
    let (status, _) = lyra.terminate().await?;
    assert_eq!(status.code(), Some(0));
    let output = tokio::time::timeout(Duration::from_secs(30), call.wait_with_output()).await??;
    assert_eq!(String::from_utf8(output.stdout)?, "\"ended\"\n", "{}", String::from_utf8(output.stderr)?);
    Ok(())
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() -> Result<()> {
    let source = "export default async () => {
        console.log('begun');
        await new Promise((done) => setTimeout(done, 600_000));
    }";
    let mut lyra = server().await?;
    deploy(&lyra, "slow", source, &["--timeout", "15m"]).await?;
    let _call = lyra.commands().command(["invoke", "slow"]).spawn()?;
    while !lyra.cli(["logs", "slow", "-q"]).await?.ok()?.contains("begun") {}
    lyra.signal("TERM").await?;
    let client = lyra.client()?;
    // The first signal has arrived when the server is not ready any more.
    while client.ready().await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (status, _) = lyra.terminate().await?;
    assert_eq!(status.code(), Some(130));
    Ok(())
}

#[tokio::test]
async fn a_taken_port_and_a_data_directory_in_use_are_exit_code_7() -> Result<()> {
    let lyra = server().await?;
    let free = lyra.scratch().join("other");
    let output =
        alone().run(["up", "--data-dir", free.to_str().unwrap(), "--listen", lyra.address()]).await?.expect(7)?;
    assert!(output.stdout.is_empty() && output.stderr.contains("--listen"), "{}", output.stderr);
    let output = alone()
        .run(["up", "--data-dir", lyra.data_dir().to_str().unwrap(), "--listen", "127.0.0.1:0"])
        .await?
        .expect(7)?;
    assert!(output.stdout.is_empty(), "{}", output.stdout);
    assert!(output.stderr.contains("in use") || output.stderr.contains("lock"), "{}", output.stderr);
    Ok(())
}

#[tokio::test]
async fn beyond_loopback_it_starts_only_with_tokens_and_then_asks_for_them() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let output = alone().run(["up", "--data-dir", data.to_str().unwrap(), "--listen", "0.0.0.0:0"]).await?;
    assert!(output.code != 0 && output.stdout.is_empty(), "{output:?}");
    assert!(output.stderr.contains("--token-file"), "{}", output.stderr);

    let tokens = dir.path().join("tokens");
    fs::write(&tokens, "a-token-of-some-length\n")?;
    let args = vec!["--token-file".to_owned(), tokens.to_str().unwrap().to_owned()];
    let lyra = Lyra::start_with(Options { binary: Some(BINARY.into()), args, ..Options::default() }).await?;
    lyra.cli(["fn", "ls"]).await?.expect(4)?;
    lyra.cli(["fn", "ls", "--token", "wrong-token-of-some-length"]).await?.expect(4)?;
    lyra.commands().env("LYRA_TOKEN", "a-token-of-some-length").run(["fn", "ls"]).await?.ok()?;
    assert!(!lyra.log().contains("a-token-of-some-length"), "the token is in the log");
    Ok(())
}

#[tokio::test]
async fn the_data_directory_comes_from_the_environment() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let home = dir.path().to_str().unwrap();
    for (variable, path) in [("LYRA_DATA_DIR", dir.path().to_owned()), ("XDG_DATA_HOME", dir.path().join("lyra"))] {
        let cli = alone().env(variable, home);
        let mut child = cli.command(["up", "--listen", "127.0.0.1:0"]).spawn()?;
        let mut stdout = tokio::io::BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        tokio::io::AsyncBufReadExt::read_line(&mut stdout, &mut line).await?;
        assert!(line.starts_with("lyra: ready on http://127.0.0.1:"), "{line}");
        assert!(path.join("objects.db").exists(), "{variable}");
        child.kill().await?;
    }
    Ok(())
}
